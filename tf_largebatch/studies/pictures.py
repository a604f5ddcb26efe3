"""Pictures as a layer of the network: bytes in, so that plain `fit` carries and augments them."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tf_largebatch")
class Pictures(keras.layers.Layer):
    """Returns (pixel - mean) / std; in training from a window that is moved and mirrored at random.

    The usual augmentation of CIFAR-10, and of Hoffer et al.'s MNIST: padding with zeros, a window
    of the old size at a place drawn for each picture, left and right exchanged with chance 1/2.
    Runs on every backend of Keras, and there where the network is.

    Shapes: `[batch, height, width, channels]`, pixels of any dtype; output the same, float32.

    Args:
        mean: of the pixels, a number.
        std: of the pixels, a number above 0.
        shift: pixels of padding on every side, >= 0.
        flip: whether pictures are mirrored.
        seed: of the draws, which differ from update to update.
    """

    def __init__(self, mean, std, *, shift: int, flip: bool, seed: int, **options) -> None:
        super().__init__(**options)
        self.mean, self.std = mean, std
        self.shift, self.flip, self.seed = shift, flip, seed
        self._draws = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        """Returns float32 pictures, augmented in training."""
        pixels = self._move(inputs) if training else inputs
        return (ops.cast(pixels, "float32") - self.mean) / self.std

    def _move(self, pixels):
        count, (height, width) = ops.shape(pixels)[0], pixels.shape[1:3]
        edge = (self.shift, self.shift)
        pixels = ops.pad(pixels, ((0, 0), edge, edge, (0, 0)))
        rows = self._draw(count) + ops.arange(height)
        columns = self._draw(count) + ops.arange(width)
        if self.flip:
            mirrored = keras.random.randint((count, 1), 0, 2, seed=self._draws) == 1
            columns = ops.where(mirrored, ops.flip(columns, 1), columns)
        pixels = ops.take_along_axis(pixels, rows[:, :, None, None], 1)
        return ops.take_along_axis(pixels, columns[:, None, :, None], 2)

    def _draw(self, count):
        """The first row or column of each picture's window, `[count, 1]`."""
        return keras.random.randint((count, 1), 0, 2 * self.shift + 1, seed=self._draws)

    def get_config(self):
        """Returns every argument of the constructor."""
        names = ("mean", "std", "shift", "flip", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
