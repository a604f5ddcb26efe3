"""ResNet-50 on ImageNet, 8,192 images per update growing to 16,384: Smith et al. 2017.

arXiv:1711.00489. Expect 23.9 % top-1 error: a growing batch replaces half of a drop of the rate.

    python -m tf_largebatch.recipes.smith_16k --data DIR  # without --data: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k
from tf_largebatch.records.recipe import Contrast, Expected, Miniature, Row, StepsSpec
from tf_largebatch.training.command import main

RECIPE = replace(
    goyal_8k.RECIPE,  # [recall] the paper: the recipe of Goyal et al., but for what follows
    name="smith_16k",
    title="Smith et al. 2017, Don't decay the learning rate, increase the batch size: ResNet-50",
    paper="arXiv:1711.00489",
    model=replace(goyal_8k.RECIPE.model, bn_batch=32),  # [recall] ghost batch norm
    global_batch=8192,  # [seed] slides 002: 8,192 to 16,384
    growth=((30, 16384),),  # [recall] at the first drop; [seed] slides 002: 16,384
    optimizer=replace(
        goyal_8k.RECIPE.optimizer,
        momentum=0.9,  # [recall]
        nesterov=False,  # [unknown] the paper says momentum; Goyal et al. find both the same
    ),
    schedule=StepsSpec(
        warmup_epochs=5,  # [recall] as Goyal et al.
        warmup_start_rate=0.1,  # [recall] as Goyal et al.
        drop_epochs=(30, 60, 80),  # [recall]
        drop_shares=(0.2, 0.02, 0.002),  # [recall] / 5 with the batch x 2 for x 0.1, then x 0.1
    ),
    expected=Expected(23.9, source="slides 002, table 1"),  # [seed] slides 002: 76.1 %
    notes=(
        "epochs, drops and ghost batch norm are recalled; 8,192 to 16,384 and 76.1 % are in the "
        "survey slides",
        "without the growth (growth=(), drops x 0.1) the paper finds the same 76.1 %",
    ),
)

# Ours: 64 to 128 digits for 8,192 to 16,384, the small batch of Goyal's miniature being 8.
GROWING = replace(
    goyal_8k.SMALL,
    name="smith_16k_miniature",
    global_batch=64,  # ours
    growth=((10, 128),),  # ours: twice, after a third of the epochs
    optimizer=RECIPE.optimizer,
    schedule=replace(
        RECIPE.schedule,
        warmup_epochs=5 / 3,  # ours: a third
        drop_epochs=(10, 20, 80 / 3),  # ours: a third
    ),
)
DECAYING = replace(
    GROWING,
    growth=(),
    schedule=replace(
        GROWING.schedule,
        drop_shares=(0.1, 0.01, 0.001),  # [recall] the paper: the usual schedule
    ),
)

MINIATURE = Miniature(
    contrast="The same noise scale (rate / batch) by a smaller rate and by a larger batch, at "
    "equal epochs, with a third fewer updates.",
    rows=(
        Row("rate decays", "the usual schedule: the rate to a tenth at each drop", DECAYING),
        Row(
            "batch doubles",
            "the first drop is shared: the rate to a fifth, the batch times two",
            GROWING,
            RECIPE.expected,
        ),
        Row(
            "batch times ten",
            "the whole first drop by the batch: the rate stays until the second",
            replace(
                GROWING,
                growth=((10, 640),),  # ours: half the images at once, far beyond the paper's N / 10
                schedule=replace(
                    GROWING.schedule,
                    drop_shares=(1.0, 0.1, 0.01),  # [recall] the first drop is the batch's
                ),
            ),
        ),
    ),
    claims=(
        Contrast(
            "batch doubles",
            "rate decays",
            "equal",
            "a growing batch ends where a falling rate does",
        ),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE)
