"""Which updates are local and when workers agree, and the published plan of Lin et al. 2018.

The numbers of the plan come from the command line in epfml/LocalSGD-Code, not from the module.
"""

import dataclasses
import itertools

import numpy as np
import pytest

from tf_largebatch.recipes import goyal_8k, lin_local
from tf_largebatch.records import overrides
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.local import LocalSchedule, LocalSpec
from tf_largebatch.records.recipe import deciding
from tf_largebatch.schedules import trace
from tf_largebatch.training.build import make_schedule

CASES = [(7, 0, 40), (1, 0, 10), (4, 6, 30), (16, 20, 50), (32, 3_663, 7_325), (5, 30, 30)]


@pytest.mark.parametrize(("steps", "start", "updates"), CASES)
def test_workers_agree_at_multiples_and_at_the_end_and_always_before_the_first(
    steps, start, updates
):
    schedule = LocalSchedule(workers=2, local_steps=steps, start_update=start, updates=updates)
    agree = [u for u in range(updates + 1) if u <= start or u % steps == 0 or u == updates]
    assert [u for u in range(updates + 1) if schedule.is_average(u)] == agree
    for first, end in itertools.pairwise(range(0, updates + 1, 3)):
        assert schedule.averages(first, end) == sum(first < u <= end for u in agree)
    assert {schedule.steps_at(u) for u in range(start)} <= {1}
    assert {schedule.steps_at(u) for u in range(start, updates)} <= {steps}


@pytest.mark.parametrize(("steps", "start", "updates"), CASES)
def test_blocks_end_at_averages_and_the_host_is_visited_once_a_round_at_most(steps, start, updates):
    schedule = LocalSchedule(workers=2, local_steps=steps, start_update=start, updates=updates)
    first = 0
    while first < updates:
        end = schedule.block_end(first, 20)
        assert first < end <= updates and schedule.is_average(end)
        assert end - first <= max(20, steps) or first < start
        first = end


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"local_steps": 0}, "local_steps"),
        ({"local_steps": 2.0}, "a whole number"),
        ({"workers": 0}, "workers"),
        ({"start_update": -1}, "start_update"),
        ({"slots": "mixed"}, "one of kept, averaged, reset"),
    ],
)
def test_a_wrong_schedule_is_refused_by_name(wrong, says):
    fields = {"workers": 2, "local_steps": 4, "updates": 10} | wrong
    with pytest.raises(ValueError, match=says):
        LocalSchedule(**fields)


def test_a_spec_becomes_updates_of_the_plan_and_a_serialised_one_comes_back():
    spec = LocalSpec(local_steps=8, workers=4, start_epoch=None)
    plan = BatchPlan(global_batch=100, train_examples=1_010, replicas=2)
    schedule = spec.schedule(plan, epochs=3, first_drop=2)
    assert (schedule.start_update, schedule.updates) == (21, 31)  # 20.2 and 30.3, rounded up
    assert LocalSpec(**dataclasses.asdict(spec)) == spec
    assert LocalSchedule(**dataclasses.asdict(schedule)) == schedule
    assert LocalSpec().schedule(plan, 3, None) is None
    with pytest.raises(ValueError, match="where the rate never drops"):
        spec.schedule(plan, 3, None)
    four = BatchPlan(global_batch=96, train_examples=1_010, replicas=4)
    with pytest.raises(ValueError, match="a multiple of the replicas. Received: .*6 .*may be what"):
        dataclasses.replace(spec, workers=6).schedule(four, 3, 2)


def test_a_synchronous_recipe_is_that_of_the_versions_without_local_updates():
    data = dataclasses.asdict(goyal_8k.RECIPE)
    assert "local" not in deciding(data)
    local, departures = overrides.apply(
        goyal_8k.RECIPE, ["local.workers=16", "local.local_steps=4"]
    )
    assert deciding(dataclasses.asdict(local))["local"]["local_steps"] == 4
    assert set(departures) == {"local.workers 1 -> 16", "local.local_steps 1 -> 4"}


@pytest.mark.parametrize(("row", "steps"), [("h16", 16), ("h32", 32)])
def test_the_plan_is_the_authors_command_line(row, steps):
    recipe = lin_local.ROWS[row]
    assert (recipe.global_batch, recipe.epochs) == (16 * 128, 300)
    local = recipe.local_schedule(recipe.batch_plan())
    assert (local.workers, local.local_steps, local.slots) == (16, steps, "kept")
    assert local.start_update == -(-150 * 50_000 // 2048)
    rates = trace(make_schedule(recipe, recipe.phases()), np.arange(recipe.updates))
    assert len(rates) == -(-300 * 50_000 // 2048)
    per_epoch = 50_000 / 2048
    assert rates[0] == pytest.approx(0.1)
    for epoch, rate in ((5, 3.2), (149, 3.2), (151, 0.32), (224, 0.32), (226, 0.032), (299, 0.032)):
        assert rates[int(np.ceil(epoch * per_epoch))] == pytest.approx(rate)
    # From 0.1 to 3.2 within five epochs, a constant amount at each update.
    assert np.ptp(np.diff(rates[:120])) < 1e-5


def test_the_row_in_step_differs_in_the_local_updates_alone():
    step, local = (dataclasses.asdict(lin_local.ROWS[row]) for row in ("in-step", "h16"))
    differ = {name for name in step if step[name] != local[name]}
    assert differ == {"row", "title", "local", "expected", "notes"}
    imagenet = lin_local.ROWS["imagenet"]
    assert imagenet.local_schedule(imagenet.batch_plan()).start_update == 4_692  # epoch 30
