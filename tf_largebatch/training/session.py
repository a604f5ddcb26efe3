"""One command at work: the team, the folder, the data and the plans that all its workers share.

Imports no framework until the rows are known to fit and the folder is this run's own.
"""

import contextlib
import dataclasses
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tf_largebatch.records import __version__, extras, run_folder
from tf_largebatch.records.console import WRONG_INPUT
from tf_largebatch.records.data_spec import DigitsSpec
from tf_largebatch.records.errors import InputError, StoppedError, WorkerLostError
from tf_largebatch.records.files import digest, fingerprint, read_sealed, write_json, write_sealed
from tf_largebatch.records.plan import Plan
from tf_largebatch.records.quiet import import_tensorflow
from tf_largebatch.records.recipe import Miniature, Recipe, Row
from tf_largebatch.records.result import SeedResult
from tf_largebatch.training import storage
from tf_largebatch.training.options import AUTO, Options
from tf_largebatch.training.rows import (
    SMOKE_EVAL_IMAGES,
    SMOKE_TRAIN_IMAGES,
    check_different,
    check_flags,
    check_profile,
    choose_rows,
    departures_of,
    describe_claims,
    describe_rows,
    resolve,
)
from tf_largebatch.training.workers import cluster, gpus

if TYPE_CHECKING:
    from tf_largebatch.data.dataset import DataSet as DataSet
    from tf_largebatch.training.run import Run
    from tf_largebatch.training.workers.team import Team


@dataclass(frozen=True)
class Session:
    """What one command runs, and who runs it; one plan and one data set for each row."""

    recipe: Recipe
    miniature: Miniature
    options: Options
    rows: list[Row]
    plans: list[Plan]
    datasets: "list[DataSet]"
    folder: Path
    team: "Team"
    results: "list[tuple[Row, Run, SeedResult]]" = field(default_factory=list)  # so far
    started: float = field(default_factory=time.perf_counter)

    @property
    def departures(self) -> tuple[str, ...]:
        """Every change to the published set-up."""
        return departures_of(self.plans)

    def runs(self) -> "Iterator[tuple[Row, Run]]":
        """Yields every row with every seed."""
        from tf_largebatch.training.run import Run

        count = self.options.seeds
        single = len(self.rows) == count == 1
        for row, plan, dataset in zip(self.rows, self.plans, self.datasets, strict=True):
            for seed in range(self.options.seed, self.options.seed + count):
                place = self.folder / slug(row.label) / f"seed-{seed}"
                first = row is self.rows[0] and seed == self.options.seed
                run = Run(
                    label=row.label if count == 1 else f"{row.label}, seed {seed}",
                    plan=plan,
                    dataset=dataset,
                    seed=seed,
                    folder=self.folder if single else place,
                    team=self.team,
                    network=self.options.network,
                    profile=(first and self.options.profile) or (0, 0),
                )
                yield row, run

    def unfinished(self) -> "Iterator[tuple[Row, Run]]":
        """Yields what is still to be trained, and gathers the results of the others."""
        for row, run in self.runs():
            done = self.finished(run)
            if done is not None:
                self.results.append((row, run, done))
                continue
            if self.options.smoke:  # stop after the first epoch, to show that it continues
                yield row, dataclasses.replace(run, stop_epoch=1.0)
            yield row, run

    def finished(self, run: "Run") -> SeedResult | None:
        """Returns the result of a run that ended before; None where it must be trained.

        One whose result is damaged, or whose model is gone or another, is trained from its last
        checkpoint.
        """
        mark, model = run.folder / run_folder.SEED, run.folder / run_folder.MODEL
        done, exported, problem = None, None, None
        if mark.exists():
            try:
                done, exported = _read_result(mark, run)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                problem = f"{type(error).__name__}: {error}"[:200]
        if done and done.diverged_at is None:
            there = digest(model)
            if exported is not None and there not in (None, exported) and self.team.chief:
                text = "is not what this run exported: made again, from the last checkpoint"
                print(f"{model} {text}", file=sys.stderr)
            # The versions before did not keep the digest.
            done = done if there and exported in (None, there) else None
        # All workers read the folder before the chief may write to it.
        self.team.agree({"the run folder": f"{mark} {'is' if done else 'is not'} there"})
        if self.team.chief:
            run.folder.mkdir(parents=True, exist_ok=True)
            if problem:
                aside = mark.with_name(f"{mark.name}.damaged")
                os.replace(mark, aside)
                print(
                    f"{mark} is no result of this run ({problem}): kept as {aside}; the run goes "
                    "on from its last checkpoint",
                    file=sys.stderr,
                )
            write_json(run.folder / run_folder.PLAN, run.plan.to_json())
            if done:
                run_folder.write_metrics(run.folder / run_folder.METRICS, list(done.epochs))
        return done

    def keep(self, row: Row, run: "Run", done: SeedResult) -> None:
        """Marks a run as finished, and notes what its events say of the gradient noise."""
        if run.stop_epoch is not None:  # it goes on
            return
        self.results.append((row, run, done))
        if self.team.chief:
            from tf_largebatch.review.tensorboard.noise import keep_noise

            keep_noise(run.folder, global_batch=run.plan.phases[-1].global_batch)
            model = digest(run.folder / run_folder.MODEL)
            result = {**dataclasses.asdict(done), "run": run.identity, "model": model}
            write_sealed(run.folder / run_folder.SEED, result)


@contextlib.contextmanager
def open_session(recipe: Recipe, miniature: Miniature, options: Options) -> Iterator[Session]:
    """Gathers the workers around one folder and opens the data; the chief says what will run.

    InputError: something does not fit, on any worker; nothing is left behind, and only the chief
    says it.
    """
    rows = choose_rows(recipe, miniature, options)
    plans = [resolve(row.recipe, options) for row in rows]
    check_different([(row.label, p.recipe) for row, p in zip(rows, plans, strict=True)])
    extras.require("review", *_extras_of(plans))
    workers = cluster.resolve()
    if workers is not None and workers.size == 1:
        workers = None
    _check_tpu(options, workers)
    check_flags(options, plans, alone=workers is None)
    chief = workers is None or workers.is_chief
    team = None
    with claimed(recipe, plans, options) if chief else contextlib.nullcontext() as folder:
        try:
            team = _gather(options, workers, plans)
            mine = fingerprint([dataclasses.asdict(plan.recipe) for plan in plans])
            team.agree({"version": __version__, "the recipe": mine, **options.compared()})
            folder = Path(team.exchange(str(folder))[0])
            datasets = _agree_on_data(plans, options, folder, team)
            plans = _agree_on_plans(rows, datasets, options, team)
            session = Session(recipe, miniature, options, rows, plans, datasets, folder, team)
            if team.chief:
                _announce(session)
            yield session
        except InputError:
            if not chief and team is not None:
                sys.exit(WRONG_INPUT)  # the chief says it
            raise
        except Exception as error:
            seconds = options.worker_timeout
            if workers is not None and (loss := _describe_loss(error, workers, seconds)):
                raise WorkerLostError(loss) from None
            raise


@contextlib.contextmanager
def claimed(recipe: Recipe, plans: list[Plan], options: Options) -> Iterator[Path]:
    """Makes the run folder this run's own for the length of the block, once the recipes fit.

    InputError where it cannot be, or cannot be used any longer; no empty run stays behind.
    """
    scale, departures = options.scale, departures_of(plans)
    name = recipe.name if recipe.row is None or scale != "full" else f"{recipe.name}-{recipe.row}"
    name += {"full": "", "miniature": "-mini", "smoke": "-smoke"}[scale]
    name += "-modified" if departures else ""
    folder = options.run_dir or run_folder.default_folder(name)
    identity = {
        "recipe": recipe.name,
        "scale": scale,
        "settings": list(departures),
        "precision": [plan.settings.precision for plan in plans],
        "wire": [plan.settings.wire for plan in plans],
        "seeds": [options.seed, options.seeds],
        "recipes": [dataclasses.asdict(plan.recipe) for plan in plans],
    }
    with run_folder.locked(folder):
        try:
            if run_folder.claim(folder, identity):
                print(f"continues {folder}", file=sys.stderr)
        except OSError as error:
            raise storage.explain(error, folder) or error from None
        try:
            yield folder
        except StoppedError as stopped:
            remedy = f"the same command with --run-dir {folder} continues"
            raise StoppedError(f"{stopped}; {remedy}", stopped.signal) from None
        except InputError:
            run_folder.release(folder)
            raise
        except Exception as error:
            raise storage.explain(error, folder) or error from None


def _extras_of(plans: list[Plan]) -> list[str]:
    data = [plan.recipe.data for plan in plans]
    found = ["digits"] * any(isinstance(spec, DigitsSpec) for spec in data)
    mixed = any(getattr(spec, "randaugment_magnitude", 0.0) for spec in data)
    return found + ["augment"] * mixed


def slug(label: str) -> str:
    """Returns the label as a folder name: `linear, warmup 5` -> `linear-warmup-5`."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def _read_result(mark: Path, run: "Run") -> tuple[SeedResult, str | None]:
    """What `Session.keep` wrote, and the digest of the model; ValueError where it is another's."""
    data = read_sealed(mark)
    of = data.get("run", run.identity)  # the versions before did not say
    if of != run.identity or data["seed"] != run.seed:
        raise ValueError("it is another run's")
    return SeedResult.from_json(data), data.get("model")


def _check_tpu(options: Options, workers: cluster.Cluster | None) -> None:
    if options.tpu and workers is not None:
        raise InputError(
            f"--tpu must be given to a single process, which drives the whole TPU. Received: "
            f"--tpu {options.tpu} on worker {workers.rank} of {workers.size}"
        )
    if options.tpu and options.precision == "float16":
        raise InputError("--precision must be float32 or bfloat16 on a TPU. Received: float16")


def _gather(options: Options, workers: cluster.Cluster | None, plans: list[Plan]) -> "Team":
    """Starts TensorFlow on this worker's devices, and waits for the others."""
    assigned = None if workers is None else gpus.gpu_for_local_rank(workers)
    if assigned is not None:
        os.environ[gpus.GPUS] = assigned
    digits = all(isinstance(plan.recipe.data, DigitsSpec) for plan in plans)
    if digits and "tensorflow" not in sys.modules:
        # To share out operations that small takes longer than they do: an update of 8 digits is 1.6
        # times as fast with one thread for each, and its sums are the same on any number of cores.
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    if "tensorflow" not in sys.modules and sys.stderr.isatty():
        print("starts TensorFlow", file=sys.stderr)  # some seconds without a word
    _load_framework()
    from tf_largebatch.training.workers.team import Team

    # Small data want one device, ImageNet all that are there.
    everything = options.scale == "full" or options.tpu or workers is not None
    return Team(
        options.replicas or (None if everything else 1),
        tpu=options.tpu,
        worker_timeout=options.worker_timeout,
        join_timeout=options.join_timeout,
    )


def _load_framework() -> None:
    """Loads TensorFlow, with Keras on it; InputError where they cannot be had so."""
    other = "docs/jax.md has what trains without TensorFlow"
    try:
        import_tensorflow()
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise InputError(f"a recipe needs TensorFlow, which is not installed; {other}") from None
    import keras

    if (backend := keras.backend.backend()) != "tensorflow":
        rule = "KERAS_BACKEND must be tensorflow, or unset, to run a recipe"
        raise InputError(f"{rule}. Received: {backend}; {other}")


def _agree_on_data(
    plans: list[Plan], options: Options, folder: Path, team: "Team"
) -> "list[DataSet]":
    """Opens each row's data, once for those that share it."""
    from tf_largebatch.data import synthetic
    from tf_largebatch.training.build import open_dataset

    data = options.miniature_data if options.scale == "miniature" else options.data
    opened, problem = {}, None
    if options.scale == "smoke":
        data = folder / "images"
        try:
            if team.chief and not data.exists():
                synthetic.write_shards(
                    data, train_examples=SMOKE_TRAIN_IMAGES, eval_examples=SMOKE_EVAL_IMAGES
                )
        except InputError as error:
            problem = error
        team.exchange("")  # the others wait until the pictures are there
    try:
        for recipe in [plan.recipe for plan in plans] if problem is None else ():
            if recipe.data not in opened:
                skip = options.skip_unreadable > 0
                opened[recipe.data] = open_dataset(
                    recipe.data, data, epochs=recipe.epochs, skip_unreadable=skip
                )
    except InputError as error:
        problem = error
    described = " ".join(f"{data.describe()} {data.fingerprint}" for data in opened.values())
    team.agree({"the data": described}, problem=problem)
    return [opened[plan.recipe.data] for plan in plans]


def _agree_on_plans(
    rows: list[Row], datasets: "list[DataSet]", options: Options, team: "Team"
) -> list[Plan]:
    """The plans with the sizes of the data that is really there, and the micro-batch that fits."""
    from tf_largebatch.training import micro_batch
    from tf_largebatch.training.own_network import describe_network, describe_structure

    plans, problem, own, structure = [], None, options.network, ""
    try:
        for row, dataset in zip(rows, datasets, strict=True):
            fits = None
            if options.micro_batch == AUTO:
                plan = resolve(row.recipe, options)
                precision = plan.settings.precision
                fits = micro_batch.find(
                    plan.recipe, dataset, team, precision=precision, network=own
                )
            plans.append(
                resolve(
                    row.recipe,
                    options,
                    dataset=dataset,
                    replicas=team.replicas,
                    micro_batch=fits,
                    network=own and describe_network(own, dataset.facts),
                )
            )
            structure += str(own and describe_structure(own, dataset.facts))
        check_profile(options.profile, plans[0])
    except InputError as error:
        problem = error
    phases = " ".join(str(phase) for plan in plans for phase in plan.phases)
    team.agree({"the plan": phases, "the network": structure}, problem=problem)
    return plans


def _announce(session: Session) -> None:
    if len(session.plans) == 1:
        print(session.plans[0].text())
    else:
        print(f"{session.recipe.title} · miniature\n{session.miniature.contrast}")
        rows = zip(session.rows, session.plans, strict=True)
        print(describe_rows([(row.label, plan.recipe) for row, plan in rows]))
        for line in describe_claims(session.miniature):
            print(line)
        for change in session.departures:
            print(f"modified: {change}")
    sys.stdout.flush()


def _describe_loss(error: Exception, workers: cluster.Cluster, seconds: int) -> str | None:
    """Which worker is gone; None where the error says something else."""
    import tensorflow as tf

    from tf_largebatch.training.workers.absence import describe_loss

    silent = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError)
    ended = (tf.errors.AbortedError, tf.errors.CancelledError)
    return describe_loss(error, workers, seconds) if isinstance(error, silent + ended) else None
