"""How long should the warmup be? ResNet-50 at 7,680 and 30,720 images: poster of McCord & Dash.

Expect, from its curves, the best of 0, 5, 10 and 20 epochs to be 5 at 7,680 images and 10 at
30,720, none to be the worst of both, and no difference between scaled and unscaled rates.

    python -m tf_largebatch.recipes.mccord_dash --row 30720-warmup10 --data DIR
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k
from tf_largebatch.records.recipe import (
    Contrast,
    ImageNetSpec,
    Miniature,
    ModelSpec,
    Recipe,
    Row,
    SGDSpec,
    StepsSpec,
)
from tf_largebatch.training.command import main


def _key(batch, warmup, scaling):
    return f"{batch}-warmup{warmup}" + ("" if scaling == "linear" else "-unscaled")


def _row(batch, warmup, scaling):
    return Recipe(
        name="mccord_dash",
        row=_key(batch, warmup, scaling),
        title=f"McCord & Dash: ResNet-50 at {batch:,} images per update, {warmup} epochs of warmup",
        paper="poster",
        data=ImageNetSpec(
            image_size=224,  # [code: horovod pytorch_imagenet_resnet50.py]
            min_area=0.08,  # [code: horovod pytorch_imagenet_resnet50.py]
            max_area=1.0,  # [code: horovod pytorch_imagenet_resnet50.py]
            min_aspect=3 / 4,  # [code: horovod pytorch_imagenet_resnet50.py]
            max_aspect=4 / 3,  # [code: horovod pytorch_imagenet_resnet50.py]
            eval_short_side=256,  # [code: horovod pytorch_imagenet_resnet50.py]
        ),
        model=ModelSpec(
            architecture="resnet50",  # [seed] slides 000
            last_gamma=1.0,  # [code: horovod pytorch_imagenet_resnet50.py]
            bn_batch=128,  # [derived] 7,680 images on 10 nodes of 6 GPUs
            bn_decay=0.9,  # [recall] PyTorch's default
            bn_epsilon=1e-5,  # [recall] PyTorch's default
            head_std=0.0128,  # [recall] that of PyTorch's default, U(-1, 1) / sqrt(2048)
        ),
        global_batch=batch,  # [seed] slides 000: 7,680; [derived] 30K as 40 such nodes
        epochs=90,  # [seed] slides 000
        whole_epochs=True,  # [code: horovod pytorch_imagenet_resnet50.py] len(train_loader)
        reference_rate=0.0125,  # [seed] slides 000
        reference_batch=128,  # [derived] the rate of one GPU
        scaling=scaling,  # [seed] slides 000: with and without
        optimizer=SGDSpec(
            momentum=0.9,  # [code: horovod pytorch_imagenet_resnet50.py]
            nesterov=False,  # [code: horovod pytorch_imagenet_resnet50.py]
            weight_decay=5e-5,  # [code: horovod pytorch_imagenet_resnet50.py]
            exclude_rank_below=0,  # [code: horovod pytorch_imagenet_resnet50.py]
        ),
        schedule=StepsSpec(
            warmup_epochs=warmup,  # [seed] slides 000
            warmup_start_rate=0.0125,  # [code: horovod pytorch_imagenet_resnet50.py]
            warmup_shape="linear",  # [code: horovod pytorch_imagenet_resnet50.py]
            drop_epochs=(30, 60, 80),  # [code: horovod pytorch_imagenet_resnet50.py]
            drop_factor=0.1,  # [code: horovod pytorch_imagenet_resnet50.py]
        ),
        notes=(
            "the poster shows curves and few numbers; the rest is Horovod's PyTorch example, whose "
            "rate of 0.0125 a GPU it has, at 128 images a GPU: 0.75 at 7,680, 3.0 at 30,720",
            "that scaling the rate makes no difference contradicts Goyal et al. (41.67 % error at "
            "8,192 unscaled): a claim to test, at a rate of 0.0125 throughout",
        ),
    )


ROWS = {
    _key(batch, warmup, scaling): _row(batch, warmup, scaling)
    for batch in (7680, 30720)  # [seed] slides 000
    for scaling in ("linear", "none")
    for warmup in (0, 5, 10, 20)  # [seed] slides 000
}
RECIPE = ROWS["30720-warmup10"]


# Ours: 64 and 256 digits keep the poster's factor of four; a third of the epochs.
def _small(row, batch):
    recipe = ROWS[row]
    return goyal_8k.small(
        recipe,
        rate=0.1,  # ours
        batch=batch,
        reference_batch=8,  # ours
        model=replace(goyal_8k.SMALL.model, last_gamma=recipe.model.last_gamma),
        whole_epochs=False,  # ours: 5.6 updates of 256 an epoch are not rounded
        schedule=replace(
            recipe.schedule.stretched(1 / 3),  # ours: a third
            warmup_start_rate=0.1,  # ours: as the poster, the rate before it is scaled
        ),
        notes=recipe.notes,
    )


MINIATURE = Miniature(
    contrast="No warmup and the poster's best warmup at two batches, 1 : 4, and the larger without "
    "scaling, on 8 x 8 digits.",
    rows=(
        Row(
            "64 images, none",
            "the smaller batch from the scaled rate",
            _small("7680-warmup0", 64),  # ours
            of="7680-warmup0",
        ),
        Row(
            "64 images, short",
            "its best in the poster: 5 of 90 epochs",
            _small("7680-warmup5", 64),  # ours
            of="7680-warmup5",
        ),
        Row(
            "256 images, none",
            "the larger batch needs a warmup more",
            _small("30720-warmup0", 256),  # ours
            of="30720-warmup0",
        ),
        Row(
            "256 images, longer",
            "its best in the poster: 10 of 90 epochs",
            _small("30720-warmup10", 256),  # ours
            of="30720-warmup10",
        ),
        Row(
            "256 images, unscaled",
            "no worse in the poster; far worse in Goyal et al.",
            _small("30720-warmup10-unscaled", 256),  # ours
            of="30720-warmup10-unscaled",
        ),
    ),
    claims=(
        Contrast(
            "64 images, none", "64 images, short", "more", "no warmup is worst at the smaller batch"
        ),
        Contrast(
            "256 images, none", "256 images, longer", "more", "no warmup is worst at the larger"
        ),
        Contrast(
            "256 images, unscaled",
            "256 images, longer",
            "equal",
            "scaling the rate makes no difference",
        ),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE, rows=ROWS)
