"""What all command lines share: how a command ends, and numbers that say their range."""

import argparse
import contextlib
import dataclasses
import difflib
import errno
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tf_largebatch.records import extras
from tf_largebatch.records.errors import InputError, StoppedError, WorkerLostError
from tf_largebatch.records.files import NO_ROOM

WRONG_INPUT, NOT_FINITE, WORKER_LOST = 2, 3, 4  # exit statuses
LARGEST_SEED = 2**31 - 1


MODULE, SCRIPT = "python -m tf_largebatch", "tf-largebatch"  # two ways to call the front door


class Parser(argparse.ArgumentParser):
    """An argument parser that ends with one line and takes no abbreviated flags.

    Its `prog`, where it starts with `python -m tf_largebatch`, is told as the program was called.
    """

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)
        words = self.prog.removeprefix(MODULE)
        if words[:1] in ("", " ") and Path(sys.argv[0]).stem == SCRIPT:
            self.prog = SCRIPT + words

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Returns the flags' values; text that is not UTF-8 could neither be printed nor kept."""
        texts = list(sys.argv[1:] if args is None else args)
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError:
                self.error(f"arguments must be UTF-8. Received: {text}. Rename what it names")
        found, rest = self.parse_known_args(texts, namespace)
        if rest:
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(rest[0].partition("=")[0], flags, n=1)
            remedy = f"Nearest: {near[0]}" if near else "There are those of --help"
            self.error(f"unrecognized arguments: {' '.join(rest)}. {remedy}")
        return found

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with status 2."""
        message = message.replace("ignored explicit argument", "must have no value. Received:")
        self.exit(WRONG_INPUT, f"{self.prog}: {one_line(message)}\n")


@dataclasses.dataclass
class End:
    """How a command ends: its exit status."""

    status: int = 0


@contextlib.contextmanager
def ending(parser: Parser) -> Iterator[End]:
    """Ends the process with the status that the block sets, or that its error stands for.

    Status 2: an `InputError`, a missing package or a full disk, as one line. 4: a worker is gone (a
    `WorkerLostError`). 128 + n: signal n asked for an end (a `StoppedError`, Ctrl-C), or nobody
    reads the output any more (`| head`).
    """
    end = End()
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield end
        except SystemExit as left:  # --help, or what argparse refuses
            end.status = left.code if isinstance(left.code, int) else 0
        except InputError as error:
            print(f"{parser.prog}: {one_line(str(error))}", file=sys.stderr)
            end.status = WRONG_INPUT
        except ModuleNotFoundError as error:
            remedy = extras.describe(error.name or "")
            if remedy is None:
                raise
            print(f"{parser.prog}: {remedy}", file=sys.stderr)
            end.status = WRONG_INPUT
        except WorkerLostError as lost:
            print(lost, file=sys.stderr)
            end.status = WORKER_LOST
        except StoppedError as stopped:
            print(stopped, file=sys.stderr)
            end.status = 128 + stopped.signal
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            what = f"{error.filename or 'a file'} could not be written ({error.strerror})"
            print(
                f"{parser.prog}: {one_line(what)}. Make room, and give the same command again",
                file=sys.stderr,
            )
            end.status = WRONG_INPUT
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


def one_line(text: str) -> str:
    r"""Returns the text with line ends, escapes and what is no text written out: `\n`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text.strip())


def place(text: str) -> Path | str:
    """The `type=` of a flag that names a folder to read; a URL (gs://bucket/folder) stays text."""
    return text if "://" in text else local_place(text)


def local_place(text: str) -> Path:
    """The `type=` of a flag that names a file or folder of this machine."""
    if not text or "://" in text:
        what = text or "an empty text"
        raise argparse.ArgumentTypeError(f"must be a path of this machine. Received: {what}")
    try:
        os.stat(text)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            given = f"{text[:40]}... ({len(text):,} characters)"
            rule = "must be a path that this system can have"
            raise argparse.ArgumentTypeError(f"{rule}. Received: {given}") from None
    return Path(text)


def check_folder(flag: str, path: Path | str) -> None:
    """InputError unless the path is a folder that can be read; a URL is left to its reader."""
    if "://" not in str(path):
        try:
            os.scandir(path).close()
        except OSError as error:
            rule = f"{flag} must be a folder that can be read"
            raise InputError(f"{rule}. Received: {path} ({error.strerror})") from None


def make_folder(flag: str, folder: Path) -> None:
    """Makes the folder where it is missing; InputError unless it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        why = f"Received: {folder} ({error.strerror or error})"
        raise InputError(f"{flag} must be a folder that can be written to. {why}") from None


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
