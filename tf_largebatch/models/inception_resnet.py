"""Inception-ResNet-v2, the network of Szegedy et al. 2016, arXiv:1602.07261, for large batches.

Smith et al. 2017, arXiv:1711.00489, train it at batches that grow from 8,192 to 65,536.
"""

import collections

import keras

from tf_largebatch.models.blocks import NetworkLayers


def make_inception_resnet_v2(make: NetworkLayers) -> keras.Model:
    """Returns `keras.applications.InceptionResNetV2` with the batch norm and seed asked for.

    Its layers, Glorot-uniform kernels and wiring; 55,813,192 trainable parameters. Batch norm has a
    beta and no gamma, so a block cannot start as its shortcut, and `keras.applications` keeps 0.99
    of its statistics. There is no dropout before the head, which the 2016 paper has (a fifth of the
    units dropped). The weights of `keras.applications` need the pixels in -1 to 1: a mean and a
    deviation of 127.5. ValueError for sides below 75, or channels other than 3.
    """
    make.images.check_least_side(75, "inception_resnet_v2")
    if make.images.shape[2] != 3:
        raise ValueError(
            f"inception_resnet_v2 needs images of 3 channels. Received: {make.images.shape}"
        )
    _, pixels = make.pixels()
    classes = make.images.classes
    plain = keras.applications.InceptionResNetV2(
        weights=None, input_tensor=pixels, classes=classes, classifier_activation=None
    )
    copies: collections.Counter[str] = collections.Counter()

    def number(kind: str) -> str:
        copies[kind] += 1
        return f"{kind}_{copies[kind]}"

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        """Returns a new layer: with our batch norm, a seeded kernel, a name of its own."""
        if isinstance(layer, keras.layers.BatchNormalization):
            return make.batch_norm(number("bn"), scale=layer.scale)
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            config["kernel_initializer"] = keras.initializers.GlorotUniform(make.next_seed())
        if isinstance(layer, keras.layers.Dense):
            # float32 under every policy: logits feed the loss.
            config.update(name="head", dtype="float32")
        elif layer.name.startswith(("conv2d", "activation")):
            # Keras counts these names over the whole process: a second network would have others.
            config["name"] = number(type(layer).__name__.lower())
        return type(layer).from_config(config)

    ours = keras.models.clone_model(plain, clone_function=clone)
    return keras.Model(ours.inputs[0], ours.outputs[0], name="inception_resnet_v2")
