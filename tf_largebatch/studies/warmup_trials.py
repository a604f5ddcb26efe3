"""What the study of warmups trains: the digits with one row's settings, by `compile` and `fit`."""

from dataclasses import asdict, dataclass
from typing import Any

from tf_largebatch.studies.study import FINAL, Trial

SMALL, MIDDLE, LARGE = 8, 64, 256  # images an update: k = 1, 8, 32 workers of n = 8
BASE_RATE = 0.05  # at 8 images; the claims are judged here, and shown at all of `BASE_RATES`
BASE_RATES = (0.025, 0.05, 0.1)
RATES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # at 256 images without warmup
GAMMAS = (1.0, 0.0)  # of the last batch norm of each block, at first
# Warmups are named as a run of 90 epochs has them; ours has 30, so they are a third as long.
PAPER_EPOCHS, EPOCHS = 90, 30
LENGTHS = (0, 5, 10, 15, 20)  # McCord & Dash have 0, 5, 10, 20
GOYALS = 15  # Goyal's own five epochs, not a third of them: a quarter of our updates to rise by 32
QUICK_EPOCHS = 3  # of `--quick`: the whole course in a tenth
SEEDS = 10
HALF = SEEDS // 2  # seeds of gamma 1 that come before those of gamma 0
DESIGN: dict[str, Any] = {
    "data": "digits: 1,280 for training, 517 for testing",
    "shift": 1,  # pixels, each way
    "noise": 0.3,  # standard deviation, in pixels of 0 to 1
    "network": "digits_resnet",
    "bn_batch": 8,
    "bn_decay": 0.9,
    "bn_epsilon": 1e-5,
    "head_std": 0.01,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 1e-4,
    "exclude_rank_below": 2,
    "drop_epochs": [30, 60, 80],  # of 90
    "drop_factor": 0.1,
    "paper_epochs": PAPER_EPOCHS,
    "epochs": EPOCHS,
    "quick_epochs": QUICK_EPOCHS,
    "batches": [SMALL, MIDDLE, LARGE],
    "base_rates": list(BASE_RATES),
    "rates": list(RATES),
    "gammas": list(GAMMAS),
    "lengths": list(LENGTHS),
}


@dataclass(frozen=True)
class Row:
    """What a trial trains; with a seed it is one."""

    batch: int
    rate: float  # at its height
    warmup: int = 0  # epochs of 90
    start_rate: float = BASE_RATE  # of the warmup
    gamma: float = 1.0

    @property
    def label(self) -> str:
        """The row's name, which is a path."""
        return f"gamma{self.gamma:g}/b{self.batch:03d}-r{self.rate:g}-w{self.warmup:02d}"

    def name(self, seed: int) -> str:
        """The trial's name."""
        return f"{self.label}-s{seed:02d}"

    def trial(self, seed: int, epochs: int) -> Trial:
        """The trial of this seed."""
        settings = asdict(self) | {"seed": seed, "epochs": epochs, "stage": FINAL}
        return Trial(self.name(seed), settings)


def small(base: float = BASE_RATE, gamma: float = 1.0) -> Row:
    """The small batch."""
    return Row(SMALL, base, start_rate=base, gamma=gamma)


def unscaled(base: float = BASE_RATE, gamma: float = 1.0, batch: int = LARGE) -> Row:
    """The large batch at the small one's rate."""
    return Row(batch, base, start_rate=base, gamma=gamma)


def linear(warmup: int, base: float = BASE_RATE, gamma: float = 1.0, batch: int = LARGE) -> Row:
    """The large batch at the scaled rate; a warmup starts from the base rate."""
    rate = round(base * batch / SMALL, 6)
    return Row(batch, rate, warmup, base, gamma)


def straight(rate: float, gamma: float = 1.0) -> Row:
    """The large batch at any rate, without warmup; named by the base rate that leads to it."""
    bases = {round(base * LARGE / SMALL, 6): base for base in BASE_RATES}
    return Row(LARGE, rate, start_rate=bases.get(rate, rate), gamma=gamma)


def deciding_rows(gamma: float) -> list[Row]:
    """The rows of one gamma that the claims are judged by."""
    rows = [small(gamma=gamma), unscaled(gamma=gamma)]
    rows += [linear(length, gamma=gamma) for length in (0, GOYALS)]
    if gamma == 1.0:
        rows += [linear(n, batch=batch) for n in LENGTHS for batch in (MIDDLE, LARGE)]
        rows += [unscaled(batch=MIDDLE)]
    return list(dict.fromkeys(rows))


def other_rows(gamma: float) -> list[Row]:
    """The rows of one gamma that show what the rate does."""
    rows = [straight(rate, gamma) for rate in RATES]
    rows += [make(base, gamma) for base in BASE_RATES for make in (small, _warmed)]
    return [row for row in rows if row not in deciding_rows(gamma)]


def rows_of(gamma: float) -> list[Row]:
    """All rows of one gamma."""
    return deciding_rows(gamma) + other_rows(gamma)


def _warmed(base: float, gamma: float) -> Row:
    return linear(GOYALS, base, gamma)


def run(settings: dict[str, Any], sets: Any) -> dict[str, Any]:
    """Trains one row with one seed: its test error and the loss of each epoch."""
    from tf_largebatch.studies import fitting

    split = sets.load("digits", settings["stage"])
    (images, labels), test = (pixels_of(*part) for part in (split.all_train, split.test))
    model = make_model(images, settings["gamma"], settings["seed"])
    history = fitting.fit(
        model,
        make_optimizer(settings, len(images)),
        images,
        labels,
        batch=settings["batch"],
        epochs=settings["epochs"],
        seed=settings["seed"],
        augment=move_and_blur,
    )
    losses = [round(float(loss), 5) for loss in history.history["loss"]]
    return {"error_pct": fitting.error_pct(model, *test), "losses": losses}


def pixels_of(images: Any, labels: Any) -> tuple[Any, Any]:
    """The digits' own 17 greys as 0 to 1, float32, from their uint8 form."""
    import numpy as np

    return (np.round(images / 255 * 16) / 16).astype(np.float32), labels


def make_model(images: Any, gamma: float, seed: int) -> Any:
    """Returns the network of `recipes/goyal_8k`'s miniature on any backend of Keras."""
    from tf_largebatch.models.blocks import NetworkLayers
    from tf_largebatch.models.small_resnet import make_small_resnet
    from tf_largebatch.records.datasets import ImageFacts
    from tf_largebatch.records.model_spec import ModelSpec

    facts = ImageFacts(
        shape=images.shape[1:],
        classes=10,
        pixel_mean=(float(images.mean(dtype="float64")),),
        pixel_std=(float(images.std(dtype="float64")),),
    )
    norm = {name: DESIGN[name] for name in ("bn_batch", "bn_decay", "bn_epsilon", "head_std")}
    spec = ModelSpec(architecture=DESIGN["network"], last_gamma=gamma, **norm)
    return make_small_resnet(NetworkLayers(spec, facts, seed=seed, bn_replicas=1))


def make_optimizer(settings: dict[str, Any], examples: int) -> Any:
    """Returns momentum SGD with the row's course of the rate."""
    from tf_largebatch.optimizers import MomentumSGD

    rule = {n: DESIGN[n] for n in ("momentum", "nesterov", "weight_decay", "exclude_rank_below")}
    return MomentumSGD(make_course(settings, examples), **rule)


def make_course(settings: dict[str, Any], examples: int) -> Any:
    """Returns the schedule of a row: its warmup and its drops, in updates."""
    from tf_largebatch.records.batching import BatchPlan
    from tf_largebatch.schedules import Steps, Warmup

    batches = BatchPlan(global_batch=settings["batch"], train_examples=examples)
    squeezed = settings["epochs"] / PAPER_EPOCHS
    drops = [epoch * squeezed for epoch in DESIGN["drop_epochs"]]
    course = Steps.from_epochs(settings["rate"], drops, factor=DESIGN["drop_factor"], plan=batches)
    if not settings["warmup"]:
        return course
    epochs = settings["warmup"] * squeezed
    return Warmup.from_epochs(course, epochs, settings["start_rate"], plan=batches)


def move_and_blur(images: Any, draws: Any) -> Any:
    """Shifts each image [n, 8, 8, 1] by up to a pixel both ways, and adds noise."""
    import numpy as np

    shift, (count, height, width, _) = DESIGN["shift"], images.shape
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    rows, columns = draws.integers(0, 2 * shift + 1, (2, count, 1))
    rows, columns = rows + np.arange(height), columns + np.arange(width)
    moved = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    noise = draws.standard_normal(moved.shape, dtype=np.float32)
    return moved + np.float32(DESIGN["noise"]) * noise
