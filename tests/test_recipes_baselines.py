"""Recipes of He et al., Krizhevsky, McCord & Dash and Hoffer et al.; miniatures of their part.

The tables here come from the papers and slides, not from the modules.
"""

import importlib
import itertools

import numpy as np
import pytest

from tf_largebatch.records import published
from tf_largebatch.records.recipe import SGDSpec
from tf_largebatch.schedules import trace
from tf_largebatch.training.build import make_schedule

IMAGES = 1_281_167


def module(name):
    return importlib.import_module(f"tf_largebatch.recipes.{name}")


def recipe_of(name, row=None):
    return module(name).RECIPE if row is None else module(name).ROWS[row]


def boundary(epoch, batch):
    """The first update at or after an epoch, by counting images."""
    return int(-(-epoch * IMAGES // batch))


def warmup_name(batch, epochs, scaled):
    return f"{batch}-warmup{epochs}" + ("" if scaled else "-unscaled")


# 0.0125 for every 128 images: 60 and 240 GPUs.
MCCORD = [
    (batch, epochs, scaled, 0.0125 * workers if scaled else 0.0125)
    for (batch, workers), scaled, epochs in itertools.product(
        ((7_680, 60), (30_720, 240)), (True, False), (0, 5, 10, 20)
    )
]

HOFFER = (1.0, 0.5, 0.1, 0.05, 0.01)  # 1e-2, 5e-3, 1e-3, 5e-4, 1e-4
ROOT = (0.05656854, 0, 0.05656854)  # 0.01 x sqrt(8192 / 256)
# Row: module, row, batch, epochs, updates, first rate, epochs of warmup, peak, drops, and the
# factor of each or the shares between them.
STEPS = [
    ("he_256", None, 256, 90, 450_411, 0.1, 0, 0.1, (30, 60), 0.1),
    # 0.01 at 128 images, a cube root of 250 less at 25, 50 and 75 % of 90 epochs.
    ("krizhevsky_owt", "128", 128, 90, 900_821, 0.01, 0, 0.01, (22.5, 45, 67.5), 0.15874011),
    ("krizhevsky_owt", "1024", 1024, 90, 112_603, 0.08, 0, 0.08, (22.5, 45, 67.5), 0.15874011),
    # eladhoffer/bigBatch models/alexnet.py; the large batch's rate is 0.01 or sqrt(32) times that.
    ("hoffer", "sb", 256, 30, 150_137, 0.01, 0, 0.01, (10, 15, 20, 25), HOFFER),
    ("hoffer", "lb", 8192, 30, 4_692, 0.01, 0, 0.01, (10, 15, 20, 25), HOFFER),
    ("hoffer", "lb-lr", 8192, 30, 4_692, *ROOT, (10, 15, 20, 25), HOFFER),
    ("hoffer", "lb-lr-gbn", 8192, 30, 4_692, *ROOT, (10, 15, 20, 25), HOFFER),
    # as many updates as the small batch: 32 times the epochs
    ("hoffer", "lb-lr-gbn-ra", 8192, 960, 150_137, *ROOT, (320, 480, 640, 800), HOFFER),
    *(
        (
            "mccord_dash",
            warmup_name(batch, epochs, scaled),
            batch,
            90,
            {7_680: 15_030, 30_720: 3_780}[batch],  # 167 and 42 an epoch
            0.0125 if epochs else peak,
            epochs,
            peak,
            (30, 60, 80),
            0.1,
        )
        for batch, epochs, scaled, peak in MCCORD
    ),
]


@pytest.mark.parametrize(
    ("name", "row", "batch", "epochs", "updates", "start", "warmup", "peak", "drops", "factor"),
    STEPS,
)
def test_the_rate_at_every_epoch(
    name, row, batch, epochs, updates, start, warmup, peak, drops, factor
):
    recipe = recipe_of(name, row)
    assert (recipe.global_batch, recipe.epochs, recipe.updates) == (batch, epochs, updates)
    per_epoch = {7_680: 167, 30_720: 42}.get(batch)  # Horovod's epochs are whole batches

    def first(epoch):
        return epoch * per_epoch if per_epoch else boundary(epoch, batch)

    at = np.array([first(epoch) for epoch in range(epochs)])
    rates = trace(make_schedule(recipe, recipe.phases()), at)
    expected = []
    for epoch, update in enumerate(at):
        passed = sum(epoch >= drop for drop in drops)
        rate = peak * (factor[passed] if isinstance(factor, tuple) else factor**passed)
        if epoch < warmup:
            rate = start + (peak - start) * update / first(warmup)
        expected.append(rate)
    np.testing.assert_allclose(rates, expected, rtol=2e-6)


@pytest.mark.parametrize("name", ["krizhevsky_owt", "hoffer", "mccord_dash"])
def test_the_table_of_rates_has_every_row(name):
    assert [row for n, row, *_ in STEPS if n == name] == list(module(name).ROWS)


@pytest.mark.parametrize(
    ("name", "row", "result"),
    [
        ("he_256", None, "he2016-256"),
        ("krizhevsky_owt", "128", "krizhevsky2014-128"),
        ("krizhevsky_owt", "1024", "krizhevsky2014-1024"),
        ("hoffer", "sb", "hoffer2017-alexnet-sb"),
        ("hoffer", "lb", "hoffer2017-alexnet-lb"),
        ("hoffer", "lb-lr", "hoffer2017-alexnet-lb_lr"),
        ("hoffer", "lb-lr-gbn", "hoffer2017-alexnet-lb_lr_gbn"),
        ("hoffer", "lb-lr-gbn-ra", "hoffer2017-alexnet-lb_lr_gbn_ra"),
    ],
)
def test_the_expected_result_is_the_published_one(name, row, result):
    """Evidence where the row was read; elsewhere two copies of one memory, that cannot part."""
    recipe, record = recipe_of(name, row), published.load()[result]
    assert recipe.expected.top1_error_pct == record.error_pct
    assert (recipe.expected.std, recipe.expected.runs) == (None, None)
    assert recipe.global_batch == record.global_batch
    assert recipe.paper == f"arXiv:{record.arxiv}"


def test_the_poster_gives_curves_and_no_number():
    assert all(recipe.expected is None for recipe in module("mccord_dash").ROWS.values())


@pytest.mark.parametrize(
    ("name", "row", "network", "bn_batch", "gamma", "optimizer"),
    [
        # 8 GPUs
        ("he_256", None, "resnet50_v1", 32, 1, SGDSpec(weight_decay=1e-4, exclude_rank_below=0)),
        ("krizhevsky_owt", "128", "alexnet_owt", None, None, SGDSpec(weight_decay=5e-4)),
        ("krizhevsky_owt", "1024", "alexnet_owt", None, None, SGDSpec(weight_decay=5e-4)),
        *(
            (
                "hoffer",
                row,
                "alexnet_owt_bn",
                bn,
                None,
                SGDSpec(weight_decay=5e-4, exclude_rank_below=0),
            )
            for row, bn in (("sb", 256), ("lb", 8192), ("lb-lr", 8192), ("lb-lr-gbn", 256))
        ),
        # 60 and 240 GPUs
        *(
            (
                "mccord_dash",
                row,
                "resnet50",
                128,
                1,
                SGDSpec(weight_decay=5e-5, exclude_rank_below=0),
            )
            for row in ("7680-warmup0", "30720-warmup20-unscaled")
        ),
    ],
)
def test_network_and_update_rule(name, row, network, bn_batch, gamma, optimizer):
    recipe = recipe_of(name, row)
    assert (recipe.model.architecture, recipe.model.bn_batch) == (network, bn_batch)
    assert recipe.optimizer == optimizer  # momentum 0.9 without Nesterov, by the record's default
    assert recipe.optimizer.momentum == 0.9
    if gamma is not None:
        assert recipe.model.last_gamma == gamma


def test_hoffers_columns_add_one_change_each():
    rows = module("hoffer").ROWS
    lb, lr, gbn, ra = (rows[r] for r in ("lb", "lb-lr", "lb-lr-gbn", "lb-lr-gbn-ra"))
    assert (lb.scaling, lr.scaling) == ("none", "sqrt")
    assert (lb.model, lb.schedule, lb.epochs) == (lr.model, lr.schedule, lr.epochs)
    assert lr.model != gbn.model and lr.schedule == gbn.schedule
    assert gbn.model == ra.model and ra.updates == rows["sb"].updates


def test_hes_crop_is_224_pixels_of_a_shorter_side_of_256_to_480():
    data = recipe_of("he_256").data
    assert data.min_area == pytest.approx(224**2 / (480 * 640), abs=1e-3)
    assert data.max_area == pytest.approx(224**2 / (256 * 256 * 4 / 3), abs=1e-3)
    assert (data.lighting_std, data.color_jitter) == (0.1, 0)


# Ratio of the largest batch to the smallest in a miniature, and the largest of its batches.
MINIATURES = [
    ("goyal_sweep", 16, 512),
    ("goyal_rates", 1, 256),
    ("goyal_gamma", 1, 256),
    ("goyal_resnet101", 32, 256),
    ("you_alexnet", 8, 4096),
    ("you_alexnet_bn", 16, 512),
    ("you_resnet50", 32, 4096),
    ("you_minutes_32k", 1, 512),
    ("you_minutes_alexnet", 1, 512),
    ("lamb_ladder", 8, 256),
    ("he_256", 1, 32),
    ("krizhevsky_owt", 8, 256),
    ("mccord_dash", 4, 256),
    ("hoffer", 8, 256),
]


@pytest.mark.parametrize(("name", "ratio", "largest"), MINIATURES)
def test_a_miniature_keeps_the_published_shape(name, ratio, largest):
    rows = module(name).MINIATURE.rows
    batches = [row.recipe.global_batch for row in rows]
    assert (max(batches) / min(batches), max(batches)) == (ratio, largest)
    family = getattr(module(name), "ROWS", {"": module(name).RECIPE}).values()
    kinds = {type(recipe.schedule) for recipe in family}
    for row in rows:
        assert type(row.recipe.schedule) in kinds
        assert row.recipe.expected is None
        if row.recipe.data.name == "fashion_mnist":  # where batch norm would hide the claim
            assert row.recipe.model.architecture == "fully_connected_256"
            assert row.recipe.updates == -(-12 * 60_000 // row.recipe.global_batch)
            continue
        assert row.recipe.data.name == "digits"
        # Eight images to a batch norm unless the paper's point is another number.
        assert row.recipe.model.bn_batch == 8 or name in ("he_256", "hoffer")


def test_the_miniature_of_lamb_follows_the_two_formulas():
    for row in module("lamb_ladder").MINIATURE.rows:
        share = row.recipe.global_batch / 256
        assert row.recipe.peak_rate == pytest.approx(0.04 * share**0.5)
        assert row.recipe.schedule.warmup_epochs / row.recipe.epochs == pytest.approx(
            share * 20 / 90
        )
