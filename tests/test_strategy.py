"""Local devices of one process."""

import pytest
import tensorflow as tf

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers.strategy import make_strategy


def test_more_replicas_than_the_process_began_with_is_one_line():
    tf.constant(0.0)  # from here on TensorFlow holds the CPU as two devices
    assert make_strategy(2).num_replicas_in_sync == 2
    with pytest.raises(InputError, match="--replicas 4 must be set before TensorFlow starts"):
        make_strategy(4)
    assert make_strategy(2) is make_strategy(2)
