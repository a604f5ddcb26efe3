import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from tf_largebatch.review.tensorboard.dashboards import make_layout
from tf_largebatch.review.tensorboard.layers import named_tensors
from tf_largebatch.review.tensorboard.pictures import picture_grid
from tf_largebatch.review.tensorboard.scalars import TensorBoardScalars

HPARAMS = {"recipe": "goyal_8k", "global_batch": 256, "peak_rate": 3.2, "modified": False}


def make(folder, **changes):
    settings = dict(every=4, plan_markdown="| a | b |", hparams=HPARAMS)
    return TensorBoardScalars(folder, **(settings | changes))


def update_logs(number, **extra):
    """Update `number` (1 is the first): a loss equal to its number, and so on."""
    logs = {
        "loss": float(number),
        "accuracy": 0.5,
        "learning_rate": number / 10,
        "grad_norm": 2.0 * number,
        "images_per_sec": 1000.0 * number,
        "step_ms": 256.0 / number,
        "input_wait_pct": 5.0 * number,
        "global_batch": 256,
        "images_seen": 256 * number,
    }
    return logs | extra


def epoch_logs(error):
    return {
        "train_loss": 1.5,
        "train_error_pct": 40.0,
        "validation_loss": 2.5,
        "validation_error_pct": error,
        "validation_top5_error_pct": 5.0,
    }


def train(callback, epochs, *, done=0, epoch=0, errors=None, end=True):
    """Drives the hooks as the loop does; `epochs` holds the updates of each."""
    callback.on_train_begin({})
    for number, updates in enumerate(epochs):
        for _ in range(updates):
            callback.on_train_batch_end(done, update_logs(done + 1))
            done += 1
        error = errors[number] if errors else 50.0
        callback.on_epoch_end(epoch + number, epoch_logs(error))
    if end:
        callback.on_train_end({})


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [(e.step, tf.make_ndarray(e.tensor_proto)[()]) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def steps(series):
    return [step for step, _ in series]


def values(series):
    return [float(value) for _, value in series]


def test_each_window_holds_the_mean_at_its_last_update(tmp_path):
    train(make(tmp_path), [8])
    scalars = read(tmp_path / "train")
    # (1 + 2 + 3 + 4) / 4 and (5 + 6 + 7 + 8) / 4
    assert scalars["step/loss"] == [(4, 2.5), (8, 6.5)]
    np.testing.assert_allclose(values(scalars["optimizer/learning_rate"]), [0.25, 0.65], rtol=1e-6)
    assert scalars["optimizer/grad_norm"] == [(4, 5.0), (8, 13.0)]
    assert scalars["images_seen"] == [(4, 1024), (8, 2048)]
    assert scalars["global_batch"] == [(4, 256), (8, 256)]
    assert scalars["images_seen/loss"] == [(1024, 2.5), (2048, 6.5)]
    assert steps(scalars["images_seen/learning_rate"]) == [1024, 2048]


def test_no_update_is_lost_when_the_interval_does_not_divide_an_epoch(tmp_path):
    train(make(tmp_path), [10, 3, 5])
    series = read(tmp_path / "train")["step/loss"]
    # Epochs end at 10, 13 and 18: windows of 4, 4, 2, then 3, then 4, 1.
    assert series == [(4, 2.5), (8, 6.5), (10, 9.5), (13, 12.0), (17, 15.5), (18, 18.0)]
    sizes = [4, 4, 2, 3, 4, 1]
    assert sum(n * v for n, v in zip(sizes, values(series), strict=True)) == sum(range(1, 19))


def test_the_end_of_training_writes_what_is_left_without_an_epoch(tmp_path):
    callback = make(tmp_path)
    callback.on_train_begin({})
    for update in range(3):
        callback.on_train_batch_end(update, update_logs(update + 1))
    callback.on_train_end({})
    assert read(tmp_path / "train")["step/loss"] == [(3, 2.0)]


@pytest.mark.parametrize("updates", [1, 7, 20, 23])
@pytest.mark.parametrize("every", [1, 4, 7, 50])
def test_windows_tile_the_updates_for_any_interval(tmp_path, every, updates):
    train(make(tmp_path, every=every), [updates])
    series = read(tmp_path / "train")["step/loss"]
    ends = steps(series)
    assert ends[-1] == updates
    sizes = np.diff([0, *ends])
    assert all(sizes[:-1] == every) and 0 < sizes[-1] <= every
    np.testing.assert_allclose(np.dot(sizes, values(series)), updates * (updates + 1) / 2)


def test_a_value_given_once_in_a_block_is_written_as_it_is(tmp_path):
    callback = make(tmp_path)
    callback.on_train_begin({})
    for update in range(8):
        extra = {"weight_norm": 7.0} if update == 3 else {}
        callback.on_train_batch_end(update, update_logs(update + 1, **extra))
    callback.on_train_end({})
    # The second window has no such value: no point, and no zero.
    assert read(tmp_path / "train")["optimizer/weight_norm"] == [(4, 7.0)]


def test_throughput_leaves_out_the_window_with_the_compilation(tmp_path):
    train(make(tmp_path, every=2), [4])
    scalars = read(tmp_path / "train")
    # Updates 3 and 4 take 256/3 and 256/4 ms: 512 images in 149.33 ms are 3428.57 a second, where
    # the mean of the rates would be 3500.
    assert steps(scalars["throughput/images_per_sec"]) == [4]
    expected = 512 / (256 / 3 + 256 / 4) * 1000
    np.testing.assert_allclose(values(scalars["throughput/images_per_sec"]), [expected], rtol=1e-6)
    np.testing.assert_allclose(values(scalars["throughput/step_ms"]), [224 / 3], rtol=1e-6)
    assert steps(scalars["step/loss"]) == [2, 4]


def test_a_loss_that_is_not_finite_stays_so(tmp_path):
    callback = make(tmp_path, every=2)
    callback.on_train_begin({})
    callback.on_train_batch_end(0, update_logs(1))
    callback.on_train_batch_end(1, update_logs(2, loss=float("nan")))
    callback.on_train_end({})
    assert np.isnan(values(read(tmp_path / "train")["step/loss"])).all()


def test_train_and_validation_share_the_epoch_tags_at_epochs_counted_from_one(tmp_path):
    train(make(tmp_path), [4, 4, 4], errors=[30.0, 20.0, 25.0])
    ours, validation = read(tmp_path / "train"), read(tmp_path / "validation")
    assert ours["epoch/error_pct"] == [(1, 40.0), (2, 40.0), (3, 40.0)]
    assert ours["epoch/loss"] == [(1, 1.5), (2, 1.5), (3, 1.5)]
    assert validation["epoch/error_pct"] == [(1, 30.0), (2, 20.0), (3, 25.0)]
    assert validation["epoch/loss"] == [(1, 2.5), (2, 2.5), (3, 2.5)]
    np.testing.assert_allclose(values(ours["epoch/top1"]), [0.6] * 3, rtol=1e-6)
    np.testing.assert_allclose(values(validation["epoch/top1"]), [0.7, 0.8, 0.75], rtol=1e-6)
    np.testing.assert_allclose(values(validation["epoch/top1_best"]), [0.7, 0.8, 0.8], rtol=1e-6)
    np.testing.assert_allclose(values(validation["epoch/top5"]), [0.95] * 3, rtol=1e-6)


def test_the_runs_have_the_documented_tags_and_no_others(tmp_path):
    callback = make(tmp_path, every=2)
    callback.on_train_begin({})
    for update in range(4):
        callback.on_train_batch_end(update, update_logs(update + 1, weight_norm=1.0))
    callback.on_epoch_end(0, epoch_logs(10.0))
    callback.on_train_end({})
    assert set(read(tmp_path / "train")) == {
        "epoch/loss",
        "epoch/top1",
        "epoch/error_pct",
        "step/loss",
        "optimizer/learning_rate",
        "optimizer/grad_norm",
        "optimizer/weight_norm",
        "throughput/images_per_sec",
        "throughput/step_ms",
        "throughput/input_wait_pct",
        "images_seen",
        "global_batch",
        "images_seen/loss",
        "images_seen/learning_rate",
        "config",
        "departures",
        "custom_scalars__config__",
    }
    assert set(read(tmp_path / "validation")) == {
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
        "epoch/loss",
        "epoch/top1",
        "epoch/top1_best",
        "epoch/top5",
        "epoch/error_pct",
    }


def hparams_data(folder, tag):
    events = EventAccumulator(str(folder))
    events.Reload()
    content = events.SummaryMetadata(tag).plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def test_hparams_read_back_with_types_and_metrics(tmp_path):
    train(make(tmp_path), [4])
    row = tmp_path / "validation"  # beside its metrics, so that it is no run of its own
    start = hparams_data(row, "_hparams_/session_start_info").session_start_info
    assert start.hparams["recipe"].string_value == "goyal_8k"
    assert start.hparams["global_batch"].number_value == 256
    assert start.hparams["modified"].WhichOneof("kind") == "bool_value"
    experiment = hparams_data(row, "_hparams_/experiment").experiment
    kinds = {info.name: info.type for info in experiment.hparam_infos}
    assert kinds == {
        "recipe": api_pb2.DATA_TYPE_STRING,
        "global_batch": api_pb2.DATA_TYPE_FLOAT64,
        "peak_rate": api_pb2.DATA_TYPE_FLOAT64,
        "modified": api_pb2.DATA_TYPE_BOOL,
    }
    # No domain, which would hide the runs with other values.
    assert not any(info.WhichOneof("domain") for info in experiment.hparam_infos)
    metrics = [(info.name.group, info.name.tag) for info in experiment.metric_infos]
    tags = ("epoch/error_pct", "epoch/top1_best", "epoch/top1")
    assert metrics == [("", tag) for tag in tags]
    written = read(row)
    assert all(tag in written for _, tag in metrics)
    end = hparams_data(row, "_hparams_/session_end_info").session_end_info
    assert end.status == api_pb2.STATUS_SUCCESS


def test_a_run_that_did_not_end_is_not_marked_as_finished(tmp_path):
    callback = make(tmp_path)
    train(callback, [4], end=False)
    assert "_hparams_/session_end_info" not in read(tmp_path / "validation")
    # Its points are on disk all the same.
    assert steps(read(tmp_path / "train")["step/loss"]) == [4]
    assert steps(read(tmp_path / "validation")["epoch/loss"]) == [1]


def test_a_full_window_is_on_disk_before_its_epoch_ends(tmp_path):
    callback = make(tmp_path, every=2)
    callback.on_train_begin({})
    for update in range(3):
        callback.on_train_batch_end(update, update_logs(update + 1))
    assert steps(read(tmp_path / "train")["step/loss"]) == [2]
    callback.on_train_end({})


@pytest.mark.parametrize(
    ("adapts", "noise", "grows", "patterns"),
    [
        (False, False, False, {"Goyal": 3, "You": ["^update_ratio/"]}),
        (True, False, False, {"Goyal": 3, "You": ["^trust_ratio/", "^update_ratio/"]}),
        (
            False,
            True,
            True,
            {
                "Goyal": 3,
                "You": ["^update_ratio/"],
                "McCandlish": ["^noise/b_simple$", "^global_batch$"],
                "Smith, Mikami": ["^global_batch$", "^images_seen$"],
            },
        ),
    ],
)
def test_the_layout_has_a_page_a_paper_and_no_chart_without_data(
    tmp_path, adapts, noise, grows, patterns
):
    layout = make_layout(adapts=adapts, noise=noise, grows=grows)
    train(make(tmp_path, layout=layout), [4])
    [(step, raw)] = read(tmp_path / "train")["custom_scalars__config__"]
    layout = layout_pb2.Layout.FromString(raw)
    assert step == 0
    first = [t for chart in layout.category[0].chart for t in chart.multiline.tag]
    assert layout.category[0].title == "Does it work?"
    assert first[:2] == ["^epoch/error_pct$", "^epoch/loss$"]
    assert first[2:-1] == ["^noise/b_simple$", "^global_batch$"] * noise
    assert first[-1] == "^images_seen/loss$"
    del layout.category[0]
    pages = {
        page.title: [t for chart in page.chart for t in chart.multiline.tag]
        for page in layout.category
    }
    assert pages.pop("Goyal") == [
        "^epoch/error_pct$",
        "^step/loss$",
        "^optimizer/learning_rate$",
    ]
    assert pages == {k: v for k, v in patterns.items() if k != "Goyal"}


def test_the_plan_is_text_at_step_0(tmp_path):
    train(make(tmp_path, plan_markdown="| rate | 3.2 |"), [4])
    assert read(tmp_path / "train")["config"] == [(0, b"| rate | 3.2 |")]


def test_a_resumed_run_appends_and_repeats_nothing(tmp_path):
    train(make(tmp_path), [6, 6], errors=[30.0, 20.0], end=False)
    resumed = make(tmp_path, first_update=12, first_epoch=2)
    train(resumed, [6], done=12, epoch=2, errors=[25.0])
    ours, validation = read(tmp_path / "train"), read(tmp_path / "validation")
    assert steps(ours["step/loss"]) == [4, 6, 10, 12, 16, 18]
    assert ours["images_seen"][-1] == (18, 18 * 256)
    assert steps(validation["epoch/error_pct"]) == [1, 2, 3]
    # The best epoch lies before the interruption.
    np.testing.assert_allclose(values(validation["epoch/top1_best"]), [0.7, 0.8, 0.8], rtol=1e-6)
    once = {"config": ours, "custom_scalars__config__": ours}
    for tag, run in (once | {"_hparams_/session_start_info": validation}).items():
        assert len(run[tag]) == 1
    # A new process compiles again: the window up to 16 is left out.
    assert steps(ours["throughput/step_ms"]) == [6, 10, 12, 18]


def test_a_resumed_run_without_events_starts_its_own(tmp_path):
    train(make(tmp_path, first_update=12), [4], done=12, epoch=2, errors=[25.0])
    np.testing.assert_allclose(values(read(tmp_path / "validation")["epoch/top1_best"]), [0.75])


@pytest.mark.parametrize(
    ("name", "value"),
    [("every", 0), ("every", 2.0), ("first_update", -1), ("every", True)],
)
def test_a_number_out_of_range_is_named_with_its_value(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}={value!r}"):
        make(tmp_path, **{name: value})


@pytest.mark.parametrize("value", [None, (1, 2)])
def test_an_hparam_that_no_column_can_hold_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"`hparams` must hold .*hparams\['bn'\]"):
        make(tmp_path, hparams={"bn": value})
    assert not list(tmp_path.iterdir())


def test_the_published_error_is_a_line_on_the_same_chart(tmp_path):
    train(make(tmp_path, published=(90.0, 23.74)), [4])
    line = read(tmp_path / "published")["epoch/error_pct"]
    assert [step for step, _ in line] == [1, 90]
    np.testing.assert_allclose(values(line), 23.74, rtol=1e-6)
    assert not (tmp_path / "again" / "published").exists()
    train(make(tmp_path / "again"), [4])
    assert not (tmp_path / "again" / "published").exists()


RATIOS = {"a/kernel": 0.1, "b/kernel": 0.01, "b/bias": 1e-3, "c/kernel": 0.0}


class Model:
    """What the callback reads of a model."""

    def __init__(self, *tensors):
        self.trainable_variables = [Tensor(*tensor) for tensor in tensors]


class Tensor:
    def __init__(self, path, rank):
        self.path, self.shape = path, (3,) * rank


def looked_at(folder, **ratios):
    callback = make(folder)
    callback.set_model(Model(("a/kernel", 4), ("b/kernel", 2), ("b/bias", 1), ("c/kernel", 2)))
    callback.on_train_begin({})
    for update in range(6):
        extra = ratios if update in (2, 5) else {}
        callback.on_train_batch_end(update, update_logs(update + 1, **extra))
    callback.on_train_end({})
    return read(folder / "train")


def test_layers_are_histograms_of_all_tensors_and_curves_of_the_kernels_in_log10(tmp_path):
    trust = {"a/kernel": 0.5, "b/kernel": 0.25}
    scalars = looked_at(tmp_path, update_ratio=RATIOS, trust_ratio=trust)
    # At the updates that were looked at, whatever the interval of the other points.
    assert steps(scalars["optimizer/update_ratio"]) == [3, 6]
    assert steps(scalars["step/loss"]) == [4, 6]
    assert values(scalars["update_ratio/a/kernel"]) == pytest.approx([-1, -1])
    assert values(scalars["update_ratio/b/kernel"]) == pytest.approx([-2, -2])
    assert values(scalars["trust_ratio/b/kernel"]) == pytest.approx([np.log10(0.25)] * 2)
    # A tensor that did not move has no logarithm, a bias no curve of its own.
    assert "update_ratio/c/kernel" not in scalars and "update_ratio/b/bias" not in scalars
    for tag, count in (("update_ratio", 3), ("trust_ratio", 2)):
        for event in _tensors(tmp_path / "train", f"optimizer/{tag}"):
            buckets = tf.make_ndarray(event.tensor_proto)
            assert buckets[:, 2].sum() == count
    edges = tf.make_ndarray(_tensors(tmp_path / "train", "optimizer/update_ratio")[0].tensor_proto)
    assert (edges[0, 0], edges[-1, 1]) == pytest.approx((-3, -1))


def test_a_rule_without_trust_ratio_has_no_such_tags(tmp_path):
    scalars = looked_at(tmp_path, update_ratio=RATIOS)
    assert not [tag for tag in scalars if "trust_ratio" in tag]


def _tensors(folder, tag):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events.Tensors(tag)


def test_named_tensors_are_the_ends_of_the_network_and_of_its_stages():
    small = [("conv/kernel", 4), ("conv/bias", 1), ("head/kernel", 2)]
    assert named_tensors(small) == ["conv/kernel", "head/kernel"]
    blocks = [(f"stage{s}_block{b}_{c}/kernel", 4) for s in "1234" for b in "123" for c in "abc"]
    network = [("stem/kernel", 4), ("stem_bn/gamma", 1), *blocks, ("head/kernel", 2)]
    assert named_tensors(network) == [
        "stem/kernel",
        *(f"stage{s}_block{end}/kernel" for s in "1234" for end in ("1_a", "3_c")),
        "head/kernel",
    ]
    plain = [(f"conv{i}/kernel", 4) for i in range(28)]
    assert named_tensors(plain) == [f"conv{3 * i}/kernel" for i in range(10)]
    assert named_tensors([]) == []


def shown(folder):
    """As TensorBoard's server reads a run; the plain accumulator keeps void points."""
    events = plugin_event_accumulator.EventAccumulator(
        str(folder), tensor_size_guidance={"scalars": 0}
    )
    events.Reload()
    return {
        tag: [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if "/" in tag and not tag.startswith("_")
    }


def test_points_after_the_checkpoint_are_void_when_they_come_again(tmp_path):
    # 10 updates and 2 epochs were written; the checkpoint is of update 6 and epoch 1.
    train(make(tmp_path), [4, 6], errors=[30.0, 10.0], end=False)
    resumed = make(tmp_path, first_update=6, first_epoch=1)
    train(resumed, [4], done=6, epoch=1, errors=[40.0])
    ours, validation = shown(tmp_path / "train"), shown(tmp_path / "validation")
    assert steps(ours["step/loss"]) == [4, 10]  # 8 is void with the 10 of before
    assert values(ours["step/loss"])[-1] == np.mean([7, 8, 9, 10])
    assert validation["epoch/error_pct"] == [(1, 30.0), (2, 40.0)]
    # What the mark voids of these, the restart has written once more.
    assert ours["images_seen/loss"] == [(4 * 256, 2.5), (10 * 256, 8.5)]
    assert steps(ours["epoch/loss"]) == [1, 2, 2]  # beside steps of updates: not void
    # The 10 % of before the restart is void as well.
    np.testing.assert_allclose(values(validation["epoch/top1_best"]), [0.7, 0.7], rtol=1e-6)


def test_departures_are_text(tmp_path):
    train(make(tmp_path / "one", departures=("a: 1 -> 2", "b: 3 -> 4")), [1])
    assert read(tmp_path / "one" / "train")["departures"] == [(0, b"- a: 1 -> 2\n- b: 3 -> 4")]
    train(make(tmp_path / "two"), [1])
    assert read(tmp_path / "two" / "train")["departures"] == [
        (0, b"None: every number is the recipe's.")
    ]


def test_the_first_images_are_one_picture_at_step_0(tmp_path):
    images = np.arange(10 * 64 * 70 * 3, dtype=np.uint32).astype(np.uint8).reshape(10, 64, 70, 3)
    train(make(tmp_path, inputs=lambda: images), [1])
    [(event)] = _tensors(tmp_path / "train", "inputs")
    width, height, png = tf.make_ndarray(event.tensor_proto)
    assert (event.step, int(width), int(height)) == (0, 210, 192)
    decoded = tf.io.decode_png(png).numpy()
    np.testing.assert_array_equal(decoded[64:128, 140:], images[5])  # second row, third column


def test_pictures_of_numbers_run_from_black_to_white_and_small_ones_are_blown_up():
    images = np.zeros((4, 8, 8, 1), np.float32)
    images[1], images[2] = -2.0, 6.0
    grid = picture_grid(images)
    assert grid.shape == (192, 192, 1) and grid.dtype == np.uint8
    assert grid[0, 0] == 64 and grid[0, 64] == 0 and grid[0, 128] == 255  # (0 + 2) / 8 of 255
    assert (grid[128:] == 0).all()


@pytest.mark.parametrize(
    "images", [np.zeros((4, 8)), np.zeros((4, 8, 8, 2)), np.full((4, 8, 8, 1), np.nan)]
)
def test_a_source_without_pictures_shows_none(tmp_path, images):
    assert picture_grid(images) is None
    train(make(tmp_path, inputs=lambda: images), [1])
    assert "inputs" not in read(tmp_path / "train")
