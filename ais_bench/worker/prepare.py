"""The helper process that prepares a model's weights for all workers of a pool, and removes them at the pool's end.

It is a separate process for two reasons: preparing needs several times the memory of the model, and the files must be removed
even if the pool's process is killed. It makes the folder, reports that, loads the model once and lets ONNX Runtime save it
after optimisation, with the weights in the layout of the kernels. Then it becomes a small interpreter (`guard` in
ais_bench.pool.interpreter) that only waits for the end of the pool.

Its standard input has a request and then stays open as long as the pool exists. Its standard output has READY.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from ais_bench import _native
from ais_bench.errors import AisBenchError
from ais_bench.wire.parcel import receive
from ais_bench.wire.prepared import GUARD, LOCK, MODEL, PREFIX, READY, Prepared, Request, model_bytes, remove, write_result

LEAST_VERSION = (1, 32)  # older ones can save prepared weights, from 1.21 on, but each process that loads them has a copy
# Options of a session that do not concern its model: they change no weight.
_NOT_OF_THE_MODEL = ("profile", "devices", "session.intra_op.allow_spinning", "session.inter_op.allow_spinning")


def main(folder: str, parent: str, guard: str) -> None:
    """Prepare the model of the request on standard input, into `folder`, for the process `parent`.

    `guard` is the command of the interpreter that this process becomes, as JSON.
    """
    os.mkdir(folder, 0o700)
    try:
        # Held for the life of this process, also after exec. A folder whose lock is free is left over and may be removed.
        os.set_inheritable(_locked(folder, os.O_RDONLY | os.O_DIRECTORY), True)
        lock = _locked(os.path.join(folder, LOCK), os.O_RDONLY | os.O_CREAT)
        os.write(1, READY)
        request: Request = pickle.load(sys.stdin.buffer)
        _be_quiet()
        threading.Thread(target=_guard, args=(folder, int(parent)), name="guard", daemon=True).start()
        write_result(folder, _prepare(request, folder))
        os.close(lock)
    finally:  # also after an error: the folder must be removed
        words = json.loads(guard)
        os.execvp(words[0], words)


def _locked(path: str, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _be_quiet() -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.close(nothing)


def _guard(folder: str, parent: int) -> None:
    """Do the work of the guard: at the end of the pool or of its process, remove the folder and exit."""
    scope: dict[str, Any] = {}
    exec(GUARD, scope)
    scope["guard"](folder, parent)
    while os.path.isdir(folder):  # the other thread may be writing new files
        remove(folder)
    os._exit(0)


def _remove_left_over() -> None:
    """Remove the folders of guards that were killed."""
    for folder in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), PREFIX + "*")):
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
            finally:
                os.close(fd)


def _prepare(request: Request, folder: str) -> Prepared:
    try:
        _remove_left_over()
        packed = receive(request.fd, request.sizes) if request.packed is None else request.packed
        factory = packed.load()
        options = {name: value for name, value in factory.options.items() if name not in _NOT_OF_THE_MODEL}
        options["threads"] = str(request.threads)
        version = _native.runtime_version("ort")
        if tuple(map(int, version.split(".")[:2])) < LEAST_VERSION:
            return Prepared(None, f"ONNX Runtime {version} copies prepared weights into each process, 1.32 and newer map them")
        if request.cache is not None:
            return _prepare_in_cache(factory.model, options, version, request.cache)
        _save(factory.model, options, folder)
        return Prepared(os.path.join(folder, MODEL))
    except (AisBenchError, OSError, MemoryError) as error:
        return Prepared(None, f"the weights could not be prepared: {error}")


def _save(model: Any, options: dict[str, str], folder: str) -> None:
    """Let ONNX Runtime load the model and save it into the folder."""
    _check_room(model, options, folder)
    _native.Session(model, 0, 1, {**options, "prepare": os.path.join(folder, MODEL)}, "ort").close()
    found = os.stat(os.path.join(folder, "weights"))
    if found.st_blocks * 512 < found.st_size:  # the file has holes: the disk was full
        raise OSError(f"there is not enough room in {folder} for {found.st_size} bytes of weights")


def _check_room(model: Any, options: dict[str, str], folder: str) -> None:
    """Raise OSError if there is no room for a model and its prepared weights: about twice the size of the model."""
    free = os.statvfs(folder)
    needed = 2 * model_bytes(model) + (64 << 20)
    if free.f_bavail * free.f_frsize < needed:
        raise OSError(
            f"{folder} has {free.f_bavail * free.f_frsize >> 20} MiB of room, and about {needed >> 20} MiB are needed"
        )


# ---- a cache that outlives the pool ----


def _prepare_in_cache(model: Any, options: dict[str, str], version: str, cache: str) -> Prepared:
    """Prepare into a folder of the cache, unless it exists. Its name includes everything on which the result depends."""
    os.makedirs(cache, exist_ok=True)
    place = os.path.join(cache, _digest(model, options, version))
    path = os.path.join(place, MODEL)
    if not os.path.exists(path):
        made = tempfile.mkdtemp(prefix="making-", dir=cache)
        try:
            _save(model, options, made)
            os.rename(made, place)  # all files appear at once
        except OSError:
            if not os.path.exists(path):  # otherwise another process was faster
                raise
        finally:
            remove(made)
    return Prepared(path)


def _digest(model: Any, options: dict[str, str], version: str) -> str:
    digest = hashlib.sha256()
    for part in _parts_of(model, options):
        digest.update(hashlib.sha256(part).digest())
    chosen = {name: value for name, value in options.items() if name != "weight_dir"}
    digest.update(repr((version, sorted(chosen.items()), _processor())).encode())
    return digest.hexdigest()


def _parts_of(model: Any, options: dict[str, str]) -> Iterator[Any]:
    """Yield the content of the model's file and of the files with its weights."""
    if not isinstance(model, str):
        yield model
        return
    files = [model]
    folder = options.get("weight_dir") or os.path.dirname(model)
    files += sorted(os.path.join(folder, os.fsdecode(name)) for name in _native.external_data(os.fsencode(model))[1])
    files += options.get("custom_ops", "").split("\n") if "custom_ops" in options else []
    for file in files:
        with _mapped(file) as content:
            yield content


@contextlib.contextmanager
def _mapped(path: str) -> Iterator[Any]:
    import mmap

    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _processor() -> list[str]:
    """Return the features of the processors, because the layout of weights depends on them."""
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    with open("/proc/cpuinfo") as file:
        return sorted({line for line in file if line.split("\t")[0].split(":")[0].strip() in wanted})
