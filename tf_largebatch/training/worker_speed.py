"""One of several processes whose speed `training/speed.py` measures: all train at once."""

import sys
from pathlib import Path

from tf_largebatch.records.files import read_json, write_json
from tf_largebatch.records.quiet import import_tensorflow


def main() -> None:
    """Writes the seconds of each update and the bytes and seconds of each all-reduce.

    The last two words of the command are the files of the request and of the answer.
    """
    request, out = map(Path, sys.argv[-2:])
    import_tensorflow()
    from tf_largebatch.training.speed import make_all_reduce, make_update, read_model, time_in_turn
    from tf_largebatch.training.workers.team import Team

    team, asked = Team(), read_json(request)
    model, optimizer = read_model(asked)
    sizes = [sum(parts) * 4 for parts in asked["all_reduces"]]
    # The updates are each worker's own: what they slow each other down by is what is measured.
    runs = [make_update(model, optimizer, size) for size in asked["micro_batches"]]
    steps = time_in_turn(runs, team)
    sums = [make_all_reduce(team.strategy, parts) for parts in asked["all_reduces"]]
    all_reduces = list(zip(sizes, time_in_turn(sums, team), strict=True))
    if team.chief:
        write_json(out, {"steps": steps, "all_reduces": all_reduces})
