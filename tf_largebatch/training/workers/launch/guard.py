"""Signals to the launcher, and what ends the workers when the launcher itself is killed."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Turns signals to the launcher, and the end of a child, into something to wait for."""

    def __enter__(self):
        self.incoming, self._outgoing = socket.socketpair()
        self.incoming.setblocking(False)
        self._outgoing.setblocking(False)
        self._before = {}
        for number in (*FORWARDED, signal.SIGCHLD):
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
        return [number for number in received if number in FORWARDED]


class Guard:
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
        if sys.platform == "linux":  # where the guard was killed first, the system ends this one
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._write, b"+%d\n" % os.getpid())
        signal.signal(signal.SIGPIPE, before)

    def forget(self, pid: int) -> None:
        """Called once the group is gone."""
        with contextlib.suppress(BrokenPipeError):  # the guard was killed
            os.write(self._write, b"-%d\n" % pid)

    def _wait(self, read: int) -> None:
        os.setsid()  # what is sent to the launcher's group or terminal is not for this process
        signal.set_wakeup_fd(-1)
        for number in FORWARDED:
            signal.signal(number, signal.SIG_IGN)
        left: set[int] = set()
        with open(read, "rb") as events:
            for event in events.read().split():
                (left.add if event[:1] == b"+" else left.discard)(int(event[1:]))
        for pid in left:
            kill_group(pid)
        shutil.rmtree(self.folder, ignore_errors=True)


def kill_group(pid: int) -> None:
    """Ends a process group, if it is still there."""
    # PermissionError is what macOS answers for a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
