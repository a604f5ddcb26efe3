"""What all command lines share: how a command ends, and numbers that say their range."""

import argparse
import contextlib
import dataclasses
import difflib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from tf_largebatch.records.errors import InputError, StoppedError, WorkerLostError

WRONG_INPUT, NOT_FINITE, WORKER_LOST = 2, 3, 4  # exit statuses
LARGEST_SEED = 2**31 - 1


class Parser(argparse.ArgumentParser):
    """An argument parser that ends with one line and takes no abbreviated flags."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with status 2."""
        self.exit(WRONG_INPUT, f"{self.prog}: {message}\n")


@dataclasses.dataclass
class End:
    """How a command ends: its exit status."""

    status: int = 0


@contextlib.contextmanager
def ending(parser: Parser) -> Iterator[End]:
    """Ends the process with the status that the block sets, or that its error stands for.

    Status 2: an `InputError`, as one line. 4: a worker is gone (a `WorkerLostError`). 128 + n:
    signal n asked for an end (a `StoppedError`, Ctrl-C), or nobody reads the output any more
    (`| head`).
    """
    end = End()
    try:
        try:
            yield end
        except SystemExit as left:  # --help, or what argparse refuses
            end.status = left.code if isinstance(left.code, int) else 0
        except InputError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            end.status = WRONG_INPUT
        except WorkerLostError as lost:
            print(lost, file=sys.stderr)
            end.status = WORKER_LOST
        except StoppedError as stopped:
            print(stopped, file=sys.stderr)
            end.status = 128 + stopped.signal
        sys.stdout.flush()  # here, where a closed pipe is answered
    except KeyboardInterrupt:
        end.status = 128 + signal.SIGINT
    except BrokenPipeError:
        # The interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        end.status = 128 + signal.SIGPIPE
    sys.exit(end.status)


def run_command(
    parser: Parser,
    run: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Runs one command line and exits, as `ending` says.

    Args:
        parser: of its flags.
        run: the command itself; returns the exit status, None for 0.
        argv: arguments; None for those of the process.
    """
    with ending(parser) as end:
        end.status = run(parser.parse_args(argv)) or 0
    raise AssertionError("`ending` exits")


def choose(name: str, names: Iterable[str], what: str) -> str:
    """Returns the name if it is one of the names; the error says `what` it should be."""
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    remedy = f"Nearest: {near[0]}" if near else f"There are: {', '.join(names)}"
    raise InputError(f"{what} must be a known name. Received: {name}. {remedy}")


def number(
    kind: type[int] | type[float],
    least: float,
    most: float = math.inf,
    *,
    above: bool = False,
    word: str = "",
) -> Callable[[str], float | str]:
    """Returns the `type=` of a flag that takes a finite number from `least` to `most`.

    `above` leaves `least` itself out; `word` is taken as it is, in a number's place.
    """
    lowest = f"{'above' if above else 'of at least'} {least}"
    rule = "a whole number " if kind is int else "a number "
    rule += f"in {least}..{most}" if most < math.inf else lowest
    rule += f", or {word}" if word else ""

    def parse(text: str) -> float | str:
        if word and text == word:
            return text
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        # NaN is in no range.
        in_range = least <= value <= most and value < math.inf and not (above and value == least)
        if not in_range:
            raise argparse.ArgumentTypeError(f"must be {rule}. Received: {text}")
        return value

    return parse


def span(text: str) -> tuple[int, int]:
    """The `type=` of a flag that takes two whole numbers, FIRST:END, with 0 <= FIRST < END."""
    first, _, end = text.partition(":")
    try:
        numbers = int(first), int(end)
    except ValueError:
        numbers = (0, 0)
    if not 0 <= numbers[0] < numbers[1]:
        rule = "must be FIRST:END, whole numbers with 0 <= FIRST < END"
        raise argparse.ArgumentTypeError(f"{rule}. Received: {text}")
    return numbers
