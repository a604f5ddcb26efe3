"""ResNet-50 on ImageNet with 8,192 images per update: Goyal et al. 2017, arXiv:1706.02677.

Expect 23.74 +- 0.09 % top-1 error after 90 epochs (Table 1, 5 runs); 256 images give 23.60 +- 0.12.

    python -m tf_largebatch.recipes.goyal_8k --data DIR   # the paper's run
    python -m tf_largebatch.recipes.goyal_8k              # its miniature, in minutes, without data
    python -m tf_largebatch.recipes.goyal_8k --plan       # every number, without TensorFlow
"""

from dataclasses import replace
from typing import Any

from tf_largebatch.records.recipe import (
    Contrast,
    DigitsSpec,
    Expected,
    ImageNetSpec,
    LARSSpec,
    Miniature,
    ModelSpec,
    Recipe,
    Row,
    SGDSpec,
    StepsSpec,
)
from tf_largebatch.training.command import main

RECIPE = Recipe(
    name="goyal_8k",
    title="Goyal et al. 2017, ImageNet in 1 hour: ResNet-50 at 8,192 images per update",
    paper="arXiv:1706.02677",
    data=ImageNetSpec(
        image_size=224,  # [paper: text] §5.1
        min_area=0.08,  # [code: fb.resnet.torch datasets/transforms.lua], by §5.1
        max_area=1.0,  # [code: the same]
        min_aspect=9 / 16,  # [code: the same] U(3/4, 4/3) times the width, over the height
        max_aspect=16 / 9,  # [code: the same]
        interpolation="bicubic",  # [code: the same] of both crops
        eval_short_side=256,  # [recall] §5.1 says "224 x 224 center crop" with the usual resize
    ),
    model=ModelSpec(
        architecture="resnet50",  # [paper: text] §5.1: stride 2 on the 3x3 convolutions ("v1.5")
        last_gamma=0.0,  # [paper: text] §5.1: zero in the last batch norm of every residual block
        bn_batch=32,  # [paper: text] §5.1: n = 32 per worker, never synchronised
        bn_decay=0.9,  # [paper: text] §5.1: momentum of the running average
        bn_epsilon=1e-5,  # [recall] Caffe2's default
        head_std=0.01,  # [paper: text] §5.1: N(0, 0.01^2)
    ),
    global_batch=8192,  # [paper: text] §5.2: k = 256 workers of n = 32
    epochs=90,  # [paper: text] §5.1
    reference_rate=0.1,  # [paper: text] §5.1: eta = 0.1 * kn / 256, so 3.2 at 8,192
    reference_batch=256,  # [paper: text] §5.1
    scaling="linear",  # [paper: text] §2.1
    optimizer=SGDSpec(
        momentum=0.9,  # [paper: text] §5.1
        nesterov=True,  # [paper: text] §5.1: plain momentum was "equally effective"
        weight_decay=1e-4,  # [paper: text] §5.1: inside the gradient, §3
        exclude_rank_below=2,  # [paper: text] §5.1: not batch norm; ours: nor the head's bias
    ),
    schedule=StepsSpec(
        warmup_epochs=5,  # [paper: text] §2.2
        warmup_start_rate=0.1,  # [paper: text] §5.2: from eta = 0.1, not from zero
        warmup_shape="linear",  # [paper: text] §2.2: a constant amount at each iteration
        drop_epochs=(30, 60, 80),  # [paper: text] §5.1
        drop_factor=0.1,  # [paper: text] §5.1
    ),
    expected=Expected(23.74, std=0.09, runs=5, source="Table 1"),  # [paper: text] Table 1
    notes=(
        "pictures are decoded and resized by TensorFlow, not Torch: effect not measured",
        "the logarithm of a crop's aspect is uniform; fb.resnet.torch has its root uniform, and "
        "the sides swapped half of the time",
        "no colour jitter or lighting noise: the paper does not mention them",
        "no decay on the classifier's bias: the paper does not say",
    ),
)

# Ours: the same k = 32 and the same rates at the two ends, on data that ships with scikit-learn.
# What other miniatures take over is this: data, network, course.
SMALL = replace(
    RECIPE,
    name="goyal_8k_miniature",
    data=DigitsSpec(
        shift=1,  # ours: the augmentation that 8 x 8 pixels allow
        noise=0.3,  # ours: without noise every row reaches the same error
    ),
    model=replace(
        RECIPE.model,
        architecture="digits_resnet",  # ours: 78 thousand weights
        bn_batch=8,  # ours: n = 8 at every global batch, as the paper keeps n = 32
    ),
    global_batch=8,  # ours: n
    epochs=30,  # ours: a third of §5.1
    reference_batch=8,  # ours: so that eta is 0.1 at n and 3.2 at 32 n, the paper's two rates
    schedule=StepsSpec(
        drop_epochs=(10, 20, 80 / 3),  # ours: a third of §5.1's 30, 60, 80
        drop_factor=0.1,  # [paper: text] §5.1
    ),
    expected=None,
    notes=(),
)
LARGE = replace(SMALL, global_batch=256)  # ours: k = 32
WARMUP = replace(
    SMALL.schedule,
    warmup_epochs=5,  # [paper: text] §2.2
    warmup_start_rate=0.1,  # [paper: text] §5.2: the small batch's rate
)

# Half of the paper's rates: at 0.1 and 3.2 even warmup does not hold the linear rule on this data,
# and at a quarter of them it is not needed. docs/claims/warmup shows every rate, and both gammas.
BASE = replace(
    SMALL,
    reference_rate=0.05,  # ours: so that eta is 0.05 at n and 1.6 at 32 n
    model=replace(SMALL.model, last_gamma=1.0),  # ours: zero gamma is a gentle start of its own
)
SCALED = replace(BASE, global_batch=256)  # ours: k = 32
GRADUAL = replace(
    WARMUP,
    warmup_start_rate=0.05,  # ours: the small batch's rate, as §5.2 has it
)

SET_UP = (
    "Goyal's contrast (k = 32, the linear rule, five epochs of warmup from the small batch's rate) "
    "on 8 x 8 digits at half of the paper's rates, 0.05 to 1.6, and gamma 1."
)
MINIATURE = Miniature(
    contrast=f"{SET_UP} The large batch keeps the small one's rate, takes the scaled one at once, "
    "or rises to it, which is the paper's recipe; LARS has the same warmup.",
    rows=(
        Row(
            "small batch",
            "the baseline",
            BASE,
            Expected(23.60, std=0.12, runs=5, source="Table 1"),  # [paper: text] Table 1
        ),
        Row(
            "large, same rate",
            "fewer updates at the small batch's rate lose accuracy",
            replace(SCALED, scaling="none"),
            Expected(41.67, std=0.10, runs=5, source="Table 2a, recalled"),  # [recall] Table 2(a)
        ),
        Row(
            "linear, no warmup",
            "the scaled rate from the first update is unstable",
            SCALED,
            Expected(24.84, std=0.37, runs=5, source="Table 1, recalled"),  # [recall] Table 1
        ),
        Row(
            "linear, warmup",
            "the paper's recipe: linear rate, gradual warmup",
            replace(SCALED, schedule=GRADUAL),
            RECIPE.expected,
        ),
        Row(
            "LARS, warmup",
            "a rate per tensor (arXiv:1708.03888), not part of the paper",
            replace(
                SCALED,
                reference_rate=16.0,  # ours
                scaling="none",  # ours
                optimizer=LARSSpec(
                    momentum=0.9,  # [code: borisgin/nvcaffe models/*/solver*.prototxt]
                    weight_decay=1e-4,  # ours: as the other rows
                    trust_coefficient=0.001,  # [paper: digest] 1708.03888
                ),
                schedule=GRADUAL,
            ),
        ),
    ),
    claims=(
        Contrast(
            "linear, warmup",
            "small batch",
            "no_worse",
            "with the scaled rate and warmup the large batch loses nothing",
        ),
        Contrast("large, same rate", "linear, warmup", "more", "the rate must be scaled"),
        Contrast("linear, no warmup", "linear, warmup", "more", "the scaled rate needs a warmup"),
        Contrast("LARS, warmup", "linear, warmup", "no_worse", "LARS is at least as good"),
    ),
)


def small(
    recipe: Recipe,
    *,
    rate: float,
    batch: int = 256,  # ours: k = 32
    reference_batch: int = 256,  # ours: k = 32
    epochs: float = 30,  # ours: a third of §5.1
    **changes: Any,
) -> Recipe:
    """Returns another paper's recipe at this scale: its update rule, and its course squeezed.

    Args:
        recipe: as published.
        rate: at `reference_batch`.
        batch: images per update.
        reference_batch: where the rate holds.
        epochs: length of the training.
        changes: any other field of the recipe that differs.
    """
    scaled = {
        "name": f"{recipe.name}_miniature",
        "row": None,
        "data": SMALL.data,
        "model": replace(recipe.model, architecture="digits_resnet", bn_batch=8),  # ours
        "global_batch": batch,
        "epochs": epochs,
        "reference_rate": rate,
        "reference_batch": reference_batch,
        "schedule": recipe.schedule.stretched(epochs / recipe.epochs),
        "precision": "float32",
        "wire": "float32",
        "stop": None,
        "expected": None,
        "notes": (),
    }
    return replace(recipe, **(scaled | changes))


def rows(*labels: str) -> tuple[Row, ...]:
    """Returns the miniature's rows of these labels, for the paper's other rows to share."""
    return tuple(row for row in MINIATURE.rows if row.label in labels)


if __name__ == "__main__":
    main(RECIPE, MINIATURE)
