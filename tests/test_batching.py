import math
from fractions import Fraction

import pytest

from tf_largebatch.records.batching import BatchPlan

IMAGENET = 1_281_167


@pytest.mark.parametrize(
    ("batch", "epochs", "whole", "updates"),
    [
        (8192, 90, False, 14_076),  # Goyal et al., comparison table of Yamazaki et al.
        (32768, 90, False, 3_519),  # You et al., Ying et al.
        (32768, 64, False, 2_503),  # You et al.
        (55296, 90, False, 2_086),  # Mikami et al.
        (65536, 90, True, 1_800),  # Jia et al.: 20 an epoch
        (81920, 90, True, 1_440),  # Yamazaki et al.: 16 an epoch
        (86016, 90, True, 1_350),  # Fujitsu, MLPerf v0.6: 15 an epoch
    ],
)
def test_updates_of_published_runs(batch, epochs, whole, updates):
    plan = BatchPlan(global_batch=batch, train_examples=IMAGENET, whole_epochs=whole)
    assert plan.updates_at(epochs) == updates


@pytest.mark.parametrize("batch", [1, 7, 256, 8192, 2_000_000])
@pytest.mark.parametrize("epoch", [0, 1, 5, 30, 89, 90])
def test_updates_at_is_the_first_update_at_or_after_the_epoch(batch, epoch):
    plan = BatchPlan(global_batch=batch, train_examples=IMAGENET)
    update = plan.updates_at(epoch)
    assert update * batch >= epoch * IMAGENET
    assert (update - 1) * batch < epoch * IMAGENET


def test_decimal_epochs_cost_no_update_through_binary_rounding():
    # 0.1 + 0.2 is a little more than 0.3; of 1000 updates an epoch, 300 and not 301.
    plan = BatchPlan(global_batch=1, train_examples=1000)
    assert plan.updates_at(0.1 + 0.2) == 300
    assert plan.updates_at(80 / 3) == math.ceil(Fraction(80, 3) * 1000)


def test_epoch_at_is_the_inverse_at_whole_updates():
    plan = BatchPlan(global_batch=256, train_examples=1280)  # 5 updates an epoch
    assert [plan.epoch_at(u) for u in (0, 5, 12)] == [0.0, 1.0, 2.4]


def test_global_batch_is_replicas_times_micro_batch_times_accumulation():
    plan = BatchPlan(global_batch=8192, train_examples=IMAGENET, replicas=16, micro_batch=32)
    assert (plan.replica_batch, plan.accumulation) == (512, 16)
    assert str(plan) == "8192 = 16 replicas x 32 micro-batch x 16 accumulation"


def test_micro_batch_defaults_to_the_replica_batch():
    plan = BatchPlan(global_batch=256, train_examples=1280, replicas=2)
    assert (plan.micro_batch, plan.accumulation) == (128, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"global_batch": 0}, "`global_batch` must be a whole number of at least 1. Received: gl"),
        ({"global_batch": 2.5}, "Received: global_batch=2.5"),
        ({"train_examples": True}, "Received: train_examples=True"),
        ({"replicas": 3}, "replicas=3. Replica counts that divide it: 2 or 4"),
        ({"micro_batch": 48}, "must divide the replica batch of 256 .* Nearest that do: 32 or 64"),
        ({"micro_batch": -1}, "Received: micro_batch=-1"),
    ],
)
def test_bad_sizes_are_named_with_their_value_and_remedy(change, message):
    with pytest.raises(ValueError, match=message):
        BatchPlan(**{"global_batch": 256, "train_examples": 1280, **change})
