"""Small data sets through `keras.datasets`, for users who have a network."""

from __future__ import annotations

import numpy as np

from tf_largebatch.records.errors import InputError


def fetch(name: str) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns ((train images, labels), (test images, labels)) of `keras.datasets.<name>`.

    Keras keeps the download in its own cache and does not load it twice.

    Raises:
        InputError: it cannot be downloaded.
    """
    import keras

    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception where the network fails
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name} cannot be downloaded: {reason}. Pass the folder that holds its files"
        ) from error
    return tuple((images, labels.reshape(-1)) for images, labels in (train, test))
