"""The rates of a schedule as an array, for tables and figures."""

import numbers
from typing import Any

import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from tf_largebatch.records.checks import check_count
from tf_largebatch.schedules.base import Tensor, check_schedule


def trace(schedule: LearningRateSchedule, updates: Tensor) -> np.ndarray[Any, Any]:
    """Returns the rates of many updates in one vectorised call.

    Args:
        schedule: a LearningRateSchedule that is elementwise, as all of this package are.
        updates: the number of updates from 0 on, or an integer array of update numbers.

    Returns:
        float32, shape (updates,) or that of the array.

    Raises:
        ValueError: not a schedule, or updates that are not whole numbers.
    """
    check_schedule("schedule", schedule)
    if isinstance(updates, numbers.Integral):
        updates = np.arange(check_count("updates", updates, 0))
    return np.asarray(ops.convert_to_numpy(schedule(np.asarray(updates))))
