"""ResNet-50 on ImageNet with 64 to 65,536 images per update: Figure 1 of Goyal et al. 2017.

Expect 23.5 to 23.7 % top-1 error up to 8,192 images, then 24.79, 27.55 and 33.96 % (5 runs each):
the linear rule with gradual warmup has an end.

    python -m tf_largebatch.recipes.goyal_sweep --row 64k --data DIR  # else: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k, goyal_256
from tf_largebatch.records.recipe import Contrast, Expected, Miniature, Row
from tf_largebatch.training.command import main

# Figure 1 has points without numbers; these are in the legends of another figure.
CURVES = "legends of the training curves, recalled"


def _row(row, batch, warmup, error=0.0, std=None, runs=None):  # ours: replaced where 0
    return replace(
        goyal_8k.RECIPE,
        name="goyal_sweep",
        row=row,
        title=f"Goyal et al. 2017, ImageNet in 1 hour: ResNet-50 at {batch:,} images per update",
        global_batch=batch,  # [recall] Fig. 1: kn, in workers of n = 32
        schedule=replace(
            goyal_8k.RECIPE.schedule,
            warmup_epochs=warmup,  # [recall] Fig. 1: gradual warmup above 256 images only
        ),
        expected=Expected(error, std=std, runs=runs, source=CURVES),  # [recall]
    )


ROWS = {
    "64": _row("64", 64, 0, 23.5, None, None),  # [recall] near 23.5, Fig. 1
    "128": _row("128", 128, 0, 23.49, 0.12, 5),  # [recall] Fig. 1
    "256": replace(_row("256", 256, 0), expected=goyal_256.RECIPE.expected),  # [recall] Fig. 1
    "512": _row("512", 512, 5, 23.48, 0.09, 5),  # [recall] Fig. 1
    "1k": _row("1k", 1024, 5, 23.53, 0.08, 5),  # [recall] Fig. 1
    "2k": _row("2k", 2048, 5, 23.49, 0.11, 5),  # [recall] Fig. 1
    "4k": _row("4k", 4096, 5, 23.56, 0.12, 5),  # [recall] Fig. 1
    "8k": replace(_row("8k", 8192, 5), expected=goyal_8k.RECIPE.expected),  # [recall] Fig. 1
    "16k": _row("16k", 16384, 5, 24.79, 0.27, 5),  # [recall] Fig. 1
    "32k": _row("32k", 32768, 5, 27.55, 0.28, 5),  # [recall] Fig. 1
    "64k": _row("64k", 65536, 5, 33.96, 0.80, 5),  # [recall] Fig. 1
}
RECIPE = ROWS["16k"]  # the first batch beyond the end of the linear rule


def _small(batch, warmup):
    return replace(
        goyal_8k.SMALL,
        name="goyal_sweep_miniature",
        global_batch=batch,  # ours
        schedule=replace(
            goyal_8k.WARMUP,
            warmup_epochs=warmup,  # ours: a third of §5.1's run, but its own five epochs
        ),
    )


MINIATURE = Miniature(
    contrast="The linear rule (rate 0.1 at 8 images) at four batches of 8 x 8 digits: in "
    "Figure 1 the error stays, then leaves the plateau. The batches are the miniature's own.",
    rows=(
        Row("32 images", "the plateau", _small(32, 0), ROWS["256"].expected, of="256"),  # ours
        Row(
            "128 images",
            "the same error in a quarter of the updates",
            _small(128, 5),  # ours
            ROWS["8k"].expected,
            of="8k",
        ),
        Row(
            "256 images",
            "the rule begins to fail",
            _small(256, 5),  # ours: twice the last, as 16k is of 8k
            ROWS["16k"].expected,
            of="16k",
        ),
        Row("512 images", "and fails", _small(512, 5), ROWS["32k"].expected, of="32k"),  # ours
    ),
    claims=(
        Contrast("128 images", "32 images", "equal", "the error stays up to a batch"),
        Contrast("256 images", "128 images", "more", "twice that batch loses"),
        Contrast("512 images", "256 images", "more", "four times it loses more"),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE, rows=ROWS)
