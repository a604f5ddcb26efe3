"""Codreanu et al., K-FAC and Shampoo: against the numbers of the authors' files, copied by hand."""

import numpy as np
import pytest
from commands import call, run_recipe

from tf_largebatch.__main__ import main
from tf_largebatch.recipes import anil_shampoo, codreanu_14k, mlperf, osawa_kfac
from tf_largebatch.records import published
from tf_largebatch.records.plan import Plan, describe_data
from tf_largebatch.schedules import trace
from tf_largebatch.training.build import make_schedule

# examples/imagenet/configs of tyohei/chainerkfac: batch, epoch less 1, lr, epoch_lr_decay_start,
# polynomial_decay_p, polynomial_epoch, momentum, damping, mixup_alpha; README.md: updates, top-1.
KFAC = """
4k     4096 35 8.18e-3 1   11   53   0.997 2.5e-4 0.4 10948 75.9
8k     8192 35 1.25e-2 1   8    53.5 0.993 2.5e-4 0.4  5478 76.4
16k   16384 35 2.5e-2  1   8    53.5 0.985 2.5e-4 0.4  2737 76.6
32k   32768 45 3.0e-2  1.5 3.5  49.5 0.97  2.0e-4 0.6  1760 76.9
64k   65536 60 4.0e-2  2   2.9  64.5 0.95  1.5e-4 0.6  1173 76.3
128k 131072 80 7.0e-2  1   3.0  95   0.93  1.0e-4 1.0   782 75.0
"""
LINES = [line.split() for line in KFAC.strip().splitlines()]


def rates(recipe, updates):
    return trace(make_schedule(recipe, recipe.phases()), np.array(updates))


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_kfac_has_the_numbers_of_the_authors_configs(line):
    row, (batch, epochs, rate, start, power, end, momentum, damping, alpha, updates, top1) = (
        line[0],
        map(float, line[1:]),
    )
    recipe = osawa_kfac.ROWS[row]
    spec, schedule = recipe.optimizer, recipe.schedule
    assert (recipe.global_batch, recipe.epochs, recipe.peak_rate) == (batch, epochs, rate)
    assert (spec.momentum, spec.damping, recipe.data.mixup_alpha) == (momentum, damping, alpha)
    assert (schedule.warmup_epochs, schedule.power, schedule.end_epoch) == (start, power, end)
    assert recipe.updates == pytest.approx(updates, rel=0.001)  # 5,474 for their 5,478
    assert recipe.expected.top1_accuracy_pct == top1
    # kfac.py, whose defaults train.py leaves alone
    assert (spec.stability, spec.statistics_decay, spec.refresh_updates) == (16.0, 1.0, 1)
    record = published.load()[f"chainerkfac-{recipe.global_batch}"]
    assert (record.updates, record.value, record.confidence) == (updates, top1, "code")


def test_kfacs_rate_waits_and_falls_towards_an_epoch_beyond_the_end():
    recipe = osawa_kfac.ROWS["128k"]
    start, end = 10, 929  # the first updates at or after epochs 1 and 95, of 9.77 each
    updates = [0, 5, start, 400, recipe.updates - 1]
    left = [1, 1, 1, *(1 - (u - start) / (end - start) for u in updates[3:])]
    np.testing.assert_allclose(rates(recipe, updates), 0.07 * np.array(left) ** 3, rtol=1e-4)
    assert rates(recipe, [recipe.updates - 1])[0] > 0


def test_shampoo_has_the_numbers_of_the_log_and_of_train_py():
    small, large = anil_shampoo.ROWS["32k"], anil_shampoo.ROWS["64k"]
    assert (small.updates, large.updates) == (1727, 1185)  # 44 x 157 / 4; 60 x 79 / 4
    betas = [(r.optimizer.beta_1, r.optimizer.beta_2) for r in (small, large)]
    assert betas == [(0.96, 0.75), (0.953, 0.666)]
    assert [r.optimizer.weight_decay for r in (small, large)] == [6.248644874764753e-05, 0.000225]
    assert [r.peak_rate for r in (small, large)] == [16.22, 12.0]
    # Logged: 1,531.75 updates of decay, T - W + 1 with W = 196.25. Here W is whole.
    for warmup, decay, close in ((197, 1531, 1e-5), (196.25, 1531.75, 5e-3)):
        expected = [16.22 * 98 / warmup, 16.22 * (1 - (900 - warmup) / decay) ** 2]
        np.testing.assert_allclose(rates(small, [98, 900]), expected, rtol=close)
    assert small.expected.reached.updates == 1727
    assert small.data == mlperf.DATA and small.stop == mlperf.COMMON.stop


def test_codreanus_rate_is_caffes():
    recipe = codreanu_14k.RECIPE
    warmup, total = 447, recipe.updates
    assert total == pytest.approx(8040, abs=4)
    updates = [0, 200, 446, 447, 4000, total - 1]
    expected = [0.1 + 4.7 * u / warmup if u < warmup else 4.8 * (1 - u / total) for u in updates]
    np.testing.assert_allclose(rates(recipe, updates), expected, rtol=1e-4)
    assert recipe.model.bn_batch * 896 == recipe.global_batch


@pytest.mark.parametrize("flags", [["--smoke"], ["--data", "/nowhere"], []])
def test_who_wants_to_train_a_plan_is_told_what_is_missing_in_one_line(flags):
    done = run_recipe("anil_shampoo", *flags)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "Received: a plan without the optimizer Shampoo, which is not here yet" in line
    assert "--plan shows its numbers" in line


def test_a_job_for_a_plan_is_refused_too():
    done = call(main, ["job", "anil_shampoo", "--on", "local"])
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "a plan without the optimizer Shampoo" in done.stderr


def test_a_recipe_without_a_miniature_asks_for_data():
    done = run_recipe("codreanu_14k")
    assert done.returncode == 2
    assert done.stderr.endswith("--data must name a folder: codreanu_14k has no miniature\n")
    assert "There is no miniature" in run_recipe("codreanu_14k", "--plan").stdout


def test_a_plan_says_what_is_missing():
    recipe = anil_shampoo.RECIPE
    phases, data = recipe.phases(), describe_data(recipe)
    text = Plan(recipe=recipe, phases=phases, scale="full", data=data).text()
    assert "not yet: the optimizer Shampoo is missing" in text
    assert "Shampoo, betas 0.96 and 0.75, matrices of 128 to the power -1/4 from update 5" in text


def test_the_list_names_what_has_no_recipe():
    done = call(main, ["list"])
    for who in ("Cho et al. 2017, IBM DDL: ResNet-50, 90 epochs", "Sun et al. 2019, SenseTime"):
        assert who in done.stdout
    assert "Liu et al. 2021, ConAdv: ResNet-50, 98,304 images" in done.stdout
