"""AlexNet-BN on ImageNet with 32,768 images per update: You et al. 2017, arXiv:1709.05011.

Expect 58.6 % top-1 accuracy after 100 epochs (11 minutes on 1,024 processors).

    python -m tf_largebatch.recipes.you_minutes_alexnet --data DIR  # without --data: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import goyal_8k, you_alexnet, you_alexnet_bn
from tf_largebatch.records.recipe import Contrast, Expected, Miniature, Row
from tf_largebatch.training.command import main

RECIPE = replace(
    you_alexnet_bn.LARS_32K,
    name="you_minutes_alexnet",
    row=None,
    title="You et al. 2017, ImageNet in minutes: AlexNet-BN at 32,768 images per update",
    paper="arXiv:1709.05011",
    model=replace(you_alexnet_bn.MODEL, bn_batch=32),  # [derived] 32,768 images on 1,024 processors
    global_batch=32768,  # [paper: digest] the paper
    epochs=100,  # [recall] the paper
    reference_rate=32.0,  # [code: borisgin/nvcaffe AlexNet-BN solver, 32K] the paper gives none
    reference_batch=32768,  # [paper: digest] the paper
    schedule=replace(
        you_alexnet_bn.LARS_32K.schedule,
        warmup_epochs=10,  # [code: borisgin/nvcaffe AlexNet-BN solver, 32K] 400 of 4,000 updates
    ),
    expected=Expected(41.4, source="the paper, recalled"),  # [recall] 58.6 %
    notes=(
        you_alexnet.NOTES[0],  # ours: the crop
        you_alexnet.LARS_NOTE,
        "the paper gives neither rate nor warmup: both are those of the authors' solver file",
    ),
)

LARS = goyal_8k.small(
    RECIPE,
    rate=64.0,  # ours: as you_alexnet_bn at 16 times
    batch=512,  # ours: 16 times the 32 of you_alexnet_bn
    reference_batch=512,  # ours
    model=goyal_8k.SMALL.model,
)

MINIATURE = Miniature(
    contrast="LARS and momentum SGD with the linear rule's rate at 16 times a small batch of 8 x 8 "
    "digits, both with this paper's course: a tenth of the run warming up.",
    rows=(
        Row(
            "SGD",
            "the linear rule at 16 times: the paper finds that it fails for AlexNet",
            replace(
                LARS,
                reference_rate=1.6,  # ours: 0.1 x 16
                optimizer=you_alexnet.SGD_512.optimizer,
            ),
        ),
        Row("LARS", "a rate per tensor", LARS, RECIPE.expected),
    ),
    claims=(Contrast("SGD", "LARS", "more", "LARS holds where SGD does not"),),
)

if __name__ == "__main__":
    main(RECIPE, MINIATURE)
