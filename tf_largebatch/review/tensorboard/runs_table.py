"""TensorBoard's table of runs: its columns, a run's row, and that a run has ended.

As `tensorboard.plugins.hparams.summary` makes them, which needs TensorFlow.
"""

import time

import keras
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

HParams = dict[str, float | str | int | bool]

BEST = "epoch/top1_best"
METRICS = (
    ("epoch/error_pct", "final error, %"),
    (BEST, "best top-1"),
    ("epoch/top1", "final top-1"),
)
# Columns of the table of runs that it shows unasked; the rest are there to be ticked.
SHOWN_COLUMNS = ("row", "optimizer", "global_batch", "peak_rate", "warmup_epochs")


def hparams_of(model: keras.Model, global_batch: int | None) -> HParams:
    """What tells one `fit` from another: the optimizer's options, the batch and the precision."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    options = optimizer.get_config()
    rate = options.pop("learning_rate", None)
    found = {k: v for k, v in options.items() if isinstance(v, bool | int | float)}
    if isinstance(rate, dict):
        rate = rate["class_name"]
    more = {"global_batch": global_batch, "learning_rate": rate}
    of_run = {"optimizer": type(optimizer).__name__, "precision": model.dtype_policy.name}
    return {**of_run, **{k: v for k, v in more.items() if v is not None}, **found}


def columns(hparams: HParams) -> Summary:
    """The columns of the table."""
    types = {bool: api_pb2.DATA_TYPE_BOOL, str: api_pb2.DATA_TYPE_STRING}
    # TensorBoard takes the columns of all runs from one of them. A domain of this run's values
    # would hide the runs that have others.
    infos = [
        api_pb2.HParamInfo(
            name=name,
            type=types.get(type(value), api_pb2.DATA_TYPE_FLOAT64),
            differs=name in SHOWN_COLUMNS,
        )
        for name, value in hparams.items()
    ]
    # Without a group: the row stands in the run that has them.
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=title)
        for tag, title in METRICS
    ]
    experiment = api_pb2.Experiment(
        time_created_secs=time.time(), hparam_infos=infos, metric_infos=metrics
    )
    return _point(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment))


def session_start(hparams: HParams) -> Summary:
    """A run's row."""
    info = SessionStartInfo(start_time_secs=time.time())
    for name, value in hparams.items():
        kind = "string_value" if isinstance(value, str) else "number_value"
        setattr(info.hparams[name], "bool_value" if isinstance(value, bool) else kind, value)
    data = HParamsPluginData(session_start_info=info)
    return _point(metadata.SESSION_START_INFO_TAG, data)


def session_end() -> Summary:
    """That a run has ended well."""
    info = SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    return _point(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def _point(tag: str, data: HParamsPluginData) -> Summary:
    point, about = Summary(), metadata.create_summary_metadata(data)
    point.value.add(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
    return point
