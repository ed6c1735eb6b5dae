"""A model that was prepared for the workers of a pool: what is asked of the helper, where the files lie, how a worker waits.

A helper process (ais_bench.worker.prepare) makes the folder, takes the lock in it, prepares, writes the result and lets the
lock go, which the kernel does for it if it dies. So a worker that gets the lock finds a result or knows that there is none.

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
MODEL = "model.onnx"  # its weights are the file "weights" beside it
READY = b"ready\n"  # the helper's word that workers may come and wait


class Request(NamedTuple):
    """What to prepare: the session's factory, as in the workers' start message (ais_bench.wire.parcel), and how."""

    packed: Packed | None
    fd: int
    sizes: tuple[int, ...]
    threads: int
    cache: str | None  # a folder that keeps what was prepared


class Prepared(NamedTuple):
    """The path of the prepared model; None where there is none, and why."""

    path: str | None
    why: str = ""


def write_result(folder: str, result: Prepared) -> None:
    """Say what came of it. The caller holds the lock."""
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
    """Return the size of a model, the weights that it keeps in other files included; 0 for one that cannot be read."""
    if not isinstance(model, str):
        return memoryview(model).nbytes
    try:
        external: int = _native.external_data(os.fsencode(model))[0]
        return os.stat(model).st_size + external
    except (OSError, RuntimeError):
        return 0


def remove(folder: str) -> None:
    """Remove a folder of files, as far as it is there."""
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except OSError:  # it is gone, or somebody else is at it
        pass
