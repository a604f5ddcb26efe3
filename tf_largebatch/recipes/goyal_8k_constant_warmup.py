"""Goyal et al. 2017 at 8,192 images per update, constant warmup: the second ablation of Table 1.

Expect 25.88 +- 0.56 % top-1 error (Table 1, 5 runs): worse than no warmup at all.

    python -m tf_largebatch.recipes.goyal_8k_constant_warmup --data DIR
"""

import dataclasses

from tf_largebatch.recipes import goyal_8k
from tf_largebatch.records.recipe import Expected, Miniature, MiniatureRow
from tf_largebatch.training.command import main

RECIPE = dataclasses.replace(
    goyal_8k.RECIPE,
    name="goyal_8k_constant_warmup",
    title="Goyal et al. 2017, ImageNet in 1 hour: 8,192 images per update, constant warmup",
    schedule=dataclasses.replace(
        goyal_8k.RECIPE.schedule,
        warmup_shape="constant",  # §5.2: eta = 0.1 for 5 epochs, then 3.2 at once
    ),
    expected=Expected(
        top1_error_pct=25.88,  # Table 1: constant warmup
        std_pct=0.56,  # Table 1
        runs=5,  # §5.1
        source="Table 1",
    ),
)

MINIATURE = Miniature(
    contrast=f"{goyal_8k.SET_UP} A constant warmup fails, where the paper loses two points; it and "
    "no warmup at all are not told apart.",
    rows=(
        *goyal_8k.rows("small batch"),
        MiniatureRow(
            label="linear, constant warmup",
            shows="the rate jumps by 32 at epoch 5, when the jump still hurts",
            recipe=dataclasses.replace(
                goyal_8k.LARGE,
                schedule=dataclasses.replace(goyal_8k.WARMUP, warmup_shape="constant"),
            ),
            published=RECIPE.expected,
        ),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE)
