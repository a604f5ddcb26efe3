"""Gives wrong inputs to every command and public class, and checks what each is answered.

    python tools/wrong_inputs.py --out tools/records/wrong_inputs.json

Each must be refused within 2 s and before anything is written, in one line that names the
argument, shows its value and says what is right: a command with status 2, a class with a
ValueError. The inputs are made from parsers and signatures (`wrong_commands.py`,
`wrong_surroundings.py`, `wrong_calls.py`) and given in this one process, which has the framework
loaded: starting an interpreter and importing TensorFlow is not counted. Exit status 1 if one is
answered otherwise.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from wrong_calls import wrong_calls
from wrong_commands import Wrong, wrong_lines
from wrong_surroundings import wrong_environments, wrong_names

from tf_largebatch.records.files import write_json
from tf_largebatch.records.run_folder import environment

LONGEST_SECONDS = 2.0
# The rule that a value breaks says what to give in its place.
REMEDY = re.compile(
    r"\bmust\b|[Nn]earest|There are|choose from|[Ee]xpected|Did you mean|required|Only one"
    r"|Choose|Pass|Give|Use|Leave|Run|Write|Put|Copy|needed|shows all"
)
NOBODY = 65_534  # root may read everything: it becomes nobody where a folder is locked
VARIABLES = ("TF_CONFIG", "SLURM_", "TF_LARGEBATCH_", "JOB_COMPLETION_INDEX")


class TooSlow(BaseException):
    """No answer in time; nothing that the package catches."""


def every() -> list[Wrong]:
    """All wrong inputs that are known."""
    return [*wrong_lines(), *wrong_environments(), *wrong_names(), *wrong_calls()]


def draw(inputs: list[Wrong], count: int, seed: int) -> list[Wrong]:
    """Returns so many of them, each kind in turn, so that a small share has all kinds."""
    rng, kinds = random.Random(seed), collections.defaultdict(list)
    for one in inputs:
        kinds[one.kind].append(one)
    for of_kind in kinds.values():
        rng.shuffle(of_kind)
    drawn: list[Wrong] = []
    while len(drawn) < min(count, len(inputs)):
        for of_kind in kinds.values():
            drawn += [of_kind.pop()] if of_kind and len(drawn) < count else []
    return drawn


def give(wrong: Wrong) -> str | None:
    """Gives one; returns what is wrong with the answer, None where it is right."""
    with _folder(wrong.text) as there:
        if wrong.make is not None:
            wrong.make()
        before = _files(there)
        locked = wrong.kind == "path: locked" and os.geteuid() == 0
        out, err = _stream("strict"), _stream("backslashreplace")
        started, error = time.perf_counter(), None
        with (
            _environment(wrong.environment),
            _as_nobody(there, locked),
            _limit(2 * LONGEST_SECONDS),
        ):
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    wrong.run()
                except (Exception, SystemExit, TooSlow) as caught:
                    error = caught
        seconds = time.perf_counter() - started
        os.chdir(there)
        out.seek(0), err.seek(0)
        return _judge(wrong, error, err.read(), seconds, _files(there) - before)


def _judge(wrong: Wrong, error, printed: str, seconds: float, written: set[str]) -> str | None:
    if isinstance(error, TooSlow):
        return f"no answer after {2 * LONGEST_SECONDS:g} s"
    if error is None:
        return "accepted"
    if isinstance(error, SystemExit):
        if error.code != 2:
            return f"status {error.code}, {printed[-200:]!r}"
        said = printed[max(printed.find("python -m tf_largebatch"), 0) :]  # after what it tells
    elif isinstance(error, ValueError) and wrong.kind.startswith("argument"):
        said = str(error)
    else:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if len(said.strip().split("\n")) != 1:
        return f"not one line: {said[:300]!r}"
    if not any(name in said for name in wrong.names):
        return f"names no {' or '.join(wrong.names)}: {said[:300]!r}"
    if wrong.value.strip() not in said and ascii(wrong.value)[1:-1] not in said:
        return f"shows no {wrong.value!r}: {said[:300]!r}"
    if not REMEDY.search(said):
        return f"says not what to do: {said[:300]!r}"
    if written:
        return f"wrote {sorted(written)[:3]}"
    return f"took {seconds:.1f} s" if seconds > LONGEST_SECONDS else None


def _stream(errors: str) -> io.TextIOWrapper:
    """As the process's own: strict for what is printed, forgiving for errors."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)


def _files(folder: Path) -> set[str]:
    """Every name below the folder, with the bytes of files."""
    found = set()
    for place, folders, files in os.walk(folder):
        found |= {os.path.join(place, name) for name in folders}
        for name in files:
            path = Path(place, name)
            size = path.stat().st_size if path.is_file() else 0
            found.add(f"{path} ({size})")
    return found


@contextlib.contextmanager
def _folder(text: str) -> Iterator[Path]:
    """An empty present folder with what right paths in the text name: a run and pictures."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        there = Path(name)
        there.chmod(0o755)
        if "{run}" in text:
            _make_run(there / "{run}")
        if "{images}" in text:
            _make_images(there / "{images}")
            (there / "labels.txt").write_text("n00000001\n", encoding="utf-8")
        os.chdir(there)
        try:
            yield there
        finally:
            os.chdir(before)
            for path in there.iterdir():
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)


_KEPT: dict[str, Path] = {}


def _make_run(folder: Path) -> None:
    """A finished run as far as records tell; its model is never read."""
    if "run" not in _KEPT:
        import dataclasses

        from tf_largebatch.recipes.goyal_256 import MINIATURE
        from tf_largebatch.records.plan import Plan
        from tf_largebatch.records.result import EpochRecord, Result, RowResult, SeedResult
        from tf_largebatch.records.settings import Settings

        recipe = MINIATURE.rows[0].recipe
        plan = Plan(
            recipe=recipe,
            phases=recipe.phases(),
            scale="miniature",
            settings=Settings(),
            data="",
            departures=(),
        )
        epoch = EpochRecord(**dict.fromkeys((f.name for f in dataclasses.fields(EpochRecord)), 1))
        run = SeedResult(seed=0, folder=".", epochs=(epoch,), wall_seconds=1.0)
        row = RowResult(
            label="row",
            recipe=dataclasses.asdict(recipe),
            global_batch=recipe.global_batch,
            peak_rate=recipe.peak_rate,
            updates=1,
            runs=(run,),
        )
        result = Result(
            recipe=recipe.name,
            title=recipe.title,
            paper=recipe.paper,
            scale="miniature",
            rows=(row,),
        )
        kept = _KEPT["run"] = Path(tempfile.mkdtemp())
        kept.chmod(0o755)
        write_json(kept / "plan.json", plan.to_json())
        write_json(kept / "result.json", result.to_json())
        write_json(kept / "seed.json", dataclasses.asdict(run))
        (kept / "model.keras").write_bytes(b"")
    shutil.copytree(_KEPT["run"], folder)


def _make_images(folder: Path) -> None:
    """An ImageFolder tree of two classes."""
    if "images" not in _KEPT:
        import tensorflow as tf

        picture = tf.io.encode_jpeg(tf.zeros([32, 32, 3], tf.uint8)).numpy()
        kept = _KEPT["images"] = Path(tempfile.mkdtemp())
        kept.chmod(0o755)
        for split in ("train", "val"):
            for name in ("n00000001", "n00000002"):
                place = kept / split / name
                place.mkdir(parents=True)
                (place / "a.JPEG").write_bytes(picture)
    shutil.copytree(_KEPT["images"], folder)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(VARIABLES)]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _as_nobody(folder: Path, needed: bool) -> Iterator[None]:
    if not needed:
        yield
        return
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def end(number, frame):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TooSlow:  # between the last line of the block and the next
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(inputs: list[Wrong]) -> dict:
    """Gives them all; returns the record."""
    counts: dict[str, list[int]] = {}
    failures = []
    warm()
    for number, wrong in enumerate(inputs, start=1):
        problem = give(wrong)
        given = counts.setdefault(wrong.kind, [0, 0])
        given[0] += 1
        if problem is not None:
            given[1] += 1
            failures.append({"kind": wrong.kind, "where": wrong.where, "input": wrong.text})
            failures[-1]["answer"] = problem
            print(f"{number}: {wrong.text}\n    {problem}", flush=True)
    there = environment()
    return {
        "what": "wrong inputs to every command and public class, and how many were not refused "
        "within 2 s, before anything was written, in one line with argument, value and remedy",
        "date": date.today().isoformat(),
        "commit": there["commit"],
        "versions": there["versions"],
        "inputs": len(inputs),
        "where": len({wrong.where for wrong in inputs}),
        "kinds": {kind: {"inputs": n, "failures": bad} for kind, (n, bad) in counts.items()},
        "failures": failures,
    }


def warm() -> None:
    """Loads what the first input of its kind would load."""
    import tf_largebatch.diagnostics.finished_run
    import tf_largebatch.diagnostics.measurements
    import tf_largebatch.training.results
    import tf_largebatch.training.train  # noqa: F401
    from tf_largebatch.review import figures  # noqa: F401


def main() -> None:
    """Gives the inputs, prints the failures, and writes the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    text = "how many, of all kinds alike (default: all there are)"
    parser.add_argument("--inputs", type=int, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (default: 0)")
    parser.add_argument("--only", metavar="TEXT", help="those whose description holds this")
    parser.add_argument("--out", type=Path, help="where to write the record as JSON")
    arguments = parser.parse_args()
    inputs = [one for one in every() if (arguments.only or "") in f"{one.where} {one.text}"]
    record = run(draw(inputs, arguments.inputs or len(inputs), arguments.seed))
    print(json.dumps(record["kinds"], indent=1))
    print(f"{record['inputs']:,} wrong inputs, {len(record['failures'])} not answered as they must")
    if arguments.out:
        write_json(arguments.out, record)
    sys.exit(1 if record["failures"] else 0)


if __name__ == "__main__":
    main()
