"""Optimizers for large batches, as ordinary Keras 3 optimizers.

from tf_largebatch.optimizers import LARS
model.compile(optimizer=LARS(learning_rate=10.0, weight_decay=1e-4), loss=loss)
"""

from tf_largebatch.optimizers.exemptions import Exemption
from tf_largebatch.optimizers.momentum_sgd import MomentumSGD

__all__ = ["Exemption", "MomentumSGD"]
