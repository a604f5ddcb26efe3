"""Ratios of the layers as TensorBoard points: histograms of all, curves of about ten."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

NAMED = 10  # curves of each kind; hundreds make TensorBoard's page slow
DESCRIPTIONS = {
    "trust_ratio": "log10 of the factor that the update applied to the step of a tensor; without "
    "exempt tensors, whose factor is 1",
    "update_ratio": "log10 of |W' - W| / |W| of one update; without tensors of zeros",
}


def named_tensors(tensors: Sequence[tuple[str, int]]) -> list[str]:
    """Chooses the tensors that get curves of their own.

    Matrices and kernels only. All of them where there are up to ten; else the first and the last,
    and of every `stage1`, `stage2`, ... in the names the first and the last; in a network without
    such names ten evenly spaced ones. Takes (path, rank) and returns paths, in the order of the
    network.
    """
    paths = [path for path, rank in tensors if rank > 1]
    if len(paths) <= NAMED:
        return paths
    stages: dict[str, list[str]] = {}
    for path in paths:
        if found := re.search(r"(?:^|/)(stage\d+)", path):
            stages.setdefault(found[1], []).append(path)
    if stages:
        ends = {path for stage in stages.values() for path in (stage[0], stage[-1])}
        return [path for path in paths if path in ends | {paths[0], paths[-1]}]
    last = len(paths) - 1
    return [paths[round(i * last / (NAMED - 1))] for i in range(NAMED)]


def layer_points(logs: Mapping[str, Any], named: Sequence[str]) -> list[Summary]:
    """Returns the points of an update that was looked at; none for another.

    In `logs`, `trust_ratio` and `update_ratio` map paths to ratios; those `named` have curves.
    """
    points = []
    for kind, description in DESCRIPTIONS.items():
        # A rate of 0 moves nothing, and has no logarithm.
        ratios = {path: math.log10(r) for path, r in logs.get(kind, {}).items() if r > 0}
        if not ratios:
            continue
        values = list(ratios.values())
        points.append(histogram_pb(f"optimizer/{kind}", values, description=description))
        for path in (path for path in named if path in ratios):
            points.append(scalar_pb(f"{kind}/{path}", ratios[path], description=description))
    return points
