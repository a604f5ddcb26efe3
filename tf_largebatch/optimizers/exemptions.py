"""Which tensors an optimizer neither decays nor adapts: resolved once, from path and rank."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import keras

from tf_largebatch.optimizers.tensors import Tensor


class Exemption(NamedTuple):
    """What an optimizer does with one tensor.

    Attributes:
        path: the variable's path, for instance "conv1/kernel".
        shape: its shape.
        decay: whether weight decay applies to it.
        adapted: whether its step is scaled by its own norm (a trust ratio).
    """

    path: str
    shape: tuple[int, ...]
    decay: bool
    adapted: bool


def variable_path(variable: Tensor) -> str:
    """The path of a Keras variable; the name without ":0" of a plain `tf.Variable`."""
    path = getattr(variable, "path", None)
    return str(path if path is not None else variable.name.split(":")[0])


def listed_pattern(path: str) -> str:
    """The regular expression for one variable given by itself.

    It matches the path, and the path without its first parts as long as layer and leaf remain: a
    `Sequential` that is loaded from a file no longer has its own name in the paths.
    """
    *scopes, leaf = [re.escape(part) for part in path.split("/")]
    pattern = f"{scopes.pop()}/{leaf}" if scopes else leaf
    optional = ""
    for scope in scopes:
        optional = f"(?:{optional}{scope}/)?"
    return f"^{optional}{pattern}$"


def resolve(
    variables: Sequence[keras.Variable],
    *,
    no_decay: Sequence[str],
    no_adaptation: Sequence[str],
    exclude_rank_below: int,
    adapts: bool,
) -> tuple[Exemption, ...]:
    """One row a variable, in the order given.

    Args:
        variables: the variables the optimizer is built on.
        no_decay: regular expressions searched in each path.
        no_adaptation: the same for the trust ratio.
        exclude_rank_below: tensors of a lower rank are exempt from both.
        adapts: False where the optimizer has no trust ratio at all.

    Raises:
        ValueError: a pattern matches no path.
    """
    paths = [variable_path(variable) for variable in variables]
    undecayed = _matches("no_decay", no_decay, paths)
    unadapted = _matches("no_adaptation", no_adaptation, paths)
    rows = []
    for path, variable in zip(paths, variables, strict=True):
        shape = tuple(variable.shape)
        high_rank = len(shape) >= exclude_rank_below
        rows.append(
            Exemption(
                path=path,
                shape=shape,
                decay=high_rank and path not in undecayed,
                adapted=adapts and high_rank and path not in unadapted,
            )
        )
    return tuple(rows)


def check_unambiguous(method: str, path: str, variables: Sequence[keras.Variable]) -> None:
    """Raises ValueError unless exactly one variable is the one listed."""
    paths = [variable_path(variable) for variable in variables]
    hits = [other for other in paths if re.search(listed_pattern(path), other)]
    if len(hits) == 1:
        return
    problem = f"matches several, {_listing(hits)}" if hits else "is not among the variables trained"
    raise ValueError(
        "`var_list` must hold variables whose paths tell them apart. Received: "
        f"var_list={path!r} in `{method}`, which {problem}. Name your layers, or pass variables of "
        f"these: {_listing(paths)}"
    )


def _matches(name: str, patterns: Sequence[str], paths: Sequence[str]) -> set[str]:
    matched = set()
    for pattern in patterns:
        hits = {path for path in paths if re.search(pattern, path)}
        if not hits:
            raise ValueError(
                f"`{name}` must hold patterns that match a variable. Received: {name}={pattern!r}, "
                f"which matches none. Choose from these paths: {_listing(paths)}"
            )
        matched |= hits
    return matched


def _listing(paths: Sequence[str]) -> str:
    return ", ".join(paths)
