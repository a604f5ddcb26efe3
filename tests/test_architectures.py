"""The sizes that a plan prints are those of the networks that train."""

import subprocess
import sys

import numpy as np
import pytest
from networks import make

from tf_largebatch.records import architectures

SLOW = {"inception_resnet_v2"}  # about 6 s to build
NAMES = [
    pytest.param(a.name, marks=[pytest.mark.slow] * (a.name in SLOW))
    for a in architectures.ARCHITECTURES
]


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize("name", NAMES)
def test_the_record_equals_the_network_that_is_built(name):
    record = architectures.get(name)
    model = make(name)
    last_parts = [v.path.split("/")[-1] for v in model.trainable_variables]
    assert model.name == name
    assert model.input_shape == (None, *record.image_shape)
    assert model.output_shape == (None, record.classes)
    assert record.parameters == count(model.trainable_variables)
    moving = [v for v in model.non_trainable_variables if "moving_" in v.path]
    assert record.moving_statistics == count(moving)
    rest = {v.path.split("/")[-1] for v in model.non_trainable_variables if "moving_" not in v.path}
    assert rest <= {"seed_generator_state"}  # dropout
    assert record.kernel_tensors == last_parts.count("kernel")
    assert record.norm_tensors == last_parts.count("gamma") + last_parts.count("beta")
    assert record.bias_tensors == last_parts.count("bias")
    assert record.tensors == len(last_parts)
    assert record.rank_le_1_tensors == sum(len(v.shape) <= 1 for v in model.trainable_variables)


def test_resnet50_has_the_published_size():
    # 25.56 M parameters. Without the head (2048 x 1000 + 1000) and with the moving statistics,
    # 23,561,152: the figure that public v1.5 backbones without convolution biases report.
    record = architectures.get("resnet50")
    assert record.parameters == 25_557_032
    assert record.parameters + record.moving_statistics - (2048 * 1000 + 1000) == 23_561_152
    assert (record.tensors, record.rank_le_1_tensors) == (161, 107)


def test_alexnet_has_the_published_size():
    # Krizhevsky et al. 2012: "60 million parameters". A kernel of two halves has half the inputs:
    # 11*11*3*96 + 5*5*48*256 + 3*3*256*384 + 3*3*192*384 + 3*3*192*256 = 2_332_704; dense
    # 9216*4096 + 4096*4096 + 4096*1000 = 58_621_952; biases 1_376 + 9_192 = 10_568.
    record = architectures.get("alexnet")
    assert record.parameters == 2_332_704 + 58_621_952 + 10_568 == 60_965_224
    # Batch norm without gamma and beta on 96 + 256 + 384 + 384 maps: nothing that is trained.
    norm = architectures.get("alexnet_bn")
    assert (norm.parameters, norm.moving_statistics) == (record.parameters, 2 * 1_120)


def test_alexnet_of_one_column_has_the_published_size():
    # 11*11*3*64 + 5*5*64*192 + 3*3*192*384 + 3*3*384*256 + 3*3*256*256 = 2_468_544; 1_152 biases.
    record = architectures.get("alexnet_owt")
    assert record.parameters == 2_468_544 + 1_152 + 58_621_952 + 9_192 == 61_100_840
    # Hoffer et al.: a gamma and a beta for each of 1,152 maps and 8,192 units instead of a bias.
    norms = 2 * (1_152 + 8_192)
    assert architectures.get("alexnet_owt_bn").parameters == 2_468_544 + 58_621_952 + 1_000 + norms


def test_inception_resnet_v2_has_the_published_size():
    # The size that the documentation of keras.applications gives, moving statistics included.
    record = architectures.get("inception_resnet_v2")
    assert record.parameters + record.moving_statistics == 55_873_736


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="one of resnet50, .*resnet101, .*name='resnet51'"):
        architectures.get("resnet51")


def test_the_records_need_no_framework():
    code = (
        "import sys, tf_largebatch.records.architectures as a; a.get('resnet50'); "
        "print(sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
