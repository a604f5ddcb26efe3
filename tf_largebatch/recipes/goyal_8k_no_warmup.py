"""Goyal et al. 2017 at 8,192 images per update without warmup: the first ablation of Table 1.

Expect 24.84 +- 0.37 % top-1 error (Table 1, 5 runs), 1.1 points worse than with gradual warmup.

    python -m tf_largebatch.recipes.goyal_8k_no_warmup --data DIR  # without --data: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k
from tf_largebatch.records.recipe import Contrast, Expected, Miniature
from tf_largebatch.training.command import main

RECIPE = replace(
    goyal_8k.RECIPE,
    name="goyal_8k_no_warmup",
    title="Goyal et al. 2017, ImageNet in 1 hour: 8,192 images per update, no warmup",
    schedule=replace(
        goyal_8k.RECIPE.schedule,
        warmup_epochs=0,  # [paper: text] §5.2: "no warmup", eta = 3.2 from the first update
    ),
    expected=Expected(24.84, std=0.37, runs=5, source="Table 1, recalled"),  # [recall] Table 1
)

MINIATURE = Miniature(
    contrast=f"{goyal_8k.SET_UP} In the paper no warmup costs a point.",
    rows=goyal_8k.rows("linear, no warmup", "linear, warmup"),
    claims=(
        Contrast(
            "linear, no warmup",
            "linear, warmup",
            "more",
            "the scaled rate from the first update loses accuracy",
        ),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE)
