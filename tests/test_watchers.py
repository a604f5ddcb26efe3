"""What a run's plan makes of TensorBoard, and a real run read back."""

import dataclasses
import importlib
import pkgutil

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from tf_largebatch import recipes
from tf_largebatch.data.digits import load
from tf_largebatch.records.plan import Plan
from tf_largebatch.review.tensorboard.scalars import TensorBoardScalars
from tf_largebatch.training.command import main
from tf_largebatch.training.watchers import SHOWN, first_images, make_hparams

CONTEXT = RequestContext()
EXPECTED = {  # the column's type, as TensorBoard knows three
    "recipe": str,
    "row": str,
    "optimizer": str,
    "label_smoothing": float,
    "global_batch": float,
    "micro_batch": float,
    "peak_rate": float,
    "scaling": str,
    "warmup_epochs": float,
    "weight_decay": float,
    "bn_batch": float,
    "precision": str,
    "wire": str,
    "seed": float,
    "modified": bool,
}


def every_recipe():
    found = []
    for module in pkgutil.iter_modules(recipes.__path__):
        recipe = getattr(importlib.import_module(f"{recipes.__name__}.{module.name}"), "RECIPE", 0)
        if recipe:
            found.append(recipe)
    return found


def plan_of(recipe, departures=()):
    return Plan(recipe=recipe, phases=recipe.phases(), scale="full", data="", departures=departures)


def kind(value):
    if isinstance(value, bool):
        return bool
    return float if isinstance(value, int | float) else type(value)


@pytest.mark.parametrize("recipe", every_recipe(), ids=lambda recipe: recipe.name)
def test_every_recipe_has_the_same_columns_of_the_same_types(recipe):
    hparams = make_hparams(plan_of(recipe), 3, "large")
    assert {name: kind(value) for name, value in hparams.items()} == EXPECTED
    assert hparams["seed"] == 3 and hparams["peak_rate"] == recipe.peak_rate


def test_runs_of_different_recipes_stand_in_one_table(tmp_path):
    """Through the code that answers TensorBoard's own hparams page."""
    written = {}
    chosen = {type(r.optimizer): r for r in every_recipe() if not r.missing}
    assert len(chosen) == 5  # SGD, LARS, LAMB, RMSprop, K-FAC
    for recipe in chosen.values():
        plan = plan_of(recipe, ("rate: 1 -> 2",) if recipe.name.startswith("goyal") else ())
        written[recipe.name] = make_hparams(plan, 0, recipe.name)
        callback = TensorBoardScalars(
            tmp_path / recipe.name,
            every=1,
            plan_markdown="",
            hparams=written[recipe.name],
        )
        callback.on_train_begin({})
        callback.on_epoch_end(
            0,
            {
                "train_loss": 1.0,
                "train_error_pct": 50.0,
                "validation_loss": 1.0,
                "validation_error_pct": 25.0,
                "validation_top5_error_pct": 5.0,
            },
        )
        callback.on_train_end({})

    runs = plugin_event_multiplexer.EventMultiplexer()
    runs.AddRunsFromDirectory(str(tmp_path))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(tmp_path))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    metadata = context.hparams_metadata(CONTEXT, "")
    experiment = context.experiment_from_metadata(
        CONTEXT, "", True, metadata, context.hparams_from_data_provider(CONTEXT, "", limit=1000)
    )
    columns = {info.name for info in experiment.hparam_infos}
    assert columns == set(EXPECTED)
    unasked = {info.name for info in experiment.hparam_infos if info.differs}
    assert unasked == {"row", "optimizer", "global_batch", "peak_rate", "warmup_epochs"}

    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_RUNNING],
        include_metrics=True,
    )
    answer = list_session_groups.Handler(CONTEXT, context, "", request).run()
    rows = {g.hparams["recipe"].string_value: g for g in answer.session_groups}
    assert set(rows) == set(written)
    for name, group in rows.items():
        shown = {
            key: getattr(value, value.WhichOneof("kind")) for key, value in group.hparams.items()
        }
        assert shown == written[name]
        metrics = {m.name.tag: m.value for m in group.metric_values}
        assert metrics == pytest.approx(
            {"epoch/error_pct": 25.0, "epoch/top1_best": 0.75, "epoch/top1": 0.75}
        )


def test_the_first_images_are_the_first_of_training_as_the_network_takes_them():
    source = load()
    from tf_largebatch.records.batching import BatchPlan

    batch = BatchPlan(global_batch=64, train_examples=source.train_examples)
    trained = next(iter(source.train_batches(batch, seed=5)))[0].numpy()
    np.testing.assert_array_equal(first_images(source, 5), trained[:SHOWN])
    assert not np.array_equal(first_images(source, 6), trained[:SHOWN])


@pytest.mark.slow
def test_a_run_on_the_command_line_reads_back_every_tag_and_step(tmp_path):
    module = importlib.import_module("tf_largebatch.recipes.goyal_8k")
    with pytest.raises(SystemExit) as ended:
        main(
            module.RECIPE,
            row_of(module.MINIATURE, "LARS"),
            ["--run-dir", str(tmp_path / "run"), "--profile", "20:22"],
        )
    assert ended.value.code == 0
    folder = tmp_path / "run"
    points = EventAccumulator(str(folder / "train"), size_guidance={"tensors": 0})
    points.Reload()
    tags = {t: [e.step for e in points.Tensors(t)] for t in points.Tags()["tensors"]}
    # 13 epochs of 5 updates; blocks end with them, and one update is traced at a time.
    assert tags["epoch/error_pct"] == list(range(1, 14))
    assert tags["step/loss"][-1] == 65
    assert tags["optimizer/trust_ratio"] == tags["optimizer/update_ratio"] == [20, 40, 60]
    named = [tag for tag in tags if tag.startswith("update_ratio/")]
    assert 3 <= len(named) <= 10 and all(tags[tag] == [20, 40, 60] for tag in named)
    (first, *_) = points.Tensors("optimizer/trust_ratio")
    trusted = [tag for tag in tags if tag.startswith("trust_ratio/")]
    assert tf.make_ndarray(first.tensor_proto)[:, 2].sum() >= len(trusted) == len(named)
    assert tags["throughput/input_wait_pct"]
    waits = [float(tf.make_ndarray(e.tensor_proto)) for e in points.Tensors("step/loss")]
    assert np.isfinite(waits).all()
    assert {"config", "departures", "inputs", "custom_scalars__config__"} <= set(tags)
    assert len(list(folder.glob("plugins/profile/*/*.xplane.pb"))) == 1


def row_of(miniature, label):
    """One row alone, squeezed into 13 epochs."""
    row = next(row for row in miniature.rows if row.label.startswith(label))
    recipe = dataclasses.replace(
        row.recipe, epochs=13, schedule=row.recipe.schedule.stretched(13 / row.recipe.epochs)
    )
    short = dataclasses.replace(row, recipe=recipe)
    return dataclasses.replace(miniature, rows=(short,), claims=())
