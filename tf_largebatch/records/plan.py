"""What a run is about to do, as labelled lines: printed by `--plan`, and kept as `plan.json`."""

from dataclasses import asdict, dataclass
from typing import Any

from tf_largebatch.records import architectures, sources
from tf_largebatch.records.architectures import Architecture
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.curve import StopSpec
from tf_largebatch.records.datasets import DATASETS
from tf_largebatch.records.local import LocalSchedule
from tf_largebatch.records.optimizer_spec import (
    KFACSpec,
    LAMBSpec,
    LARSSpec,
    RMSpropSGDSpec,
    ShampooSpec,
)
from tf_largebatch.records.recipe import Expected, ImageNetSpec, Recipe
from tf_largebatch.records.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One resolved run."""

    recipe: Recipe  # with every departure applied
    phases: tuple[BatchPlan, ...]  # more than one where the batch changes during training
    scale: str  # "full", "miniature" or "smoke"
    settings: Settings = Settings()
    data: str  # where the images come from, in words
    departures: tuple[str, ...] = ()  # from the published set-up, in words
    classes: int | None = None  # of the data that is there; None for the published number
    network: Architecture | None = None  # the caller's, in the place of the recipe's

    @property
    def updates(self) -> int:
        """Updates of the whole run."""
        return self.updates_at(self.recipe.epochs)

    def updates_at(self, epoch: float) -> int:
        """Returns the number of the first update at or after `epoch`."""
        return [p for p in self.phases if p.start_epoch <= epoch][-1].updates_at(epoch)

    def epoch_at(self, update: int) -> float:
        """Returns the fractional epoch at which `update` starts."""
        return self.phase_at(update).epoch_at(update)

    @property
    def local(self) -> LocalSchedule | None:
        """Which updates workers take apart; None where all are synchronous."""
        return self.recipe.local_schedule(self.batch)

    @property
    def batch(self) -> BatchPlan:
        """The first phase."""
        return self.phases[0]

    def phase_at(self, update: int) -> BatchPlan:
        """Returns how `update` is split."""
        return [p for p in self.phases if p.start_update <= max(update, 0)][-1]

    def lines(self) -> list[tuple[str, str]]:
        """Returns (label, text) pairs in reading order."""
        recipe, batch = self.recipe, self.batch
        course = recipe.schedule.milestones(recipe.peak_rate, recipe.epochs)
        events = [(epoch, f"{rate:.6g} ({what})") for epoch, rate, what in course]
        growth = zip(recipe.growth, self.phases[1:], strict=True)
        events += [(epoch, f"global batch {phase}") for (epoch, _), phase in growth]
        events = sorted(events, key=lambda event: event[0]) + [(recipe.epochs, "the end")]
        per_epoch = ", then ".join(f"{float(p.updates_per_epoch):.2f}" for p in self.phases)
        lines = [
            ("recipe", f"{recipe.label} ({recipe.paper}), {self.scale}"),
            ("data", self.data),
            ("model", self._model_line()),
            ("global batch", str(batch)),
            ("batch norm", self._batch_norm_line()),
            ("learning rate", recipe.rate_arithmetic),
            *((f"  epoch {e:g}", f"update {self.updates_at(e):,}: {what}") for e, what in events),
            ("updates", f"{self.updates:,} ({per_epoch} an epoch)"),
            *([("local updates", _local_line(local, batch))] if (local := self.local) else []),
            *([("stop", _stop_line(stop))] if (stop := recipe.stop) else []),
            ("loss", _loss_line(recipe)),
            ("optimizer", _optimizer_line(recipe)),
            ("exempt tensors", _exempt_line(recipe, self._facts)),
            ("precision", _published(self.settings.precision, recipe.precision)),
            ("communication", _communication_line(self.settings, recipe, batch)),
            ("checkpoints", self.settings.checkpoints),
            ("published", describe_expected(recipe.expected)),
        ]
        if self.scale == "full" and (found := sources.read_recipe(recipe)):
            lines.append(("numbers", sources.count(found)))
        if recipe.missing:
            lines.append(("trains", f"not yet: {recipe.missing} is missing"))
        lines += [("note", note) for note in recipe.notes]
        lines += [("modified", change) for change in self.departures]
        largest, images = max(p.global_batch for p in self.phases), batch.train_examples
        if largest > images and self.scale != "smoke":
            passes = f"{largest / images:.1f} passes over the {images:,} training images"
            lines.append(("warning", f"an update takes {passes}"))
        return lines

    @property
    def _facts(self) -> Architecture:
        return self.network or architectures.get(self.recipe.model.architecture)

    def _model_line(self) -> str:
        recipe, facts = self.recipe, self._facts
        dataset = DATASETS[recipe.data.name]
        if self.network is not None:
            return f"{facts.name}, {facts.parameters:,} weights (published: another network)"
        shape = dataset.image_shape or facts.image_shape
        weights = facts.parameters_on(shape, self.classes or dataset.classes)
        size = ""
        if isinstance(recipe.data, ImageNetSpec):
            size = f" at {recipe.data.image_size} px"
            if recipe.data.eval_image_size is not None:
                size += f", tested at {recipe.data.eval_image_size} px"
        return f"{facts.name}{size}, {weights:,} weights, last gamma {recipe.model.last_gamma:g}"

    def _batch_norm_line(self) -> str:
        if not self._facts.moving_statistics:
            return "none in this network"
        if self.network is not None:
            return f"the network's own, of micro-batches of {self.batch.micro_batch} images"
        return _batch_norm_line(self.recipe, self.batch)

    def text(self) -> str:
        """Returns the lines as an aligned table."""
        lines = self.lines()
        width = max(len(label) for label, _ in lines)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)

    def markdown(self) -> str:
        """Returns the lines as a Markdown table."""
        rows = [f"| {label.strip()} | {text} |" for label, text in self.lines()]
        return "\n".join(["| | |", "|---|---|", *rows])

    def to_json(self) -> dict[str, Any]:
        """Returns plain data: the lines, and the records they were made of."""
        later = self.phases[1:]
        return {
            "rows": [[label.strip(), text] for label, text in self.lines()],
            "recipe": asdict(self.recipe),
            "batch": {**asdict(self.batch), "start_epoch": 0},
            "growth": [[float(p.start_epoch), p.start_update, p.global_batch] for p in later],
            "accumulation": self.batch.accumulation,
            "peak_rate": self.recipe.peak_rate,
            "updates": self.updates,
            "scale": self.scale,
            "settings": asdict(self.settings),
            "departures": list(self.departures),
        }


def describe_data(recipe: Recipe) -> str:
    """Returns the recipe's data set in words, from its published size."""
    facts = DATASETS[recipe.data.name]
    images = f"{facts.train_examples:,} training and {facts.eval_examples:,} evaluation images"
    return f"{facts.title}: {images}, {facts.classes} classes"


def describe_expected(expected: Expected | None) -> str:
    """Returns a published result in words."""
    if expected is None:
        return "nothing for this set-up"
    std = "" if expected.std is None else f" +- {expected.std:g}"
    runs = "" if expected.runs is None else f", {expected.runs} runs"
    took = "" if expected.reached is None else f", in {expected.reached}"
    what = f"{expected.top1_error_pct:g}{std} % error (top-1 {expected.top1_accuracy_pct:.2f} %"
    return f"{what}; {expected.source}{runs}){took}"


def _stop_line(stop: StopSpec) -> str:
    first, second = stop.first_epoch, stop.first_epoch + stop.every_epochs
    which = f"of those after epochs {first}, {second}, ... and the last"
    return f"at the first evaluation with {stop.target_pct:g} % top-1 or more, {which}"


def _local_line(local: LocalSchedule, batch: BatchPlan) -> str:
    share = batch.global_batch // local.workers
    start = f"from update {local.start_update:,}" if local.start_update else "from the start"
    agree = f"averaged every {local.local_steps} updates, the velocity {local.slots}"
    return f"{start}, on {local.workers} workers of {share} images each, {agree}"


def _published(here: str, published: str) -> str:
    return here if here == published else f"{here} (published: {published})"


def _communication_line(settings: Settings, recipe: Recipe, batch: BatchPlan) -> str:
    if batch.replicas == 1:
        return "nowhere: one replica"
    wire = _published(settings.wire, recipe.wire)
    return f"as {wire}, {settings.pack_mb} MiB at a time, summed over {batch.replicas} replicas"


def _loss_line(recipe: Recipe) -> str:
    loss = recipe.loss
    kind = {"softmax": "cross-entropy", "sigmoid": "binary cross-entropy of each class"}[loss.kind]
    return kind + (f", label smoothing {loss.label_smoothing:g}" if loss.label_smoothing else "")


def _batch_norm_line(recipe: Recipe, batch: BatchPlan) -> str:
    shared = recipe.model.bn_batch or batch.micro_batch
    groups = batch.micro_batch // shared
    how = f"statistics of {shared} images"
    if (replicas := recipe.bn_replicas(batch)) > 1:
        how += f" (over groups of {replicas} replicas)"
    if groups > 1:
        how += f" ({groups} groups in each micro-batch)"
    kept = f"running decay {recipe.model.bn_decay:g}"
    if images := recipe.model.bn_recompute_images:
        kept = f"recomputed for evaluation from {images:,} images"
    elif not recipe.model.bn_decay:
        kept = "evaluation with those of the last update"
    return f"{how}, {kept}, epsilon {recipe.model.bn_epsilon:g}"


def _optimizer_line(recipe: Recipe) -> str:
    spec = recipe.optimizer
    decay = f"weight decay {spec.weight_decay:g}"
    if isinstance(spec, LAMBSpec):
        limit = spec.global_clipnorm
        clip = "" if limit is None else f", gradient norm at most {limit:g}"
        betas = f"betas {spec.beta_1:g} and {spec.beta_2:g}"
        return f"LAMB, {betas}, epsilon {spec.epsilon:g}, {decay}{clip}"
    if isinstance(spec, ShampooSpec):
        betas = f"betas {spec.beta_1:g} and {spec.beta_2:g}"
        matrices = f"matrices of {spec.block_size} to the power -1/{spec.root}"
        start = f"from update {spec.start_update}"
        return f"Shampoo, {betas}, {matrices} {start}, epsilon {spec.matrix_epsilon:g}, {decay}"
    momentum = f"momentum {spec.momentum:g}"
    if isinstance(spec, KFACSpec):
        norms = ", norms of the weights limited" * spec.limit_norm
        every = spec.refresh_updates
        refresh = "every update" if every == 1 else f"every {every} updates"
        return f"K-FAC, {momentum}, damping {spec.damping:g}, factors {refresh}, {decay}{norms}"
    if isinstance(spec, RMSpropSGDSpec):
        turn = f"at epoch {spec.center_epochs:g} over {spec.period_epochs:g}"
        rate = spec.rmsprop_learning_rate
        return f"RMSprop (rate {rate:g}) turning into SGD {turn}, {momentum}, {decay}"
    common = f"{'Nesterov ' if spec.nesterov else ''}{momentum}, {decay}"
    if isinstance(spec, LARSSpec):
        place = spec.momentum_placement
        where = "rate on the whole" if place == "whole" else f"rate {place} the"
        trust = f"trust coefficient {spec.trust_coefficient:g}"
        return f"LARS, {common}, {trust}, {where} velocity, decay in the norm: {spec.decay_in_norm}"
    return f"SGD, {common} inside the gradient, rate outside the velocity"


def _exempt_line(recipe: Recipe, facts: Architecture) -> str:
    what = "decay" + " and ratio" * isinstance(recipe.optimizer, LARSSpec | LAMBSpec)
    rank = recipe.optimizer.exclude_rank_below
    if rank < 2:
        return f"none: {what} on all {facts.tensors} tensors"
    if rank > 2:
        return f"no {what} below rank {rank}"
    kinds = f"{facts.norm_tensors} batch norm, {facts.bias_tensors} bias"
    return f"no {what} on {facts.rank_le_1_tensors} of {facts.tensors} tensors ({kinds})"
