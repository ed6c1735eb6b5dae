"""The Python interpreter of workers, and the first code that it runs.

Usually the interpreter is `sys.executable`. This is wrong if Python is a part of another program: a frozen program
(PyInstaller, Nuitka, cx_Freeze), or one that embeds Python (uWSGI and others). Such a program must never be started as if it
were Python: it would run itself again, and so would each copy. So a frozen program must call `freeze_support` at its start. If
Python is embedded, the interpreter of the same installation is used. Without one of these, nothing is started.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from typing import Any, NamedTuple, NoReturn

import ais_bench
from ais_bench import _native
from ais_bench.errors import ConfigError, UnsupportedError
from ais_bench.tuning import ASK_TIMEOUT_S
from ais_bench.wire import travel
from ais_bench.wire.prepared import GUARD

LEAST_KERNEL = (3, 10)
FLAG = "--ais-bench-process"

# Without the working directory, whose modules may have the names of library modules.
_OFF_THE_WORKING_DIRECTORY = """\
import sys
if sys.path[0] == "": del sys.path[0]
"""

# The first code of a fresh interpreter, by role. A worker must not import ais_bench before it has the parent's sys.path, which
# is the first message on the control connection.
CODE = {
    "worker": _OFF_THE_WORKING_DIRECTORY
    + """\
import os, pickle
control = int(sys.argv[1])
os.set_blocking(control, True)
def take(count):
    data = b""
    while len(data) < count:
        data += (part := os.read(control, count - len(data)))
        if not part: os._exit(0)
    return data
environment = pickle.loads(take(int.from_bytes(take(8), "little")))
sys.path[:] = environment["path"]
sys.argv[:] = [""]
try: os.chdir(environment["cwd"] or ".")
except OSError as error: print(f"the working directory cannot be used: {error}", file=sys.stderr)
from ais_bench.worker.main import main
main(control)
""",
    "count": _OFF_THE_WORKING_DIRECTORY
    + """\
import json
sys.path[:] = json.loads(sys.argv[1])
from ais_bench import _native
if not _native.die_with_parent(int(sys.argv[3])): sys.exit()
print("devices", _native.device_count(sys.argv[2]))
""",
    "about": _OFF_THE_WORKING_DIRECTORY
    + """\
import json
sys.path[:] = json.loads(sys.argv[1])
from ais_bench import _native
runtime, opened = sys.argv[2], sys.argv[4] == "open"
if not _native.die_with_parent(int(sys.argv[3])): sys.exit()
def memory(device):
    try: return _native.device_memory(runtime, device)
    except Exception as error: return str(error)
devices = [memory(device) if opened else None for device in range(_native.device_count(runtime))]
print("about", json.dumps([_native.runtime_about(runtime), devices]))
_native.finalize()
""",
    # Calls the function `main` of a module, with texts.
    "call": _OFF_THE_WORKING_DIRECTORY
    + """\
import importlib, json
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2]).main(*sys.argv[3:])
""",
    # Waits for the end of process argv[2], or of standard input, and removes the folder argv[1].
    "guard": GUARD
    + """\
import sys
guard(sys.argv[1], int(sys.argv[2]))
""",
    "find": _OFF_THE_WORKING_DIRECTORY
    + """\
import importlib.util, json
sys.path[:] = json.loads(sys.argv[1])
spec = importlib.util.find_spec(sys.argv[2])
if spec is not None: print("found", json.dumps(spec.origin or ""))
""",
}


class ImportEnvironment(NamedTuple):
    """The parent's environment when the pool was made, so that a worker imports the same modules and finds the same files."""

    path: tuple[str, ...]
    cwd: str  # empty: the folder was deleted

    @classmethod
    def here(cls) -> ImportEnvironment:
        """Return the present environment of this process."""
        try:
            cwd = os.getcwd()
        except FileNotFoundError:
            cwd = ""
        path = [cwd if entry == "" else entry for entry in travel.texts(sys.path)]
        # These paths find ais_bench itself if the parent found it in a way that sys.path does not show.
        path += [root for root in (os.path.dirname(folder) for folder in ais_bench.__path__) if root not in path]
        return cls(tuple(path), cwd)


# ---- frozen programs ----

_supported = False


def freeze_support() -> None:
    """Allow a frozen program (PyInstaller, Nuitka, cx_Freeze) to have workers. Call it at the start of the main script.

    In a process that the pool has started it never returns. In all other processes it returns at once. Without this call a
    frozen program gets a ConfigError before anything is started. A program that is not frozen does not need it.
    """
    global _supported
    _supported = True
    if len(sys.argv) > 2 and sys.argv[1] == FLAG and sys.argv[2] in CODE:
        _serve(sys.argv[2])


def _serve(role: str) -> NoReturn:
    del sys.argv[1:3]
    exec(compile(CODE[role], f"<ais_bench {role}>", "exec"), {"__name__": f"ais_bench {role}"})
    sys.exit(0)


def is_frozen() -> bool:
    """Return whether the program is a frozen executable file."""
    main = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    # Nuitka defines `__compiled__` in each module, and says whether an interpreter is still needed.
    compiled: Any = main.get("__compiled__")
    return bool(getattr(sys, "frozen", False)) or bool(getattr(compiled, "standalone", False))


def _frozen_executable() -> str:
    if not _supported:
        raise ConfigError(
            "this program is frozen (sys.frozen), so its workers would start the program again; call "
            "ais_bench.pool.freeze_support() first of all in its main script"
        )
    for path in (sys.executable, sys.argv[0], "/proc/self/exe"):
        if path and os.access(path, os.X_OK) and not os.path.isdir(path):
            return os.path.abspath(path) if path != "/proc/self/exe" else os.readlink(path)
    raise ConfigError("this program is frozen, and its own file cannot be found")


# ---- the interpreter ----

_PYTHON_NAME = re.compile(r"(python|pypy)(\d+(\.\d+)*)?[a-z]{0,2}(-\w+)?")


def python_executable() -> str:
    """Return the interpreter that workers run. Raises ConfigError if there is none.

    The order is: the one given to `multiprocessing.set_executable`, then `sys.executable` if it is a Python, then the Python of
    this installation.
    """
    spawn = sys.modules.get("multiprocessing.spawn")  # if it is not imported, no other executable was set
    chosen = os.fsdecode(spawn.get_executable() or "") if spawn is not None else ""
    if chosen and chosen != sys.executable:
        return chosen
    if sys.executable and _is_python(sys.executable):
        return sys.executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for root in dict.fromkeys((sys.exec_prefix, sys.prefix, sys.base_exec_prefix, sys.base_prefix)):
        path = os.path.join(root, "bin", version)
        if os.access(path, os.X_OK):
            return path
    named = f"sys.executable is {sys.executable!r}, which is not Python" if sys.executable else "sys.executable is empty"
    raise ConfigError(
        f"{named}, and there is no {version} in {sys.prefix}/bin, so no worker can be started; "
        "name one with multiprocessing.set_executable()"
    )


def _is_python(path: str) -> bool:
    """Return whether a file is a Python, judged by its name, because running an unknown program is not safe."""
    return any(_PYTHON_NAME.fullmatch(os.path.basename(name)) for name in (path, os.path.realpath(path)))


def command(role: str, *arguments: str) -> list[str]:
    """Return the command line of a fresh interpreter in this role. Raises ConfigError if there is no interpreter."""
    if is_frozen():
        return [_frozen_executable(), FLAG, role, *arguments]
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    if sys.version_info >= (3, 11) and "-P" not in flags:
        # The working directory is never on the path. With a deleted working directory on it, Python 3.13 fails.
        flags = [*flags, "-P"]
    return [python_executable(), *flags, "-c", CODE[role], *arguments]


def run(role: str, *arguments: str) -> tuple[int | None, str, str]:
    """Run a fresh interpreter in this role to its end. Return its exit code (None if it is not known) and its output. Raises
    TimeoutError."""
    words = [os.fsencode(word) for word in command(role, *arguments)]
    with contextlib.ExitStack() as ours:
        reads, writes = [], []
        with contextlib.ExitStack() as theirs:
            nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            theirs.callback(os.close, nothing)
            for _stream in ("stdout", "stderr"):
                read, write = os.pipe()
                ours.callback(os.close, read)
                theirs.callback(os.close, write)
                reads.append(read)
                writes.append(write)
            child = _native.Child(words, nothing, writes[0], writes[1], [])
        try:
            said = _read_all(reads, child)
            return child.reap()[1], *said
        finally:
            child.kill(9)
            child.reap()
            child.close()


def _read_all(fds: list[int], child: _native.Child) -> tuple[str, str]:
    """Return the output until both ends are closed or the process has ended."""
    deadline = _native.monotonic_ns() + int(ASK_TIMEOUT_S * 1e9)
    parts = {fd: b"" for fd in fds}
    open_fds = set(fds)
    ended = False
    while open_fds and not ended:
        left = (deadline - _native.monotonic_ns()) / 1e9
        if left <= 0:
            raise TimeoutError(f"it did not answer within {ASK_TIMEOUT_S:g} s")
        ready = dict(_native.poll([(fd, 1) for fd in (*open_fds, child.watch_fd)], left))
        ended = child.watch_fd in ready  # its children may hold the pipes open
        for fd in [fd for fd in open_fds if fd in ready]:
            data = os.read(fd, 1 << 16)
            parts[fd] += data
            ended = ended and not data
            if not data:
                open_fds.discard(fd)
    out, err = (parts[fd].decode(errors="replace") for fd in fds)
    return out, err


def found_in_worker(name: str) -> str | None:
    """Return the file of a module as a worker would find it, "" for a module without a file, None if it would find none.

    Raises OSError and TransportError if the system refuses the process that is asked: another call may get an answer.
    """
    import json

    try:
        _code, out, _err = run("find", json.dumps(ImportEnvironment.here().path), name)
    except ConfigError:  # then no worker can be started either, and the pool reports that
        return None
    found = [line[6:] for line in out.splitlines() if line.startswith("found ")]
    return str(json.loads(found[-1])) if found else None


travel.ask_with(found_in_worker)


# ---- the system ----


def check_kernel(release: str | None = None) -> None:
    """Raise UnsupportedError if the Linux kernel is too old for the pool."""
    release = os.uname().release if release is None else release
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if numbers and numbers < LEAST_KERNEL:
        least = ".".join(map(str, LEAST_KERNEL))
        raise UnsupportedError(f"this is Linux {release}; worker processes need Linux {least} or newer")
