"""The rates of a schedule as an array, for tables and figures."""

import numbers

import numpy as np
from keras import ops

from tf_largebatch.schedules.arguments import check_count, check_schedule


def trace(schedule, updates) -> np.ndarray:
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
