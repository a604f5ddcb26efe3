"""Signals to the launcher as something to wait for."""

import signal
import socket

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
