"""One door to the networks: the record's name to the function that makes it."""

import dataclasses

import keras

from tf_largebatch.models.alexnet import make_alexnet
from tf_largebatch.models.blocks import NetworkLayers
from tf_largebatch.models.fully_connected import HIDDEN, make_fully_connected
from tf_largebatch.models.inception_resnet import make_inception_resnet_v2
from tf_largebatch.models.resnet import make_resnet
from tf_largebatch.models.small_resnet import make_small_resnet
from tf_largebatch.records.datasets import ImageFacts
from tf_largebatch.records.model_spec import ModelSpec


def make_network(
    spec: ModelSpec, images: ImageFacts, *, seed: int | None = None, bn_replicas: int | None = 1
) -> keras.Model:
    """Returns the network of `spec.architecture` for these images.

    Input `[batch, *images.shape]`, raw pixels of any real dtype; output float32 logits
    `[batch, images.classes]`, whatever the precision policy.

        >>> images = ImageFacts(shape=(8, 8, 1), classes=10, pixel_mean=(0.3,), pixel_std=(0.4,))
        >>> make_network(ModelSpec(architecture="digits_resnet"), images).output_shape
        (None, 10)

    Args:
        spec: which network, its batch norm, first weights and dropout.
        images: their shape (height and width None for any) and scale. An AlexNet takes pixels of
            which the mean is subtracted and nothing else, as its first weights suit them; those
            with batch norm of You et al. over 256, of Hoffer et al. over their deviation.
        seed: int or None. With a number, the same call gives the same weights and dropout.
        bn_replicas: consecutive replicas that share batch statistics, or None for all; where it is
            not 1, `spec.bn_batch` is what they have together (see `Recipe.bn_replicas`).

    Raises:
        ValueError: images that the network does not take.
    """
    name = spec.architecture
    if name.startswith("alexnet") and name != "alexnet_owt_bn":
        std = 256.0 if name == "alexnet_bn" else 1.0  # NVCaffe train_val2.prototxt: 0.00390625
        images = dataclasses.replace(images, pixel_std=(std,) * images.shape[2])
    make = NetworkLayers(spec, images, seed=seed, bn_replicas=bn_replicas)
    match name:
        case "resnet50" | "resnet50_v1" | "resnet50_d" | "resnet101" | "resnet152":
            return make_resnet(make)
        case "digits_resnet" | "resnet20":
            return make_small_resnet(make)
        case "alexnet" | "alexnet_owt" | "alexnet_bn" | "alexnet_bn_pool5" | "alexnet_owt_bn":
            return make_alexnet(make)
        case "inception_resnet_v2":
            return make_inception_resnet_v2(make)
        case "fully_connected" | "fully_connected_256":
            return make_fully_connected(images, hidden=HIDDEN[name], name=name, seed=seed)
    raise ValueError(f"`architecture` must be known. Received: {name!r}")
