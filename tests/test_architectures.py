"""The sizes that a plan prints are those of the networks that train."""

import subprocess
import sys

import numpy as np
import pytest

from tf_largebatch import architectures
from tf_largebatch.models.digits_resnet import make_digits_resnet
from tf_largebatch.models.resnet import make_resnet

MAKERS = {
    "resnet50": lambda **pixels: make_resnet(50, **pixels),
    "resnet101": lambda **pixels: make_resnet(101, **pixels),
    "resnet152": lambda **pixels: make_resnet(152, **pixels),
    "digits_resnet": make_digits_resnet,
}


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize("name", [a.name for a in architectures.ARCHITECTURES])
def test_the_record_equals_the_network_that_is_built(name):
    record = architectures.get(name)
    model = MAKERS[name](pixel_mean=0.0, pixel_std=1.0)
    last_parts = [v.path.split("/")[-1] for v in model.trainable_variables]
    assert model.name == name
    assert model.input_shape == (None, *record.image_shape)
    assert model.output_shape == (None, record.classes)
    assert record.parameters == count(model.trainable_variables)
    assert record.moving_statistics == count(model.non_trainable_variables)
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


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="one of resnet50, resnet101, .*name='resnet51'"):
        architectures.get("resnet51")


def test_the_records_need_no_framework():
    code = (
        "import sys, tf_largebatch.architectures as a; a.get('resnet50'); "
        "print(sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
