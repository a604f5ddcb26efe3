"""Wrong command lines, made from the parsers of all commands: what `wrong_inputs.py` tries.

A wrong text follows from the type that a flag declares, a wrong path from what the flag is for.
"""

import argparse
import inspect
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tf_largebatch import __main__ as front
from tf_largebatch.data.prepare.__main__ import make_parser as prepare_parser
from tf_largebatch.diagnostics.command import make_parser as diagnose_parser
from tf_largebatch.planning.job import _parser as job_parser
from tf_largebatch.records import overrides
from tf_largebatch.records.recipe import Recipe
from tf_largebatch.review.compare import make_parser as compare_parser
from tf_largebatch.studies.command import make_parser as study_parser
from tf_largebatch.training.options import make_parser as recipe_parser
from tf_largebatch.training.workers.launch.command import make_parser as launch_parser

IMAGES = ("{images}", "--out=out", "--expect=any", "--train-shards=1", "--validation-shards=1")
MARKUP = "<script>alert(1)</script>"


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """One wrong input.

    Attributes:
        kind: what is wrong with it.
        where: the command or class.
        names: of which the message must have one: the argument, as the user knows it.
        value: what it must show of what was given; "" where nothing was.
        run: gives it, in an empty folder; a command exits, a class raises.
        text: it in words, for the record.
        make: makes what it names, before.
        environment: variables that are set.
    """

    kind: str
    where: str
    names: tuple[str, ...]
    value: str
    run: Callable[[], None]
    text: str
    make: Callable[[], None] | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """One command: its parser, and a line that is right up to what is appended."""

    name: str
    parser: argparse.ArgumentParser
    main: Callable[[list[str]], None]
    right: tuple[str, ...] = ()  # with {run}, {images}: folders that `prepared` makes
    stop: tuple[str, ...] = ()  # flags that end it early where it takes what is wrong
    trains: bool = True  # False for a recipe that is a plan alone

    def wrong(self, kind: str, names: Sequence[str], value: str, arguments: list[str], **more):
        """The input that appends these arguments."""
        line = [*self.right, *arguments, *self.stop]
        if self.name == "launch":
            line += ["--", "-m", "nothing"]
        return Wrong(
            kind=kind,
            where=self.name,
            names=tuple(names),
            value=value,
            run=lambda: self.main(line),
            text=ascii(" ".join(line))[1:-1][:200],
            **more,
        )


def commands() -> list[Command]:
    """Every command of the package, and every recipe's own."""
    found = [
        Command("launch", launch_parser(), _front("launch"), ("--workers", "2"), ("--print",)),
        Command("prepare", prepare_parser(), _front("prepare"), IMAGES, ("--plan",)),
        Command("diagnose", diagnose_parser(), _front("diagnose"), ("{run}",)),
        Command("compare", compare_parser(), _front("compare"), ("{run}",)),
        Command("job", job_parser(), _front("job"), ("goyal_8k", "--on", "slurm")),
        Command("study", study_parser(), _front("study"), ("critical_batch", "--out=out")),
    ]
    for name, module in front.recipe_modules().items():
        rows = getattr(module, "ROWS", None)
        parser = recipe_parser(module.RECIPE, rows)
        trains = bool(module.MINIATURE.rows) and not module.RECIPE.missing
        found.append(Command(f"recipes.{name}", parser, _recipe_main(module, rows), trains=trains))
    return found


def _front(*words: str) -> Callable[[list[str]], None]:
    return lambda arguments: front.main([*words, *arguments])


def _recipe_main(module, rows):
    from tf_largebatch.training.command import main

    return lambda arguments: main(module.RECIPE, module.MINIATURE, arguments, rows=rows)


def wrong_lines() -> Iterator[Wrong]:
    """Every wrong command line."""
    for command in commands():
        for action in command.parser._actions:
            if action.option_strings and action.option_strings[-1] != "--help":
                yield from _wrong_flag(command, action)
        yield from _unknown_flags(command)
        yield from _wrong_paths(command)
        yield command.wrong("name", ["UTF-8"], "a-", [os.fsdecode(b"--a-\xff")])
    yield from _wrong_settings()
    yield from _contradictions()


def _wrong_flag(command: Command, action: argparse.Action) -> Iterator[Wrong]:
    """A flag without its value, and with texts that its type does not take."""
    flag = action.option_strings[-1]
    if action.nargs == 0:
        yield command.wrong("type", [flag], "yes", [f"{flag}=yes"])
        return
    yield command.wrong("type", [flag], "", [flag])
    if action.choices is not None:
        first = str(next(iter(action.choices)))
        for text in (first + "x", first.upper() + "?", "", MARKUP, "two\nlines"):
            yield command.wrong("choice", [flag], text[:3], [f"{flag}={text}"])
    for kind, text in _wrong_texts(action.type):
        yield command.wrong(kind, [flag], text[:20], [f"{flag}={text}"])


def _wrong_texts(kind: Callable | None) -> Iterator[tuple[str, str]]:
    """What is wrong for the `type=` of a flag, with the kind of its wrongness."""
    if kind is int:
        facts = {"kind": int, "least": 1, "most": float("inf"), "above": False}
    elif getattr(kind, "__name__", "") == "span":
        yield from (("type", text) for text in ("5", "a:b", "1.5:2", ":", "", "3:x", "\n"))
        yield from (("range", text) for text in ("5:5", "7:3", "-1:4"))
        return
    else:
        facts = inspect.getclosurevars(kind).nonlocals if inspect.isfunction(kind) else {}
        if "least" not in facts:
            return
    texts = ("x", "", "nan", "inf", "-inf", "1,5", "0x10", "1 2", MARKUP, "three\n", "9" * 5000)
    texts += ("1.5", "1e3") if facts["kind"] is int else ("1e999",)
    yield from (("type", text) for text in texts)
    least, most = facts["least"], facts["most"]
    yield "range", str(least if facts["above"] else least - 1)
    yield "range", "-1000000"
    if most < float("inf"):
        yield "range", str(most + 1)


def _unknown_flags(command: Command) -> Iterator[Wrong]:
    """A flag that is misspelt, shortened, or of another program."""
    flags = [a.option_strings[-1] for a in command.parser._actions if a.option_strings]
    for flag in flags[1:6]:
        for text in (f"{flag}s", flag[:-2], flag.replace("--", "--no-")):
            if text not in flags:
                yield command.wrong("unknown", [text], "", [text])
    for text in ("--batch-size=64", "--lr=0.1", f"--{MARKUP}", "surplus\n"):
        if command.name != "compare" or text.startswith("--"):
            yield command.wrong("unknown", [text.strip().split("=")[0]], "", [text])


# Paths. Each maker takes a name in the present folder, and makes there what the name says.

FILE, LINK, LOOP, PIPE, SOCKET, LONG, ODD = "file dangling loop pipe socket long not-utf8".split()
LOCKED, EMPTY, INSIDE, NAMED = "locked", "empty text", "inside a file", "markup"


def _make(kind: str, name: str) -> None:
    path = Path(name)
    match kind:
        case "file" | "inside a file":
            Path(path.parts[0]).write_text("x", encoding="utf-8")
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(name)
        case "pipe":
            os.mkfifo(name)
        case "socket":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(name)
        case "locked":
            path.mkdir(mode=0o000)


def _named(kind: str) -> str:
    if kind == INSIDE:
        return "a-file/folder"
    if kind == NAMED:
        return "<b>[bold]a{0}%(prog)s"
    return {LONG: "a" * 5000, ODD: os.fsdecode(b"a-\xff"), EMPTY: ""}.get(kind, f"a-{kind}")


FOLDER_KINDS = (FILE, LINK, LOOP, PIPE, SOCKET, LONG, ODD, LOCKED, EMPTY, INSIDE, NAMED)
OUT_KINDS = (FILE, LINK, LOOP, PIPE, SOCKET, LONG, ODD, LOCKED, EMPTY, INSIDE)


def _wrong_paths(command: Command) -> Iterator[Wrong]:
    """Each path of a command as each kind of what it must not be."""
    reads: dict[str, tuple[Sequence[str], tuple[str, ...]]] = {
        "prepare": ([], ("SOURCE",)),
        "diagnose": ([], ("RUN",)),
        "compare": ([], ("RUN",)),
    }
    writes: dict[str, tuple[list[str], str]] = {
        "compare": ([], "--out"),
        "study": ([], "--out"),
        "prepare": ([], "--out"),
    }
    if command.name.startswith("recipes.") and command.trains:
        reads[command.name] = (["--data"], ("--data", "data folder"))
        writes[command.name] = ([], "--run-dir")
    if command.name in reads:
        before, names = reads[command.name]
        right = tuple(p for p in command.right if not p.startswith("{"))
        alone = Command(command.name, command.parser, command.main, right, command.stop)
        for kind in FOLDER_KINDS:
            yield _wrong_path(alone, kind, names, [*before])
    if command.name in writes:
        before, flag = writes[command.name]
        for kind in OUT_KINDS:
            yield _wrong_path(command, kind, (flag,), [*before, flag])
    if command.name == "diagnose":
        for kind in FOLDER_KINDS:
            yield _wrong_path(command, kind, ("RUN", "--interpolate"), ["--interpolate"])


def _wrong_path(command: Command, kind: str, names: tuple[str, ...], before: list[str]) -> Wrong:
    name = _named(kind)
    names = (*names, "UTF-8") if kind == ODD else names

    def make() -> None:
        _make(kind, name)

    shown = name.split("/")[0][:2]
    return command.wrong(f"path: {kind}", names, shown, [*before, name], make=make)


def _wrong_settings() -> Iterator[Wrong]:
    """`--set` of every field of recipes of each kind, with values that it does not take."""
    names = ("goyal_8k", "you_resnet50", "mlperf", "akiba_32k", "mikami_119k", "hoffer")
    for command in commands():
        name = command.name.removeprefix("recipes.")
        if name not in names:
            continue
        command = Command(command.name, command.parser, command.main, stop=("--plan",))
        recipe = front.recipe_modules()[name].RECIPE
        for field_name, value in overrides.fields(recipe).items():
            for text in _wrong_values(recipe, field_name, value):
                setting = f"{field_name}={text}"
                yield command.wrong("set", [field_name], text[:20], ["--set", setting])
        for text in ("epochs", "=1", "", "lr=0.1", "batch_size=64", "optimizer=lars", "warmup=5"):
            yield command.wrong("set", ["--set", "field"], text[:20], ["--set", text])
        for text in (f"{MARKUP}=1", "epochs\n=3", "name=mine", "paper=x"):
            yield command.wrong("set", ["--set"], text[:5], ["--set", text])


def _wrong_values(recipe: Recipe, name: str, value: object) -> list[str]:
    hint = str(overrides._hint(recipe, name))
    if "Literal" in hint or "bool" in hint:
        return ["perhaps", "", MARKUP]
    if "tuple" in hint:
        return ["x", "nan", "3,x", "2;3"] + (["2", "2:3:4", "5:-1"] if name == "growth" else [])
    if "int" in hint or "float" in hint:
        return (
            ["x", "nan", "inf", "", "1,5"]
            + ["-3"] * (name != "model.last_gamma")
            + (["1.5"] if "float" not in hint else [])
        )
    return ["no-such-thing", MARKUP] if name == "model.architecture" else []


def _contradictions() -> Iterator[Wrong]:
    """Flags that are right alone and not together."""
    by_name = {command.name: command for command in commands()}
    goyal, digits = by_name["recipes.goyal_8k"], by_name["recipes.goyal_256"]
    sweep = by_name["recipes.mlperf"]
    launch, prepare = by_name["launch"], by_name["prepare"]
    diagnose, compare, job = by_name["diagnose"], by_name["compare"], by_name["job"]
    study = by_name["study"]
    lines: list[tuple[Command, Sequence[str], str, list[str]]] = [
        (goyal, ["--replicas", "replicas"], "3", ["--replicas=3", "--plan"]),
        (goyal, ["--micro-batch", "micro_batch"], "48", ["--micro-batch=48", "--plan"]),
        (goyal, ["--smoke"], "nowhere", ["--smoke", "--data=nowhere"]),
        (goyal, ["--profile"], "0:999999", ["--profile=0:999999"]),
        (goyal, ["--precision"], "float16", ["--tpu=local", "--precision=float16"]),
        (goyal, ["epochs"], "50", ["--set=epochs=50", "--plan"]),
        (goyal, ["--data"], "gs", ["--data=gs:/one-slash"]),
        (goyal, ["--run-dir"], "gs://bucket/run", ["--run-dir=gs://bucket/run"]),
        (goyal, ["--set"], "resnet50", ["--set=model.architecture=resnet50"]),
        (digits, ["--skip-unreadable"], "3", ["--skip-unreadable=3"]),
        (digits, ["--keep-checkpoints"], "0", ["--keep-checkpoints=0"]),
        (sweep, ["--row"], "none-such", ["--row=none-such"]),
        (launch, ["--workers"], "0", ["--workers=0"]),
        (launch, ["--gpus-per-worker"], "-1", ["--gpus-per-worker=-1"]),
        (launch, ["GPUs per worker"], "3", ["--gpus-per-worker=3"]),
        (prepare, ["tar"], "images", ["--layout=tars"]),
        (prepare, ["--verify-md5"], "imagefolder", ["--verify-md5"]),
        (prepare, ["--quality"], "101", ["--quality=101"]),
        (prepare, ["--quality"], "80", ["--quality=80"]),
        (prepare, ["--max-short-side"], "3", ["--max-short-side=3"]),
        (prepare, ["--train-shards"], "0", ["--train-shards=0"]),
        (prepare, ["--val-labels"], "labels", ["--val-labels=labels.txt"]),
        (prepare, ["--expect"], "2", ["--expect=imagenet"]),
        (prepare, ["--out"], "images", ["--out={images}"]),
        (diagnose, ["--products"], "2", ["--eigenvalues=3", "--products=2"]),
        (diagnose, ["--images"], "99,999", ["--images=99999"]),
        (diagnose, ["--data"], "nowhere", ["--data=nowhere"]),
        (compare, ["RUN"], "twice", ["{run}"]),
        (job, ["--on"], "slurmm", ["--on=slurmm"]),
        (job, ["--workers"], "7 x 8", ["--workers=7", "--gpus=8"]),
        (job, ["--workers"], "4", ["--on=tpu", "--workers=4"]),
        (job, ["--row"], "x", ["--row=x"]),
        (study, ["--report"], "out", ["--report"]),
        (study, ["--data"], "nowhere", ["--data=nowhere"]),
        (digits, ["--miniature-data"], "x", ["--miniature-data=x"]),
    ]
    for command, names, value, arguments in lines:
        yield command.wrong("contradiction", names, value, arguments)
