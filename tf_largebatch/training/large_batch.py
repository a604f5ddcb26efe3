"""The plan of a large batch for any Keras model: rate, warmup, boundaries, optimizer, in words."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import keras

from tf_largebatch.optimizers.base import LargeBatchOptimizer
from tf_largebatch.optimizers.exemptions import Exemption, resolve
from tf_largebatch.optimizers.momentum_sgd import MomentumSGD
from tf_largebatch.records.batch_schedule import BatchSizeSchedule
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.checks import check, check_choice, check_count, check_flag, check_number
from tf_largebatch.records.scaling import RULES, explain_rate, scaled_rate
from tf_largebatch.review.noise_scale import NoiseEstimate, advise
from tf_largebatch.schedules import Cosine, Polynomial, Steps, Warmup
from tf_largebatch.schedules.base import Schedule
from tf_largebatch.schedules.batch import follow_phases

DROP = 0.1  # of the rate at each boundary, as in arXiv:1706.02677 §5.1
# Where linear scaling ended in arXiv:1706.02677 Figure 1: 8,192 over 256.
LINEAR_LIMIT = 32
# Moving averages keep exp(-TIME_CONSTANTS) = 5 % of what they started from.
TIME_CONSTANTS = 3.0


class LargeBatch:
    """What a large batch asks of `compile` and `fit`, from a set-up that works at a small one.

        plan = LargeBatch(model, global_batch=4096, train_examples=50_000, epochs=30,
                          reference_rate=0.1, reference_batch=256, optimizer=LARS,
                          optimizer_options={"momentum": 0.9, "weight_decay": 1e-4})
        print(plan)
        model.compile(optimizer=plan.make_optimizer(), loss=loss)
        model.fit(x, y, **plan.fit_options)

    The rate rises over the warmup from the reference rate to the scaled one, as in arXiv:1706.02677
    §2.2, and falls from there. Epochs become updates as `fit` counts them: each epoch ends with a
    smaller batch (`drop_remainder=False`), or leaves that out (True: a tf.data.Dataset batched so).

    Args:
        model: built Keras model; nothing on it is changed.
        global_batch: examples per update over all replicas, >= 1.
        train_examples: examples per epoch, >= 1.
        epochs: of the whole training, >= 1.
        reference_rate: peak rate that works at `reference_batch`, > 0: this optimizer's own.
        reference_batch: examples per update there, >= 1.
        scaling: of the rate with the batch: "linear", "sqrt" or "none".
        warmup_epochs: >= 0; 0 is none.
        decay: "cosine" or "polynomial" (power 2), both to 0 at the end, or the epochs at which the
            rate is divided by 10.
        optimizer: class of this package: MomentumSGD, LARS, LAMB, ...
        optimizer_options: its arguments besides the rate.
        replicas: devices that train in step, >= 1.
        micro_batch: examples per replica per forward pass; all of its part if left out. Gradients
            of a smaller one are summed: by `DistributedFit` where the model has it, else by the
            optimizer, on one replica only (Keras's limit).
        growth: (epoch, global batch) pairs: the batch from that epoch on, for a model with
            `DistributedFit`; all batches divide `train_examples`. Warmup and decay then follow the
            images. With `decay=()` the rate stays, as in arXiv:1711.00489.
        drop_remainder: whether the data leave out an epoch's last batch where it is not full.
        noise_scale: measured gradient noise scale in examples (`tf-largebatch diagnose`), > 0.

    Raises:
        ValueError: an argument out of range, a model that is not built, a batch that does not
            divide, a warmup that outlasts the decay.

    Example:
        >>> import keras
        >>> from tf_largebatch import LargeBatch
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        >>> plan = LargeBatch(
        ...     model, global_batch=1024, train_examples=50_000, epochs=30, reference_rate=0.1
        ... )
        >>> print(str(plan).splitlines()[2])
        learning rate   0.4 = 0.1 x 1024 / 256 (linear)
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        global_batch: int,
        train_examples: int,
        epochs: int,
        reference_rate: float,
        reference_batch: int = 256,
        scaling: str = "linear",
        warmup_epochs: float = 5,
        decay: str | Sequence[float] = "cosine",
        optimizer: type[LargeBatchOptimizer] = MomentumSGD,
        optimizer_options: Mapping[str, Any] | None = None,
        replicas: int = 1,
        micro_batch: int | None = None,
        growth: Sequence[tuple[int, int]] = (),
        drop_remainder: bool = False,
        noise_scale: float | None = None,
    ):
        built = isinstance(model, keras.Model) and model.built
        check(built, "model", "a built Keras model", model, "Call it on a batch, or build it.")
        ours = isinstance(optimizer, type) and issubclass(optimizer, LargeBatchOptimizer)
        rule = "an optimizer class of tf_largebatch"
        check(ours, "optimizer", rule, optimizer, "Give LARS, LAMB or MomentumSGD itself.")
        self.epochs = check_count("epochs", epochs, 1)
        self._rate = check_number("reference_rate", reference_rate, low_open=True)
        check_choice("scaling", scaling, RULES)
        check_count("reference_batch", reference_batch, 1)
        fix = "Count the examples of an epoch: a data set that does not know says -1 or -2."
        check_count("train_examples", train_examples, 1, fix)
        check_flag("drop_remainder", drop_remainder)
        warmup = check_number("warmup_epochs", warmup_epochs)
        if noise_scale is not None:
            check_number("noise_scale", noise_scale, low_open=True)
        split = BatchPlan(
            global_batch=global_batch,
            train_examples=train_examples,
            replicas=replicas,
            micro_batch=micro_batch,  # type: ignore[arg-type]  # None is the replica batch
        )
        self._model, self._train_examples, self._noise_scale = model, train_examples, noise_scale
        # Whether `fit` has the engine's update; else the optimizer of one replica accumulates.
        self._ours = getattr(model, "sums_micro_batches", False)
        fix = "Make the model of a class with DistributedFit."
        rule = "the replica batch on several replicas"
        alone = replicas == 1 or split.accumulation == 1
        check(self._ours or alone, "micro_batch", rule, micro_batch, fix)
        check(self._ours or not growth, "growth", "left out with a plain Keras model", growth, fix)
        batch = global_batch if self._ours else split.replicas * split.micro_batch
        batches = math.ceil(train_examples / batch)
        if drop_remainder:
            batches = train_examples // batch
        fix = "Keep the remainder, or take a smaller batch."
        check(batches >= 1, "train_examples", f"at least {batch}", train_examples, fix)
        # As many examples as `fit` counts, so that an epoch has its updates.
        self.batch = BatchPlan(
            global_batch=global_batch,
            train_examples=batches * batch,
            replicas=replicas,
            micro_batch=split.micro_batch,
        )
        self.phases = self._grow(growth, micro_batch)
        sizes = {epoch: plan.global_batch for epoch, plan in self.phases.items()}
        self.fit_batch = BatchSizeSchedule(sizes) if growth else batch
        self.updates = self._last.updates_at(self.epochs)
        self.peak_rate = scaled_rate(scaling, self._rate, global_batch, reference_batch)
        self._reference, self._scaling = reference_batch, scaling
        self._decay, self._warmup = decay, warmup
        self._class, self._options = optimizer, dict(optimizer_options or {})
        self._check_optimizer()

    def _grow(
        self, growth: Sequence[tuple[int, int]], micro_batch: int | None
    ) -> dict[int, BatchPlan]:
        """The plan of each phase, by its first epoch."""
        pairs = isinstance(growth, list | tuple) and all(len(pair) == 2 for pair in growth)
        check(pairs, "growth", "(epoch, global batch) pairs", growth)
        phases, plan = {0: self.batch}, self.batch
        for epoch, size in growth:
            check_count("growth", epoch, max(phases) + 1, "Let the epochs rise from 1.")
            check(epoch < self.epochs, "growth", f"below the {self.epochs} epochs", growth)
            divides = self._train_examples % check_count("growth", size, 1) == 0
            rule = f"batches that divide the {self._train_examples} training examples"
            check(divides, "growth", rule, growth)
            part = size // plan.replicas if micro_batch is None else micro_batch
            phases[epoch] = plan = plan.followed_by(epoch, size, part)
        first = self.batch.global_batch
        whole = not growth or self._train_examples % first == 0
        rule = f"a divisor of the {self._train_examples} training examples where it grows"
        check(whole, "global_batch", rule, first)
        return phases

    @property
    def _last(self) -> BatchPlan:
        return self.phases[max(self.phases)]

    @property
    def fit_options(self) -> dict[str, Any]:
        """Arguments of `fit`: `batch_size`, `epochs` and, with `DistributedFit`, `micro_batch`."""
        options = {"batch_size": self.fit_batch, "epochs": self.epochs}
        if self._ours and any(plan.accumulation > 1 for plan in self.phases.values()):
            options["micro_batch"] = self.batch.micro_batch
        return options

    @cached_property
    def schedule(self) -> keras.optimizers.schedules.LearningRateSchedule:
        """The rate of every update."""
        return follow_phases(tuple(self.phases.values()), self.epochs, self._course)

    def _course(self, plan: BatchPlan) -> Schedule:
        """Warmup and decay, in updates of a plan."""
        end = self.epochs
        after: Schedule
        match self._decay:
            case "cosine":
                after = Cosine.from_epochs(
                    self.peak_rate, begin_epoch=self._warmup, end_epoch=end, plan=plan
                )
            case "polynomial":
                after = Polynomial.from_epochs(
                    self.peak_rate, power=2.0, begin_epoch=self._warmup, end_epoch=end, plan=plan
                )
            case str():
                rule = "cosine, polynomial, or the epochs at which the rate drops"
                raise ValueError(f"`decay` must be {rule}. Received: decay={self._decay!r}")
            case _:
                after = Steps.from_epochs(self.peak_rate, self._decay, plan=plan, factor=DROP)
        start = min(self._rate, self.peak_rate)
        return Warmup.from_epochs(after, self._warmup, start, plan=plan)

    def make_optimizer(self) -> LargeBatchOptimizer:
        """A new optimizer with the schedule in it, accumulating where `fit` does not."""
        steps = 1 if self._ours else self.batch.accumulation
        more: dict[str, Any] = {"gradient_accumulation_steps": steps} if steps > 1 else {}
        return self._class(self.schedule, **self._options, **more)

    def exemptions(self) -> tuple[Exemption, ...]:
        """What the optimizer will do with each tensor of the model: (path, shape, decay, adapted).

        The model's variables and no slots: nothing is allocated.
        """
        optimizer = self.make_optimizer()
        return resolve(
            self._model.trainable_variables,
            no_decay=optimizer.no_decay,
            no_adaptation=optimizer.no_adaptation,
            exclude_rank_below=optimizer.exclude_rank_below,
            adapts=optimizer.adapts,
        )

    def lines(self) -> list[tuple[str, str]]:
        """(label, text) pairs in reading order; warnings come last."""
        plan = self.batch
        arithmetic = explain_rate(self._scaling, self._rate, plan.global_batch, self._reference)
        course = [(0.0, min(self._rate, self.peak_rate) if self._warmup else self.peak_rate)]
        if self._warmup:
            course.append((self._warmup, self.peak_rate))
        if not isinstance(self._decay, str):
            drops = enumerate(self._decay, start=1)
            course += [(epoch, self.peak_rate * DROP**count) for count, epoch in drops]
        texts = [(e, f"rate {rate:.6g}") for e, rate in course]
        texts += [(e, f"batch {later}") for e, later in self.phases.items() if e]
        end = "the end" if not isinstance(self._decay, str) else f"the end, rate 0 ({self._decay})"
        weights = sum(math.prod(v.shape) for v in self._model.trainable_variables)
        return [
            ("model", f"{self._model.name}, {weights:,} trainable weights"),
            ("global batch", str(plan)),
            ("learning rate", arithmetic),
            *(
                (f"  epoch {epoch:g}", f"update {self._at(epoch).updates_at(epoch):,}: {what}")
                for epoch, what in [*sorted(texts), (self.epochs, end)]
            ),
            ("updates", f"{self.updates:,} ({self._rhythm()})"),
            ("optimizer", f"{self._class.__name__}{_arguments(self._options)}"),
            ("exempt tensors", self._exempt_line()),
            ("fit", _arguments(self.fit_options, "=").removeprefix(", ")),
            *(("warning", text) for text in self.warnings()),
        ]

    def warnings(self) -> list[str]:
        """What is likely to go wrong, each with its remedy."""
        found = []
        plan = self.batch
        ratio = plan.global_batch / self._reference
        if plan.global_batch > self._train_examples:
            passes = plan.global_batch / self._train_examples
            found.append(f"an update takes {passes:.1f} passes over the training set")
        largest = max(p.global_batch for p in self.phases.values())
        if self._noise_scale is not None and largest > self._noise_scale:
            measured = NoiseEstimate(grad_sq=1.0, trace=self._noise_scale)
            found.append(advise(measured, global_batch=largest))
        if self._scaling == "linear" and not self._class.adapts and ratio > LINEAR_LIMIT:
            found.append(
                f"the linear rule is stretched over a factor of {ratio:g}; on ImageNet it held to "
                f"{LINEAR_LIMIT} (arXiv:1706.02677, Figure 1). Try LARS, or fewer examples"
            )
        for layer in self._model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                kept = math.exp(-self.updates * (1.0 - layer.momentum))
                if kept > math.exp(-TIME_CONSTANTS):
                    found.append(
                        f"batch normalisation {layer.name} with momentum {layer.momentum:g} keeps "
                        f"{100 * kept:.0f} % of its first statistics after {self.updates:,} "
                        f"updates: evaluation will be wrong. Make it with momentum "
                        f"{_fitting_momentum(self.updates):g}"
                    )
                    break  # one is enough: they are made alike
        return found

    def text(self) -> str:
        """The lines as an aligned table; `print(plan)` shows it."""
        lines = self.lines()
        width = max(len(label) for label, _ in lines)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)

    __str__ = text

    def _at(self, epoch: float) -> BatchPlan:
        """The plan in which an epoch begins."""
        return self.phases[max(start for start in self.phases if start <= epoch)]

    def _rhythm(self) -> str:
        counts = (f"{float(plan.updates_per_epoch):.2f}" for plan in self.phases.values())
        return f"{', then '.join(counts)} an epoch"

    def _exempt_line(self) -> str:
        rows = self.exemptions()
        plain = [row for row in rows if not row.decay]
        if not plain:
            return f"none of {len(rows)}"
        what = "decay and ratio" if self._class.adapts else "decay"
        last = {row.path.rsplit("/", 1)[-1] for row in plain}
        return f"no {what} on {len(plain)} of {len(rows)}: {', '.join(sorted(last))}"

    def _check_optimizer(self) -> None:
        """Makes schedule and optimizer once: a wrong argument is told now, by its own name."""
        rule, fix = "without the rate", "The plan makes it; see `reference_rate`."
        mine = "learning_rate" in self._options or "gradient_accumulation_steps" in self._options
        check(not mine, "optimizer_options", rule, self._options, fix)
        self.make_optimizer()


def _arguments(options: Mapping[str, Any], sign: str = " ") -> str:
    return "".join(f", {name}{sign}{value}" for name, value in options.items())


def _fitting_momentum(updates: int) -> float:
    """The largest of the usual momenta that forgets the start in so many updates."""
    usual = (0.99, 0.97, 0.95, 0.9, 0.8, 0.5)
    fitting = [m for m in usual if updates * (1 - m) >= TIME_CONSTANTS]
    return fitting[0] if fitting else usual[-1]
