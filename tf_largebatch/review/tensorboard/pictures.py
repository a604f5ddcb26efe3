"""The first training images of a run as one picture."""

import io

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.image import metadata
from tensorboard.util import tensor_util

SIDE, SMALLEST = 3, 64  # pictures a row; pixels to which the side of a small one is blown up
CHANNELS = (1, 3, 4)


def picture_grid(images: np.ndarray) -> np.ndarray | None:
    """Returns up to nine images as one of three rows, uint8 [rows, columns, channels].

    Of [n, height, width, channels]: uint8 as it is, other numbers from the least (black) to the
    largest (white) of these images. None if they are no pictures.
    """
    if images.ndim != 4 or images.shape[-1] not in CHANNELS or not images.size:
        return None
    chosen = images[: SIDE**2]
    if chosen.dtype != np.uint8:
        chosen = chosen.astype(np.float64)
        low, high = chosen.min(), chosen.max()
        if not np.isfinite([low, high]).all():
            return None
        chosen = np.round(255.0 * (chosen - low) / ((high - low) or 1.0)).astype(np.uint8)
    count, height, width, channels = chosen.shape
    blank = np.zeros((SIDE**2 - count, height, width, channels), np.uint8)
    cells = np.concatenate([chosen, blank]).reshape(SIDE, SIDE, height, width, channels)
    grid = cells.transpose(0, 2, 1, 3, 4).reshape(SIDE * height, SIDE * width, channels)
    times = max(1, -(-SMALLEST // max(height, width)))
    return grid.repeat(times, axis=0).repeat(times, axis=1)


def picture_pb(tag: str, picture: np.ndarray, description: str) -> Summary:
    """A point with one picture, uint8 [rows, columns, channels]."""
    from PIL import Image  # TensorBoard's own requirement

    out = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(out, "PNG")
    height, width, _ = picture.shape
    texts = [str(width).encode(), str(height).encode(), out.getvalue()]
    point = Summary()
    about = metadata.create_summary_metadata(display_name=None, description=description)
    tensor = tensor_util.make_tensor_proto(np.array(texts, object), shape=[3])
    point.value.add(tag=tag, metadata=about, tensor=tensor)
    return point
