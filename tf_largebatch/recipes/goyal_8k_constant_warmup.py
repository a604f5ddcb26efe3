"""Goyal et al. 2017 at 8,192 images per update, constant warmup: the second ablation of Table 1.

Expect 25.88 +- 0.56 % top-1 error (Table 1, 5 runs): worse than no warmup at all.

    python -m tf_largebatch.recipes.goyal_8k_constant_warmup --data DIR  # else: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k
from tf_largebatch.records.recipe import Contrast, Expected, Miniature, Row
from tf_largebatch.training.command import main

RECIPE = replace(
    goyal_8k.RECIPE,
    name="goyal_8k_constant_warmup",
    title="Goyal et al. 2017, ImageNet in 1 hour: 8,192 images per update, constant warmup",
    schedule=replace(
        goyal_8k.RECIPE.schedule,
        warmup_shape="constant",  # [paper: text] §5.2: eta = 0.1 for 5 epochs, then 3.2 at once
    ),
    expected=Expected(25.88, std=0.56, runs=5, source="Table 1, recalled"),  # [recall] Table 1
)

MINIATURE = Miniature(
    contrast=f"{goyal_8k.SET_UP} In the paper a constant warmup costs two points.",
    rows=(
        Row(
            "linear, constant warmup",
            "the rate jumps by 32 at epoch 5, when the jump still hurts",
            replace(goyal_8k.SCALED, schedule=replace(goyal_8k.GRADUAL, warmup_shape="constant")),
            RECIPE.expected,
        ),
        *goyal_8k.rows("linear, warmup"),
    ),
    claims=(
        Contrast(
            "linear, constant warmup", "linear, warmup", "more", "a constant warmup is not enough"
        ),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE)
