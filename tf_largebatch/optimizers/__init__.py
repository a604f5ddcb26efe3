"""Optimizers for large batches, as ordinary Keras 3 optimizers.

from tf_largebatch.optimizers import LARS
model.compile(optimizer=LARS(learning_rate=10.0, weight_decay=1e-4), loss=loss)
"""

from tf_largebatch.optimizers.base import LargeBatchOptimizer
from tf_largebatch.optimizers.exemptions import Exemption
from tf_largebatch.optimizers.kfac import KFAC
from tf_largebatch.optimizers.lamb import LAMB
from tf_largebatch.optimizers.lars import LARS
from tf_largebatch.optimizers.momentum_sgd import MomentumSGD
from tf_largebatch.optimizers.muon import Muon
from tf_largebatch.optimizers.rmsprop_sgd import RMSpropSGD

__all__ = ["KFAC", "LAMB", "LARS", "Exemption", "LargeBatchOptimizer", "MomentumSGD"]
__all__ += ["Muon", "RMSpropSGD"]
