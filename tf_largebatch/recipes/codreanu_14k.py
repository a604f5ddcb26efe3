"""ResNet-50 on ImageNet at 14,336 images per update: Codreanu et al. 2017, arXiv:1711.04291.

Expect about 75.6 % top-1 accuracy after 90 epochs, in an hour on 448 CPU nodes, as the README of
their code says; five more epochs with another course (76.1 %) are not part of this recipe.

    python -m tf_largebatch.recipes.codreanu_14k --plan
"""

from tf_largebatch.records.recipe import (
    Expected,
    ImageNetSpec,
    Miniature,
    ModelSpec,
    PolynomialSpec,
    Recipe,
    SGDSpec,
)
from tf_largebatch.training.command import main

# All numbers stand in models/intel_optimized_models/multinode/resnet50_448nodes of sara-nl/caffe.
RECIPE = Recipe(
    name="codreanu_14k",
    title="Codreanu et al. 2017: ResNet-50 at 14,336 images per update",
    paper="arXiv:1711.04291",
    data=ImageNetSpec(
        image_size=224,  # [code: sara-nl/caffe train_val.prototxt]
        min_area=0.08,  # [code: the same]
        max_area=1.0,  # [code: the same]
        min_aspect=9 / 16,  # [code: sara-nl/caffe data_transformer.cpp] 0.75 as a factor of a side
        max_aspect=16 / 9,  # [code: the same]
        interpolation="bicubic",  # [code: sara-nl/caffe train_val.prototxt]
        eval_short_side=256,  # [code: the same]
    ),
    model=ModelSpec(
        architecture="resnet50",  # [code: sara-nl/caffe train_val.prototxt] stride on the 3x3
        last_gamma=0.0,  # [code: the same] of the last block of each stage
        bn_batch=16,  # [code: the same] of one of two processes a node
        bn_decay=0.95,  # [code: the same]
        bn_epsilon=1e-5,  # [code: sara-nl/caffe] its default
        head_std=0.01,  # [code: the same]
    ),
    global_batch=14336,  # [code: sara-nl/caffe README.md] 448 nodes x 2 x 16
    epochs=90,  # [code: sara-nl/caffe solver.prototxt] 8,040 updates
    reference_rate=4.8,  # [code: the same]
    reference_batch=14336,  # [code: the same]
    scaling="none",  # [code: the same]
    optimizer=SGDSpec(
        momentum=0.9,  # [code: sara-nl/caffe solver.prototxt]
        nesterov=False,  # [code: the same]
        weight_decay=5e-5,  # [code: the same]
        exclude_rank_below=2,  # [code: sara-nl/caffe train_val.prototxt] decay_mult 0 on Scale
    ),
    schedule=PolynomialSpec(
        warmup_epochs=5,  # [code: sara-nl/caffe solver.prototxt] 446 updates
        warmup_start_rate=0.1,  # [code: the same]
        warmup_shape="linear",  # [code: sara-nl/caffe sgd_solver.cpp]
        power=1.0,  # [code: sara-nl/caffe solver.prototxt]
        end_rate=0.0,  # [code: sara-nl/caffe sgd_solver.cpp]
        whole_run=True,  # [code: the same] 1 - t / T counts from the first update
    ),
    expected=Expected(24.4, source="README.md, about 75.6 %"),  # [code: sara-nl/caffe README.md]
    notes=(
        "gamma starts at 0 in the last block of each stage there, here in every block",
        "the convolutions have biases there, which batch norm takes back",
        "5 and 90 epochs of 1,281,167 images are 447 and 8,044 updates, 446 and 8,040 there",
        "momentum is corrected for the rising rate in the warmup alone there; here the rate stands "
        "outside the velocity throughout",
        "the last five epochs with another course (76.1 %) and the ensembles are not part of it",
    ),
)

MINIATURE = Miniature(
    contrast="There is no miniature: it would be Goyal et al.'s with another course.", rows=()
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE)
