"""CIFAR-10, Fashion-MNIST and MNIST as arrays, from their files or downloaded; no TensorFlow."""

import io
import os
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tf_largebatch.data.idx import find_idx, read_idx
from tf_largebatch.records.datasets import DATASETS
from tf_largebatch.records.errors import InputError

Part = tuple[np.ndarray, np.ndarray]  # images, labels

_BATCHES = (tuple(f"data_batch_{n}" for n in range(1, 6)), ("test_batch",))
_FOLDERS = {  # as torchvision unpacks them
    "mnist": ("", "raw", "MNIST/raw"),
    "fashion_mnist": ("", "raw", "FashionMNIST/raw"),
    "cifar10": ("", "cifar-10-batches-py", "cifar-10-batches-bin"),
}
_ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")
_IDX = "the four IDX files (train-images-idx3-ubyte and so on, plain, .gz or .xz)"
_FORMS = {
    "mnist": f"{_IDX} or mnist.npz",
    "fashion_mnist": f"{_IDX} or an .npz with x_train, y_train, x_test and y_test",
    "cifar10": "cifar-10-batches-py, cifar-10-batches-bin, their .tar.gz, an .npz with x_train, "
    "y_train, x_test and y_test, or WebP strips with labels.npz",
}
_FORMAT_ERRORS = (pickle.UnpicklingError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
_DAMAGE = (OSError, EOFError, KeyError, TypeError, ValueError, *_FORMAT_ERRORS)


def read(name: str, folder: str | os.PathLike | None) -> tuple[Part, Part]:
    """Returns training and test set: uint8 [n, 28, 28, 1] or [n, 32, 32, 3], and labels [n].

    Args:
        name: cifar10, fashion_mnist or mnist.
        folder: of its files in any form that they are handed out in:

            - MNIST, Fashion-MNIST: the four IDX files, plain, .gz or .xz, also below torchvision's
              `raw`;
            - CIFAR-10: the Python or the binary batches, unpacked or as .tar.gz, or lossless WebP
              strips (`train_*.webp`, `test_*.webp`, pictures one under another, and `labels.npz`
              with train_labels and test_labels);
            - any: an .npz with x_train, y_train, x_test and y_test, as Keras keeps MNIST.

            None asks `keras.datasets`, which keeps the download in its own cache.
    """
    parts = _download(name) if folder is None else _read_folder(name, Path(folder))
    shape = DATASETS[name].image_shape
    train, test = (
        (_shaped(images, shape, name, folder), labels.reshape(-1)) for images, labels in parts
    )
    return train, test


def _shaped(images: np.ndarray, shape, name: str, folder) -> np.ndarray:
    """Returns grey images with the channel that their files leave out."""
    if images.shape[1:] not in (shape, shape[:2] if shape[2] == 1 else shape):
        raise InputError(
            f"the images of {name} must be of {'x'.join(map(str, shape))}. Received: "
            f"{'x'.join(map(str, images.shape[1:]))} in {folder}. Pass the folder of {name}"
        )
    return images.reshape(-1, *shape)


def _download(name: str) -> tuple[Part, Part]:
    import keras

    try:
        return getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception where the network fails
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name} cannot be downloaded: {reason}. Pass the folder that holds its files as "
            "--data, or as --miniature-data where a miniature is on it"
        ) from error


def _read_folder(name: str, folder: Path) -> tuple[Part, Part]:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(
            f"the data folder {what}. Received: {folder}. Pass a folder with {_FORMS[name]}"
        )
    readers = (_read_batches, _read_strips) if name == "cifar10" else (_read_idx_files,)
    for read in (*readers, _read_npz):
        for place in (folder / inner for inner in _FOLDERS[name]):
            if (parts := read(place)) is not None:
                return parts
    held = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else "")
    raise InputError(
        f"the data folder holds no {name}. Received: {folder}, with {shown or 'nothing'}. Pass a "
        f"folder with {_FORMS[name]}"
    )


def _damaged(path: Path, what: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(f"the file {path} {what}: {reason}. Copy it again")


def _read_idx_files(folder: Path) -> tuple[Part, Part] | None:
    if not any(folder.glob("*-ubyte*")):
        return None

    def read(stem: str) -> np.ndarray:
        return read_idx(find_idx(folder, f"{stem}-ubyte"))

    return (
        (read("train-images-idx3"), read("train-labels-idx1")),
        (read("t10k-images-idx3"), read("t10k-labels-idx1")),
    )


def _read_npz(folder: Path) -> tuple[Part, Part] | None:
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(path) as stored:
                train = stored["x_train"], stored["y_train"]
                return train, (stored["x_test"], stored["y_test"])
        except _DAMAGE as error:
            what = "has no readable x_train, y_train, x_test, y_test"
            raise _damaged(path, what, error) from error
    return None


def _read_strips(folder: Path) -> tuple[Part, Part] | None:
    if not (folder / "labels.npz").is_file():
        return None
    return _read_split_of_strips(folder, "train"), _read_split_of_strips(folder, "test")


def _read_split_of_strips(folder: Path, split: str) -> Part:
    paths = sorted(str(path) for path in folder.glob(f"{split}_*.webp"))
    try:
        with np.load(folder / "labels.npz") as stored:
            labels = stored[f"{split}_labels"]
    except _DAMAGE as error:
        raise _damaged(folder / "labels.npz", f"has no readable {split}_labels", error) from error

    from PIL import Image, UnidentifiedImageError

    strips = []
    for path in paths or [str(folder / f"{split}_000.webp")]:
        try:
            with Image.open(path) as strip:
                strips.append(np.asarray(strip.convert("RGB")).reshape(-1, 32, 32, 3))
        except (OSError, ValueError, UnidentifiedImageError) as error:
            raise InputError(
                f"the strip {path} is missing or is not 32-pixel-wide WebP. Copy it again"
            ) from error
    images = np.concatenate(strips)
    if len(images) != len(labels):
        raise InputError(
            f"the {split} strips and labels must be one to one. Received: {len(images):,} pictures "
            f"and {len(labels):,} labels in {folder}. Copy the missing strips"
        )
    return images, labels


def _read_batches(folder: Path) -> tuple[Part, Part] | None:
    """Reads CIFAR-10's batches, pickles or binary (.bin), in a folder or in an archive."""
    for suffix, parse in (("", _parse_pickle), (".bin", _parse_binary)):
        archive = folder / _ARCHIVES[bool(suffix)]
        loose = (folder / f"test_batch{suffix}").is_file()
        if not loose and not archive.is_file():
            continue
        held = {} if loose else _read_archive(archive)
        parts = []
        for names in _BATCHES:
            batches = []
            for name in (stem + suffix for stem in names):
                try:
                    batches.append(parse((folder / name).read_bytes() if loose else held[name]))
                except _DAMAGE as error:
                    path = folder / name if loose else archive
                    what = "is not a batch of CIFAR-10" if loose else f"holds no readable {name}"
                    raise _damaged(path, what, error) from error
            images, labels = zip(*batches, strict=True)
            parts.append((np.concatenate(images), np.concatenate(labels)))
        return parts[0], parts[1]
    return None


def _read_archive(archive: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(archive) as tar:
            return {
                os.path.basename(member.name): file.read()
                for member in tar
                if (file := tar.extractfile(member)) is not None
            }
    except _DAMAGE as error:
        raise _damaged(archive, "cannot be read", error) from error


def _parse_pickle(content: bytes) -> Part:
    batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    pixels = np.asarray(batch[b"data"]).reshape(-1, 3, 32, 32)
    return pixels.transpose(0, 2, 3, 1), np.asarray(batch[b"labels"])


def _parse_binary(content: bytes) -> Part:
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]


class _ArrayUnpickler(pickle.Unpickler):
    """Loads NumPy arrays and plain containers, and refuses anything that could run code."""

    def find_class(self, module, name):
        if name == "_reconstruct" and module.endswith("multiarray"):
            return np.zeros(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")
