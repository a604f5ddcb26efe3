"""AlexNet with batch norm, SGD against LARS up to 32K images: You et al. 2017, arXiv:1708.03888.

Expect 60.2, 58.9 and 58.0 % top-1 accuracy with SGD at 512, 4,096 and 8,192 images, and with LARS
60.2, 60.4, 60.1, 59.3 and 57.8 % at 512 to 32,768 (59.9 % there in 200 epochs).

    python -m tf_largebatch.recipes.you_alexnet_bn --row lars-32k --data DIR  # else: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k, you_alexnet
from tf_largebatch.records.recipe import Contrast, Expected, Miniature, ModelSpec, Row
from tf_largebatch.training.command import main

NOTES = (
    you_alexnet.NOTES[0],  # ours: the crop
    "statistics are those of a GPU: the files read 8,192 images over 8 GPUs from a batch of 8,192 "
    "on (`iter_size` 1, 2 and 4), here an eighth of the batch and at most 1,024",
)
MODEL = ModelSpec(
    architecture="alexnet_bn",  # [code: borisgin/nvcaffe models/alexnet_bn/train_val2.prototxt]
    bn_batch=1024,  # [derived] batch_size 8192 of train_val2.prototxt on slides 003's 8 GPUs
    bn_decay=0.9,  # [code: borisgin/nvcaffe models/alexnet_bn/train_val2.prototxt]
    bn_epsilon=1e-4,  # [code: borisgin/nvcaffe models/alexnet_bn/train_val2.prototxt]
    head_std=0.01,  # [code: borisgin/nvcaffe models/alexnet_bn/train_val2.prototxt]
    dropout=0.5,  # [code: borisgin/nvcaffe models/alexnet_bn/train_val2.prototxt]
)


def _sgd(row, batch, rate, error):
    return replace(
        you_alexnet.SGD_512,
        name="you_alexnet_bn",
        row=row,
        title=f"You et al. 2017, LARS: AlexNet-BN with SGD at {batch:,} images per update",
        model=replace(MODEL, bn_batch=batch // 8),  # [derived] slides 003: 8 GPUs
        global_batch=batch,  # [seed] slides 003
        epochs=128,  # [seed] slides 003
        reference_rate=rate,  # [seed] slides 003
        reference_batch=batch,  # [seed] slides 003: each batch has its own rate
        expected=Expected(error, source="slides 003"),  # [seed] slides 003
        notes=(*NOTES, "no warmup is stated for SGD"),
    )


def _lars(row, batch, rate, error):
    return replace(
        you_alexnet.LARS_8192,
        name="you_alexnet_bn",
        row=row,
        title=f"You et al. 2017, LARS: AlexNet-BN with LARS at {batch:,} images per update",
        model=replace(MODEL, bn_batch=batch // 8),  # [derived] slides 003: 8 GPUs
        global_batch=batch,  # [seed] slides 003
        reference_rate=rate,  # [derived] slides 003's 0.05, 0.10 and 0.14, times 0.1 / 0.001
        reference_batch=batch,  # [seed] slides 003: each batch has its own rate
        schedule=replace(you_alexnet.LARS_8192.schedule, warmup_epochs=2),  # [seed] slides 003
        expected=Expected(error, source="slides 003"),  # [seed] slides 003
        notes=(*NOTES, you_alexnet.LARS_NOTE),
    )


LARS_32K = replace(
    you_alexnet.LARS_8192,
    name="you_alexnet_bn",
    row="lars-32k",
    title="You et al. 2017, LARS: AlexNet-BN with LARS at 32,768 images per update",
    model=MODEL,
    global_batch=32768,  # [paper: digest] the paper
    reference_rate=22.0,  # [recall] the paper's table
    reference_batch=32768,  # [paper: digest] the paper: each batch has its own rate
    schedule=replace(you_alexnet.LARS_8192.schedule, warmup_epochs=5),  # [recall] the paper's table
    expected=Expected(42.2, source="the paper's table"),  # [paper: digest] 57.8 %
    notes=(*NOTES, you_alexnet.LARS_NOTE, "the authors' solver file has rate 32, ramp 10 epochs"),
)

ROWS = {
    "sgd-512": _sgd("sgd-512", 512, 0.02, 39.8),  # [seed] slides 003: 60.2 %
    "sgd-4096": _sgd("sgd-4096", 4096, 0.18, 41.1),  # [seed] slides 003: 58.9 %
    "sgd-8192": _sgd("sgd-8192", 8192, 0.30, 42.0),  # [seed] slides 003: 58.0 %
    "lars-512": _lars("lars-512", 512, 5.0, 39.8),  # [seed] slides 003: 60.2 %
    "lars-4096": _lars("lars-4096", 4096, 10.0, 39.6),  # [seed] slides 003: 60.4 %
    "lars-8192": _lars("lars-8192", 8192, 14.0, 39.9),  # [seed] slides 003: 60.1 %
    "lars-16k": replace(
        LARS_32K,
        row="lars-16k",
        title="You et al. 2017, LARS: AlexNet-BN with LARS at 16,384 images per update",
        global_batch=16384,  # [recall] the paper's table
        reference_rate=23.0,  # [recall] the paper's table
        reference_batch=16384,  # [recall] the paper's table
        expected=Expected(40.7, source="the paper's table"),  # [recall] 59.3 %
        notes=(
            *NOTES,
            you_alexnet.LARS_NOTE,
            "the authors' solver file has rate 24, ramp 5 epochs",
        ),
    ),
    "lars-32k": LARS_32K,
    "lars-32k-200": replace(
        LARS_32K,
        row="lars-32k-200",
        title="You et al. 2017, LARS: AlexNet-BN with LARS at 32,768 images, 200 epochs",
        epochs=200,  # [paper: digest] the paper
        reference_rate=22.0,  # [unknown] as in 100 epochs
        schedule=replace(LARS_32K.schedule, warmup_epochs=5),  # [unknown] as in 100 epochs
        expected=Expected(40.1, source="the paper"),  # [paper: digest] 59.9 %
    ),
}
RECIPE = LARS_32K


# Ours: the same course and update rules on digits, 100 epochs in 30.
def _small(recipe, batch, rate, epochs):
    return goyal_8k.small(
        recipe,
        rate=rate,
        batch=batch,
        reference_batch=recipe.reference_batch,
        epochs=epochs,
        model=goyal_8k.SMALL.model,
    )


MINIATURE = Miniature(
    contrast="SGD at the small batch, SGD and LARS at 8 times that, and LARS at 16 times, also in "
    "twice the epochs, on 8 x 8 digits.",
    rows=(
        Row(
            "SGD, small batch",
            "the baseline",
            _small(ROWS["sgd-512"], 32, 0.1, 30),  # ours
            ROWS["sgd-512"].expected,
            of="sgd-512",
        ),
        Row(
            "SGD, 8 times",
            "the paper's best rate is 9 times the small batch's, and loses 1.3 points",
            _small(ROWS["sgd-4096"], 256, 0.9, 30),  # ours: 0.18 / 0.02 times the baseline's
            ROWS["sgd-4096"].expected,
            of="sgd-4096",
        ),
        Row(
            "LARS, 8 times",
            "a rate per tensor; the paper loses nothing",
            _small(ROWS["lars-4096"], 256, 50.0, 30),  # ours
            ROWS["lars-4096"].expected,
            of="lars-4096",
        ),
        Row(
            "LARS, 16 times",
            "few updates: accuracy is lost",
            _small(ROWS["lars-32k"], 512, 64.0, 30),  # ours
            ROWS["lars-32k"].expected,
            of="lars-32k",
        ),
        Row(
            "LARS, 16 times, twice the epochs",
            "most of it comes back",
            _small(ROWS["lars-32k-200"], 512, 64.0, 60),  # ours
            ROWS["lars-32k-200"].expected,
            of="lars-32k-200",
        ),
    ),
    claims=(
        Contrast("SGD, 8 times", "LARS, 8 times", "more", "LARS holds where SGD does not"),
        Contrast(
            "LARS, 8 times",
            "SGD, small batch",
            "no_worse",
            "LARS loses nothing at 8 times the batch",
        ),
        Contrast(
            "LARS, 16 times",
            "LARS, 16 times, twice the epochs",
            "more",
            "at 16 times it does, and twice the epochs recover",
        ),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE, rows=ROWS)
