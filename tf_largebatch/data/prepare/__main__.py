"""The command line of the preparation: `tf-largebatch prepare SOURCE --out DIR`."""

import argparse
import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tf_largebatch.data.collection import SPLITS
from tf_largebatch.data.prepare import checks
from tf_largebatch.data.prepare.layouts import LAYOUTS, open_collection, recognise
from tf_largebatch.data.prepare.preparation import LABEL_MAP, MANIFEST, Preparation, Progress
from tf_largebatch.data.prepare.shard import LEAST_SIDE, MOST_SHARDS, Options
from tf_largebatch.records.console import Parser, check_folder, local_place, number, run_command
from tf_largebatch.records.errors import InputError, StoppedError
from tf_largebatch.records.progress import format_seconds

_ODD = {
    "cmyk": "CMYK",
    "grey": "grey",
    "png": "PNG, whatever their name",
    "rotated": "marked as rotated (Exif), pixels as stored",
    "reencoded": "encoded again",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits; None for the arguments of the process.

    Status 0: the folder is complete. 2: something the user gave is wrong, said in one line.
    128 + n: signal n asked for an end; the same command continues.
    """
    run_command(make_parser(), _run, argv)


def make_parser() -> Parser:
    """Returns the flags of the command."""
    parser = Parser(
        prog="python -m tf_largebatch prepare",
        description="Makes TFRecord shards of ImageNet (ILSVRC 2012) for --data of the recipes. "
        "An interrupted run leaves nothing that looks complete; the same command continues it.",
    )
    add = parser.add_argument
    # The help folds line ends and the spaces after them.
    help = """folder of the two ILSVRC tars, of train/ and val/, of Kaggle's ILSVRC/, or of
        TensorFlow Datasets' imagenet2012"""
    add("source", type=local_place, metavar="SOURCE", help=help)
    add("--out", type=local_place, required=True, metavar="DIR", help="folder to make")
    help = "what SOURCE is (default: recognised)"
    add("--layout", choices=("auto", *LAYOUTS), default="auto", help=help)
    help = """classes of validation pictures without class folders: the development kit, Kaggle's
        LOC_val_solution.csv, or text with a WordNet id per picture (default: the first two,
        looked for in SOURCE)"""
    add("--val-labels", type=local_place, metavar="FILE", help=help)
    help = """whether the numbers must be ImageNet's: 1,281,167 and 50,000 pictures, 1,000 classes
        (default: %(default)s)"""
    add("--expect", choices=("imagenet", "any"), default="imagenet", help=help)
    help = "hold both tars against their published checksums first; reads all of them"
    add("--verify-md5", action="store_true", help=help)
    shards, help = number(int, 1, MOST_SHARDS), "%(default)s"
    add("--train-shards", type=shards, default=Options.train_shards, metavar="N", help=help)
    add(
        "--validation-shards",
        type=shards,
        default=Options.validation_shards,
        metavar="N",
        help=help,
    )
    help = """encode pictures whose shorter side is longer again, reduced to it; changes the data
        of the papers (default: bytes as they are)"""
    add("--max-short-side", type=number(int, LEAST_SIDE), metavar="PX", help=help)
    help = "JPEG quality of pictures encoded again (default: %(default)s)"
    add("--quality", type=number(int, 1, 100), default=Options.quality, metavar="Q", help=help)
    help = """make RGB JPEGs of the PNG and the CMYK pictures, for readers other than this package's
        (default: bytes as they are)"""
    add("--reencode-odd", action="store_true", help=help)
    add("--check-decode", action="store_true", help="decode every picture once; slow")
    help = f"""leave out pictures that cannot be read, and list them in {MANIFEST} (default: stop at
        the first)"""
    add("--skip-broken", action="store_true", help=help)
    help = """worker processes; the bytes do not depend on it (default: one per core here,
        %(default)s)"""
    # Not every system tells which cores this process may use.
    cores = len(getattr(os, "sched_getaffinity", lambda _: ())(0)) or os.cpu_count() or 1
    most = min(cores, 16)  # each holds a TensorFlow
    add("--processes", type=number(int, 1), default=most, metavar="N", help=help)
    help = "print what would be done and its size, and stop"
    add("--plan", action="store_true", help=help)
    return parser


def _stop(number, frame):
    raise StoppedError("stopped; the same command continues with the shards that are left", number)


def _run(arguments: argparse.Namespace) -> None:
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # Pictures are prepared by the CPU; the workers inherit both.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    progress = Progress()
    try:
        _prepare(arguments, progress)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"files must be readable and writable. Received: {error}") from None
    finally:
        progress.end()
        for number, handler in before.items():
            signal.signal(number, handler)


def _prepare(arguments: argparse.Namespace, progress: Progress) -> None:
    folder, out, layout = arguments.source, arguments.out, arguments.layout
    if folder.is_dir():
        check_folder("SOURCE", folder)
    if layout == "auto" or not folder.is_dir():
        layout = recognise(folder)
    print(f"layout      {layout}, {folder}", flush=True)
    _check_flags(arguments, out)
    if out.exists() and out.samefile(folder):
        raise InputError(f"--out must not be SOURCE. Received: {out}. Pass another folder")
    if arguments.verify_md5 and layout != "tars":
        rule = "--verify-md5 must be left out unless SOURCE is the two tars"
        raise InputError(f"{rule}. Received: layout {layout}")
    names = (field.name for field in dataclasses.fields(Options))
    options = Options(**{name: getattr(arguments, name) for name in names})
    collection = open_collection(folder, layout, arguments.val_labels, progress.show)
    progress.end()
    if arguments.expect == "imagenet":
        checks.check_counts(collection)
    preparation = Preparation(collection, options, out)
    progress.end()
    _print_plan(preparation, arguments.processes)
    if preparation.finished():
        preparation.tidy()
        print(f"complete already: {out}; nothing to do")
        return
    # With smaller pictures the need is not known beforehand, only that it is less.
    if options.max_short_side is None:
        checks.check_space(out, checks.needed_bytes(collection) - preparation.finished_bytes())
    if arguments.plan:
        return
    if arguments.verify_md5:
        checks.check_md5(folder, progress.show)
        progress.end()
    start = time.monotonic()
    manifest = preparation.run(processes=arguments.processes, progress=progress)
    progress.end()
    _print_summary(manifest, time.monotonic() - start, out)


def _check_flags(arguments: argparse.Namespace, out: Path) -> None:
    """Refuses flags without effect, and a place where no folder can be."""
    again = arguments.max_short_side is not None or arguments.reencode_odd
    if arguments.quality != Options.quality and not again:
        rule = "--quality must stand with --max-short-side or --reencode-odd: nothing else encodes"
        raise InputError(f"{rule}. Received: {arguments.quality}. Add one, or leave it out")
    above = next(p for p in (out, *out.absolute().parents) if os.path.lexists(p))
    if above == out:
        check_folder("--out", out)
    if not above.is_dir():
        rule = "--out must be a folder, or a name for a new one"
        raise InputError(f"{rule}. Received: {out}, but {above} is none")


def _print_plan(preparation: Preparation, processes: int) -> None:
    collection, options = preparation.collection, preparation.options
    train, validation = (f"{len(collection.splits[split]):,}" for split in SPLITS)
    classes = f"{len(collection.classes):,}"
    print(f"pictures    {train} training, {validation} validation, {classes} classes")
    if collection.ignored:
        shown = ", ".join(os.path.basename(name) for name in collection.ignored[:3])
        print(f"ignored     {len(collection.ignored):,} files that are no pictures: {shown}")
    train, validation = f"{options.train_shards:,}", f"{options.validation_shards:,}"
    print(f"shards      {train} training, {validation} validation")
    print(f"content     {_describe(options)}")
    about = "about" if options.max_short_side is None else "at most"
    needed, free = checks.needed_bytes(collection), checks.free_bytes(preparation.out)
    print(
        f"space       {about} {needed / 1e9:,.3g} GB of {free / 1e9:,.3g} GB free; "
        f"{preparation.finished_bytes() / 1e9:,.3g} GB there from an earlier run"
    )
    print(f"processes   {processes}", flush=True)


def _describe(options: Options) -> str:
    parts = []
    if options.max_short_side is not None:
        parts.append(
            f"shorter side at most {options.max_short_side} px (bicubic, antialiased), quality "
            f"{options.quality}"
        )
    if options.reencode_odd:
        parts.append(f"PNG and CMYK as RGB JPEG of quality {options.quality}")
    parts.append("all other bytes as they are" if parts else "bytes as they are")
    if options.check_decode:
        parts.append("each decoded once")
    return ", ".join(parts)


def _print_summary(manifest: dict, seconds: float, out: Path) -> None:
    print(f"\n{'':12}{'training':>12}{'validation':>12}")
    splits = [manifest["splits"][split] for split in SPLITS]
    rows = {
        "pictures": [f"{split['pictures']:,}" for split in splits],
        "shards": [f"{len(split['shards']):,}" for split in splits],
        "GB": [f"{split['bytes'] / 1e9:,.3f}" for split in splits],
    }
    rows |= {name: [f"{split['odd'].get(name, 0):,}" for split in splits] for name in _ODD}
    rows["left out"] = [f"{len(split['skipped']):,}" for split in splits]
    for name, (train, validation) in rows.items():
        print(f"{name:12}{train:>12}{validation:>12}  {_ODD.get(name, '')}".rstrip())
    print(
        f"\ncomplete after {format_seconds(seconds)}: {out}, with {MANIFEST} (counts and SHA-256 "
        f"of every shard) and {LABEL_MAP}"
    )


if __name__ == "__main__":
    main()
