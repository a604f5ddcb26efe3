"""Figures of what the instruments can meet: gaps are seen, nothing breaks on none."""

import io

import numpy as np
import pytest

from tf_largebatch.diagnostics import figures
from tf_largebatch.diagnostics.critical_batch import fit_tradeoff
from tf_largebatch.diagnostics.layer_ratios import LayerRatio
from tf_largebatch.review.figures import draw_noise


def pixels(png):
    from matplotlib.image import imread

    return imread(io.BytesIO(png))[..., :3]


def coloured(picture):
    """Share of the pixels that are neither grey nor white."""
    return np.mean(np.ptp(picture, axis=-1) > 0.1)


def test_a_gap_in_a_line_is_marked_at_its_place():
    places, losses = np.linspace(-1, 1, 21), np.ones(21)
    losses[15:] = np.nan
    picture = pixels(figures.draw_line(places, {"loss": losses}, "x"))
    top = picture[: picture.shape[0] // 8]  # the line itself is in the middle
    half = top.shape[1] // 2
    assert coloured(top[:, half:]) > 0
    assert coloured(top[:, :half]) == 0


def test_a_gap_in_a_plane_is_hatched_and_has_no_colour():
    axis = np.linspace(-1, 1, 11)
    losses = 1 + axis[:, None] ** 2 + axis[None, :] ** 2
    whole = coloured(pixels(figures.draw_plane(axis, axis, losses)))
    losses[:, 6:] = np.nan
    assert coloured(pixels(figures.draw_plane(axis, axis, losses))) < 0.75 * whole


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.draw_line(np.arange(3.0), {"loss": np.full(3, np.nan)}, "x"),
        lambda: figures.draw_plane(np.arange(3.0), np.arange(3.0), np.full((3, 3), np.nan)),
        lambda: figures.draw_plane(np.arange(3.0), np.arange(3.0), np.ones((3, 3))),
        lambda: draw_noise([1, 2], [np.nan, np.nan], None),
        lambda: figures.draw_ratios({"first": [LayerRatio("a", 1, 0.0, 1.0)]}),
        lambda: figures.draw_growth([10], [1.0], None),
        lambda: figures.draw_steps([("one batch", [8], [10], None)], "5 $ error"),
    ],
)
def test_a_figure_without_anything_to_draw_is_still_one(draw):
    assert pixels(draw()).shape[0] > 100


def test_steps_are_drawn_with_their_fit_and_perfect_scaling():
    batches = [2**i for i in range(4, 12)]
    steps = [100 + 20_000 / b for b in batches]
    bare = figures.draw_steps([("a", batches, steps, None)], "1 % error")
    fitted = figures.draw_steps([("a", batches, steps, fit_tradeoff(batches, steps))], "1 % error")
    assert coloured(pixels(fitted)) > coloured(pixels(bare)) > 0.001
