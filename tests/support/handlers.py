"""Handlers for the pool's tests. They run in workers, which import them by name."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from typing import Any

import numpy as np

from ais_bench.errors import DeviceLost
from ais_bench.pool import Answer, WorkerContext
from ais_bench.shm import EchoHandler, Task


class Obedient:
    """Executes the first feed, an int64 array [order, argument, ...], and returns the feeds."""

    (
        ECHO,
        SLEEP_MS,
        KILL_SELF,
        SEGFAULT,
        HANG,
        RAISE,
        EXIT,
        PRINT,
        LOG,
        WHO,
        STOP_SELF,
        ONCE,
        SLOW_ON_0,
        LOSE_DEVICE,
        STOP_ONCE,
        WAIT,
        WAIT_ON_0,
    ) = range(17)
    native = None

    def __init__(self, context: WorkerContext, marks: str = "") -> None:
        self.context = context
        self.marks = marks  # a folder: a file in it means that something was done before

    def describe(self) -> dict[str, Any]:
        return {"device": self.context.device_id, "pid": os.getpid(), "threads": self.context.threads}

    def close(self) -> None:
        if self.marks:
            with open(os.path.join(self.marks, f"closed-{os.getpid()}"), "w"):
                pass

    def run(self, task: Task) -> Answer:
        order, argument = (int(value) for value in task.feeds[0].ravel()[:2])
        if order == self.SLEEP_MS:
            time.sleep(argument / 1e3)
        elif order == self.SLOW_ON_0:
            time.sleep(argument / 1e3 if self.context.device_id == 0 else 0)
        elif order == self.LOSE_DEVICE:
            raise DeviceLost(f"the driver gave up on device {self.context.device_id}")
        elif order == self.HANG:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            while True:
                time.sleep(60)
        elif order == self.RAISE:
            raise LookupError(f"order {argument}")
        elif order == self.PRINT:
            print(f"printed {argument}")
            print(f"complained {argument}", file=sys.stderr)
        elif order == self.LOG:
            logging.getLogger("somebody").error("logged %d", argument)
        elif order == self.WHO:
            return Answer([np.array([os.getpid(), self.context.device_id, os.getppid()], np.int64)])
        elif order in (self.KILL_SELF, self.SEGFAULT, self.EXIT, self.STOP_SELF):
            _end(order, argument)
        elif order == self.STOP_ONCE:
            _stop_once(self.marks)
        elif order == self.WAIT or (order == self.WAIT_ON_0 and self.context.device_id == 0):
            _wait_for(os.path.join(self.marks, f"go-{argument}"))
        elif order == self.ONCE:
            _end_once(os.path.join(self.marks, f"once-{argument}"))
        return Answer([feed.copy() for feed in task.feeds])


def _end(order: int, argument: int) -> None:
    if order == Obedient.SEGFAULT:
        ctypes.string_at(0)
    elif order == Obedient.EXIT:
        os._exit(argument)
    os.kill(os.getpid(), signal.SIGKILL if order == Obedient.KILL_SELF else signal.SIGSTOP)


def _end_once(mark: str) -> None:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _stop_once(marks: str) -> None:
    try:
        os.close(os.open(os.path.join(marks, "stopped"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    with open(os.path.join(marks, f"stopped-{os.getpid()}"), "w"):
        pass
    os.kill(os.getpid(), signal.SIGSTOP)


def _wait_for(mark: str) -> None:
    deadline = time.monotonic() + 60
    while not os.path.exists(mark):
        assert time.monotonic() < deadline, f"{mark} did not come"
        time.sleep(0.002)


class Echo(Obedient):
    """Returns the feeds in native code."""

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(context)
        self.native = EchoHandler()


class Unwilling:
    """Does not start on some devices."""

    def __init__(self, refusing: tuple[int, ...], how: str = "raise") -> None:
        self.refusing = refusing
        self.how = how

    def __call__(self, context: WorkerContext) -> Obedient:
        if context.device_id in self.refusing:
            if self.how == "raise":
                raise ValueError(f"no device {context.device_id} here")
            if self.how == "exit":
                print("leaving already", file=sys.stderr, flush=True)
                os._exit(3)
            time.sleep(600)
        return Obedient(context)


class Marking:
    """An Obedient that writes marks to a folder, and waits for those that a test writes there by `go`."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = str(folder)

    def go(self, number: int = 0) -> None:
        """Let tasks WAIT and WAIT_ON_0 with this argument end, those of now and later ones."""
        with open(os.path.join(self.folder, f"go-{number}"), "w"):
            pass

    def __call__(self, context: WorkerContext) -> Obedient:
        return Obedient(context, self.folder)


def order(what: int, argument: int = 0, *more: int) -> list[np.ndarray[Any, Any]]:
    """Return feeds with an order for Obedient."""
    return [np.array([what, argument, *more], np.int64)]


class LogsWhenUnpickled:
    """A factory of `Obedient` that logs while it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _logged, ()

    def __call__(self, context: WorkerContext) -> Obedient:
        return Obedient(context)


def _logged() -> LogsWhenUnpickled:
    logging.getLogger("factory").info("unpickled in %d", os.getpid())
    return LogsWhenUnpickled()


class Growing:
    """Returns 2 MiB. The first task's second run, in a larger slot, ends when it is cancelled."""

    native = None

    def __init__(self, _context: WorkerContext, mark: str) -> None:
        self._mark = mark  # a file that says that the second run has begun
        self._runs = 0
        self._cancelled: set[int] = set()

    def describe(self) -> None:
        return None

    def cancel(self, task_id: int) -> None:
        self._cancelled.add(task_id)

    def run(self, task: Task) -> Answer:
        self._runs += 1
        if self._runs == 2:
            with open(self._mark, "w"):
                pass
            deadline = time.monotonic() + 60
            while task.id not in self._cancelled and time.monotonic() < deadline:
                time.sleep(0.005)
        return Answer([np.full(2 << 20, task.feeds[0][0], np.uint8)])

    def close(self) -> None:
        pass
