"""Inception-ResNet-v2, the network of Szegedy et al. 2016, arXiv:1602.07261, for large batches.

Smith et al. 2017, arXiv:1711.00489, train it at batches that grow from 8,192 to 65,536.
"""

import keras

from tf_largebatch.models.blocks import ResidualLayers


def make_inception_resnet_v2(
    *,
    pixel_mean,
    pixel_std,
    image_shape=(299, 299, 3),
    classes=1000,
    bn_decay=0.9,
    bn_epsilon=1e-3,
    bn_batch=None,
    bn_replica_group=1,
    seed=None,
    name="inception_resnet_v2",
) -> keras.Model:
    """Returns `keras.applications.InceptionResNetV2` with the batch norm and seed asked for.

    Its layers, Glorot-uniform kernels and wiring; 55,813,192 trainable parameters. Batch norm has a
    beta and no gamma, so a block cannot start as its shortcut. There is no dropout before the head,
    which the 2016 paper has (a fifth of the units dropped).

    Input `[batch, *image_shape]`, raw pixels of any real dtype; output float32 logits
    `[batch, classes]`, whatever the precision policy. The weights of `keras.applications` need the
    pixels in -1 to 1: `pixel_mean=127.5, pixel_std=127.5`.

    Args:
        pixel_mean: float or one per channel, subtracted from the pixels, in their units.
        pixel_std: float or one per channel, > 0, divides them afterwards.
        image_shape: (height, width, 3), sides at least 75.
        classes: int >= 2.
        bn_decay: float in [0, 1), share of the old moving statistics kept by an update; 0 keeps the
            statistics of the last update alone. `keras.applications` has 0.99.
        bn_epsilon: float > 0, added to the variance.
        bn_batch: int >= 1, examples of one replica that share batch statistics, or None for its
            whole batch.
        bn_replica_group: int >= 1, consecutive replicas that share batch statistics, or None for
            all. Other than 1 only with `bn_batch=None`.
        seed: int or None. With a number, the same call gives the same weights.
        name: name of the model.

    Raises:
        ValueError: an argument outside its range.
    """
    make = _InceptionLayers(
        last_gamma=1.0,
        bn_decay=bn_decay,
        bn_epsilon=bn_epsilon,
        bn_batch=bn_batch,
        bn_replica_group=bn_replica_group,
        head_std=0.0,
        seed=seed,
    )
    if classes < 2:
        raise ValueError(f"`classes` must be at least 2. Received: classes={classes}")
    if len(image_shape) != 3 or min(image_shape[:2]) < 75 or image_shape[2] != 3:
        raise ValueError(
            "`image_shape` must be (height, width, 3), sides at least 75. "
            f"Received: image_shape={image_shape}"
        )
    _, pixels = make.pixels(image_shape, pixel_mean, pixel_std)
    plain = keras.applications.InceptionResNetV2(
        weights=None, input_tensor=pixels, classes=classes, classifier_activation=None
    )
    ours = keras.models.clone_model(plain, clone_function=make.clone)
    return keras.Model(ours.inputs[0], ours.outputs[0], name=name)


class _InceptionLayers(ResidualLayers):
    """Copies layers with the batch norm and seeds of `ResidualLayers`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._copies = {}

    def clone(self, layer):
        """Returns a new layer: with our batch norm, a seeded kernel, a name of its own."""
        if isinstance(layer, keras.layers.BatchNormalization):
            return self._plain_batch_norm(self._number("bn"), layer.scale)
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            seed = None if self._seeds is None else self._seeds.getrandbits(31)
            config["kernel_initializer"] = keras.initializers.GlorotUniform(seed=seed)
        if isinstance(layer, keras.layers.Dense):
            # float32 under every policy: logits feed the loss.
            config.update(name="head", dtype="float32")
        elif layer.name.startswith(("conv2d", "activation")):
            # Keras counts these names over the whole process: a second network would have others.
            config["name"] = self._number(type(layer).__name__.lower())
        return type(layer).from_config(config)

    def _plain_batch_norm(self, name, scale):
        made = self._batch_norm(1.0, name)
        return type(made).from_config({**made.get_config(), "scale": scale})

    def _number(self, kind):
        self._copies[kind] = self._copies.get(kind, 0) + 1
        return f"{kind}_{self._copies[kind]}"
