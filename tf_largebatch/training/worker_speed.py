"""One of several processes whose speed `training/speed.py` measures: all train at once."""

import sys
from pathlib import Path

from tf_largebatch.records.files import read_json, write_json
from tf_largebatch.records.quiet import import_tensorflow


def main() -> None:
    """Writes the seconds of updates and of all-reduces, with the bytes of these.

    The last two words of the command are the files of the request and of the answer.
    """
    request, out = map(Path, sys.argv[-2:])
    import_tensorflow()
    from tf_largebatch.training.speed import make_all_reduce, make_update, read_model, time_in_turn
    from tf_largebatch.training.workers.team import Team

    team, asked = Team(), read_json(request)
    model, optimizer = read_model(asked)
    sizes = [sum(lengths) * 4 for lengths in asked["all_reduces"]]
    with team.strategy.scope():
        shared = read_model(asked)
    batches, parts = asked["micro_batches"], asked["all_reduces"]
    # Each worker's own first: what they slow each other down by; then those of one model.
    runs = [make_update(model, optimizer, size) for size in batches]
    runs += [make_update(*shared, size, team.strategy) for size in batches]
    runs += [make_all_reduce(team.strategy, lengths) for lengths in parts]
    seconds = iter(time_in_turn(runs, team))
    answer = {
        "steps": list(zip(batches, seconds, strict=False)),
        "joined": list(zip(batches, seconds, strict=False)),
        "all_reduces": list(zip(sizes, seconds, strict=True)),
    }
    if team.chief:
        write_json(out, answer)
