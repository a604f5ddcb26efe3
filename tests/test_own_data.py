"""A recipe with data or a network of one's own: it trains, and every departure is shown."""

import dataclasses
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from commands import ROOT
from shards import write_greys

from tf_largebatch import run
from tf_largebatch.data import imagenet
from tf_largebatch.data.arrays import ArrayData
from tf_largebatch.data.shards import count_classes
from tf_largebatch.recipes.goyal_8k import RECIPE
from tf_largebatch.records.errors import InputError

PAGE = (ROOT / "docs" / "your_data.md").read_text("utf-8")
CLASSES = 20
PICTURES = dataclasses.replace(RECIPE.data, image_size=32, eval_short_side=40)
SHORT = ["global_batch=8", "model.bn_batch=4", "epochs=2", "schedule.drop_epochs=1"]
SHORT += ["schedule.warmup_epochs=0", "data.image_size=32", "data.eval_short_side=40"]


def make_small(images):
    layers = [keras.Input(images.shape), keras.layers.Rescaling(1 / 255)]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(images.classes)]
    return keras.Sequential(layers, name="small")


def start(tmp_path, model=make_small, *, data=None, settings=(), **flags):
    data = tmp_path / "data" if data is None else data
    return run(
        RECIPE, data=data, model=model, run_dir=tmp_path / "run", set=[*SHORT, *settings], **flags
    )


@pytest.fixture
def folder(tmp_path):
    write_greys(tmp_path / "data", train=CLASSES, validation=9)
    names = "".join(f"class {n}\n" for n in range(CLASSES))
    (tmp_path / "data" / "label.labels.txt").write_text(names)
    return tmp_path


def test_departures_are_shown_everywhere_and_the_network_is_the_callers(folder, capsys):
    result = start(folder)
    wanted = {"classes 1,000 -> 20", "training images 1,281,167 -> 20"}
    wanted |= {"network resnet50 -> make_small", "epochs 90 -> 2"}
    assert wanted <= set(result.departures)
    assert result.rows[0].target_pct is None  # the paper's accuracy is one on other images
    printed = capsys.readouterr().out
    record = json.loads((folder / "run" / "result.json").read_text())
    plan = json.loads((folder / "run" / "plan.json").read_text())
    report = (folder / "run" / "report.html").read_text()
    for change in wanted:
        assert f"modified        {change}" in printed
        assert change in record["departures"] and change in plan["departures"]
        assert change.replace("->", "-&gt;") in report
    rows = dict(plan["rows"])
    # 3 x 20 weights and 20 biases
    assert rows["model"] == "small, 80 weights (published: another network)"
    assert rows["exempt tensors"] == "no decay on 1 of 2 tensors (0 batch norm, 1 bias)"
    assert rows["batch norm"] == "none in this network"
    exported = keras.saving.load_model(folder / "run" / "model.keras")
    assert exported.output_shape == (None, CLASSES)

    with pytest.raises(InputError, match="network resnet50 -> make_small .* there, .* -> other"):
        start(folder, keras.Sequential(make_small_layers(), name="other"))


def make_small_layers():
    return [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]


def test_a_model_is_copied_with_its_weights(folder):
    model = make_small(imagenet.open_folder(folder / "data", PICTURES).facts)
    rng = np.random.default_rng(0)
    before = [rng.normal(size=w.shape).astype("float32") for w in model.get_weights()]
    model.set_weights(before)
    start(folder, model, settings=["reference_rate=1e-12", "schedule.warmup_start_rate=0"])
    exported = keras.saving.load_model(folder / "run" / "model.keras")
    for got, kept, own in zip(exported.get_weights(), before, model.get_weights(), strict=True):
        np.testing.assert_allclose(got, kept, rtol=1e-6)  # a rate of nearly 0 moves nothing
        np.testing.assert_array_equal(own, kept)


def test_another_network_of_the_same_name_does_not_continue_a_run(folder):
    start(folder)
    (folder / "run" / "seed.json").unlink()

    def make_small(images):
        layers = [keras.Input(images.shape), keras.layers.Flatten()]
        return keras.Sequential([*layers, keras.layers.Dense(images.classes)], name="small")

    with pytest.raises(InputError, match="network"):
        start(folder, make_small)


def test_the_pages_program_trains_and_names_what_differs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [program] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(program, names)
    result = names["result"]
    assert {"data imagenet2012 -> my digits", "network resnet50 -> make_model"} <= set(
        result.departures
    )
    assert result.rows[0].runs[0].epochs[-1].validation_error_pct < 15
    assert Path("runs/mine/report.html").exists()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: lambda images: None, "must make a built Keras model. Received: NoneType"),
        (
            lambda: lambda images: keras.Sequential([keras.layers.Dense(3)]),
            "must make a built Keras model",
        ),
        (
            lambda: lambda i: keras.Sequential([keras.Input(i.shape), keras.layers.Flatten()]),
            r"must end in logits of the 20 classes, \(None, 20\). Received: .*\(None, 3072\)",
        ),
        (
            lambda: keras.Sequential([keras.Input((7,)), keras.layers.Dense(CLASSES)]),
            r"must take images of \(32, 32, 3\). Received: .* for \(7,\)",
        ),
    ],
    ids=["nothing", "unbuilt", "logits", "images"],
)
def test_a_network_that_does_not_fit_is_refused_in_a_line(folder, make, says):
    with pytest.raises(InputError, match=says):
        start(folder, make())
    assert not (folder / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"plan": True}, "flags must be without plan here"),
        ({"batch_size": 8}, "unrecognized arguments: --batch-size 8"),
        ({"seeds": 0}, "--seeds"),
        ({"settings": ["epoch=3"]}, "has no field 'epoch'. Nearest: epochs"),
        ({"data": "nowhere"}, "--data must be a folder that can be read. Received: nowhere"),
    ],
)
def test_a_wrong_flag_is_refused_in_a_line(folder, flags, says):
    with pytest.raises(InputError, match=re.escape(says)) as error:
        start(folder, **flags)
    assert "\n" not in str(error.value)


def test_classes_are_what_the_folder_says(tmp_path):
    write_greys(tmp_path, train=4, validation=4)
    assert count_classes(tmp_path) is None
    assert imagenet.open_folder(tmp_path, RECIPE.data).classes == 1000
    (tmp_path / "labels.txt").write_text("# label\tname\n1\tcat\n2\tdog\n3\tcow\n\n")
    assert count_classes(tmp_path) == 3
    (tmp_path / "dataset.json").write_text('{"classes": 4}')
    assert imagenet.open_folder(tmp_path, RECIPE.data).classes == 4
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "labels.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match=r"labels.txt must have a line for each .*Received: 0"):
        count_classes(tmp_path)


def test_arrays_in_the_place_of_shards_are_a_departure(tmp_path):
    pictures, labels = np.zeros((16, 8, 8, 1), np.uint8), np.arange(16) % 3
    data = ArrayData(
        "greys",
        classes=3,
        train=(pictures, labels),
        evaluation=(pictures, labels),
        pixel_mean=(0.0,),
        pixel_std=(1.0,),
    )
    result = start(tmp_path, data=data)
    assert "data imagenet2012 -> greys" in result.departures
    assert "classes 1,000 -> 3" in result.departures
