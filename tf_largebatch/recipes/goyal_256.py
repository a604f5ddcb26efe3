"""ResNet-50 on ImageNet with 256 images per update, the baseline of Goyal et al. 2017.

Expect 23.60 +- 0.12 % top-1 error after 90 epochs (Table 1, 5 runs).

    python -m tf_largebatch.recipes.goyal_256 --data DIR  # without --data: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k
from tf_largebatch.records.recipe import Expected, Miniature
from tf_largebatch.training.command import main

RECIPE = replace(
    goyal_8k.RECIPE,
    name="goyal_256",
    title="Goyal et al. 2017, ImageNet in 1 hour: the baseline at 256 images per update",
    global_batch=256,  # [paper: text] §5.1: kn = 256, k = 8 workers of n = 32
    schedule=replace(
        goyal_8k.RECIPE.schedule,
        warmup_epochs=0,  # [paper: text] §5.2: none for the baseline
    ),
    expected=Expected(23.60, std=0.12, runs=5, source="Table 1"),  # [paper: text] Table 1
)

MINIATURE = Miniature(contrast=goyal_8k.SET_UP, rows=goyal_8k.rows("small batch"))

if __name__ == "__main__":
    main(RECIPE, MINIATURE)
