"""Half and twice the rate, no scaling and square-root scaling: Table 2(a) of Goyal et al. 2017.

Expect at 256 images 23.92 and 23.68 % top-1 error with half and twice the rate; at 8,192 images
24.27, 24.05, 41.67 (rate not scaled) and 26.22 % (square root), where the linear rule gives 23.74.

    python -m tf_largebatch.recipes.goyal_rates --row 8k-sqrt --data DIR  # else: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k, goyal_256
from tf_largebatch.records.recipe import Contrast, Expected, Miniature, Row
from tf_largebatch.training.command import main


def _small_batch(row, rate, error, std):
    return replace(
        goyal_256.RECIPE,
        name="goyal_rates",
        row=row,
        title=f"Goyal et al. 2017, ImageNet in 1 hour: rate {rate:g} at 256 images per update",
        reference_rate=rate,  # [recall] Table 2(a)
        expected=Expected(error, std=std, runs=5, source="Table 2a, recalled"),  # [recall]
    )


def _large_batch(row, rate, scaling, error, std):
    return replace(
        goyal_8k.RECIPE,
        name="goyal_rates",
        row=row,
        title=f"Goyal et al. 2017, ImageNet in 1 hour: rate {rate:g}, scaling {scaling}, at 8,192 "
        "images per update",
        reference_rate=rate,  # [recall] Table 2(a)
        scaling=scaling,  # [recall] Table 2(a)
        schedule=replace(
            goyal_8k.RECIPE.schedule,
            warmup_start_rate=rate,  # [paper: text] §2.2: the small batch's
        ),
        expected=Expected(error, std=std, runs=5, source="Table 2a, recalled"),  # [recall]
    )


ROWS = {
    "256-half": _small_batch("256-half", 0.05, 23.92, 0.10),  # [recall] Table 2(a)
    "256-double": _small_batch("256-double", 0.2, 23.68, 0.09),  # [recall] Table 2(a)
    "8k-half": _large_batch("8k-half", 0.05, "linear", 24.27, 0.08),  # [recall] 0.05 x 32
    "8k-double": _large_batch("8k-double", 0.2, "linear", 24.05, 0.18),  # [recall] 0.2 x 32
    "8k-none": _large_batch("8k-none", 0.1, "none", 41.67, 0.10),  # [recall] Table 2(a): 0.1
    "8k-sqrt": _large_batch("8k-sqrt", 0.1, "sqrt", 26.22, 0.03),  # [recall] 0.1 x sqrt 32
}
RECIPE = ROWS["8k-sqrt"]


def _large(rate, scaling):
    return replace(
        goyal_8k.LARGE,
        name="goyal_rates_miniature",
        reference_rate=rate,  # [recall] Table 2(a)
        scaling=scaling,
        schedule=replace(goyal_8k.WARMUP, warmup_start_rate=rate),  # [paper: text] §2.2
    )


MINIATURE = Miniature(
    contrast="Four of the paper's rates for the large batch, k = 32 times the small one, on 8 x 8 "
    "digits.",
    rows=(
        Row(
            "not scaled",
            "rate 0.1: far too little progress in so few updates",
            _large(0.1, "none"),  # [recall] Table 2(a)
            ROWS["8k-none"].expected,
            of="8k-none",
        ),
        Row(
            "square root",
            "rate 0.1 x sqrt 32 = 0.57: far better than none",
            _large(0.1, "sqrt"),  # [recall] Table 2(a)
            ROWS["8k-sqrt"].expected,
            of="8k-sqrt",
        ),
        Row(
            "half of linear",
            "rate 0.05 x 32 = 1.6",
            _large(0.05, "linear"),  # [recall] Table 2(a)
            ROWS["8k-half"].expected,
            of="8k-half",
        ),
        Row(
            "linear",
            "rate 0.1 x 32 = 3.2: the paper's rule",
            _large(0.1, "linear"),  # [recall] Table 2(a)
            goyal_8k.RECIPE.expected,
        ),
    ),
    claims=(
        Contrast("not scaled", "linear", "more", "the unscaled rate loses"),
        Contrast("square root", "linear", "more", "the square root loses"),
        Contrast("linear", "half of linear", "no_worse", "half the rate is no better"),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE, rows=ROWS)
