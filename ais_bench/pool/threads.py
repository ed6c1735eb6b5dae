"""Threads and locks of the system, even if a program has replaced those of Python.

Libraries such as gevent replace the contents of `threading` and `_thread` by cooperative versions, which all run in one thread.
The pool waits in native code and watches processes meanwhile, so it needs real threads, and locks that work between threads. A
second instance of the built-in module `_thread` has the originals, before and after such a replacement.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import threading
import types
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ais_bench.errors import PoolError

__all__ = ["Condition", "Lock", "LockType", "RLock", "Thread", "get_ident", "limits_text"]


def _builtin_thread_module() -> Any:
    spec = importlib.machinery.BuiltinImporter.find_spec("_thread")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_own = _builtin_thread_module()
if TYPE_CHECKING:
    from _thread import LockType, RLock, allocate_lock, get_ident

    Lock = allocate_lock
else:
    LockType, RLock, Lock, get_ident = _own.LockType, _own.RLock, _own.allocate_lock, _own.get_ident


class Condition:
    """Like `threading.Condition` with its own RLock."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._gates: deque[LockType] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_error: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock until `notify_all`, or for `timeout` seconds. Return False after the timeout."""
        gate = Lock()
        gate.acquire()
        self._gates.append(gate)
        held = self._lock._release_save()  # type: ignore[attr-defined]
        try:
            return gate.acquire(True, -1 if timeout is None else timeout)
        finally:
            self._lock._acquire_restore(held)  # type: ignore[attr-defined]
            if gate in self._gates:
                self._gates.remove(gate)

    def notify_all(self) -> None:
        """Wake all waiting threads. Call it with the lock held."""
        while self._gates:
            self._gates.popleft().release()


class Thread:
    """Like a daemon `threading.Thread`. It is one, unless a library has replaced `threading`."""

    def __init__(self, name: str, target: Callable[[], None] | None = None) -> None:
        self.name = name
        self.ident: int | None = None
        self._target = target
        self._over = Lock()
        self._listed: threading.Thread | None = None

    def run(self) -> None:
        """Do the work of the thread."""
        if self._target is not None:
            self._target()

    def start(self) -> None:
        """Start the thread. Raises PoolError if the system refuses another thread."""
        self._over.acquire()
        begun = Lock()
        begun.acquire()
        try:
            # Python lists, names and profiles threads only if it starts them itself.
            if _python_starts_threads():
                self._listed = threading.Thread(target=self._main, args=(begun,), name=self.name, daemon=True)
                self._listed.start()
            else:
                _own.start_new_thread(self._main, (begun,))
        except RuntimeError as error:
            self._over.release()
            raise PoolError(f"the system refuses another thread: {error}; {limits_text()}") from error
        begun.acquire()

    def is_alive(self) -> bool:
        """Return whether the thread has begun and not ended."""
        return self.ident is not None and self._over.locked()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, or for `timeout` seconds."""
        if self._over.acquire(True, -1 if timeout is None else timeout):
            self._over.release()
            if self._listed is not None:
                self._listed.join()

    def is_current(self) -> bool:
        """Return whether the calling thread is this thread."""
        return self.ident == get_ident()

    def _main(self, begun: LockType) -> None:
        self.ident = get_ident()
        begun.release()
        try:
            self.run()
        finally:
            self._over.release()


def _python_starts_threads() -> bool:
    """Return whether `threading` still uses the built-in functions."""
    starts = [getattr(threading, name, None) for name in ("_start_joinable_thread", "_start_new_thread")]
    return all(isinstance(start, types.BuiltinFunctionType) for start in starts if start is not None)


def limits_text() -> str:
    """Return the limits on the number of threads and processes, for an error message."""
    import resource

    soft, _hard = resource.getrlimit(resource.RLIMIT_NPROC)
    user = "no limit" if soft == resource.RLIM_INFINITY else str(soft)
    found = [f"ulimit -u: {user}", f"threads of this process: {_threads_here()}"]
    group = _group_limit()
    if group is not None:
        found.append(f"pids.max of its control group: {group}")
    return ", ".join(found)


def _threads_here() -> str:
    import os

    try:
        return str(len(os.listdir("/proc/self/task")))
    except OSError:
        return "unknown"


def _group_limit() -> str | None:
    """Return the lowest `pids.max` from this process's cgroup up to the root, with the number in use there."""
    import os

    try:
        with open("/proc/self/cgroup") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    lowest: tuple[int, str] | None = None
    for _number, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "pids" not in controllers.split(","):
            continue
        folder = ("/sys/fs/cgroup" if not controllers else "/sys/fs/cgroup/pids") + path.rstrip("/")
        while folder.startswith("/sys/fs/cgroup"):
            try:
                with open(f"{folder}/pids.max") as most, open(f"{folder}/pids.current") as now:
                    limit, used = most.read().strip(), now.read().strip()
                if limit.isdecimal() and (lowest is None or int(limit) < lowest[0]):
                    lowest = int(limit), f"{limit} ({used} in use)"
            except OSError:  # the root group has no such files
                pass
            folder = os.path.dirname(folder)
    return None if lowest is None else lowest[1]
