"""Learning rates as pure functions of the update number.

Every class is a `keras.optimizers.schedules.LearningRateSchedule`: usable alone as the
`learning_rate` of any Keras optimizer, composable, serialisable, and elementwise, so that one call
with a vector of update numbers gives a vector of rates. Update 0 is the first update.

A change that is stated for update `u` happens at `u`: `rate(u - 1)` is the old value and `rate(u)`
the new one. (`keras.optimizers.schedules.PiecewiseConstantDecay` is one update later.)

Update numbers are subtracted and compared as integers and turned into float32 only as fractions of
a span, so the rates stay exact past 2**24 updates, where float32 can no longer count. Rates are
float32 whatever `keras.config.floatx()`.
"""

from tf_largebatch.schedules.batch import BatchPhases, Scaled
from tf_largebatch.schedules.decay import Cosine, Exponential, Polynomial
from tf_largebatch.schedules.steps import Constant, Steps
from tf_largebatch.schedules.trace import trace
from tf_largebatch.schedules.warmup import Warmup

__all__ = [
    "BatchPhases",
    "Constant",
    "Cosine",
    "Exponential",
    "Polynomial",
    "Scaled",
    "Steps",
    "Warmup",
    "trace",
]
