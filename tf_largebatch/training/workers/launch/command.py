"""Runs the workers of one training on this machine as one command, and ends them as one.

    tf-largebatch launch --workers 2 -- -m tf_largebatch.recipes.goyal_8k --run-dir runs/a
    tf-largebatch launch --print     # what a cluster's environment says; starts nothing

What stands after `--` are arguments of Python. Each worker gets its TF_CONFIG on free loopback
ports, its GPUs, and its own process group; each line that it prints is prefixed with its rank. The
first failure ends all: it is named, the others get `--grace` seconds to end by themselves, then
SIGTERM, and after as long again SIGKILL. A worker's peers often abort because it died, so what
comes later is not the cause, except statuses 2 (wrong input) and 3 (not finite), which no dead peer
brings about. SIGINT, SIGTERM and SIGHUP are passed on to the workers, which get `--grace` seconds.
When the launcher itself is killed, a small process beside it kills the workers' groups.

A worker reports that its cluster is up by touching the file that TF_LARGEBATCH_READY names
(`workers.cluster.report_ready`); training does so. Without it `--start-timeout` ends the launch,
because TensorFlow's worker 0 waits for a missing peer without limit.

Exit status: 0, or that of the first failure (128 + n for signal n); 124 when time ran out; 2 for
wrong arguments. A script of one's own that lets this package's InputError through ends with status
2, as a recipe does, and is not started again. Children of a worker that leave its process group are
not followed. Needs a POSIX system. Standard library only.
"""

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Sequence

from tf_largebatch.records.console import Parser, number, run_command
from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers import cluster
from tf_largebatch.training.workers.gpus import GPUS, gpu_for_local_rank, share_gpus, visible_gpus
from tf_largebatch.training.workers.launch import start

PROGRAM = "python -m tf_largebatch launch"
AFTER = "what each worker runs must stand after --"
WRITE = f"Write: {PROGRAM} --workers N -- -m MODULE [arguments]"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with the status that the module describes."""
    argv = list(sys.argv[1:] if argv is None else argv)
    own, command = argv, None
    if "--" in argv:
        cut = argv.index("--")
        own, command = argv[:cut], argv[cut + 1 :]
    parser = make_parser()
    if command is None and not {"-h", "--help", "--print"} & set(own):
        parser.error(f"{AFTER}. Received: no --. {WRITE}")
    run_command(parser, lambda arguments: _run(arguments, command), own)


def make_parser() -> Parser:
    """Returns the flags that stand before `--`."""
    parser = Parser(
        prog=PROGRAM,
        usage="%(prog)s --workers N [options] -- -m MODULE [arguments]",
        description="Runs the workers of one training on this machine. What stands after -- "
        "are arguments of Python, the same for each worker. On SLURM or Kubernetes, start the "
        "training command itself on each node instead: it reads the environment, and --print "
        "shows what it finds there.",
        epilog="Exit status: 0, that of the first worker to fail (128 + n for signal n), 124 when "
        "time ran out, 2 for wrong arguments.",
    )

    def add(flag: str, metavar: str, help: str, kind: type = int, default: float | None = None):
        least = 1 if flag == "--workers" else 0
        parser.add_argument(
            flag, metavar=metavar, help=help, type=number(kind, least), default=default
        )

    add("--workers", "N", "processes to start")
    text = "GPUs of each worker, in order of rank; 0 hides them (default: as many as each can have)"
    add("--gpus-per-worker", "G", text)
    text = (
        "how often to start all workers again after a failure, with new ports; not after status 2 "
        "(wrong input) or 3 (not finite), nor after a signal (default: %(default)s)"
    )
    add("--restarts", "R", text, int, 0)
    text = (
        "seconds until every worker has reported that its cluster is up, by touching the file that "
        f"{cluster.READY} names; 0 asks for no report (default: %(default)g)"
    )
    add("--start-timeout", "S", text, float, 300.0)
    text = "seconds for everything, restarts included; 0 sets no limit (default: %(default)g)"
    add("--run-timeout", "S", text, float, 0.0)
    text = (
        "seconds for the others to end after the first failure, again after SIGTERM, and after a "
        "signal to the launcher; then SIGKILL (default: %(default)g)"
    )
    add("--grace", "S", text, float, 30.0)
    parser.add_argument("--print", action="store_true", help="print what would run, and stop")
    return parser


def _run(arguments: argparse.Namespace, command: list[str] | None) -> int:
    if command is None:
        print(_describe_environment())
        return 0
    if not command:
        raise InputError(f"{AFTER}. Received: nothing after --. {WRITE}")
    if arguments.workers is None:
        raise InputError("--workers must be given. Received: no --workers")
    limits = dict(vars(arguments))
    only_print, workers = limits.pop("print"), limits.pop("workers")
    gpus = share_gpus(visible_gpus(), workers, limits.pop("gpus_per_worker"))
    if only_print:
        print(_describe_workers(command, gpus))
        return 0
    _require_single_process()
    return start.start(start.Request(command=command, gpus=gpus, **limits))


def _require_single_process() -> None:
    """Refuses to make a cluster inside another one."""
    outer = None
    # A batch script's own process does not resolve: launch is what its message recommends.
    with contextlib.suppress(InputError):
        outer = cluster.resolve()
    if outer or os.environ.get(cluster.TF_CONFIG):
        what = f"worker {outer.rank} of {outer.size}" if outer else cluster.TF_CONFIG
        raise InputError(
            "launch makes a cluster of its own and must start outside any other. Received: "
            f"{what} in the environment. Start the command without launch, or unset the variables"
        )


def _describe_environment() -> str:
    found = cluster.resolve()
    if found is None:
        return "single process: no TF_CONFIG, no SLURM step of several tasks, no indexed Job"
    gpus = gpu_for_local_rank(found)
    assigned = "as it is" if gpus is None else gpus
    return (
        f"worker {found.rank} of {found.size}, number {found.local_rank} of {found.local_size} on "
        f"its host\n{GPUS}: {assigned}\n{cluster.TF_CONFIG}={found.to_tf_config()}"
    )


def _describe_workers(command: list[str], gpus: list[str]) -> str:
    ports = start.free_ports(len(gpus))
    lines = [f"# {len(gpus)} workers; ports are chosen again at each start"]
    for rank, share in enumerate(gpus):
        changes = start.worker_environment(ports, rank, share, f"FOLDER/ready-{rank}")
        assignments = [f"{name}={shlex.quote(value)}" for name, value in changes.items()]
        lines.append(" ".join([*assignments, shlex.join([sys.executable, *command])]))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
