"""A model that is prepared for the workers of a pool: the request to the helper, the files, and how a worker waits.

A helper process (ais_bench.worker.prepare) makes the folder, takes the lock in it, prepares the model, writes the result and
releases the lock. If the helper dies, the kernel releases the lock. So a worker that gets the lock finds a result, or knows
that there is none.

Every worker imports this file, so it imports little.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ais_bench import _native
from ais_bench.wire.parcel import Packed

PREFIX = "ais_bench-weights-"
LOCK = "lock"
RESULT = "result"
MODEL = "model.onnx"  # its weights are in the file "weights" beside it
# What guards such a folder until the end of a process, or of standard input, and then removes it. A text, because the helper
# becomes a small interpreter that has nothing of this library; until then a thread of the helper runs it, too.
GUARD = """\
import os, select
def guard(folder, parent):
    watched = [0]
    try: watched.append(os.pidfd_open(parent))
    except ProcessLookupError: watched.clear()  # the parent has ended already
    except (AttributeError, OSError): pass  # an old kernel: only the open input shows the end
    if watched: select.select(watched, [], [])
    try:
        for name in os.listdir(folder): os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except OSError: pass  # the parent removes the folder at the same time, or has removed it
"""
READY = b"ready\n"  # the helper's message that workers may wait


class Request(NamedTuple):
    """What to prepare, and how: the session's factory as in the workers' start message (ais_bench.wire.parcel), and options."""

    packed: Packed | None
    fd: int
    sizes: tuple[int, ...]
    threads: int
    cache: str | None  # a folder that keeps the prepared files


class Prepared(NamedTuple):
    """The path of the prepared model; None if there is none, with the reason."""

    path: str | None
    why: str = ""


def write_result(folder: str, result: Prepared) -> None:
    """Write the result. The caller holds the lock."""
    with open(os.path.join(folder, RESULT), "wb") as file:
        file.write(os.fsencode(f"{result.path or ''}\n{result.why}"))


def await_prepared(folder: str) -> Prepared:
    """Wait until the helper has prepared the model or has ended."""
    import fcntl

    try:
        lock = os.open(os.path.join(folder, LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Prepared(None, f"the prepared weights in {folder} are gone")
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with open(os.path.join(folder, RESULT), "rb") as file:
            path, why = os.fsdecode(file.read()).split("\n", 1)
    except FileNotFoundError:
        return Prepared(None, "the process that prepares the weights ended before it had done so")
    except OSError as error:
        return Prepared(None, f"the prepared weights cannot be used: {error}")
    finally:
        os.close(lock)
    return Prepared(path or None, why)


def model_bytes(model: Any) -> int:
    """Return the size of a model, including its weights in other files; 0 if it cannot be read."""
    if not isinstance(model, str):
        return memoryview(model).nbytes
    try:
        external: int = _native.external_data(os.fsencode(model))[0]
        return os.stat(model).st_size + external
    except (OSError, RuntimeError):
        return 0


def remove(folder: str) -> None:
    """Remove a folder of files, if it exists."""
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except OSError:  # it does not exist, or another process removes it
        pass
