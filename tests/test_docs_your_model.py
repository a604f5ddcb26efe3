"""The page on a user's own model: its code runs, and prints what the page shows."""

import re
from pathlib import Path

import tensorflow as tf

from tf_largebatch.training.workers.strategy import make_strategy

PAGE = (Path(__file__).parent.parent / "docs" / "your_model.md").read_text(encoding="utf-8")


def test_blocks_run_and_print_what_stands_there(capsys, monkeypatch):
    # TensorFlow bears no second strategy over the same devices in a process.
    two = make_strategy(2)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: two)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, names)
    printed = capsys.readouterr().out
    [shown] = re.findall(r"```\n(model .*?)```", PAGE, flags=re.DOTALL)
    assert printed.startswith(shown)
    whole, growing = printed.splitlines()[-2:]
    assert float(whole) > 0.85  # it trains; the page claims no more
    updates, accuracy = growing.split()
    assert int(updates) == 4 * 20 + 2 * 10 + 2 * 5 and float(accuracy) > 0.85
    assert names["plan"].warnings() == []
