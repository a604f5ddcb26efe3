"""Keras's `fit` that goes on where it was killed, at the exact update: docs/checkpoint.md."""

import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from tf_largebatch.records.checks import check, check_count, check_number
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.settings import Settings
from tf_largebatch.training import fit_state
from tf_largebatch.training.fit_data import FitData, by_batches, epochs_from
from tf_largebatch.training.fit_state import Checkpoint, StateFiles
from tf_largebatch.training.workers.preemption import StopNotice
from tf_largebatch.training.workers.team import Team

ASK_SECONDS = 1.0  # between two questions to the other workers: a signal, a checkpoint by time


class ExactResume(keras.callbacks.Callback):
    """Checkpoints of a `fit`, from which the same program goes on as if it had not been killed.

        def epoch(number):  # the batches of an epoch, the same in every process
            return examples.shuffle(50_000, seed=number).batch(256, drop_remainder=True)

        resume = ExactResume("runs/mine/checkpoints", checkpoint_updates=500)
        model.fit(resume.epochs(epoch), steps_per_epoch=195, epochs=90, callbacks=[resume])

    Started again, in the same words, it ends with the same weights, bit for bit on as many
    replicas: weights, optimizer, loss scale, batch normalisation, the seeds of dropout, running
    metrics and `History` are restored, and the data go on at the next batch. What other callbacks
    remember (EarlyStopping, ReduceLROnPlateau) is not, and those see the batches of the broken
    epoch once more, with the last logs and without training.

    A checkpoint is written by one worker, after every epoch, every `checkpoint_updates` updates,
    after `checkpoint_minutes` without one, and on SIGTERM or Ctrl-C to any worker, after which all
    of them end: by SystemExit with status 143, or KeyboardInterrupt. Under `tf-largebatch launch
    --restarts N` a worker that is killed costs what came after the newest one. All workers see one
    folder. On Keras's JAX backend one process trains.

    Args:
        folder: for the checkpoints alone; one training.
        checkpoint_updates: write after every so many updates, >= 1.
        checkpoint_minutes: write after so many minutes, > 0.
        keep: the newest that stay, >= 1.

    Raises, from `fit` before the first update:
        InputError: the checkpoint is of another model, optimizer, batch, precision or data; none
            is whole; `steps_per_epoch` or the data was left out; the data are not the same twice.
        StorageError: while it trains, a checkpoint cannot be written.
        NonFiniteError: while it trains, a weight is not finite; the last good checkpoint stays.

    Example:
        >>> import tempfile, tensorflow as tf
        >>> from tf_largebatch import ExactResume
        >>> resume = ExactResume(tempfile.mkdtemp(), checkpoint_updates=500)
        >>> stream = resume.epochs(lambda number: tf.data.Dataset.range(6).batch(3))
        >>> [batch.numpy().tolist() for batch in stream.take(3)]
        [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        checkpoint_updates: int | None = None,
        checkpoint_minutes: float = Settings.checkpoint_minutes,
        keep: int = Settings.keep,
    ):
        super().__init__()
        if checkpoint_updates is not None:
            check_count("checkpoint_updates", checkpoint_updates, 1)
        minutes = check_number("checkpoint_minutes", checkpoint_minutes, low_open=True)
        self._every, self._minutes = checkpoint_updates, minutes
        self._folder = Path(folder)
        self._files = StateFiles(self._folder, check_count("keep", keep, 1))
        self._data: FitData | None = None
        self._found: Checkpoint | None = None
        self._damaged: list[str] = []

    def epochs(self, make: Callable[[Any], Any]) -> Any:
        """Returns what `fit` trains on: endless, from the batch that comes next.

        Args:
            make: the number of an epoch from 0, a tensor, to a tf.data.Dataset of its batches, as
                many as `steps_per_epoch`: a function of nothing else. Give `shuffle` and random
                maps seeds, for another order in each epoch its number. A broken epoch is read again
                from its start.
        """
        import tensorflow as tf

        check(callable(make), "make", "a function of an epoch's number", make)
        self._look()

        steps = int(make(tf.constant(0, tf.int64)).cardinality())
        self._data = FitData(
            epochs_from(0, make), epochs_from(0, make), steps if steps >= 0 else None
        )
        rest = epochs_from(self._done["epoch"], make)
        return by_batches(rest.skip(self._to_skip(self._done["step"])))

    def data(self, data: Any) -> Any:
        """Returns the same from other data.

        Args:
            data: a function of the number of batches done before, which returns endless data that
                start there: of this package, batches that are a function of seed, epoch and update.
                Or a tf.data.Dataset that is one epoch, the same at every reading (a `shuffle` is
                not): it is repeated, and passed over up to the next batch.
        """
        self._look()
        dataset = hasattr(data, "element_spec") and hasattr(data, "repeat")
        rule = "a tf.data.Dataset, or a function of the number of batches done before"
        fix = "For arrays: tf.data.Dataset.from_tensor_slices((x, y)).batch(...)"
        check(dataset or callable(data), "data", rule, data, fix)
        first = self._done["batches"] - self._done["step"] + self._to_skip(self._done["step"])
        if callable(data):
            self._data = FitData(data(0), data(0))
            return data(first)
        steps = int(data.cardinality())
        self._data = FitData(data, data, steps if steps > 0 else None)
        return by_batches(data.repeat().skip(first))

    def _look(self) -> None:
        """For where the folder stands."""
        self._found, self._damaged = self._files.newest()
        nothing = {"batches": 0, "epoch": 0, "step": 0}
        self._done: Mapping[str, Any] = self._found.facts if self._found else nothing

    @staticmethod
    def _to_skip(steps: int) -> int:
        """Of the broken epoch's batches. On JAX, where some versions of Keras read them, all do."""
        return steps if keras.backend.backend() == "tensorflow" else 0

    def on_train_begin(self, logs=None):
        """Restores the newest checkpoint, and begins to listen for signals."""
        model, jax = self.model, keras.backend.backend() == "jax"
        on_tensorflow = keras.backend.backend() == "tensorflow"
        self._team = team = Team.of(model.distribute_strategy if on_tensorflow else None)
        problem, here = None, None
        try:
            self._check(jax)
            here = self._identity()
            self._compare(here)
        except ValueError as error:
            problem = error
        done = 0 if self._found is None else self._found.facts["batches"]
        team.agree({"the newest checkpoint of `fit`": f"batch {done}"}, problem=problem)
        self._facts = {**here, "variables": fit_state.describe(model), "replicas": team.replicas}
        # Of the epoch that trains: its number, batches done; the last logs; the epochs before.
        self._epoch = self._step = 0
        self._logs: dict[str, float] = {}
        self._epochs: list[int] = []
        self._history: dict[str, list] = {}
        self._restored, self._passing = self._found, False
        self._saved = self._asked = time.monotonic()
        self._ask_at = self._asked_batches = self._written = done
        if self._found is not None:
            self._restore(self._found)
        self._data = self._found = None
        self._notice = StopNotice(team, during_fit_of=model)
        self._notice.__enter__()

    def on_epoch_begin(self, epoch, logs=None):
        """Restores what Keras has just reset, and passes over the batches that are done."""
        self._epoch, found = epoch, self._restored
        wanted = 0 if found is None else found.facts["epoch"]
        if not self._epochs or found is not None:
            check(epoch == wanted, "initial_epoch", "left out", epoch, "ExactResume knows it")
        self._restored, self._step = None, 0
        if found is None:
            return
        self._step = found.facts["step"]
        self._tell_history()
        if self._step:  # between two epochs the metrics are those of the evaluation
            fit_state.put(self.model, self._team, self._rank(), found.arrays, "metrics")
            self._pass_over(self._step)

    def on_train_batch_end(self, batch, logs=None):
        """Writes a checkpoint if it is time; ends the training if a signal came."""
        if self._passing:
            self._passing = False
            return
        self._step, self._logs = batch + 1, dict(logs or {})
        due, signal_number = self._due()
        if due or signal_number:
            self._save(self._epoch, self._step)
        if signal_number:
            self._end(signal.Signals(signal_number))

    def on_epoch_end(self, epoch, logs=None):
        """Writes a checkpoint between two epochs."""
        self._epochs.append(epoch)
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(value)
        self._save(epoch + 1, 0)

    def on_train_end(self, logs=None):
        """Gives the signals back."""
        self._notice.__exit__()
        self.model._initial_epoch = None
        self._tell_history()

    def _check(self, jax: bool) -> None:
        model, steps = self.model, self.params["steps"]
        if self._data is None:
            raise InputError(
                "`x` of `fit` must come from ExactResume.epochs or .data, else it starts at its "
                f"first batch. Received: neither was asked for {self._folder}. Write "
                "fit(resume.epochs(make), ...), in every process"
            )
        if steps is None:
            raise InputError(
                "`steps_per_epoch` must be given to `fit`: the data of ExactResume have no end. "
                "Received: steps_per_epoch=None. Give the batches of an epoch"
            )
        if self._data.steps not in (None, steps):
            raise InputError(
                "`steps_per_epoch` must be the batches of an epoch of the data. Received: "
                f"steps_per_epoch={steps}, data of {self._data.steps:,}. Change one of them"
            )
        if self._data.changes:
            raise InputError(
                "the data of `fit` must be the same at every reading. Received: data whose first "
                "batch was another when read again, as after `shuffle`. Give ExactResume.epochs a "
                "function of the epoch, and every random map a seed"
            )
        size = model.steps_per_execution
        if steps % size:
            raise InputError(
                "`steps_per_epoch` must be a multiple of `steps_per_execution`. Received: "
                f"steps_per_epoch={steps}, steps_per_execution={size}. Change one of them"
            )
        if jax:
            import jax as library

            if (processes := library.process_count()) > 1:
                raise InputError(
                    "ExactResume must be used in one process on Keras's JAX backend. Received: "
                    f"{processes} processes. Use MultiWorkerMirroredStrategy on TensorFlow"
                )

    def _identity(self) -> dict[str, Any]:
        """Builds what is not built, and returns what makes this the same training as another."""
        model, data = self.model, self._data
        assert data is not None
        if data.first is not None:  # Keras builds by itself only under a strategy
            model._symbolic_build(data_batch=data.first)
        if not model.built:
            raise InputError(
                f"`model` must be built before `fit` of this data. Received: {model.name}, not "
                "built. Call it on a batch"
            )
        model.optimizer.build(model.trainable_variables)
        return {
            "fits": {
                "batch": data.batch * (self._team.replicas if data.per_replica else 1),
                "steps_per_epoch": self.params["steps"],
                "precision": " ".join(sorted(fit_state.policies_of(model))),
                "optimizer": type(model.optimizer).__name__,
                **fit_state.flat("optimizer", model.optimizer.get_config()),
                "the first batch of the data": data.digest,
            }
        }

    def _compare(self, here: Mapping[str, Any]) -> None:
        """InputError where the checkpoint is not of this training."""
        if self._found is None:
            return
        facts, path = self._found.facts, self._found.path
        variables = fit_state.describe(self.model)
        told = fit_state.difference(facts["variables"], variables, "weights", "state")
        if told is None:
            there, mine = facts["fits"], here["fits"]
            for name in {**mine, **there}:
                if there.get(name) != mine.get(name):
                    was, now = (fit_state.brief(fits.get(name)) for fits in (there, mine))
                    told = f"{name} {was} there, {now} here"
                    break
        if told is None:
            told = fit_state.difference(facts["variables"], variables, "optimizer", "metrics")
        if told is not None:
            fix = "Train as it did"
            if told.startswith("the first batch"):
                fix = "Give the same examples, and a seed to `shuffle` and every random map"
            raise InputError(
                f"checkpoint {path} is of another training: {told}. {fix}, or give ExactResume "
                "another folder"
            )

    def _restore(self, found: Checkpoint) -> None:
        facts, team = found.facts, self._team
        fit_state.put(self.model, team, self._rank(), found.arrays, "weights", "optimizer", "state")
        self._logs, self._epochs = dict(facts["logs"]), list(facts["epochs"])
        self._history = {name: list(values) for name, values in facts["history"].items()}
        self._epoch, self._step = facts["epoch"], facts["step"]
        self.model._initial_epoch = facts["epoch"]  # as Keras's own BackupAndRestore does it
        self._tell_history()
        if not team.chief:
            return
        place = f"epoch {facts['epoch'] + 1}, batch {facts['step']:,} of {self.params['steps']:,}"
        if facts["epoch"] >= self.params["epochs"]:
            place = f"its end, epoch {facts['epoch']}"
        for damage in self._damaged:
            print(f"{damage}: goes on from {found.path.name}", file=sys.stderr)
        print(f"continues {self._folder} at {place}", file=sys.stderr)
        if facts["replicas"] != team.replicas:
            was, now = facts["replicas"], team.replicas
            print(
                f"the checkpoint is of {was} replicas, this is {now}: equal up to rounding only",
                file=sys.stderr,
            )

    def _rank(self) -> int:
        team = self._team
        if team.size == 1:
            return 0
        return int(team.strategy.cluster_resolver.task_id)

    def _tell_history(self) -> None:
        """Keras's record gets the epochs of the processes before."""
        record = getattr(self.model, "history", None)
        if isinstance(record, keras.callbacks.History):
            record.epoch = list(self._epochs)
            record.history = {name: list(values) for name, values in self._history.items()}

    def _pass_over(self, steps: int) -> None:
        """Lets Keras count batches that are done, without training."""
        model, train, logs = self.model, self.model.train_function, self._logs
        left = steps // model.steps_per_execution

        def passing(*arguments):
            nonlocal left
            left -= 1
            self._passing = True
            if len(arguments) == 2 and not isinstance(arguments[1], list):  # state, iterator
                for _ in range(model.steps_per_execution):
                    next(arguments[1])
            if not left:
                model.train_function = train
            return dict(logs) if len(arguments) == 1 else (dict(logs), arguments[0])

        passing.passes_over = True  # type: ignore[attr-defined]  # for those who time the data
        model.train_function = passing

    def _due(self) -> tuple[bool, int]:
        """Whether to save and the signal that ends; the same answer on every worker."""
        team, done = self._team, self._epoch * self.params["steps"] + self._step
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        every = (self._every or 0) * (optimizer.gradient_accumulation_steps or 1)
        due = bool(every) and done // every > self._written // every
        now = time.monotonic()
        late = now - self._saved > 60.0 * self._minutes
        number = int(self._notice.received or 0)
        if team.size == 1:
            return due or late, number
        if done < self._ask_at:
            return due, 0
        # The chief's clock decides when to ask again: in about so many batches.
        pace = (done - self._asked_batches) / max(now - self._asked, 1e-3)
        told = [json.loads(t) for t in team.exchange(json.dumps([number, late, pace]))]
        self._ask_at = done + max(1, int(told[0][2] * ASK_SECONDS))
        self._asked, self._asked_batches = now, done
        return due or told[0][1], max(received for received, _, _ in told)

    def _save(self, epoch: int, step: int) -> None:
        model, done = self.model, epoch * self.params["steps"] + step
        if keras.backend.backend() == "jax":
            model.jax_state_sync()
        arrays = fit_state.take(model, self._team)
        fit_state.check_finite(self._facts["variables"], arrays, done)
        if self._team.chief:
            facts = {
                **self._facts,
                "batches": done,
                "epoch": epoch,
                "step": step,
                "logs": self._logs,
                "epochs": self._epochs,
                "history": self._history,
            }
            self._files.save(done, facts, arrays)
        self._saved, self._written = time.monotonic(), done

    def _end(self, number: signal.Signals) -> None:
        self._team.exchange("")  # until the chief has written
        self._notice.__exit__()
        if self._team.chief:
            print(
                f"{number.name}: stopped after epoch {self._epoch + 1}, batch {self._step:,}; the "
                "same program continues",
                file=sys.stderr,
            )
        raise KeyboardInterrupt if number is signal.SIGINT else SystemExit(128 + number)
