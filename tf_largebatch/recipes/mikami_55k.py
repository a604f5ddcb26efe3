"""ResNet-50 on ImageNet with 55,296 images per update: Mikami et al. 2019, arXiv:1811.05233.

Expect 24.71 % top-1 error in 2,086 updates (122 s on 3,456 V100).

    python -m tf_largebatch.recipes.mikami_55k --data DIR  # without --data: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k, jia_64k
from tf_largebatch.records.recipe import (
    Contrast,
    Expected,
    LARSSpec,
    LossSpec,
    Miniature,
    ModelSpec,
    PolynomialSpec,
    Recipe,
    Row,
)
from tf_largebatch.training.command import main

RECIPE = Recipe(
    name="mikami_55k",
    title="Mikami et al. 2019, ImageNet training in a flash: 55,296 images per update",
    paper="arXiv:1811.05233",
    data=jia_64k.CROP,
    model=ModelSpec(
        architecture="resnet50",  # [paper: abstract]
        last_gamma=0.0,  # [unknown] as Goyal et al.
        bn_batch=16,  # [derived] 55,296 / 3,456 GPUs
        bn_decay=0.0,  # [recall] the paper: no moving average, as Akiba et al.
        bn_epsilon=1e-5,  # [unknown] as usual
        head_std=0.01,  # [unknown] as Goyal et al.
    ),
    global_batch=55296,  # [seed] slides 002: 3,456 V100; the paper's abstract has the GPUs
    epochs=90,  # [derived] 2,086 updates of 55,296 images
    reference_rate=2.9,  # [unknown] rate x coefficient 0.029, as LARS at 32K
    reference_batch=55296,  # [unknown]
    scaling="none",  # [unknown]
    optimizer=LARSSpec(
        momentum=0.9,  # [unknown] as usual
        weight_decay=5e-5,  # [unknown] 5e-5 to 1e-4
        trust_coefficient=0.01,  # [recall] the paper
        epsilon=1e-6,  # [recall] the paper
        exclude_rank_below=2,  # [unknown] as all MLPerf code
    ),
    schedule=PolynomialSpec(
        warmup_epochs=25,  # [unknown] 5 to 34; that of NVIDIA's MLPerf v0.6 run at 54,080
        warmup_start_rate=0.0,  # [unknown]
        power=2.0,  # [unknown]
        end_rate=0.0,  # [unknown]
    ),
    loss=LossSpec(label_smoothing=0.1),  # [paper: digest]
    precision="float16",  # [recall] the paper
    wire="float16",  # [recall]
    expected=Expected(24.71, source="slides 002, table 2"),  # [seed] slides 002: 75.29 %
    notes=(
        "rate, warmup, momentum and decay are not known here: rate x coefficient is that of LARS "
        "at 32K, the warmup that of NVIDIA's MLPerf v0.6 run at 54,080",
        "biases and batch norm move at the rate itself: 2.9 here, 29 where the coefficient is "
        "0.001",
    ),
)

# Ours: 32 times the small batch of Goyal's miniature.
SMALL = goyal_8k.small(RECIPE, rate=1.6)  # ours: rate x coefficient 0.016

MINIATURE = Miniature(
    contrast="The paper's two additions to LARS, label smoothing and batch norm without moving "
    "averages, taken away one by one at 32 times the small batch of 8 x 8 digits.",
    rows=(
        Row(
            "as published",
            "label smoothing 0.1, statistics of the last update",
            SMALL,
            RECIPE.expected,
        ),
        Row(
            "no label smoothing",
            "hard targets; its losses are smaller, so compare the errors",
            replace(SMALL, loss=LossSpec()),
        ),
        Row(
            "moving averages",
            "the usual running statistics, decay 0.9",
            replace(SMALL, model=replace(SMALL.model, bn_decay=0.9)),  # ours: as usual
        ),
    ),
    claims=(
        Contrast("no label smoothing", "as published", "more", "label smoothing lowers the error"),
        Contrast(
            "moving averages",
            "as published",
            "more",
            "batch norm without moving averages lowers it",
        ),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE)
