"""AlexNet-BN on ImageNet with 32,768 images per update: You et al. 2017, arXiv:1709.05011.

Expect 58.6 % top-1 accuracy after 100 epochs (11 minutes on 1,024 processors).

    python -m tf_largebatch.recipes.you_minutes_alexnet --data DIR  # without --data: its miniature
"""

from dataclasses import replace

from tf_largebatch.recipes import you_alexnet, you_alexnet_bn
from tf_largebatch.records.recipe import Expected
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

MINIATURE = you_alexnet_bn.MINIATURE

if __name__ == "__main__":
    main(RECIPE, MINIATURE)
