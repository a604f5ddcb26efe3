"""ResNet-50 on ImageNet with LARS up to 32,768 images: You et al. 2017, arXiv:1708.03888.

Expect 73.0, 72.7, 73.0 and 72.3 % top-1 accuracy at 256, 8,192, 16,384 and 32,768 images after 90
epochs: weak augmentation, so nothing here compares with 76 %. "sgd-8k" is Goyal et al.'s course
with it: 73 % too.

    python -m tf_largebatch.recipes.you_resnet50 --row 32k --data DIR  # else: its miniature

The rows that begin with "later-" are the rates of a later manuscript of the same work.
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k, you_alexnet
from tf_largebatch.records.recipe import (
    Contrast,
    Expected,
    ImageNetSpec,
    LARSSpec,
    Miniature,
    ModelSpec,
    PolynomialSpec,
    Recipe,
    Row,
    SGDSpec,
)
from tf_largebatch.training.command import main

NOTES = (
    "224 pixels at random from a picture whose shorter side is 256 are a square of 57 % of a "
    "picture of 4 : 3; here it is that share of every picture. The authors' files read pictures of "
    "256 x 256, stretched or cut",
    "images per batch norm at more than 256 are not published: 32, whatever the batch",
)
LARS_NOTES = (
    "rates are those of the authors' logs, for a trust coefficient of 0.001; the paper prints a "
    "tenth of the last two",
    "batch norm and biases have no ratio and no decay, as in all later work; the authors' solver "
    "leaves nothing out",
    "the course counts from the first update, as the paper's formula: the rate drops where the "
    "warmup ends, which later codes avoid",
)
LATER = "rates, warmup, decay and epochs of a later manuscript (2018), read in a third-party copy"

SGD_256 = Recipe(
    name="you_resnet50",
    row="256",
    title="You et al. 2017, LARS: ResNet-50 with SGD at 256 images per update",
    paper="arXiv:1708.03888",
    data=ImageNetSpec(
        image_size=224,  # [code: borisgin/nvcaffe models/resnet50/train_val.prototxt]
        min_area=0.574,  # [derived] 224^2 of 256 x 341, a picture of 4 : 3
        max_area=0.574,  # [derived] as min_area
        min_aspect=1.0,  # [unknown] a square cut out of the picture, not stretched
        max_aspect=1.0,  # [unknown] as min_aspect
        eval_short_side=256,  # [code: borisgin/nvcaffe models/resnet50/train_val.prototxt]
    ),
    model=ModelSpec(
        architecture="resnet50_v1",  # [code: borisgin/nvcaffe models/resnet50/train_val.prototxt]
        last_gamma=1.0,  # [code: the same] scale_bias starts at 1
        bn_batch=32,  # [derived] 256 images on DGX-1's 8 GPUs, solver.prototxt
        bn_decay=0.9,  # [code: borisgin/nvcaffe models/resnet50/train_val.prototxt]
        bn_epsilon=1e-4,  # [code: the same] in all 53
        head_std=0.03125,  # [code: the same] "msra", sqrt(2 / 2048)
    ),
    global_batch=256,  # [paper: digest] the paper's table of ResNet-50
    epochs=90,  # [paper: digest] the paper's table of ResNet-50
    reference_rate=0.2,  # [code: borisgin/nvcaffe models/resnet50/solver.prototxt] B=256
    reference_batch=256,  # [paper: digest] each batch has its own rate
    scaling="none",  # [paper: digest] the paper's table of ResNet-50
    optimizer=SGDSpec(
        momentum=0.9,  # [code: borisgin/nvcaffe models/*/solver*.prototxt]
        nesterov=False,  # [code: borisgin/nvcaffe models/*/solver*.prototxt]
        weight_decay=1e-4,  # [code: borisgin/nvcaffe ResNet-50 solver, 1,024 images]
        exclude_rank_below=2,  # ours: as Goyal et al.
    ),
    schedule=PolynomialSpec(
        power=2.0,  # [paper: digest] the paper: poly(2)
        end_rate=0.0,  # [paper: digest] the paper
        whole_run=True,  # [code: borisgin/nvcaffe src/caffe/solvers/sgd_solver.cpp]
        warmup_epochs=0,  # [recall] the paper's table of ResNet-50: none at 256
    ),
    expected=Expected(27.0, source="table of ResNet-50"),  # [paper: digest] 73.0 %
    notes=(*NOTES, "an independent run of it (torchlars) reached 73.79 %"),
)

SGD_8K = replace(
    goyal_8k.RECIPE,
    name="you_resnet50",
    row="sgd-8k",
    title="You et al. 2017: Goyal et al.'s ResNet-50 with SGD at 8,192 images, no augmentation",
    paper="arXiv:1708.03888",
    data=SGD_256.data,
    expected=Expected(27.0, source="slides 003"),  # [seed] slides 003: 73 %, as at 256
    notes=(
        *NOTES[:1],  # ours: the crop
        "the slides say that Facebook's recipe was reproduced without its augmentation, at 256 and "
        "at 8,192 images alike: every other number is taken from that paper",
    ),
)

LARS_32K = replace(
    SGD_256,
    row="32k",
    title="You et al. 2017, LARS: ResNet-50 with LARS at 32,768 images per update",
    global_batch=32768,  # [paper: digest] the paper's table of ResNet-50
    reference_rate=29.0,  # [code: kakaobrain/torchlars README] from the authors' logs
    reference_batch=32768,  # [paper: digest] each batch has its own rate
    optimizer=LARSSpec(
        momentum=0.9,  # [code: borisgin/nvcaffe models/*/solver*.prototxt]
        weight_decay=1e-4,  # [code: borisgin/nvcaffe ResNet-50 solver, 1,024 images]
        trust_coefficient=0.001,  # [paper: digest] the paper: eta in all experiments
        epsilon=0.0,  # [paper: digest] the paper's Algorithm 1
        momentum_placement="inside",  # [paper: digest] the paper's Algorithm 1
        decay_in_norm="sum",  # [paper: digest] the paper's Algorithm 1
        exclude_rank_below=2,  # ours: as all later work
    ),
    schedule=replace(
        SGD_256.schedule,
        warmup_epochs=5,  # [recall] the paper's table of ResNet-50
        warmup_start_rate=1.0,  # [code: borisgin/nvcaffe models/*/solver*.prototxt]
        warmup_shape="quadratic",  # [code: borisgin/nvcaffe src/caffe/solvers/sgd_solver.cpp]
    ),
    expected=Expected(27.7, source="table of ResNet-50"),  # [paper: digest] 72.3 %
    notes=(*NOTES, *LARS_NOTES, "an independent run of it (torchlars) reached 72.26 %"),
)


def _lars(row, batch, rate, error, again):
    return replace(
        LARS_32K,
        row=row,
        title=f"You et al. 2017, LARS: ResNet-50 with LARS at {batch:,} images per update",
        global_batch=batch,  # [recall] the paper's table of ResNet-50
        reference_rate=rate,  # [code: kakaobrain/torchlars README] from the authors' logs
        reference_batch=batch,  # [recall] the paper's table of ResNet-50
        expected=Expected(error, source="table of ResNet-50, recalled"),  # [recall]
        notes=(*NOTES, *LARS_NOTES, f"an independent run of it (torchlars) reached {again} %"),
    )


def _later(row, batch, rate, warmup):
    return replace(
        LARS_32K,
        row=row,
        title=f"You et al. 2018, LARS, later manuscript: ResNet-50 at {batch:,} images per update",
        global_batch=batch,  # [recall] the later manuscript
        epochs=100,  # [recall] the later manuscript
        reference_rate=rate,  # [recall] the later manuscript
        reference_batch=batch,  # [recall] the later manuscript
        optimizer=replace(LARS_32K.optimizer, weight_decay=5e-4),  # [recall] the later manuscript
        schedule=replace(LARS_32K.schedule, warmup_epochs=warmup),  # [recall] the later manuscript
        expected=None,
        notes=(*NOTES, LATER, *LARS_NOTES[1:]),  # ours: all but where the rates come from
    )


ROWS = {
    "256": SGD_256,
    "sgd-8k": SGD_8K,
    "8k": _lars("8k", 8192, 12.8, 27.3, "73.78"),  # [code: torchlars README]; [recall] 72.7 %
    "16k": _lars("16k", 16384, 25.0, 27.0, "73.36"),  # [code: torchlars README]; [recall] 73.0 %
    "32k": LARS_32K,
    "later-256": _later("later-256", 256, 4.0, 0),  # [recall] the later manuscript
    "later-1k": _later("later-1k", 1024, 9.0, 5),  # [recall] the later manuscript
    "later-8k": _later("later-8k", 8192, 30.0, 5),  # [recall] the later manuscript
    "later-16k": _later("later-16k", 16384, 33.0, 12),  # [recall] the later manuscript
    "later-32k": _later("later-32k", 32768, 40.0, 12),  # [recall] the later manuscript
}
RECIPE = ROWS["32k"]


# Ours: the same course and update rules on digits, 90 epochs in 30.
def small(recipe, batch, rate, epochs=30):  # ours: a third
    """Returns a recipe of this family at the miniature's scale."""
    own = recipe.reference_batch  # each batch has its own rate
    name = "you_resnet50_miniature"
    model = replace(goyal_8k.SMALL.model, last_gamma=1.0)  # ours: gamma 1 as the authors' files
    return goyal_8k.small(
        recipe, name=name, rate=rate, batch=batch, reference_batch=own, epochs=epochs, model=model
    )


MINIATURE = Miniature(
    contrast="The polynomial course over the whole run at 128 images and at 32 times that, as "
    "8,192 is of 256, in 12 epochs of Fashion-MNIST, for a fully connected network: digits and "
    "batch norm leave LARS nothing to mend. Each row at the best of five rates.",
    rows=(
        Row(
            "SGD, 128",
            "the baseline",
            you_alexnet.fashion(SGD_256, batch=128, rate=0.1),  # ours
            SGD_256.expected,
            of="256",
        ),
        Row(
            "SGD, 4,096",
            "the same rule at the best rate; not a row of the paper",
            you_alexnet.fashion(
                ROWS["8k"],
                batch=4096,  # ours
                rate=0.2,  # ours
                optimizer=SGD_256.optimizer,
                schedule=replace(
                    ROWS["8k"].schedule.stretched(12 / 90),  # ours: 12 epochs for 90
                    warmup_start_rate=0.0,  # ours: LARS's starts at 1, where SGD diverges
                ),
            ),
        ),
        Row(
            "LARS, 4,096",
            "a rate per tensor",
            you_alexnet.fashion(ROWS["8k"], batch=4096, rate=8.0),  # ours
            ROWS["8k"].expected,
            of="8k",
        ),
    ),
    claims=(
        Contrast(
            "LARS, 4,096",
            "SGD, 128",
            "no_worse",
            "LARS loses nothing at 32 times the batch",
            smallest=0.5,  # ours: 50 of 10,000 test images; the paper loses 0.3
        ),
        Contrast(
            "SGD, 4,096",
            "LARS, 4,096",
            "more",
            "LARS holds where SGD does not",
            smallest=0.5,  # ours: 50 of 10,000 test images
        ),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE, rows=ROWS)
