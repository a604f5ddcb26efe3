"""Runs the workers of one training job on this machine as one command, and ends them as one.

    python -m tf_largebatch.launch --workers 2 -- -m tf_largebatch.recipes.goyal_8k --run-dir runs/a
    python -m tf_largebatch.launch --print     # what a cluster's environment says; starts nothing

What stands after `--` are arguments of Python. Each worker gets its TF_CONFIG on free loopback
ports, its GPUs, and its own process group; each line that it prints is prefixed with its rank. The
first failure ends the job: it is named, the others get `--grace` seconds to end by themselves, then
SIGTERM, and after as long again SIGKILL. A worker's peers often abort because it died, so what
comes later is not the cause, except statuses 2 (wrong input) and 3 (not finite), which no dead peer
brings about. SIGINT, SIGTERM and SIGHUP are passed on to the workers, which get `--grace` seconds.
When the launcher itself is killed, a small process beside it kills the workers' groups.

A worker reports that its cluster is up by touching the file that TF_LARGEBATCH_READY names
(`cluster.report_ready`); training does so. Without it `--start-timeout` ends the job, because
TensorFlow's worker 0 waits for a missing peer without limit.

Exit status: 0, or that of the first failure (128 + n for signal n); 124 when time ran out; 2 for
wrong arguments. Children of a worker that leave its process group are not followed. Needs a POSIX
system. Standard library only.
"""

import argparse
import contextlib
import dataclasses
import math
import os
import select
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tf_largebatch import cluster, flags
from tf_largebatch.cluster import Cluster
from tf_largebatch.errors import InputError
from tf_largebatch.flags import WRONG_INPUT, Parser

PROGRAM = "python -m tf_largebatch.launch"
NOT_FINITE, OUT_OF_TIME = 3, 124

STAMP = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"  # of this launch, restarts included

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECONDS = 0.1  # between looks at what raises no event: ready files and unfinished lines
_UNFINISHED_SECONDS = 1.0  # after which a line without its end is shown
_KILL_SECONDS = 10.0  # after which a process that SIGKILL did not end is given up


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with the status that the module describes."""
    argv = list(sys.argv[1:] if argv is None else argv)
    own, command = argv, None
    if "--" in argv:
        cut = argv.index("--")
        own, command = argv[:cut], argv[cut + 1 :]
    parser = make_parser()
    if command is None and not {"-h", "--help", "--print"} & set(own):
        parser.print_usage(sys.stderr)
        parser.error("what each worker runs must stand after --. Received: no --")
    arguments = parser.parse_args(own)
    try:
        status = _run(arguments, command)
    except InputError as error:
        parser.error(str(error))
    sys.exit(status)


def make_parser() -> argparse.ArgumentParser:
    """Returns the flags that stand before `--`."""
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} --workers N [options] -- -m MODULE [arguments]",
        description="Runs the workers of one training job on this machine. What stands after -- "
        "are arguments of Python, the same for each worker. On SLURM or Kubernetes, start the "
        "training command itself on each node instead: it reads the environment, and --print "
        "shows what it finds there.",
        epilog="Exit status: 0, that of the first worker to fail (128 + n for signal n), 124 when "
        "time ran out, 2 for wrong arguments.",
    )
    add = parser.add_argument
    add("--workers", type=flags.number(int, 1), metavar="N", help="processes to start")
    add(
        "--gpus-per-worker",
        type=flags.number(int, 0),
        metavar="G",
        help="GPUs of each worker, in order of rank; 0 hides them (default: as many as each can "
        "have)",
    )
    add(
        "--restarts",
        type=flags.number(int, 0),
        default=0,
        metavar="R",
        help="how often to start all workers again after a failure, with new ports; not after "
        "status 2 (wrong input) or 3 (not finite), nor after a signal (default: %(default)s)",
    )
    add(
        "--start-timeout",
        type=flags.number(float, 0),
        default=300.0,
        metavar="S",
        help="seconds until every worker has reported that its cluster is up, by touching the file "
        f"that {cluster.READY} names; 0 asks for no report (default: %(default)g)",
    )
    add(
        "--run-timeout",
        type=flags.number(float, 0),
        default=0.0,
        metavar="S",
        help="seconds for everything, restarts included; 0 sets no limit (default: %(default)g)",
    )
    add(
        "--grace",
        type=flags.number(float, 0),
        default=30.0,
        metavar="S",
        help="seconds for the others to end after the first failure, again after SIGTERM, and "
        "after a signal to the launcher; then SIGKILL (default: %(default)g)",
    )
    add("--print", action="store_true", help="print what would run, and stop")
    return parser


def _run(arguments: argparse.Namespace, command: list[str] | None) -> int:
    if command is None:
        print(_describe_environment())
        return 0
    if not command:
        raise InputError("what each worker runs must stand after --. Received: nothing after --")
    if arguments.workers is None:
        raise InputError("--workers must be given. Received: no --workers")
    gpus = cluster.share_gpus(cluster.visible_gpus(), arguments.workers, arguments.gpus_per_worker)
    if arguments.print:
        print(_describe_workers(command, gpus))
        return 0
    _require_single_process()
    stop_at = time.monotonic() + (arguments.run_timeout or math.inf)
    with _Signals() as signals, _Guard() as guard:
        for attempt in range(arguments.restarts + 1):
            if attempt:
                _say(f"restart {attempt} of {arguments.restarts}: all workers, new ports")
            job = _Job(arguments, command, gpus, stop_at, signals, guard)
            status = job.run()
            if not job.may_restart:
                break
    return status


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
    gpus = cluster.gpu_for_local_rank(found)
    assigned = "as it is" if gpus is None else gpus
    return (
        f"worker {found.rank} of {found.size}, number {found.local_rank} of {found.local_size} on "
        f"its host\n{cluster.GPUS}: {assigned}\n{cluster.TF_CONFIG}={found.to_tf_config()}"
    )


def _describe_workers(command: list[str], gpus: list[str]) -> str:
    ports = _free_ports(len(gpus))
    lines = [f"# {len(gpus)} workers; ports are chosen again at each start"]
    for rank, share in enumerate(gpus):
        changes = _environment(ports, rank, share, f"FOLDER/ready-{rank}")
        assignments = [f"{name}={shlex.quote(value)}" for name, value in changes.items()]
        lines.append(" ".join([*assignments, shlex.join([sys.executable, *command])]))
    return "\n".join(lines)


def _environment(ports: list[int], rank: int, gpus: str, ready: str) -> dict[str, str]:
    """Returns the variables that a worker has beyond the launcher's."""
    workers = tuple(f"127.0.0.1:{port}" for port in ports)
    return {
        cluster.TF_CONFIG: Cluster(workers, rank).to_tf_config(),
        cluster.GPUS: gpus,
        cluster.GPUS_ASSIGNED: "1",
        cluster.READY: ready,
        cluster.STAMP: STAMP,
        "PYTHONUNBUFFERED": "1",  # a line is shown when it is printed
    }


def _free_ports(count: int) -> list[int]:
    """Returns ports that are free on loopback; all are held until the last one is known."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclasses.dataclass
class _Worker:
    """One process; `status` is as `Popen.returncode`, None while it runs."""

    rank: int
    process: subprocess.Popen
    ready: Path
    streams: list["_Stream"]
    status: int | None = None


class _Job:
    """One start of all workers, until the last of them has ended."""

    def __init__(self, arguments, command, gpus, stop_at, signals, guard):
        self.arguments, self.command, self.gpus = arguments, command, gpus
        self.stop_at, self.signals, self.guard = stop_at, signals, guard
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()
        self.started = time.monotonic()
        self.ready_by = self.started + (arguments.start_timeout or math.inf)
        self.term_at = self.kill_at = math.inf
        self.cause: tuple[int, str] | None = None  # exit status, and what happened
        self.settled = False  # whether what ends from here on is our own doing
        self.signal: signal.Signals | None = None  # the first one passed on
        self.out_of_time = False
        self.may_restart = False

    def run(self) -> int:
        """Starts the workers and returns the job's exit status once none of them is left."""
        try:
            self.selector.register(self.signals.incoming, selectors.EVENT_READ)
            self._start()
            while self._running():
                self._turn()
        finally:
            self._kill()
            self.selector.close()
        if self.cause is None:
            return 0
        status, text = self.cause
        _say(f"failed: {text}")
        stopped = self.signal is not None or self.out_of_time
        self.may_restart = status not in (WRONG_INPUT, NOT_FINITE) and not stopped
        return status

    def _start(self) -> None:
        ports = _free_ports(len(self.gpus))
        shown = "none" if self.gpus[0] == "-1" else " ".join(self.gpus)
        _say(f"{len(ports)} workers, ports {' '.join(map(str, ports))}, GPUs: {shown}")
        for rank, share in enumerate(self.gpus):
            ready = self.guard.folder / f"ready-{rank}"
            ready.unlink(missing_ok=True)
            process = subprocess.Popen(
                [sys.executable, *self.command],
                env={**os.environ, **_environment(ports, rank, share, str(ready))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=self.guard.add_this_process,  # safe: the launcher has one thread
            )
            streams = [_Stream(process.stdout, 1, rank), _Stream(process.stderr, 2, rank)]
            self.workers.append(_Worker(rank, process, ready, streams))
            for stream in streams:
                self.selector.register(stream.pipe, selectors.EVENT_READ, stream)

    def _running(self) -> list[_Worker]:
        return [w for w in self.workers if w.status is None]

    def _turn(self) -> None:
        """Waits for the next event and answers it."""
        for key, _ in self.selector.select(self._seconds_to_wait()):
            if key.data and key.data.read() == 0:
                self.selector.unregister(key.fileobj)
        now = time.monotonic()
        for worker in self.workers:
            for stream in worker.streams:
                stream.show_unfinished(now)
        for number in self.signals.take():
            self._pass_on(number, now)
        self._collect(now)
        self._check_limits(now)

    def _seconds_to_wait(self) -> float | None:
        unfinished = any(stream.text for w in self.workers for stream in w.streams)
        if unfinished or self.ready_by < math.inf:
            return _POLL_SECONDS
        soonest = min(self.term_at, self.kill_at, self.stop_at)
        return None if soonest == math.inf else max(soonest - time.monotonic(), 0)

    def _pass_on(self, number: int, now: float) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
            grace = self.arguments.grace
            _say(f"{self.signal.name}: passed on to the workers, which get {grace:g} s")
            self.kill_at = min(self.kill_at, now + grace)
        for worker in self._running():
            worker.process.send_signal(number)

    def _collect(self, now: float) -> None:
        """Notes which workers have ended, and the first failure."""
        ended = [w for w in self._running() if w.process.poll() is not None]
        for worker in ended:
            self._bury(worker)
        # Of two that ended at once, an abort is the consequence.
        for worker in sorted(ended, key=lambda w: w.status == -signal.SIGABRT):
            self._judge(worker, now)

    def _judge(self, worker: _Worker, now: float) -> None:
        status = worker.status
        if status == 0 or self.settled:
            return
        explains = status in (WRONG_INPUT, NOT_FINITE)
        first = self.cause is None
        if not first and (not explains or self.cause[0] in (WRONG_INPUT, NOT_FINITE)):
            return
        text = f"rank {worker.rank} {_ending(status)}"
        self.cause = (status if status > 0 else 128 - status, text)
        others = " ".join(str(w.rank) for w in self._running())
        if first and others and self.signal is None:
            _say(f"{text}; rank {others} still running, gets {self.arguments.grace:g} s")
            self.term_at = now + self.arguments.grace

    def _check_limits(self, now: float) -> None:
        if self.ready_by < math.inf:
            self._check_ready(now)
        if now >= self.stop_at:
            self.stop_at, self.out_of_time = math.inf, True
            self._give_up(f"not done within {self.arguments.run_timeout:g} s (--run-timeout)", now)
        if now >= self.term_at:
            self.term_at, self.settled = math.inf, True
            self.kill_at = min(self.kill_at, now + self.arguments.grace)
            for worker in self._running():
                worker.process.terminate()
        if now >= self.kill_at:
            ranks = " ".join(str(w.rank) for w in self._running())
            text = f"rank {ranks} had not ended {self.arguments.grace:g} s after the signal"
            self.cause = self.cause or (128 + self.signal, text)
            self._kill()

    def _check_ready(self, now: float) -> None:
        missing = [w for w in self._running() if not w.ready.exists()]
        if not missing:
            self.ready_by = math.inf
            if self._running():
                _say(f"all workers ready after {now - self.started:.1f} s")
        elif now >= self.ready_by:
            self.ready_by = math.inf
            ranks = " ".join(str(w.rank) for w in missing)
            limit = f"{self.arguments.start_timeout:g} s (--start-timeout)"
            self._give_up(f"rank {ranks} of {len(self.workers)} not ready within {limit}", now)

    def _give_up(self, text: str, now: float) -> None:
        if self._running() and self.cause is None and self.signal is None:
            self.cause, self.settled = (OUT_OF_TIME, text), True
            self.term_at = now

    def _kill(self) -> None:
        """Ends what is left, and waits for it."""
        self.settled = True
        for worker in self._running():
            _kill_group(worker.process.pid)
        for worker in self._running():
            try:
                worker.process.wait(_KILL_SECONDS)
            except subprocess.TimeoutExpired:
                _say(f"rank {worker.rank} (process {worker.process.pid}) does not end on SIGKILL")
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        """Ends what the worker left in its group, and shows its last output."""
        _kill_group(worker.process.pid)
        self.guard.forget(worker.process.pid)
        status = worker.process.returncode
        worker.status = -signal.SIGKILL if status is None else status
        for stream in worker.streams:
            if stream.pipe in self.selector.get_map():
                self.selector.unregister(stream.pipe)
            stream.close()


class _Stream:
    """What one worker writes to one descriptor, shown line by line as a terminal would."""

    def __init__(self, pipe, out: int, rank: int):
        os.set_blocking(pipe.fileno(), False)
        self.pipe, self.out, self.prefix = pipe, out, b"[rank %d] " % rank
        self.text = b""  # the line that has no end yet
        self.since = 0.0  # when it began
        self.cut = False  # whether its beginning has been shown

    def read(self) -> int | None:
        """Takes what is there and returns its length: 0 at the end, None if there is nothing."""
        try:
            data = os.read(self.pipe.fileno(), 65_536)
        except BlockingIOError:
            return None
        *lines, rest = (self.text + data).split(b"\n")
        if lines and self.cut and not _visible(lines[0]):
            del lines[0]  # only its end was missing
        if rest and (lines or not self.text):
            self.since = time.monotonic()
        if b"\n" in data:
            self.cut = False
        for line in lines:
            self._show(line)
        visible = _visible(rest)
        self.text = visible + b"\r" if visible and rest.endswith(b"\r") else visible
        return len(data)

    def show_unfinished(self, now: float) -> None:
        """Shows a line that has waited long for its end, such as a prompt or a progress bar."""
        if self.text and now - self.since >= _UNFINISHED_SECONDS:
            self._show(self.text)
            self.text, self.cut = b"", True

    def close(self) -> None:
        """Shows what is left; a descendant that still writes is not waited for."""
        if self.pipe.closed:
            return
        for _ in range(32):  # 2 MiB, more than a pipe holds
            if not self.read():
                break
        self.since = -math.inf
        self.show_unfinished(0.0)
        self.pipe.close()

    def _show(self, line: bytes) -> None:
        self._write(self.prefix + _visible(line) + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            while data and self.out is not None:
                data = data[os.write(self.out, data) :]
        except BlockingIOError:  # some terminals and pipes come that way
            select.select([], [self.out], [])
            self._write(data)
        except BrokenPipeError:
            self.out = None  # nobody reads any more: stop, as other commands do
            signal.raise_signal(signal.SIGTERM)


def _visible(line: bytes) -> bytes:
    """What a terminal shows once carriage returns have moved back to the line's start."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


class _Signals:
    """Turns signals to the launcher, and the end of a child, into something to wait for."""

    def __enter__(self):
        self.incoming, self._outgoing = socket.socketpair()
        self.incoming.setblocking(False)
        self._outgoing.setblocking(False)
        self._before = {}
        for number in (*_FORWARDED, signal.SIGCHLD):
            # What is ignored stays so: nohup and background jobs of a shell ask for it.
            if number == signal.SIGCHLD or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._outgoing.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_):
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.incoming.close()
        self._outgoing.close()

    def take(self) -> list[int]:
        """Returns the signals to pass on that arrived since the last call."""
        try:
            received = self.incoming.recv(4096)
        except BlockingIOError:
            return []
        return [number for number in received if number in _FORWARDED]


class _Guard:
    """A process that kills the workers' groups when the launcher is gone, however it went.

    It reads a pipe: "+pid" from each worker before its program starts, "-pid" from the launcher
    when the group is gone, and the end of the pipe when the last writer has died. It also owns the
    folder of the ready files.
    """

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tf_largebatch-"))
        read, self._write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._write)
                self._wait(read)
            finally:
                os._exit(0)
        os.close(read)
        return self

    def __exit__(self, *_):
        os.close(self._write)
        os.waitpid(self._pid, 0)

    def add_this_process(self) -> None:
        """Called in the worker's process, which leads its group already."""
        os.write(self._write, b"+%d\n" % os.getpid())

    def forget(self, pid: int) -> None:
        """Called once the group is gone."""
        with contextlib.suppress(BrokenPipeError):  # the guard was killed
            os.write(self._write, b"-%d\n" % pid)

    def _wait(self, read: int) -> None:
        os.setsid()  # what is sent to the launcher's group or terminal is not for this process
        signal.set_wakeup_fd(-1)
        for number in _FORWARDED:
            signal.signal(number, signal.SIG_IGN)
        left = set()
        with open(read, "rb") as events:
            for event in events.read().split():
                (left.add if event[:1] == b"+" else left.discard)(int(event[1:]))
        for pid in left:
            _kill_group(pid)
        shutil.rmtree(self.folder, ignore_errors=True)


def _kill_group(pid: int) -> None:
    # PermissionError is what macOS answers for a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _ending(status: int) -> str:
    if status >= 0:
        meaning = {WRONG_INPUT: " (wrong input)", NOT_FINITE: " (not finite)"}.get(status, "")
        return f"ended with status {status}{meaning}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"[launch] {text}\n".encode())


if __name__ == "__main__":
    main()
