"""The page on a user's own model: its code runs, and prints what the page shows."""

import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs" / "your_model.md").read_text(encoding="utf-8")


def test_blocks_run_and_print_what_stands_there(capsys):
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, names)
    printed = capsys.readouterr().out
    [shown] = re.findall(r"```\n(model .*?)```", PAGE, flags=re.DOTALL)
    # Keras numbers the names of the models of a process.
    assert re.sub(r"sequential\w*", "sequential", printed).startswith(shown)
    assert float(printed.splitlines()[-1]) > 0.85  # it trains; the page claims no more
    assert names["plan"].warnings() == []
