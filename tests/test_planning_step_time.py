"""The model of an update's time: by hand, against its committed fit, on systems it has not seen."""

import math

import pytest

from tf_largebatch.planning import step_time
from tf_largebatch.planning.devices import DEVICES, load_systems
from tf_largebatch.planning.step_time import Constants, Network, predict

P100, V100 = DEVICES["p100"], DEVICES["v100"]
HALF = Constants({"p100": 0.5, "v100": 0.25}, overhead=0.01)


def test_systems_have_the_times_of_their_sources():
    systems = {system.id: system for system in load_systems()}
    assert len(systems) == 47
    assert systems["goyal2017-8k-slides"].seconds == 0.255
    # 42.168 minutes for 60 epochs at 4,096: 2,530 s over 18,767 updates
    google = systems["mlperf-v0.6-google-tpu-v3-32"]
    assert google.seconds == pytest.approx(42.168 * 60 / (60 * 1_281_167 / 4096))
    assert (google.devices, google.device.name) == (16, "tpu-v3")  # chips of two cores
    assert google.group == systems["mlperf-v0.6-google-tpu-v3-2048"].group
    assert systems["you2017-32k-64ep"].group == "you"


def test_parts_by_hand():
    found = predict(P100, 256, 8192, HALF, operations=1e9)
    assert found.compute == pytest.approx(32 * 1e9 / (0.5 * 10.6e12))
    assert found.seconds == pytest.approx(found.compute + 0.01)
    assert predict(P100, 1, 32, HALF).overhead == 0.0  # nothing to wait for
    assert predict(P100, 2, 64, HALF, images_per_second=320.0).compute == pytest.approx(0.1)


def test_ring_and_what_it_hides_behind():
    network = Network(10.0, 5.0)
    # 7 x 2 messages of an eighth of 80 MB: 1 ms each, and 5 us
    assert network.all_reduce_seconds(80e6, 8) == pytest.approx(14 * (0.001 + 5e-6))
    slow = predict(V100, 8, 64, HALF, images_per_second=800.0, network=network, gradient_bytes=80e6)
    assert slow.all_reduce == pytest.approx(0.01407)
    assert slow.exposed == pytest.approx(0.01407 - 2 / 3 * 0.01)
    quick = predict(V100, 8, 64, HALF, images_per_second=80.0, network=network, gradient_bytes=80e6)
    assert quick.exposed == 0.0


def test_a_device_that_no_system_has_gets_the_mean_of_its_class():
    constants = Constants({"p100": 0.5, "v100": 0.2, "a100": 0.45}, 0.0)
    assert constants.share(DEVICES["h100"]) == pytest.approx(math.sqrt(0.2 * 0.45))
    assert constants.share(DEVICES["knl"]) == 0.5


def test_fit_finds_constants_that_made_the_times():
    made = [
        system.__class__(
            system.id,
            system.device,
            system.devices,
            system.global_batch,
            predict(system.device, system.devices, system.global_batch, HALF).seconds,
        )
        for system in load_systems()
        if system.device.name in HALF.shares
    ]
    found = step_time.fit(made)
    assert found.overhead == pytest.approx(0.01, rel=0.1)  # the prior pulls a little
    assert found.shares == pytest.approx(HALF.shares, rel=0.1)


def test_the_committed_fit_is_that_of_the_published_times():
    found, kept = step_time.fit(load_systems()), step_time.load()
    assert found.shares == pytest.approx(kept.shares, rel=1e-3)
    assert found.overhead == pytest.approx(kept.overhead, rel=1e-3)


def test_the_committed_errors_are_those_of_systems_left_out():
    record = step_time.load_record()
    rows = step_time.leave_one_out(load_systems())
    assert [r["id"] for r in rows] == [r["id"] for r in record["left_out"]]
    error, line = step_time.typical_error(rows), step_time.typical_error(rows, "line_ms")
    assert error == pytest.approx(record["typical_error"], abs=1e-3)
    assert line == pytest.approx(record["typical_error_of_a_line"], abs=1e-3)
    assert error < line


def test_typical_error_counts_both_directions_alike():
    rows = [{"published_ms": 1.0, "predicted_ms": p} for p in (2.0, 0.5, 1.0, 1.5, 1 / 1.5)]
    assert step_time.typical_error(rows) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network(0.0), "`network` must be a number in"),
        (lambda: Network(1.0, -1.0), "`latency` must be a number in"),
        (lambda: predict(P100, 0, 8, HALF), "`devices` must be"),
        (lambda: predict(P100, 1, 8, HALF, images_per_second=0.0), "`images_per_second` must be"),
    ],
)
def test_bad_input_is_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()
