"""The worker's main: prepare the process, make the handler, serve tasks until told to stop.

    main thread      makes the handler, serves tasks from the channel, closes the handler, exits; a handler that works in
                     stages serves by itself, with threads of its own
    control thread   reads the control connection: Cancel ends a task early, if the handler can; Stop closes the channel, so
                     that the main thread finishes its tasks; end of file means that the parent has ended, and ends the process
                     at once

This runs only in a worker. It exits with os._exit, because the interpreter's normal exit is not needed, and device runtimes
may hang in it.

A pool's first result waits for these imports. So this file imports nothing that a worker with a native handler does not need.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from ais_bench import _native
from ais_bench.errors import ConfigError, DeviceLost, FeedError, PoolError
from ais_bench.tuning import WORKER_OOM_SCORE
from ais_bench.wire import OBJECT, RAISED, RETRY, TENSORS, Channel, encode, travel
from ais_bench.wire.connection import WorkerEnd
from ais_bench.wire.parcel import receive
from ais_bench.wire.pickling import dumps_error
from ais_bench.wire.protocol import Answer, Cancel, Described, Failed, Ready, Start, Stop, WorkerContext
from ais_bench.worker import log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ais_bench.wire import Task
    from ais_bench.wire.protocol import Handler

PARENT_GONE = 0  # the exit code; no parent is left to read it


def main(control: int) -> NoReturn:
    """Serve one pool over this descriptor of the control connection. Never returns."""
    connection = WorkerEnd(control)
    travel.returning()
    code = 1
    try:
        start = _receive_start(connection)
        _prepare(start, connection)
        code = _serve(start, connection)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        log.end()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _receive_start(connection: WorkerEnd) -> Start:
    try:
        start = connection.receive()
    except EOFError:
        os._exit(PARENT_GONE)
    assert isinstance(start, Start)
    return start


def _prepare(start: Start, connection: WorkerEnd) -> None:
    if not _native.die_with_parent(start.parent_pid):
        os._exit(PARENT_GONE)
    _native.ignore_interrupts()  # the parent handles Ctrl-C
    _go_before_the_parent()
    faulthandler.enable()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    log.carry(connection, start.log_level, now=start.logs)


def _go_before_the_parent() -> None:
    """Let the kernel choose a worker, which is restarted, and not the parent if memory runs out and it must kill a process."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        wanted = min(1000, int(file.read()) + WORKER_OOM_SCORE)
        file.seek(0)
        file.write(str(wanted))


def _serve(start: Start, connection: WorkerEnd) -> int:
    try:
        if start.cpus:
            _pin(start.cpus, start.yields)
        channel = Channel(start.arena_fd, start.doorbell_fd)
        cancels: list[Callable[[int], None]] = []
        threading.Thread(target=_watch, args=(connection, channel, cancels), name="control", daemon=True).start()
        handler = _make_handler(start)
        cancel = getattr(handler, "cancel", None)
        if cancel is not None:
            cancels.append(cancel)
        stages = getattr(handler, "stages", None)
        connection.send(Ready(handler.describe(), stages is not None))
        announces = getattr(handler, "announces", None)
        if announces is not None:
            announces(lambda: connection.send(Described(handler.describe())))
    except Exception as error:
        connection.send(Failed(dumps_error(error)))
        return 1
    if stages is not None:
        stages(channel, functools.partial(_fail, channel, handler), _leave)
    elif handler.native is not None:
        channel.serve(handler.native, lambda task: answer(channel, handler, task))
    else:
        with contextlib.suppress(EOFError):  # closed, and all tasks are answered
            while True:
                task = channel.next_task()
                if task is not None:
                    answer(channel, handler, task)
    handler.close()
    return 0


def _make_handler(start: Start) -> Handler:
    """Make the handler. Only the handler keeps the packed data, because it may be large."""
    packed = receive(start.factory_fd, start.factory_sizes) if start.factory is None else start.factory
    handler: Handler = packed.load()(WorkerContext(start.device_id, start.threads, start.spin))
    return handler


def _pin(cpus: Sequence[int], yields: bool) -> None:
    number = _native.pin(cpus, yields)
    if number:
        allowed = sorted(os.sched_getaffinity(0))
        raise ConfigError(
            f"affinity: a worker cannot be pinned to processors {list(cpus)}; it may use {allowed} ({os.strerror(number)})"
        )


def answer(channel: Channel, handler: Handler, task: Task) -> None:
    """Run one task in Python and publish its result. A child that the handler forked may return from it, too: it must not
    answer, and ends. Raises DeviceLost, and PoolError in such a child."""
    began_ns, here = _native.monotonic_ns(), os.getpid()
    try:
        result = handler.run(task)
        if os.getpid() != here:
            raise PoolError("a process that was forked by a callable has returned from it: it ends here, its parent goes on")
        outputs, kind, copy_in_ns, execute_ns, copy_out_ns, preprocess_ns, postprocess_ns = _checked(handler, result)
        try:
            channel.reply(
                task,
                outputs,
                kind=kind,
                execute_ns=execute_ns or _native.monotonic_ns() - began_ns,
                copy_in_ns=copy_in_ns,
                copy_out_ns=copy_out_ns,
                preprocess_ns=preprocess_ns,
                postprocess_ns=postprocess_ns,
            )
        except FeedError as error:  # arrays of tasks and of answers are read by the same code
            text = str(error)
            text = f"output {text[6:]}" if text.startswith("input ") else text
            raise _wrong_answer(handler, f" whose outputs are arrays: {text}") from error
    except DeviceLost:
        raise  # this process is unusable; the pool runs the task elsewhere
    except Exception as error:
        if os.getpid() != here:
            raise
        _fail(channel, handler, task, error, began_ns)


def _checked(handler: Handler, result: object) -> Answer:
    """Return the result of a handler's `run`. Raises TypeError if it is no Answer that can be sent."""
    if not isinstance(result, Answer):
        raise _wrong_answer(handler, f", got {type(result).__name__}")
    outputs: Any = result.outputs
    if not isinstance(outputs, (list, tuple)):
        if isinstance(outputs, (str, bytes, dict)) or not hasattr(outputs, "__iter__"):
            raise _wrong_answer(handler, f" whose outputs are a list of arrays, got {type(outputs).__name__}")
        result = result._replace(outputs=list(outputs))
    if result.kind not in (TENSORS, OBJECT):
        raise _wrong_answer(handler, f" whose kind is TENSORS ({TENSORS}) or OBJECT ({OBJECT}), got {result.kind!r}")
    for name, value in zip(Answer._fields[2:], result[2:], strict=True):
        if not hasattr(value, "__index__") or not 0 <= value < 1 << 53:
            raise _wrong_answer(handler, f" whose {name} is an int of nanoseconds, at least 0, got {value!r}")
    return result


def _wrong_answer(handler: Handler, text: str) -> TypeError:
    return TypeError(f"run of the handler {type(handler).__name__} must return an Answer{text}")


def _fail(channel: Channel, handler: Handler, task: Task, error: BaseException, began_ns: int) -> None:
    """Answer a task with an exception. The parent decodes it with pickling.loads_error."""
    kind = RETRY if isinstance(error, getattr(handler, "retry_on", ())) else RAISED
    channel.reply(task, encode(dumps_error(error)), kind=kind, execute_ns=_native.monotonic_ns() - began_ns)


def _leave(error: BaseException) -> NoReturn:
    """End the process from another thread than the main thread, in the same way as `main`."""
    sys.excepthook(type(error), error, error.__traceback__)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(1)


def _watch(connection: WorkerEnd, channel: Channel, cancels: Sequence[Callable[[int], None]]) -> None:
    try:
        while not isinstance(message := connection.receive(), Stop):
            for cancel in cancels if isinstance(message, Cancel) else ():
                cancel(message.task_id)
        channel.close()
        connection.receive()  # after Stop only the parent's end follows
    except EOFError:
        os._exit(PARENT_GONE)
