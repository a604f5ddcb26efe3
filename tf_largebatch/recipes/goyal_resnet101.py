"""ResNet-101 on ImageNet with 256 and 8,192 images per update: Table 2(c) of Goyal et al. 2017.

Expect 22.08 +- 0.06 % top-1 error at 256 images and 22.36 +- 0.09 at 8,192 (5 runs): the recipe of
ResNet-50, unchanged.

    python -m tf_largebatch.recipes.goyal_resnet101 --row 8k --data DIR  # else: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k, goyal_256
from tf_largebatch.records.recipe import Expected, Miniature
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

MINIATURE = Miniature(
    contrast="The miniature of goyal_8k: 8 x 8 digits need no deeper network, so it mirrors the "
    "recipe that ResNet-101 takes over unchanged, not the depth.",
    rows=tuple(
        replace(row, published=published)
        for row, published in (
            (goyal_8k.rows("large, same rate")[0], None),  # ours: no such row of ResNet-101
            (goyal_8k.rows("linear, warmup")[0], ROWS["8k"].expected),  # [recall] Table 2(c)
        )
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE, rows=ROWS)
