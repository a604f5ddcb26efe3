"""A network of the package from keywords: the record's fields and the image facts mixed."""

from tf_largebatch.models.blocks import NetworkLayers
from tf_largebatch.models.network import make_network
from tf_largebatch.models.small_resnet import make_small_resnet
from tf_largebatch.records import architectures
from tf_largebatch.records.datasets import ImageFacts
from tf_largebatch.records.model_spec import ModelSpec


def make(
    architecture,
    *,
    image_shape=None,
    classes=None,
    pixel_mean=0.0,
    pixel_std=1.0,
    seed=None,
    bn_replicas=1,
    width=None,
    **spec,
):
    """The network; shape and classes are the architecture's own unless given."""
    facts = architectures.get(architecture)
    shape = image_shape or facts.image_shape
    mean, std = (
        value if isinstance(value, tuple) else (value,) * shape[-1]
        for value in (pixel_mean, pixel_std)
    )
    images = ImageFacts(
        shape=shape,
        classes=facts.classes if classes is None else classes,
        pixel_mean=mean,
        pixel_std=std,
    )
    record = ModelSpec(architecture=architecture, **spec)
    if width is not None:
        layers = NetworkLayers(record, images, seed=seed, bn_replicas=bn_replicas)
        return make_small_resnet(layers, width)
    return make_network(record, images, seed=seed, bn_replicas=bn_replicas)
