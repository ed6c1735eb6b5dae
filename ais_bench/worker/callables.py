"""Run preprocess and postprocess in a worker, beside the device.

    main thread, and others like it       takes a task, decodes the item, preprocess         -> executor
    device thread (native, no GIL)        executes, answers tasks without postprocess        -> executor
    postprocess threads                   takes outputs, postprocess, encodes, answers

With one thread no two calls of a callable overlap, and the main thread always calls preprocess. With N threads up to N of them
call it at the same time. `ModelHandler.run` does everything in one thread, one task after the other.

All threads begin with a copy of the main thread's context, so settings of `init` in a contextvars.ContextVar (numpy.errstate,
decimal) hold in them.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ais_bench import _native
from ais_bench.errors import DeviceLost, PoolError
from ais_bench.wire import OBJECT, decode, encode
from ais_bench.wire.carry import carried, ready_made
from ais_bench.wire.factories import Named

if TYPE_CHECKING:
    from ais_bench.wire import Channel, Task
    from ais_bench.wire.lent import Borrower


class Stages:
    """Serves one channel with threads for the callables and the device. Made and used once, in the main thread."""

    def __init__(
        self,
        channel: Channel,
        session: _native.Session,
        preprocess: Callable[[Any], Any] | None,
        postprocess: Callable[..., Any] | None,
        threads: tuple[int, int],
        fail: Callable[[Task, BaseException, int], None],
        leave: Callable[[BaseException], None],
        borrower: Borrower | None = None,
    ) -> None:
        """Make the stages. `threads`: number for each callable. `fail` and `leave`: see ais_bench.wire.protocol.Handler."""
        self._channel = channel
        self._executor = _native.Executor(channel, session)
        self._preprocess = preprocess
        self._postprocess = postprocess
        self._takers = threads[0] if preprocess is not None else 1
        self._finishers = threads[1] if postprocess is not None else 0
        self._fail = fail
        self._leave = leave
        self._turn = threading.Lock()  # one thread at a time takes tasks
        self._pid = os.getpid()
        self._borrower = borrower

    def cancel(self, task_id: int) -> None:
        """End the run of this task, if the device has it. Callables cannot be ended."""
        self._executor.cancel(task_id)

    def serve(self, other: Callable[[Task, Any], bool]) -> None:
        """Serve until the channel is closed and drained. `other` gets each item first, and returns whether it answered it."""
        device = self._start("device", self._executor.run)
        takers = [self._start("preprocess", lambda: self._take_all(other)) for _ in range(1, self._takers)]
        finishers = [self._start("postprocess", self._finish_all) for _ in range(self._finishers)]
        self._take_all(other)
        for thread in takers:
            thread.join()
        self._executor.end()
        for thread in (device, *finishers):
            thread.join()

    def _start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # for example a lost device: handle it as in the main thread
                self._leave(error)

        thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True)
        thread.start()
        return thread

    # ---- before the device ----

    def _take_all(self, other: Callable[[Task, Any], bool]) -> None:
        while True:
            with self._turn:
                try:
                    task = self._channel.next_task()
                except EOFError:
                    return
            if task is not None:
                self._prepare(task, other)

    def _prepare(self, task: Task, other: Callable[[Task, Any], bool]) -> None:
        began_ns = _native.monotonic_ns()
        try:
            item = decode(task.feeds) if task.kind == OBJECT else task.feeds
            if other(task, item):
                return
            feeds: Any
            if isinstance(item, Named):
                feeds, extra = item
            elif self._preprocess is not None:
                feeds, extra = carried(self._call(self._preprocess, item))
            else:
                with self._turn:  # only one thread may use the borrower
                    feeds, extra = ready_made(item, task.option, self._borrower)
            carry = None if self._postprocess is None else extra
            self._executor.submit(task, feeds, carry, _native.monotonic_ns() - began_ns)
        except DeviceLost:
            raise  # this process is unusable; the pool runs the task elsewhere
        except Exception as error:
            self._stay_alone(error)
            self._fail(task, error, began_ns)

    # ---- after the device ----

    def _finish_all(self) -> None:
        while (done := self._executor.next_done()) is not None:
            self._finish(*done)

    def _finish(self, task: Task, outputs: list[Any], extra: tuple[Any, ...], times: tuple[int, int, int, int]) -> None:
        assert self._postprocess is not None
        began_ns = _native.monotonic_ns()
        try:
            result = encode(self._call(self._postprocess, outputs, *extra))
            copy_in_ns, execute_ns, copy_out_ns, preprocess_ns = times
            self._channel.reply(
                task,
                result,
                kind=OBJECT,
                execute_ns=execute_ns,
                copy_in_ns=copy_in_ns,
                copy_out_ns=copy_out_ns,
                preprocess_ns=preprocess_ns,
                postprocess_ns=_native.monotonic_ns() - began_ns,
            )
        except Exception as error:
            self._stay_alone(error)
            self._fail(task, error, began_ns)

    # ---- callables ----

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        result = function(*arguments)
        self._stay_alone(None)
        return result

    def _stay_alone(self, error: BaseException | None) -> None:
        """End a child that a callable forked and that returned from the callable: its parent answers the task."""
        if os.getpid() != self._pid:
            self._leave(
                error
                or PoolError("a process that was forked by a callable has returned from it: it ends here, its parent goes on")
            )
