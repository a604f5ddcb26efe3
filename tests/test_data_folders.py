"""CIFAR-10, MNIST and Fashion-MNIST from local folders, and what is said when files are wrong."""

import gzip
import lzma
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.data import small_images
from tf_largebatch.data.idx import read_idx
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.data_spec import SmallImagesSpec
from tf_largebatch.records.errors import InputError

REAL = Path(__file__).parents[2] / "shared" / "data"
NAMES = ("cifar10", "fashion_mnist", "mnist")
COMPRESS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


def load(name, folder=None, **augmentation):
    return small_images.load(SmallImagesSpec(name=name, **augmentation), folder)


def idx_bytes(array):
    sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_idx_folder(folder, *, suffix=""):
    """Four IDX files of 30 + 10 random pictures; returns the arrays."""
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 30), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{part}-{kind}-ubyte{suffix}"
            path.write_bytes(COMPRESS[suffix](idx_bytes(array)))
        parts[part] = images, labels
    return parts


def cifar_arrays():
    rng = np.random.default_rng(1)
    return {
        "train": (rng.integers(0, 256, (50, 32, 32, 3), np.uint8), np.arange(50) % 10),
        "test": (rng.integers(0, 256, (10, 32, 32, 3), np.uint8), np.arange(10)),
    }


def write_pickles(folder):
    arrays = cifar_arrays()
    images, labels = arrays["train"]
    batches = {
        f"data_batch_{n + 1}": (images[10 * n : 10 * n + 10], labels[10 * n : 10 * n + 10])
        for n in range(5)
    }
    batches["test_batch"] = arrays["test"]
    for name, (pictures, numbers) in batches.items():
        flat = pictures.transpose(0, 3, 1, 2).reshape(len(pictures), 3072)
        content = {b"data": flat, b"labels": numbers.tolist(), b"filenames": [b"x.png"]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return arrays


def write_binary(folder):
    arrays = write_pickles(folder)
    for path in list(folder.iterdir()):
        batch = pickle.loads(path.read_bytes())
        rows = np.column_stack([np.uint8(batch[b"labels"]), batch[b"data"]])
        path.with_name(f"{path.name}.bin").write_bytes(rows.tobytes())
        path.unlink()
    return arrays


def write_archive(write, name, inner):
    """A writer of the same files in a .tar.gz, below the folder it unpacks to."""

    def write_it(folder):
        arrays = write(folder)
        with tarfile.open(folder / name, "w:gz") as tar:
            for path in sorted(p for p in folder.iterdir() if p.name != name):
                tar.add(path, f"{inner}/{path.name}")
                path.unlink()
        return arrays

    return write_it


def write_npz(folder):
    """As Keras keeps MNIST."""
    arrays = cifar_arrays()
    np.savez(
        folder / "cifar10.npz",
        **{
            f"{k}_{split}": a
            for split, pair in arrays.items()
            for k, a in zip("xy", pair, strict=True)
        },
    )
    return arrays


def write_strips(folder):
    image_module = pytest.importorskip("PIL.Image", reason="needs Pillow to write WebP")
    arrays = cifar_arrays()
    for split, (images, _) in arrays.items():
        for n in range(0, len(images), 10):
            strip = images[n : n + 10].reshape(-1, 32, 3)
            path = folder / f"{split}_{n // 10:03d}.webp"
            image_module.fromarray(strip).save(path, lossless=True)
    np.savez(folder / "labels.npz", **{f"{s}_labels": labels for s, (_, labels) in arrays.items()})
    return arrays


def delivered(source):
    """All training examples (of epoch 0) and all evaluation examples, by their bytes."""
    plan = BatchPlan(global_batch=source.train_examples, train_examples=source.train_examples)
    train = next(source.train_batches(plan, seed=0).as_numpy_iterator())
    test = next(source.eval_batches(source.eval_examples).as_numpy_iterator())
    return [
        sorted((image.tobytes(), int(label)) for image, label in zip(*part[:2], strict=True))
        for part in (train, test)
    ]


def pairs(images, labels):
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


@pytest.mark.parametrize("suffix", list(COMPRESS))
def test_idx_files_give_their_images_and_labels_however_compressed(tmp_path, suffix):
    parts = write_idx_folder(tmp_path, suffix=suffix)
    source = load("mnist", tmp_path)
    assert delivered(source) == [pairs(*parts["train"]), pairs(*parts["t10k"])]
    assert source.image_shape == (28, 28, 1)
    assert source.pixel_mean[0] == pytest.approx(parts["train"][0].mean())


write_python_archive = write_archive(write_pickles, "cifar-10-python.tar.gz", "cifar-10-batches-py")
write_binary_archive = write_archive(write_binary, "cifar-10-binary.tar.gz", "cifar-10-batches-bin")


@pytest.mark.parametrize(
    "write",
    [
        write_pickles,
        write_binary,
        write_python_archive,
        write_binary_archive,
        write_npz,
        write_strips,
    ],
)
def test_every_form_of_cifar10_give_the_same_images_and_labels(tmp_path, write):
    arrays = write(tmp_path)
    source = load("cifar10", tmp_path)
    assert delivered(source) == [pairs(*arrays["train"]), pairs(*arrays["test"])]
    expected = arrays["train"][0].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(source.pixel_mean, expected, rtol=1e-12)


def test_pickles_are_found_in_the_folder_that_the_archive_unpacks_to(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    write_pickles(tmp_path / "cifar-10-batches-py")
    assert load("cifar10", tmp_path).train_examples == 50


def test_training_images_alone_are_shifted_and_mirrored_where_the_record_says_so(tmp_path):
    arrays = write_pickles(tmp_path)
    source = load("cifar10", tmp_path, shift=4, flip=True)
    assert source.describe().endswith("shift up to 4 pixels, mirrored 1/2")
    train, test = delivered(source)
    assert train != pairs(*arrays["train"]) and test == pairs(*arrays["test"])


class Harmful:
    def __reduce__(self):
        return print, ("a pickle ran code",)


def test_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    write_pickles(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Harmful()}))
    with pytest.raises(InputError, match="data_batch_3 is not a batch of CIFAR-10: it refers to"):
        load("cifar10", tmp_path)
    assert capsys.readouterr().out == ""


def refused(name, folder, *words):
    with pytest.raises(InputError) as caught:
        load(name, folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def test_missing_cifar10_files_are_named(tmp_path):
    refused("cifar10", tmp_path / "no", "does not exist", tmp_path / "no", "cifar-10-batches-py")
    refused("cifar10", tmp_path, "holds no cifar10", "with nothing", "WebP strips")
    write_pickles(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    refused("cifar10", tmp_path, tmp_path / "data_batch_4")
    (tmp_path / "data_batch_4").write_bytes(b"\x80\x02}")
    refused("cifar10", tmp_path, tmp_path / "data_batch_4", "Copy it again")


def test_missing_and_damaged_strips_are_named(tmp_path):
    write_strips(tmp_path)
    (tmp_path / "train_002.webp").rename(tmp_path / "elsewhere")
    refused("cifar10", tmp_path, "40 pictures and 50 labels")
    (tmp_path / "train_002.webp").write_bytes((tmp_path / "elsewhere").read_bytes()[:100])
    refused("cifar10", tmp_path, tmp_path / "train_002.webp")
    for path in tmp_path.glob("train_*"):
        path.unlink()
    refused("cifar10", tmp_path, "train_000.webp")
    (tmp_path / "labels.npz").write_bytes(b"PK")
    refused("cifar10", tmp_path, "labels.npz has no readable train_labels")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_missing_and_damaged_idx_files_are_named(tmp_path, name):
    refused(name, tmp_path, f"holds no {name}", tmp_path, "train-images-idx3-ubyte")
    write_idx_folder(tmp_path, suffix=".gz")
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    for content in (
        whole[:-9],
        b"no gzip",
        gzip.compress(b""),
        gzip.compress(b"\0\0\x0d\1\0\0\0\1"),
    ):
        path.write_bytes(content)
        refused(name, tmp_path, path)
    path.unlink()
    refused(name, tmp_path, "has no t10k-labels-idx1-ubyte", tmp_path)


def test_idx_file_with_too_few_values_is_refused(tmp_path):
    path = tmp_path / "x-ubyte"
    path.write_bytes(idx_bytes(np.zeros((3, 4), np.uint8))[:-1])
    with pytest.raises(InputError, match=r"11 values for sizes \(3, 4\)"):
        read_idx(path)
    path.write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(InputError, match="must be an IDX file"):
        read_idx(path)


@pytest.mark.parametrize("place", ["raw", "MNIST/raw"])
def test_files_are_found_where_torchvision_keeps_them(tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    parts = write_idx_folder(tmp_path / place)
    assert delivered(load("mnist", tmp_path))[1] == pairs(*parts["t10k"])


def test_images_of_another_size_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 28, 28), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=[0] * 4, x_test=images, y_test=[0] * 4)
    refused("cifar10", tmp_path, "must be of 32x32x3. Received: 28x28", tmp_path)
    assert load("mnist", tmp_path).train_examples == 4


def test_damaged_archives_are_named(tmp_path):
    write_python_archive(tmp_path)
    path = tmp_path / "cifar-10-python.tar.gz"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive"):
        path.write_bytes(content)
        refused("cifar10", tmp_path, path, "cannot be read", "Copy it again")
    path.unlink()
    (tmp_path / "x.npz").write_bytes(b"PK")
    refused("cifar10", tmp_path, tmp_path / "x.npz", "has no readable x_train")


def test_a_file_for_the_folder_is_refused(tmp_path):
    (tmp_path / "mnist.npz").touch()
    refused("mnist", tmp_path / "mnist.npz", "is not a folder")


def test_more_labels_than_images_are_refused(tmp_path):
    write_idx_folder(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(np.zeros(31, np.uint8)))
    refused("mnist", tmp_path, "30 images, labels of shape (31,)")


@pytest.mark.parametrize("name", NAMES)
def test_a_record_out_of_range_is_refused(name):
    most = 31 if name == "cifar10" else 27
    for shift in (-1, most + 1, 1.5):
        with pytest.raises(ValueError, match=f"`data.shift` must be a whole number in 0..{most}"):
            SmallImagesSpec(name=name, shift=shift)
    with pytest.raises(
        ValueError, match="`data.name` must be one of cifar10, fashion_mnist, mnist"
    ):
        SmallImagesSpec(name="svhn")


@pytest.mark.parametrize("name", NAMES)
def test_without_a_folder_and_a_network_one_line_says_what_to_pass(monkeypatch, name):
    import keras

    def offline():
        raise Exception("URL fetch failure on https://example.org:\nno route to host")

    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", offline)
    refused(name, None, f"{name} cannot be downloaded", "Pass the folder", "as --data")


def test_download_is_used_without_a_folder(monkeypatch):
    arrays = cifar_arrays()
    fetched = [(images, labels.reshape(-1, 1)) for images, labels in arrays.values()]
    import keras

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: tuple(fetched))
    assert delivered(load("cifar10")) == [pairs(*arrays[split]) for split in ("train", "test")]


@pytest.mark.slow
@pytest.mark.skipif(
    not (REAL / "cifar10").is_dir(), reason=f"CIFAR-10 is not at {REAL / 'cifar10'}"
)
def test_real_cifar10_has_the_published_mean_and_deviation():
    source = load("cifar10", REAL / "cifar10")
    assert (source.train_examples, source.eval_examples) == (50_000, 10_000)
    mean, std = np.array(source.pixel_mean) / 255, np.array(source.pixel_std) / 255
    np.testing.assert_allclose(mean, (0.49140, 0.48216, 0.44653), atol=6e-6)
    np.testing.assert_allclose(std, (0.24703, 0.24349, 0.26159), atol=6e-6)
    labels = np.concatenate([np.asarray(y) for _, y, _ in source.eval_batches(1000)])
    assert np.bincount(labels).tolist() == [1000] * 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, mean, std", [("fashion_mnist", 0.28604, 0.35302), ("mnist", 0.1307, 0.3081)]
)
def test_real_idx_files_have_the_published_mean_and_deviation(name, mean, std):
    if not (REAL / name).is_dir():
        pytest.skip(f"{name} is not at {REAL / name}")
    source = load(name, REAL / name)
    assert (source.train_examples, source.eval_examples) == (60_000, 10_000)
    digits = 5e-6 if name == "fashion_mnist" else 5e-5
    assert source.pixel_mean[0] / 255 == pytest.approx(mean, abs=digits)
    assert source.pixel_std[0] / 255 == pytest.approx(std, abs=digits)


def test_webp_decoding_is_lossless(tmp_path):
    arrays = write_strips(tmp_path)
    strip = tf.io.decode_webp(tf.io.read_file(str(tmp_path / "test_000.webp"))).numpy()
    np.testing.assert_array_equal(strip.reshape(-1, 32, 32, 3), arrays["test"][0])
