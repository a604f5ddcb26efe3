"""`tf-largebatch study` lists the studies with their verdicts, `study NAME` runs one."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tf_largebatch.records import extras
from tf_largebatch.records.committed import CLONE, committed
from tf_largebatch.records.console import (
    Parser,
    choose,
    local_place,
    make_folder,
    number,
    run_command,
)
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import read_json
from tf_largebatch.records.quiet import import_tensorflow
from tf_largebatch.studies import fitting, page, runner
from tf_largebatch.studies.study import Scale, Study

PROGRAM = "python -m tf_largebatch study"


def main(load: Callable[[], Mapping[str, Study]], argv: Sequence[str]) -> None:
    """Runs the command line and exits: 0 done, 2 wrong input; `load` gives the studies by name."""
    run_command(make_parser(), lambda arguments: _run(load(), arguments), argv)


def make_parser() -> Parser:
    """Returns the flags."""
    parser = Parser(
        prog=PROGRAM,
        description="Runs a study: many trainings, a figure and a verdict on a claim. A study that "
        "was killed goes on with the next trial; several commands share the trials of one folder. "
        "Without a name lists the studies with their verdicts.",
    )
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="of the study")
    kind = number(int, 1, 100)
    add("--seeds", type=kind, metavar="N", help="how many (default: the study's own)")
    add("--quick", action="store_true", help="a look, in minutes, into OUT/quick; no verdict")
    add("--report", action="store_true", help="run nothing: draw what there is")
    text = "holds mnist/, fashion_mnist/, cifar10/ (default: keras.datasets downloads them)"
    add("--data", type=local_place, metavar="DIR", help=text)
    text = "of the record, its trials and figures (default: docs/claims/NAME of a checkout, else "
    add("--out", type=local_place, metavar="DIR", help=text + "claims/NAME)")
    text = "processes, one core each (default: 1)"
    add("--workers", type=number(int, 1, 1024), default=1, metavar="N", help=text)
    return parser


def home() -> Path:
    """Returns where the folders of the studies are: of the checkout, or below this folder."""
    return CLONE / "docs" / "claims" if (CLONE / "pyproject.toml").exists() else Path("claims")


def _run(studies: Mapping[str, Study], arguments: argparse.Namespace) -> None:
    if arguments.name is None:
        print("\n".join(describe(studies, home())))
        return
    study = studies[choose(arguments.name, studies, "the study")]
    extras.require("review", *["digits"] * ("digits" in study.data), but="tensorboard")
    if arguments.data is not None and set(study.data) == {"digits"}:
        raise InputError(
            f"--data is for studies of other pictures. Received: {arguments.data} for "
            f"{study.name}, whose digits come with scikit-learn. Leave it out"
        )
    seeds = arguments.seeds or (study.quick_seeds if arguments.quick else study.seeds)
    scale = Scale(seeds, quick=arguments.quick)
    folder = arguments.out or home() / study.name
    folder = folder / "quick" if arguments.quick else folder
    if not arguments.report:
        prepare()
        work(study, folder, scale, arguments.data, arguments.workers)
    elif not (folder / runner.TRIALS).is_dir():
        raise InputError(
            f"--report needs a folder with {runner.TRIALS}/. Received: {folder}. Run it without"
        )
    record = page.write(study, folder, scale)
    print("\n".join(say(record, folder)))


def prepare() -> None:
    """Sets what must be set before Keras is imported."""
    fitting.one_thread()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # processes share a GPU
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import_tensorflow()


def work(study: Study, folder: Path, scale: Scale, data: Path | None, workers: int) -> None:
    """Runs what is missing, in this process or in so many of its own."""
    from tf_largebatch.studies.sets import Sets

    runner.check_backend(study)
    sets = Sets(data)
    sets.check(study.data)
    make_folder("--out", folder)
    if workers > 1:
        import multiprocessing

        spawn = multiprocessing.get_context("spawn")
        everyone = [
            spawn.Process(target=_worker, args=(study, folder, scale, data, place), daemon=True)
            for place in range(workers)
        ]
        for process in everyone:
            process.start()
        for process in everyone:
            process.join()
    # Alone; or where a worker failed, here, to say why.
    runner.run(study, folder, scale, sets)
    runner.clean(folder)


def _worker(study: Study, folder: Path, scale: Scale, data: Path | None, place: int) -> None:
    """One of several processes: on a core of its own; the first shows the progress of all."""
    import threading

    from tf_largebatch.studies.sets import Sets

    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[place % len(cores)]})
    prepare()
    runner.run(study, folder, scale, Sets(data), shown=place == 0)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, however that ended."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def describe(studies: Mapping[str, Study], folder: Path) -> list[str]:
    """Returns the lines of the list: each study, its claims, its verdicts."""
    lines = []
    for name, study in studies.items():
        path = folder / name / page.RECORD
        if not path.is_file():
            path = committed("docs/claims") / name / page.RECORD
        verdicts = {}
        if path.is_file():
            verdicts = {claim["id"]: claim["verdict"] for claim in read_json(path)["claims"]}
        found = ", ".join(f"{c.id} {verdicts.get(c.id, 'not run')}" for c in study.claims)
        lines.append(f"{name:<20}  {study.title}\n{'':<20}  {found}")
    return lines


def say(record: dict, folder: Path) -> list[str]:
    """Returns what the command prints at its end."""
    lines = [page.QUICK] if record["quick"] else []
    for claim in record["claims"]:
        lines.append(f"{claim['id']}: {claim['verdict']}: {claim['text']}")
        lines += [
            f"    {a['part'] + ': ' if a['part'] else ''}{a['effect']}" for a in claim["answers"]
        ]
    if record["missing"]:
        lines.append(f"at least {record['missing']:,} trials are not run yet")
    return [*lines, f"page    {folder / page.PAGE}", f"record  {folder / page.RECORD}"]
