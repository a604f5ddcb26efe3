"""The page on TensorBoard names the tags and numbers that the code has."""

import json
from pathlib import Path

from tf_largebatch.review.tensorboard import dashboards
from tf_largebatch.review.tensorboard import scalars as tensorboard
from tf_largebatch.training.blocks import BLOCK

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "tensorboard.md").read_text(encoding="utf-8")


def test_every_tag_and_page_is_named():
    for _, tag, _ in tensorboard.PER_UPDATE:
        assert f"`{tag}`" in TEXT or f"`{tag.split('/')[1]}`" in TEXT, tag
    for title in dashboards.CHARTS:
        assert f'"{title}"' in TEXT
    assert f"mean of {BLOCK} updates" in TEXT


def test_the_cost_is_the_records():
    path = ROOT / "tools" / "records" / "benchmark_tensorboard.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    low, high = record["ratio_quartiles"]
    for words in (
        f"{record['cpu_ratio']} times the CPU time",
        f"{record['writing_ms_a_block']} ms for the points",
        f"of {record['updates_per_block']} updates",
        f"median of {record['rounds']} rounds is {record['ratio']} times",
        f"quartiles {low} to {high}, at {record['alone_ms']:.0f} ms",
    ):
        assert words in " ".join(TEXT.split()), words
