"""Where SGD ends and whether LARS goes on: You et al. 2017, and Nado et al. 2021 who doubt it.

Fashion-MNIST and a network of two hidden layers, without batch norm (the papers' AlexNet) and with
it. Every row of the table has a search of its own, all of one size.
"""

import functools
from typing import Any

from tf_largebatch.review.verdict import Rule
from tf_largebatch.studies import lars_or_sgd_page, lars_or_sgd_plan
from tf_largebatch.studies.lars_or_sgd_plan import (
    BATCH_NORM,
    DECAY_POWER,
    DESIGN,
    HIDDEN,
    NORMED,
    PIXELS,
    TRUST,
    WARMUP_EPOCHS,
    WEIGHT_DECAY,
)
from tf_largebatch.studies.study import FINAL, Claim, Study
from tf_largebatch.studies.tuning import HELD_OUT_ERROR

YOU = "You et al. 2017, arXiv:1708.03888"
NADO = "Nado et al. 2021, arXiv:2102.06356"
CLAIMS = (
    Claim(
        id="C5a",
        text="The linear rule with warmup ends: at 64 times the batch it loses accuracy, without "
        "batch norm.",
        paper=YOU,
        published="AlexNet from 512 to 4,096 images 58.8 to 53.1 %, the best of nine rates "
        "(read: slides 003)",
        rule=Rule("more", smallest=1.0),
        contrast="test error of the linear rule at 8,192 - SGD at 128",
    ),
    Claim(
        id="C5b",
        text="Where SGD ends LARS goes on: it is better at the largest batch, without batch norm.",
        paper=YOU,
        published="AlexNet at 4,096: SGD 53.1 %, LARS 58.4 %; at 8,192 LARS 58.3 % (read: slides "
        "003)",
        rule=Rule("more", smallest=0.5),
        contrast="test error of SGD - LARS at 8,192, momentum 0.9, both rates tuned",
    ),
    Claim(
        id="C6a",
        text="Batch norm lets the rate grow: SGD takes twice the rate at the largest batch.",
        paper=YOU,
        published="AlexNet diverges above 0.06 at 4,096, AlexNet-BN takes 0.30 at 8,192: 2.3 "
        "doublings (read: digest of the paper)",
        rule=Rule("more", smallest=1.0, unit="doublings"),
        contrast="log2 of the largest usable rate of SGD at 8,192, with - without batch norm",
    ),
    Claim(
        id="C6b",
        text="With batch norm a large batch costs SGD less accuracy.",
        paper=YOU,
        published="512 to 4,096: AlexNet 58.8 to 53.1 %, AlexNet-BN 60.2 to 58.9 %: 4.4 points "
        "less (read: slides 003)",
        rule=Rule("more", smallest=0.5),
        contrast="loss of tuned SGD from 128 to 8,192, without - with batch norm",
    ),
    Claim(
        id="C7",
        text="The norm of a kernel over that of its gradient differs between layers by a decade or "
        "more: no one rate suits all.",
        paper=YOU,
        published="AlexNet-BN after one update: 5.76 (conv1) to 1,345 (fc6), 2.4 decades "
        "(read: digest of the paper)",
        rule=Rule("more", smallest=1.0, unit="decades"),
        contrast="log10 of the largest / the smallest ratio of a kernel at the first update",
    ),
    Claim(
        id="C17a",
        text="Nesterov momentum, tuned as much as LARS, matches it, with batch norm.",
        paper=NADO,
        published="ResNet-50 at 32,768, median of 50 seeds: 75.93 and 75.97 % (quoted from memory)",
        rule=Rule("equal", smallest=0.5),
        contrast="test error of Nesterov - LARS at 8,192, rate and momentum of both tuned",
    ),
    Claim(
        id="C17b",
        text="Nesterov momentum, tuned as much as LARS, matches it without batch norm too.",
        paper=NADO,
        published="not in the paper (ours)",
        rule=Rule("equal", smallest=0.5),
        contrast="test error of Nesterov - LARS at 8,192, rate and momentum of both tuned",
    ),
)

METHOD = (
    "Fashion-MNIST, 55,000 training images; 784-256-256-10 with ReLU, with and without batch norm "
    "(moving statistics by 0.9, epsilon 1e-5); 12 epochs; the rate rises for 2 epochs from 0 and "
    "falls to 0 by the square, as in You et al. and in Nado et al.; no augmentation.",
    "SGD is Nesterov momentum 0.9 with decay 1e-4; LARS the paper's rule with the same numbers and "
    "trust 0.1 (rates are 1/100 of those of trust 0.001; biases, gammas and betas move at the raw "
    "rate); LAMB has decay 0.01.",
    "Search: five rates by factors of 2 and two tuning seeds for every row. At 8,192 also 16 "
    "quasi-random points of rate and momentum a row (LAMB: beta_1), around its best: rate / (1 - "
    "momentum) within a factor of 4 (LAMB: the rate itself), 1 - momentum from 0.02 to 1, the four "
    "best again with a second seed; the grid's best takes part.",
    "C6a: SGD at ten rates from 0.0125 to 6.4 on held-out examples, every seed; a rate can be used "
    "if it and all between it and the best lie within 5 points of the network's best.",
    "C7: one epoch of SGD at 2,048 images and rate 0.05; before every update the norms of the "
    "kernels and of their gradients on its images.",
)


def run(settings: dict[str, Any], sets: Any) -> dict[str, Any]:
    """Trains one trial."""
    split = sets.load("fashion_mnist", settings["stage"])
    images, labels = (part[: settings["examples"]] for part in split.train)
    model = make_network(settings["network"], settings["seed"])
    if settings["kind"] == "ratios":
        return measure_ratios(model, images, labels, settings)
    from tf_largebatch.studies import fitting

    batch, epochs = settings["batch"], settings["epochs"]
    history = fitting.fit(
        model,
        make_optimizer(settings, updates_of_epoch=len(images) // batch),
        images,
        labels,
        batch=batch,
        epochs=epochs,
        seed=settings["seed"],
    )
    result = {
        "train_loss": history.history["loss"],
        HELD_OUT_ERROR: fitting.error_pct(model, *split.held_out),
    }
    if settings["stage"] == FINAL:
        result["test_error_pct"] = fitting.error_pct(model, *split.test)
    return result


def make_network(network: str, seed: int) -> Any:
    """784-256-256-10 with ReLU; "bn" has batch norm in front of it."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    mean, deviation = PIXELS
    normed = network == NORMED
    inputs = keras.Input((28, 28, 1), dtype="uint8")
    x = layers.Lambda(lambda pixels: (keras.ops.cast(pixels, "float32") - mean) / deviation)(inputs)
    x = layers.Flatten()(x)
    for number, width in enumerate(HIDDEN, 1):
        x = layers.Dense(width, use_bias=not normed, name=f"hidden{number}")(x)
        if normed:
            x = layers.BatchNormalization(**BATCH_NORM)(x)
        x = layers.ReLU()(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x))


def make_optimizer(settings: dict[str, Any], *, updates_of_epoch: int) -> Any:
    """The optimizer of a row with its course."""
    from tf_largebatch import optimizers
    from tf_largebatch.schedules import Polynomial, Warmup

    name, rate, momentum = (settings[key] for key in ("optimizer", "rate", "momentum"))
    warmup, total = (updates_of_epoch * n for n in (WARMUP_EPOCHS, settings["epochs"]))
    falling = Polynomial(rate, power=DECAY_POWER, begin=warmup, decay_updates=total - warmup)
    course, decay = Warmup(falling, warmup, start_rate=0.0), WEIGHT_DECAY[name]
    match name:
        case lars_or_sgd_plan.LAMB:
            return optimizers.LAMB(course, beta_1=momentum, weight_decay=decay)
        case lars_or_sgd_plan.LARS:
            return optimizers.LARS(
                course, momentum=momentum, weight_decay=decay, trust_coefficient=TRUST
            )
    return optimizers.MomentumSGD(course, momentum=momentum, nesterov=True, weight_decay=decay)


def measure_ratios(model: Any, images: Any, labels: Any, settings: dict[str, Any]) -> dict:
    """Trains an epoch; before each update the norms of the kernels and of their gradients."""
    import itertools

    import keras

    from tf_largebatch.diagnostics.layer_ratios import layer_ratios
    from tf_largebatch.optimizers import MomentumSGD
    from tf_largebatch.studies import fitting
    from tf_largebatch.studies.flat_loss import FlatLoss

    batch, rows = settings["batch"], []
    optimizer = MomentumSGD(settings["rate"], momentum=0.9, nesterov=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    flat = FlatLoss(model, images[:batch], labels[:batch], chunk=batch, training=True)
    order = fitting.batches(len(images), batch, seed=settings["seed"])
    for places in itertools.islice(order, len(images) // batch):
        flat.read(images[places], labels[places])
        _, gradient = flat.value_and_gradient(flat.vector)
        measured = layer_ratios(flat.names, flat.tensors(flat.vector), flat.tensors(gradient))
        rows.append([row for row in measured if row.rank == 2])
        model.train_on_batch(images[places], labels[places])
    return {
        "layers": [row.name.split("/")[-2] for row in rows[0]],
        "weight_norms": [[row.weight_norm for row in own] for own in rows],
        "gradient_norms": [[row.gradient_norm for row in own] for own in rows],
    }


STUDY = Study(
    name="lars_or_sgd",
    title="Where SGD ends, and whether LARS goes on: Fashion-MNIST, 128 to 8,192 images an update",
    claims=CLAIMS,
    method=METHOD,
    data=("fashion_mnist",),
    design=DESIGN,
    quick_seeds=1,
    plan=lars_or_sgd_plan.plan,
    run=run,
    conclude=functools.partial(lars_or_sgd_page.conclude, {claim.id: claim for claim in CLAIMS}),
)
