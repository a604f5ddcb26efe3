"""The page on TensorBoard names the tags and numbers that the code has."""

from pathlib import Path

from tf_largebatch.callbacks import dashboards, tensorboard
from tf_largebatch.distribution.loop import BLOCK

TEXT = (Path(__file__).parents[1] / "docs" / "tensorboard.md").read_text(encoding="utf-8")


def test_every_tag_and_page_is_named():
    for _, tag, _ in tensorboard.PER_UPDATE:
        assert f"`{tag}`" in TEXT or f"`{tag.split('/')[1]}`" in TEXT, tag
    for title in dashboards.CHARTS:
        assert f'"{title}"' in TEXT
    assert f"mean of {BLOCK} updates" in TEXT
