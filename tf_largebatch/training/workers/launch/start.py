"""One start of all workers: their environment, what they print, the first failure, the end."""

import contextlib
import dataclasses
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tf_largebatch.records import errors
from tf_largebatch.records.console import NOT_FINITE, WRONG_INPUT
from tf_largebatch.training.workers import cluster
from tf_largebatch.training.workers.cluster import Cluster
from tf_largebatch.training.workers.gpus import GPUS, GPUS_ASSIGNED
from tf_largebatch.training.workers.launch.guard import Guard, Signals, kill_group
from tf_largebatch.training.workers.launch.output import Stream

OUT_OF_TIME = 124  # exit status

STAMP = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"  # of this launch, restarts included

_POLL_SECONDS = 0.1  # between looks at what raises no event: ready files and unfinished lines
_KILL_SECONDS = 10.0  # after which a process that SIGKILL did not end is given up


@dataclasses.dataclass
class Worker:
    """One process; `status` is as `Popen.returncode`, None while it runs."""

    rank: int
    process: subprocess.Popen
    ready: Path
    streams: list[Stream]
    status: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be launched; the numbers are the flags of these names."""

    command: Sequence[str]  # arguments of Python, the same for each worker
    gpus: Sequence[str]  # CUDA_VISIBLE_DEVICES of each worker
    restarts: int
    start_timeout: float
    run_timeout: float
    grace: float


@dataclasses.dataclass(frozen=True)
class Cause:
    """Why a launch ended other than well; `asked` is the signal that had been passed on before."""

    status: int
    text: str
    asked: signal.Signals | None

    @property
    def explains(self) -> bool:
        """Whether it is none that a dead peer brings about."""
        return self.status in (WRONG_INPUT, NOT_FINITE)


class Launch:
    """One start of all workers, until the last of them has ended."""

    def __init__(self, request: Request, stop_at: float, signals: Signals, guard: Guard):
        self.request, self.stop_at = request, stop_at
        self.signals, self.guard = signals, guard
        self.workers: list[Worker] = []
        self.selector = selectors.DefaultSelector()
        self.started = time.monotonic()
        self.ready_by = self.started + (request.start_timeout or math.inf)
        self.term_at = self.kill_at = math.inf
        self.cause: Cause | None = None
        self.settled = False  # whether what ends from here on is our own doing
        self.signal: signal.Signals | None = None  # the first one passed on
        self.out_of_time = False
        self.may_restart = False

    def run(self) -> int:
        """Starts the workers and returns the exit status once none of them is left."""
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
        asked = self.cause.asked
        say(f"{f'stopped by {asked.name}' if asked else 'failed'}: {self.cause.text}")
        stopped = self.signal is not None or self.out_of_time
        self.may_restart = not self.cause.explains and not stopped
        return self.cause.status

    def _start(self) -> None:
        ports = free_ports(len(self.request.gpus))
        shown = "none" if self.request.gpus[0] == "-1" else " ".join(self.request.gpus)
        say(f"{len(ports)} workers, ports {' '.join(map(str, ports))}, GPUs: {shown}")
        for rank, share in enumerate(self.request.gpus):
            ready = self.guard.folder / f"ready-{rank}"
            ready.unlink(missing_ok=True)
            process = subprocess.Popen(
                [sys.executable, *self.request.command],
                env={**os.environ, **worker_environment(ports, rank, share, str(ready))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=self.guard.add_this_process,  # safe: the launcher has one thread
            )
            pipes = zip((process.stdout, process.stderr), (1, 2), strict=True)
            streams = [Stream(pipe, out, rank) for pipe, out in pipes if pipe is not None]
            self.workers.append(Worker(rank, process, ready, streams))
            for stream in streams:
                self.selector.register(stream.pipe, selectors.EVENT_READ, stream)

    def _running(self) -> list[Worker]:
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
            grace = self.request.grace
            say(f"{self.signal.name}: passed on to the workers, which get {grace:g} s")
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

    def _judge(self, worker: Worker, now: float) -> None:
        status = worker.status
        if not status or self.settled:
            return
        text = f"rank {worker.rank} {_ending(status)}"
        found = Cause(status if status > 0 else 128 - status, text, self.signal)
        first = self.cause is None
        if self.cause is not None and (not found.explains or self.cause.explains):
            return
        self.cause = found
        others = " ".join(str(w.rank) for w in self._running())
        if first and others and self.signal is None:
            say(f"{text}; rank {others} still running, gets {self.request.grace:g} s")
            self.term_at = now + self.request.grace

    def _check_limits(self, now: float) -> None:
        if self.ready_by < math.inf:
            self._check_ready(now)
        if now >= self.stop_at:
            self.stop_at, self.out_of_time = math.inf, True
            self._give_up(f"not done within {self.request.run_timeout:g} s (--run-timeout)", now)
        if now >= self.term_at:
            self.term_at, self.settled = math.inf, True
            self.kill_at = min(self.kill_at, now + self.request.grace)
            for worker in self._running():
                worker.process.terminate()
        if now >= self.kill_at:
            ranks = " ".join(str(w.rank) for w in self._running())
            text = f"rank {ranks} had not ended {self.request.grace:g} s after the signal"
            if self.cause is None and self.signal is not None:
                self.cause = Cause(128 + self.signal, text, self.signal)
            self._kill()

    def _check_ready(self, now: float) -> None:
        missing = [w for w in self._running() if not w.ready.exists()]
        if not missing:
            self.ready_by = math.inf
            if self._running():
                say(f"all workers ready after {now - self.started:.1f} s")
        elif now >= self.ready_by:
            self.ready_by = math.inf
            ranks = " ".join(str(w.rank) for w in missing)
            limit = f"{self.request.start_timeout:g} s (--start-timeout)"
            self._give_up(f"rank {ranks} of {len(self.workers)} not ready within {limit}", now)

    def _give_up(self, text: str, now: float) -> None:
        if self._running() and self.cause is None and self.signal is None:
            self.cause, self.settled = Cause(OUT_OF_TIME, text, None), True
            self.term_at = now

    def _kill(self) -> None:
        """Ends what is left, and waits for it."""
        self.settled = True
        for worker in self._running():
            kill_group(worker.process.pid)
        for worker in self._running():
            try:
                worker.process.wait(_KILL_SECONDS)
            except subprocess.TimeoutExpired:
                say(f"rank {worker.rank} (process {worker.process.pid}) does not end on SIGKILL")
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        """Ends what the worker left in its group, and shows its last output."""
        kill_group(worker.process.pid)
        self.guard.forget(worker.process.pid)
        status = worker.process.returncode
        worker.status = -signal.SIGKILL if status is None else status
        for stream in worker.streams:
            if stream.pipe in self.selector.get_map():
                self.selector.unregister(stream.pipe)
            stream.close()


def start(request: Request) -> int:
    """Launches the workers, again after a failure that a restart may mend; returns the status."""
    stop_at = time.monotonic() + (request.run_timeout or math.inf)
    with Signals() as signals, Guard() as guard:
        for attempt in range(request.restarts + 1):
            if attempt:
                say(f"restart {attempt} of {request.restarts}: all workers, new ports")
            launch = Launch(request, stop_at, signals, guard)
            status = launch.run()
            if not launch.may_restart:
                break
    return status


def worker_environment(ports: list[int], rank: int, gpus: str, ready: str) -> dict[str, str]:
    """Returns the variables that a worker has beyond the launcher's."""
    workers = tuple(f"127.0.0.1:{port}" for port in ports)
    return {
        cluster.TF_CONFIG: Cluster(workers, rank).to_tf_config(),
        GPUS: gpus,
        GPUS_ASSIGNED: "1",
        cluster.READY: ready,
        errors.STAMP: STAMP,
        "PYTHONUNBUFFERED": "1",  # a line is shown when it is printed
    }


def free_ports(count: int) -> list[int]:
    """Returns ports that are free on loopback; all are held until the last one is known."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _ending(status: int) -> str:
    if status >= 0:
        meaning = {WRONG_INPUT: " (wrong input)", NOT_FINITE: " (not finite)"}.get(status, "")
        return f"ended with status {status}{meaning}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def say(text: str) -> None:
    """Writes one line of the launcher's own to standard error."""
    with contextlib.suppress(OSError):
        os.write(2, f"[launch] {text}\n".encode())
