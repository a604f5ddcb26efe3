"""ResNet-50 on ImageNet with LAMB, untuned from 512 to 32,768 images: You et al., arXiv:1904.00962.

Expect 76.96, 77.06, 77.11, 76.92, 76.89, 76.66 and 76.42 % top-1 accuracy: two formulas give the
rate and the warmup of every batch.

    python -m tf_largebatch.recipes.lamb_ladder --row 32k --data DIR  # else: its miniature
"""

from tf_largebatch.recipes import goyal_8k
from tf_largebatch.records.recipe import (
    Contrast,
    Expected,
    LAMBSpec,
    Miniature,
    ModelSpec,
    PolynomialSpec,
    Recipe,
    Row,
)
from tf_largebatch.training.command import main

LARGEST = 32768  # [recall] the table of untuned LAMB


def _row(row, batch, error):
    return Recipe(
        name="lamb_ladder",
        row=row,
        title=f"You et al. 2019, LAMB: ResNet-50 at {batch:,} images per update, untuned",
        paper="arXiv:1904.00962",
        data=goyal_8k.RECIPE.data,
        model=ModelSpec(
            architecture="resnet50",  # [recall] the paper
            last_gamma=0.0,  # [unknown] as Goyal et al.
            bn_batch=32,  # [unknown] per core of a TPU, of a size not stated
            bn_decay=0.9,  # [unknown] as Goyal et al.
            bn_epsilon=1e-5,  # [unknown] as Goyal et al.
            head_std=0.01,  # [unknown] as Goyal et al.
        ),
        global_batch=batch,  # [recall] the table of untuned LAMB
        epochs=90,  # [recall] the table of untuned LAMB
        reference_rate=0.04,  # [recall] the table of untuned LAMB: at 32,768
        reference_batch=LARGEST,  # [recall] the table of untuned LAMB
        scaling="sqrt",  # [recall] the table of untuned LAMB: 4 / (2^x 100), x = 3 ... 0
        optimizer=LAMBSpec(
            beta_1=0.9,  # [recall] the paper, for BERT
            beta_2=0.999,  # [recall] the paper, for BERT
            epsilon=1e-6,  # [recall] the paper, for BERT
            weight_decay=0.01,  # [unknown] the paper's for BERT; for ResNet-50 it gives none
            bias_correction=True,  # [recall] the paper's Algorithm 2
            exclude_rank_below=2,  # [unknown] as the large-batch codes since
        ),
        schedule=PolynomialSpec(
            power=1.0,  # [unknown] the paper's for BERT
            end_rate=0.0,  # [unknown] the paper's for BERT
            warmup_epochs=20 * batch / LARGEST,  # [recall] the table: 20 epochs at 32,768
            warmup_start_rate=0.0,  # [unknown]
            warmup_shape="linear",  # [unknown] the paper's for BERT
        ),
        precision="bfloat16",  # [recall] on TPUs
        expected=Expected(error, source="table of untuned LAMB"),  # [recall]
        notes=(
            "neither the course after the warmup nor the decay is published for ResNet-50: a "
            "straight line and 0.01, as for BERT",
            "augmentation and batch norm are those of Goyal et al.: the paper does not say",
            "the ratio takes the weights' norm as it is: the paper allows for bounds on it",
        ),
    )


ROWS = {
    "512": _row("512", 512, 23.04),  # [recall] 76.96 %
    "1k": _row("1k", 1024, 22.94),  # [recall] 77.06 %
    "2k": _row("2k", 2048, 22.89),  # [recall] 77.11 %
    "4k": _row("4k", 4096, 23.08),  # [recall] 76.92 %
    "8k": _row("8k", 8192, 23.11),  # [recall] 76.89 %
    "16k": _row("16k", 16384, 23.34),  # [recall] 76.66 %
    "32k": _row("32k", 32768, 23.58),  # [recall] 76.42 %
}
RECIPE = ROWS["32k"]

# Ours: 30 epochs for 90, and 256 images for 32,768, with the paper's rate.
MINIATURE = Miniature(
    contrast="The two formulas, rate 0.04 x sqrt(B / largest) and warmup 20 / 90 x B / largest of "
    "the run, at three batches of 8 x 8 digits: no batch is tuned.",
    rows=(
        Row(
            "32 images",
            "an eighth of the largest batch, as 4,096 is",
            goyal_8k.small(ROWS["4k"], rate=0.04, batch=32),  # ours
            ROWS["4k"].expected,
            of="4k",
        ),
        Row(
            "128 images",
            "half of it, as 16,384 is",
            goyal_8k.small(ROWS["16k"], rate=0.04, batch=128),  # ours
            ROWS["16k"].expected,
            of="16k",
        ),
        Row(
            "256 images",
            "the largest: rate 0.04, warmup over two ninths of the run",
            goyal_8k.small(ROWS["32k"], rate=0.04, batch=256),  # ours
            ROWS["32k"].expected,
            of="32k",
        ),
    ),
    claims=(
        Contrast("128 images", "32 images", "no_worse", "untuned LAMB holds at 4 times the batch"),
        Contrast("256 images", "32 images", "no_worse", "and at 8 times"),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE, rows=ROWS)
