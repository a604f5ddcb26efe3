"""ResNet-101 on ImageNet with 256 and 8,192 images per update: Table 2(c) of Goyal et al. 2017.

Expect 22.08 +- 0.06 % top-1 error at 256 images and 22.36 +- 0.09 at 8,192 (5 runs): the recipe of
ResNet-50, unchanged.

    python -m tf_largebatch.recipes.goyal_resnet101 --row 8k --data DIR  # else: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k, goyal_256
from tf_largebatch.records.recipe import Contrast, Expected, Miniature, Row
from tf_largebatch.training.command import main

MODEL = replace(goyal_8k.RECIPE.model, architecture="resnet101")  # [recall] Table 2(c)

ROWS = {
    "256": replace(
        goyal_256.RECIPE,
        name="goyal_resnet101",
        row="256",
        title="Goyal et al. 2017, ImageNet in 1 hour: ResNet-101 at 256 images per update",
        model=MODEL,
        expected=Expected(22.08, std=0.06, runs=5, source="Table 2c, recalled"),  # [recall]
    ),
    "8k": replace(
        goyal_8k.RECIPE,
        name="goyal_resnet101",
        row="8k",
        title="Goyal et al. 2017, ImageNet in 1 hour: ResNet-101 at 8,192 images per update",
        model=MODEL,
        expected=Expected(22.36, std=0.09, runs=5, source="Table 2c, recalled"),  # [recall]
    ),
}
RECIPE = ROWS["8k"]


def _deep(recipe):
    return replace(
        recipe,
        name="goyal_resnet101_miniature",
        model=replace(recipe.model, architecture="resnet20"),  # ours: three times the blocks
    )


MINIATURE = Miniature(
    contrast="A network three times as deep as goyal_8k's miniature, with its recipe unchanged, at "
    "the two ends of k = 32 on 8 x 8 digits: in the paper the deeper network loses 0.28 points.",
    rows=(
        Row(
            "small batch",
            "the baseline of the deeper network",
            _deep(goyal_8k.BASE),
            ROWS["256"].expected,
            of="256",
        ),
        Row(
            "linear, warmup",
            "the recipe as the other network has it",
            _deep(replace(goyal_8k.SCALED, schedule=goyal_8k.GRADUAL)),
            ROWS["8k"].expected,
            of="8k",
        ),
    ),
    claims=(
        Contrast("linear, warmup", "small batch", "no_worse", "the deeper network loses nothing"),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE, rows=ROWS)
