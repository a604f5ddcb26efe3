"""Goyal et al. 2017 as published. The tables here come from the paper, not from the modules."""

import importlib

import numpy as np
import pytest

from tf_largebatch.records.recipe import LARSSpec
from tf_largebatch.schedules import trace
from tf_largebatch.training.build import make_optimizer, make_schedule

IMAGES = 1_281_167
NAMES = ("goyal_256", "goyal_8k", "goyal_8k_constant_warmup", "goyal_8k_no_warmup")


def recipe_of(name):
    return importlib.import_module(f"tf_largebatch.recipes.{name}").RECIPE


def boundary(epoch, batch):
    """The first update at or after an epoch, by counting images."""
    return -(-epoch * IMAGES // batch)


# Rate at the start of each epoch, arXiv:1706.02677 §5.1 and §2.2: 0.1 x B / 256, a tenth at 30, 60
# and 80; the warmup rises from 0.1 over the first five epochs.
PEAK = {"goyal_256": 0.1}


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_at_every_epoch_boundary_is_the_published_one(name):
    recipe = recipe_of(name)
    batch = recipe.global_batch
    rates = trace(make_schedule(recipe, recipe.phases()), recipe.batch_plan().updates_at(90))
    peak = PEAK.get(name, 3.2)
    for epoch in range(90):
        update = boundary(epoch, batch)
        expected = peak * 0.1 ** sum(epoch >= drop for drop in (30, 60, 80))
        if epoch < 5 and name == "goyal_8k":
            expected = 0.1 + (3.2 - 0.1) * update / boundary(5, batch)
        if epoch < 5 and name == "goyal_8k_constant_warmup":
            expected = 0.1
        assert rates[update] == pytest.approx(expected, rel=1e-6), f"epoch {epoch}"


def test_goyal_8k_changes_its_rate_at_the_stated_updates():
    recipe = recipe_of("goyal_8k")
    schedule = make_schedule(recipe, recipe.phases())
    # 5, 30, 60, 80 epochs x 1,281,167 / 8,192, rounded up.
    around = np.array([0, 781, 782, 4691, 4692, 9383, 9384, 12511, 12512, 14075])
    almost = 0.1 + 3.1 * 781 / 782
    expected = [0.1, almost, 3.2, 3.2, 0.32, 0.32, 0.032, 0.032, 0.0032, 0.0032]
    np.testing.assert_allclose(trace(schedule, around), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "updates"),
    [
        ("goyal_256", 450_411),  # 90 x 1,281,167 / 256
        ("goyal_8k", 14_076),  # comparison table of the large-batch literature
        ("goyal_8k_no_warmup", 14_076),
        ("goyal_8k_constant_warmup", 14_076),
    ],
)
def test_a_run_has_the_published_number_of_updates(name, updates):
    recipe = recipe_of(name)
    assert recipe.batch_plan().updates_at(recipe.epochs) == updates


@pytest.mark.parametrize(
    ("name", "error", "std"),
    [
        ("goyal_256", 23.60, 0.12),  # Table 1, read
        ("goyal_8k_no_warmup", 24.84, 0.37),  # quoted from memory, as in the module: no evidence
        ("goyal_8k_constant_warmup", 25.88, 0.56),  # the same
        ("goyal_8k", 23.74, 0.09),  # Table 1, read
    ],
)
def test_the_expected_result_is_table_1(name, error, std):
    expected = recipe_of(name).expected
    assert (expected.top1_error_pct, expected.std, expected.runs) == (error, std, 5)


@pytest.mark.parametrize("name", NAMES)
def test_everything_but_batch_and_warmup_is_the_same_in_the_table(name):
    recipe = recipe_of(name)
    sgd, model, data = recipe.optimizer, recipe.model, recipe.data
    assert (sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.9, True, 1e-4)  # §5.1
    assert (model.bn_batch, model.bn_decay, model.last_gamma) == (32, 0.9, 0.0)  # §5.1
    assert (recipe.epochs, recipe.schedule.drop_epochs) == (90, (30, 60, 80))  # §5.1
    assert (data.image_size, data.min_area, data.max_area) == (224, 0.08, 1.0)
    # fb.resnet.torch transforms.lua: width sqrt(area) a, height sqrt(area) / a, a of 3/4 to 4/3.
    assert (data.min_aspect, data.max_aspect) == (0.75**2, pytest.approx((4 / 3) ** 2))
    assert data.interpolation == "bicubic"


def test_the_optimizer_is_equation_9_with_decay_on_kernels_only():
    recipe = recipe_of("goyal_8k")
    optimizer = make_optimizer(recipe, recipe.phases())
    config = optimizer.get_config()
    assert type(optimizer).__name__ == "MomentumSGD"
    assert (config["momentum"], config["nesterov"], config["weight_decay"]) == (0.9, True, 1e-4)
    assert config["exclude_rank_below"] == 2


def test_micro_batches_default_to_the_batch_norm_batch_on_any_number_of_replicas():
    recipe = recipe_of("goyal_8k")
    assert str(recipe.batch_plan()) == "8192 = 1 replicas x 32 micro-batch x 256 accumulation"
    assert recipe.batch_plan(replicas=256).accumulation == 1  # the paper's own cluster
    # 16 images a replica: two replicas share the statistics of their 32.
    many = recipe.batch_plan(replicas=512)
    assert (many.micro_batch, recipe.bn_replicas(many)) == (16, 2)
    assert recipe.bn_replicas(recipe.batch_plan(replicas=256)) == 1
    with pytest.raises(ValueError, match="multiple of the batch-norm batch of 32"):
        recipe.batch_plan(micro_batch=16)


def test_the_miniature_keeps_the_papers_ratio_and_rule_at_half_its_rates():
    miniature = importlib.import_module("tf_largebatch.recipes.goyal_8k").MINIATURE
    rows = {row.label: row.recipe for row in miniature.rows}
    small, large = rows["small batch"], rows["linear, warmup"]
    assert large.global_batch / small.global_batch == 32  # k of 8,192 against 256
    assert (small.peak_rate, large.peak_rate) == (pytest.approx(0.05), pytest.approx(1.6))
    assert (large.schedule.warmup_epochs, large.schedule.warmup_start_rate) == (5, 0.05)
    assert rows["large, same rate"].peak_rate == 0.05
    assert rows["linear, no warmup"].schedule.warmup_epochs == 0
    assert isinstance(rows["LARS, warmup"].optimizer, LARSSpec)
    assert all(r.model.bn_batch == 8 for r in rows.values())
    # Not the paper's 0: what is shown must not hang on a gentle start of another kind.
    assert all(r.model.last_gamma == 1.0 for r in rows.values())
    # Drops after a third, two thirds and eight ninths of the run, as 30, 60, 80 of 90.
    assert [e / small.epochs for e in small.schedule.drop_epochs] == pytest.approx(
        [e / 90 for e in (30, 60, 80)]
    )
