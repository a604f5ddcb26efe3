"""Work spread over processes that can be ended at once. Standard library only.

Unlike the standard pools it notices a worker that was killed, and ends its workers in the middle of
their work; a worker ends by itself where this process is gone.
"""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from tf_largebatch.records.errors import InputError


def spread(function: Callable, tasks: Iterable, *, processes: int) -> Iterator:
    """Yields function(task) of every task, as they are done; with 1 process, in this one.

    Tasks are handed out one at a time, in order. An InputError of `function` is raised here; of
    another error the worker's traceback.
    """
    if processes == 1:
        yield from map(function, tasks)
        return
    # Forked copies of a process with threads can hang; a fresh one cannot.
    context = multiprocessing.get_context("spawn")
    waiting, workers = iter(tasks), {}
    try:
        for task in islice(waiting, processes):
            near, far = context.Pipe()
            worker = context.Process(target=_work, args=(function, far), daemon=True)
            worker.start()
            far.close()  # so that a worker's end is the end of the pipe
            workers[near] = worker
            near.send(task)
        while workers:
            for near in cast(list[Connection], wait(list(workers))):
                yield _receive(near, workers[near])
                task = next(waiting, None)
                with suppress(BrokenPipeError):  # a worker that just died is noticed above
                    near.send(task)
                if task is None:
                    workers.pop(near).join()
    finally:
        for worker in workers.values():
            worker.terminate()
        for worker in workers.values():
            worker.join()


def _receive(near: Connection, worker):
    try:
        result, error = near.recv()
    except (EOFError, ConnectionResetError):
        worker.join()
        raise InputError(
            f"a worker process ended with status {worker.exitcode}, for example for want of "
            f"memory. Use fewer --processes; what is finished stays"
        ) from None
    if isinstance(error, InputError):
        raise error
    if error is not None:
        raise RuntimeError(f"a worker process failed:\n{error}")
    return result


def _work(function: Callable, far: Connection) -> None:
    # Ctrl-C reaches every process of the terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(EOFError, BrokenPipeError):  # the parent is gone
        while (task := far.recv()) is not None:
            answer: tuple[Any, InputError | str | None]
            try:
                answer = function(task), None
            except InputError as error:
                answer = None, error
            except Exception:
                answer = None, traceback.format_exc()
            far.send(answer)
