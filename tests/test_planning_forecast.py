"""A forecast by hand: split, memory, hours, the law of updates, both scalings, the knee."""

import math

import pytest

from tf_largebatch.planning.devices import DEVICES
from tf_largebatch.planning.failures import daly_interval
from tf_largebatch.planning.forecast import (
    COSTS,
    INPUT_SECONDS_AN_IMAGE,
    Machine,
    Work,
    forecast,
    nearest_multiple,
)
from tf_largebatch.planning.step_time import Constants, Network
from tf_largebatch.planning.sweep import Point, knee, say_knee, strong_scaling, weak_scaling
from tf_largebatch.records.errors import InputError

HALF = Constants({"p100": 0.5, "v100": 0.25}, overhead=0.01)
GOYAL = Work(global_batch=8192)


def machine(devices=256, device="p100", **changes):
    return Machine(device=DEVICES[device], devices=devices, **changes)


def test_goyals_hours_by_hand():
    found = forecast(GOYAL, machine(), HALF)
    compute = 32 * 6 * 4.09e9 / (0.5 * 10.6e12)
    assert found.step.seconds == pytest.approx(compute + 0.01)
    assert found.updates == pytest.approx(90 * 1_281_167 / 8192)
    assert found.seconds == pytest.approx(found.updates * (compute + 0.01))
    assert found.efficiency == pytest.approx(compute / (compute + 0.01))
    assert found.input_cores == pytest.approx(8192 / (compute + 0.01) * INPUT_SECONDS_AN_IMAGE)
    assert (found.micro_batch, found.accumulation) == (32, 1) and not machine().measured
    assert found.expected_seconds == found.seconds and found.checkpoint_minutes is None


def test_memory_decides_the_micro_batch():
    # 25,557,032 weights x 4 bytes x 3, and an image's 3 x 4 bytes x 11.1e6 values
    fixed, image = 25_557_032 * 12, 12 * 11.1e6
    just = (fixed + 64 * image) / 0.9 / 1e9
    work = Work(global_batch=256)
    assert forecast(work, machine(1, memory_gb=just + 1e-6)).micro_batch == 64
    less = forecast(work, machine(1, memory_gb=just - 1e-3))
    assert (less.micro_batch, less.accumulation) == (32, 8)
    assert less.memory_gb == pytest.approx((fixed + 32 * image) / 1e9)
    assert forecast(work, machine(1, "v100")).micro_batch == 256  # half the bytes, more memory


def test_a_measured_device_takes_the_models_place():
    own = machine(images_per_second=200.0)
    assert forecast(GOYAL, own, HALF).step.compute == pytest.approx(32 / 200) and own.measured


def test_the_users_network_is_added():
    slow = forecast(GOYAL, machine(network=Network(0.1, 10.0)), HALF)
    quick = forecast(GOYAL, machine(network=Network(1e6)), HALF)
    ring = 510 * (4 * 25_557_032 / 256 / 0.1e9 + 1e-5)
    assert slow.step.all_reduce == pytest.approx(ring)
    assert slow.step.exposed == pytest.approx(ring - 2 / 3 * slow.step.compute)
    assert quick.step.exposed == 0.0


def test_failures_and_checkpoints():
    found = forecast(GOYAL, machine(hours_between_failures=10_000.0), HALF)
    gigabytes = 25_557_032 * 8 / 1e9  # weights and velocities
    assert found.checkpoint_gb == pytest.approx(gigabytes)
    interval = daly_interval(gigabytes, 10_000 * 3600 / 256)
    assert found.checkpoint_minutes == pytest.approx(interval / 60)
    assert found.expected_seconds > found.seconds


def test_law_of_updates_by_hand():
    # S = S_min (1 + B_crit / B) through 90 epochs at 8,192
    at = {
        batch: Work(global_batch=batch, critical_batch=4096, law_batch=8192).updates()
        for batch in (4096, 8192, 2**30)
    }
    assert at[8192] == pytest.approx(90 * 1_281_167 / 8192)
    least = at[8192] / 1.5
    assert at[4096] == pytest.approx(2 * least)
    assert at[2**30] == pytest.approx(least, rel=1e-4)


def test_weak_scaling_keeps_the_replica_batch_and_strong_the_global_one():
    weak = weak_scaling(GOYAL, machine(), (1, 2, 256))
    assert [p.global_batch for p in weak] == [32, 64, 8192]
    assert weak[0].efficiency == 1.0 > weak[2].efficiency
    assert weak[2].images_per_second == pytest.approx(
        256 * weak[0].images_per_second * weak[2].efficiency
    )
    strong = strong_scaling(GOYAL, machine(), (1, 3, 8192))
    assert [(p.devices, p.global_batch) for p in strong] == [(1, 8192), (8192, 8192)]
    assert strong[1].device_hours == pytest.approx(8192 * strong[1].hours)


def test_the_interval_of_the_critical_batch_gives_that_of_the_updates():
    work = Work(global_batch=8192, critical_batch=4096)
    [far] = strong_scaling(work, machine(), (256,), interval=(2048, 8192))
    assert far.updates_low == far.updates_high == far.updates  # all laws go through this batch
    [_, twice] = weak_scaling(work, machine(), (256, 512), interval=(2048, 8192))
    # (1 + c / 16384) / (1 + c / 8192): 0.833 for 4,096, 0.9 for 2,048, 0.75 for 8,192
    assert twice.updates_low == pytest.approx(0.75 * far.updates)
    assert twice.updates == pytest.approx(5 / 6 * far.updates)
    assert twice.updates_high == pytest.approx(0.9 * far.updates)


def test_knee_is_where_a_doubling_saves_less_than_a_quarter():
    def points(*hours):
        keys = dict.fromkeys(Point.__dataclass_fields__, 0)
        return [Point(**(keys | {"devices": 2**i, "hours": h})) for i, h in enumerate(hours)]

    assert knee(points(100, 50, 30, 25, 24)).devices == 4
    assert knee(points(100, 50, 25)) is None
    assert say_knee(points(100, 50, 25)).startswith("none up to 4 devices")
    far = Work(global_batch=32, critical_batch=2000)
    found = weak_scaling(far, machine(1))
    # Past the critical batch a doubling hardly saves updates: saves B_crit / (B_crit + B) / 2
    # plus the overhead; a quarter is left at B = B_crit.
    assert 0.4 * 2000 < knee(found).global_batch < 2.1 * 2000
    marked = weak_scaling(far, machine(1), largest_fitted=1024)
    assert [p.extrapolated for p in marked] == [p.global_batch > 1024 for p in marked]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: forecast(GOYAL, machine(3)), InputError, "--batch must be a multiple of --dev"),
        (lambda: forecast(GOYAL, machine(memory_gb=0.1)), InputError, "--memory must hold one im"),
        (lambda: machine(0), ValueError, "`devices` must be"),
        (lambda: machine(memory_gb=0.0), ValueError, "`memory_gb` must be"),
        (lambda: machine(hours_between_failures=0.0), ValueError, "`hours_between_failures` must"),
        (lambda: Work(global_batch=0), ValueError, "`global_batch` must be"),
        (lambda: Work(global_batch=8, network="vgg"), ValueError, "`network` must be one of"),
        (lambda: Work(global_batch=8, critical_batch=0.0), ValueError, "`critical_batch` must"),
    ],
)
def test_bad_input_is_one_line(make, kind, message):
    with pytest.raises(kind, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_nearest_multiple_and_known_networks():
    assert [nearest_multiple(8192, k) for k in (3, 100, 10_000)] == [8193, 8200, 10_000]
    assert all(math.isfinite(cost.multiply_adds) for cost in COSTS.values())
