"""What a TPU asks of the step and can be seen without one: it compiles, and no shape is dynamic."""

import re

import keras
import pytest
import tensorflow as tf
from networks import make

from tf_largebatch.models.stream_dropout import StreamDropout
from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.model_spec import LossSpec
from tf_largebatch.schedules import Steps, Warmup
from tf_largebatch.training.build import make_loss
from tf_largebatch.training.step import TrainingStep

BATCH = 16
HOST_ONLY = re.compile(r"PyFunc|String|Decode|Iterator|Unique|Where$|BooleanMask")


def make_step(optimizer, *, policy="float32", micro_batch=8, dropout=0.0):
    keras.config.set_dtype_policy(policy)
    plan = BatchPlan(global_batch=BATCH, train_examples=64, micro_batch=micro_batch)
    network = make("digits_resnet", pixel_mean=0.3, pixel_std=0.4, bn_batch=4, seed=0)
    dropped = StreamDropout(dropout, seed=1)(network.output)
    return TrainingStep(
        keras.Model(network.input, dropped),
        optimizer,
        loss=make_loss(LossSpec()),
        plan=plan,
        strategy=tf.distribute.get_strategy(),
        scale_loss=policy == "mixed_float16",
    )


def rate():
    return Warmup(Steps(0.1, (30,), factor=0.1), 5, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "policy", "micro_batch", "dropout"),
    [
        (LARS, "float32", 8, 0.1),
        (LAMB, "float32", 8, 0.0),
        (MomentumSGD, "float32", 16, 0.0),
        (LARS, "mixed_bfloat16", 8, 0.0),
    ],
)
def test_forward_backward_and_update_compile_with_static_shapes(make, policy, micro_batch, dropout):
    options = {"policy": policy, "micro_batch": micro_batch, "dropout": dropout}
    step = make_step(make(rate(), weight_decay=1e-4), **options)
    images = tf.random.stateless_uniform([BATCH, 8, 8, 1], [1, 2])
    labels = tf.random.stateless_uniform([BATCH], [3, 4], 0, 10, tf.int32)
    compiled = tf.function(lambda *batch: step._update(*batch), jit_compile=True, autograph=False)
    graph = compiled.get_concrete_function(images, labels).graph.as_graph_def()
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    ops = {node.op for body in bodies for node in body}
    assert {"Conv2D", "StatelessWhile" if micro_batch < BATCH else "Conv2D"} <= ops
    assert not {op for op in ops if HOST_ONLY.search(op)}

    hlo = compiled.experimental_get_compiler_ir(images, labels)(stage="hlo")
    assert "ENTRY" in hlo
    assert not re.findall(r"\[[0-9,]*<=[0-9]+[^\]]*\]", hlo)  # a dynamic dimension

    if dropout:
        return  # XLA draws other masks
    plain = make_step(make(rate(), weight_decay=1e-4), **options)
    row, expected = compiled(images, labels), tf.function(plain._update)(images, labels)
    tolerance = 1e-4 if policy == "float32" else 0.05
    assert row.numpy() == pytest.approx(expected.numpy(), rel=tolerance, abs=1e-5)


def test_the_search_for_dynamic_dimensions_finds_one():
    @tf.function(jit_compile=True)
    def masked(x):
        return tf.reduce_sum(tf.boolean_mask(x, x > 0))

    hlo = masked.experimental_get_compiler_ir(tf.ones([8]))(stage="hlo")
    assert re.findall(r"\[[0-9,]*<=[0-9]+[^\]]*\]", hlo)
