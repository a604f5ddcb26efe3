"""ResNet-50-D on ImageNet with K-FAC at 4,096 to 131,072 images: Osawa et al., arXiv:1811.12019.

Expect 75.9, 76.4, 76.6, 76.9, 76.3 and 75.0 % top-1 accuracy, as the authors' code lists.

    python -m tf_largebatch.recipes.osawa_kfac --row 128k --data DIR
    python -m tf_largebatch.recipes.osawa_kfac --row 128k --plan
"""

from dataclasses import replace

from tf_largebatch.records.recipe import (
    Expected,
    ImageNetSpec,
    KFACSpec,
    Miniature,
    ModelSpec,
    PolynomialSpec,
    Recipe,
)
from tf_largebatch.training.command import main

KFAC_4K = Recipe(
    name="osawa_kfac",
    row="4k",
    title="Osawa et al. 2019, K-FAC: ResNet-50-D at 4,096 images per update",
    paper="arXiv:1811.12019",
    data=ImageNetSpec(
        image_size=224,  # [code: tyohei/chainerkfac resnet50_d.py]
        min_area=0.766,  # [unknown] 224^2 of 256 x 256: the code cuts what it is given
        max_area=0.766,  # [unknown] as min_area
        min_aspect=1.0,  # [code: tyohei/chainerkfac datasets.py] nothing is stretched
        max_aspect=1.0,  # [code: the same]
        eval_short_side=256,  # [unknown] the usual one
        mixup_alpha=0.4,  # [code: tyohei/chainerkfac configs]
    ),
    model=ModelSpec(
        architecture="resnet50_d",  # [code: tyohei/chainerkfac resnet50_d.py]
        last_gamma=1.0,  # [code: the same]
        bn_batch=32,  # [code: tyohei/chainerkfac configs] of one GPU
        bn_decay=0.9,  # [code: tyohei/chainerkfac resnet50_d.py]
        bn_epsilon=2e-5,  # [code: the same]
        head_std=0.03125,  # [code: the same] sqrt(2 / 2048)
    ),
    global_batch=4096,  # [code: tyohei/chainerkfac README.md]
    epochs=35,  # [code: tyohei/chainerkfac README.md]
    reference_rate=8.18e-3,  # [code: tyohei/chainerkfac configs]
    reference_batch=4096,  # [code: tyohei/chainerkfac configs] each batch has its own rate
    scaling="none",  # [code: tyohei/chainerkfac configs]
    optimizer=KFACSpec(
        momentum=0.997,  # [code: tyohei/chainerkfac configs]
        damping=2.5e-4,  # [code: the same]
        momentum_correction=True,  # [code: the same] adjust_momentum
        statistics_decay=1.0,  # [code: the same] cov_ema_decay
        refresh_updates=1,  # [code: tyohei/chainerkfac kfac.py] update_kfgrads: in each
        stability=16.0,  # [code: the same] stab_coeff, which train.py leaves at its default
        limit_norm=True,  # [code: the same] normalize_weight
        weight_decay=0.0,  # [code: tyohei/chainerkfac train.py] none
        exclude_rank_below=2,  # [code: tyohei/chainerkfac resnet50_d.py] norm limit: kernels
    ),
    schedule=PolynomialSpec(
        warmup_epochs=1,  # [code: tyohei/chainerkfac configs] at the peak: where the fall begins
        warmup_start_rate=8.18e-3,  # [code: the same] the peak
        power=11.0,  # [code: the same]
        end_rate=0.0,  # [code: tyohei/chainerkfac train.py]
        end_epoch=53.0,  # [code: tyohei/chainerkfac configs] beyond the end of training
    ),
    expected=Expected(24.1, source="README.md"),  # [code: tyohei/chainerkfac README.md] 75.9 %
    notes=(
        "mixup there is running, with the batch before, and random erasing (half of the pictures, "
        "2 to 25 % of each) follows: here it is plain mixup alone",
        "batch norm: a Fisher matrix of 2 x 2 for each channel here, one of all channels there",
        "gamma starts from a normal distribution around 1 with deviation 0.05 there",
        "the paper itself has plain ResNet-50: 75 % at 131,072 in 100 epochs",
        "the configs train one epoch more than the README counts",
    ),
)


def _kfac(row, batch, epochs, rate, begin, power, end, momentum, damping, alpha, error):
    return replace(
        KFAC_4K,
        row=row,
        title=f"Osawa et al. 2019, K-FAC: ResNet-50-D at {batch:,} images per update",
        data=replace(KFAC_4K.data, mixup_alpha=alpha),  # [code: tyohei/chainerkfac configs]
        global_batch=batch,  # [code: tyohei/chainerkfac README.md]
        epochs=epochs,  # [code: tyohei/chainerkfac README.md]
        reference_rate=rate,  # [code: tyohei/chainerkfac configs]
        reference_batch=batch,  # [code: tyohei/chainerkfac configs] each batch has its own rate
        optimizer=replace(
            KFAC_4K.optimizer,
            momentum=momentum,  # [code: tyohei/chainerkfac configs]
            damping=damping,  # [code: tyohei/chainerkfac configs]
        ),
        schedule=replace(
            KFAC_4K.schedule,
            warmup_epochs=begin,  # [code: tyohei/chainerkfac configs] at the peak
            warmup_start_rate=rate,  # [code: tyohei/chainerkfac configs] the peak
            power=power,  # [code: tyohei/chainerkfac configs]
            end_epoch=end,  # [code: tyohei/chainerkfac configs]
        ),
        expected=Expected(error, source="README.md"),  # [code: tyohei/chainerkfac README.md]
    )


# fmt: off
ROWS = {
    "4k": KFAC_4K,
    "8k": _kfac(
        "8k", 8192, 35, 1.25e-2, 1, 8.0, 53.5, 0.993, 2.5e-4, 0.4, 23.6  # [code: the configs]
    ),
    "16k": _kfac(
        "16k", 16384, 35, 2.5e-2, 1, 8.0, 53.5, 0.985, 2.5e-4, 0.4, 23.4  # [code: the same]
    ),
    "32k": _kfac(
        "32k", 32768, 45, 3.0e-2, 1.5, 3.5, 49.5, 0.97, 2.0e-4, 0.6, 23.1  # [code: the same]
    ),
    "64k": _kfac(
        "64k", 65536, 60, 4.0e-2, 2, 2.9, 64.5, 0.95, 1.5e-4, 0.6, 23.7  # [code: the same]
    ),
    "128k": _kfac(
        "128k", 131072, 80, 7.0e-2, 1, 3.0, 95.0, 0.93, 1.0e-4, 1.0, 25.0  # [code: the same]
    ),
}
# fmt: on
RECIPE = ROWS["128k"]

MINIATURE = Miniature(contrast="There is no miniature: none has been tuned yet.", rows=())

if __name__ == "__main__":
    main(RECIPE, MINIATURE, rows=ROWS)
