"""AlexNet with batch norm on ImageNet, 65,536 images per update: Jia et al. 2018, arXiv:1807.11205.

Expect 41.3 % top-1 error after 95 epochs (four minutes on 1,024 P40).

    python -m tf_largebatch.recipes.jia_alexnet_64k --data DIR  # without --data: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import you_alexnet
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

RECIPE = Recipe(
    name="jia_alexnet_64k",
    title="Jia et al. 2018, ImageNet in four minutes: AlexNet at 65,536 images per update",
    paper="arXiv:1807.11205",
    data=ImageNetSpec(
        image_size=227,  # [unknown] the network's own size
        min_area=0.6,  # [unknown] a 227 crop of a shorter side of 256: (227/256)^2 x 3/4 at 4:3
        max_area=0.79,  # [unknown] the same: (227/256)^2 of a square picture
        min_aspect=1.0,  # [unknown] the same
        max_aspect=1.0,  # [unknown] the same
        eval_short_side=256,  # [unknown] as usual
    ),
    model=ModelSpec(
        architecture="alexnet_bn_pool5",  # [recall] the paper: one more after pool5
        bn_batch=64,  # [derived] 65,536 / 1,024 GPUs
        bn_decay=0.9,  # [unknown] as usual
        bn_epsilon=1e-5,  # [unknown] as usual
        head_std=0.01,  # [unknown] AlexNet's own
        dropout=0.5,  # [unknown] AlexNet's own
    ),
    global_batch=65536,  # [recall] the paper: 1,024 P40
    epochs=95,  # [recall]
    whole_epochs=True,  # [unknown] 20 updates in each epoch, as for ResNet-50
    reference_rate=32.0,  # [unknown] that of the LARS authors' AlexNet-BN at 32K
    reference_batch=65536,  # [unknown]
    scaling="none",  # [unknown]
    optimizer=LARSSpec(
        momentum=0.9,  # [unknown] as the LARS authors'
        weight_decay=5e-4,  # [unknown] as the LARS authors'
        trust_coefficient=0.001,  # [unknown] as the LARS authors'
        exclude_rank_below=2,  # [recall] no decay on biases, beta, gamma; [code: MLPerf] no ratio
    ),
    schedule=PolynomialSpec(
        warmup_epochs=10,  # [unknown] as the LARS authors' AlexNet-BN at 32K
        warmup_start_rate=0.0,  # [unknown]
        power=2.0,  # [unknown] as the LARS authors'
        end_rate=0.0,  # [unknown]
    ),
    precision="float16",  # [recall] the paper
    wire="float16",  # [recall] the paper
    expected=Expected(41.3, source="abstract, recalled"),  # [recall] 58.7 %
    notes=(
        "rate, warmup, momentum and decay are not published; those of the LARS authors' "
        "AlexNet-BN at 32K stand in",
        "the loss scale is dynamic here, constant in the paper",
        "crops of a fixed size from a picture with a shorter side of 256 are approximated by "
        "their share of the area",
    ),
)

LARS = you_alexnet.fashion(RECIPE, batch=4096, rate=8.0)  # ours

MINIATURE = Miniature(
    contrast="This recipe's course and decay for LARS and for momentum SGD, 4,096 images an update "
    "on Fashion-MNIST, for a fully connected network in the place of AlexNet, without batch norm "
    "and in float32; each row at the best of five rates.",
    rows=(
        Row(
            "SGD",
            "the same course and decay",
            replace(
                LARS,
                reference_rate=0.4,  # ours
                optimizer=SGDSpec(momentum=0.9, weight_decay=5e-4),  # ours: as the other row
            ),
        ),
        Row("LARS", "a rate per tensor", LARS, RECIPE.expected),
    ),
    claims=(
        Contrast(
            "SGD",
            "LARS",
            "more",
            "LARS holds where SGD does not",
            smallest=0.5,  # ours: 50 of 10,000 test images
        ),
    ),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE)
