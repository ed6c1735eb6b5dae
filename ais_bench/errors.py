"""Everything this library raises on purpose.

    AisBenchError (a RuntimeError: programs written for this API catch that)
    |-- ConfigError            an option or argument is wrong; nothing was opened or changed (also a ValueError)
    |   `-- ConfigTypeError    ... because it is of the wrong type (also a TypeError)
    |-- FeedError              the inputs given do not fit the model
    |   `-- FeedTypeError      ... because one is of a type that cannot be fed (also a TypeError)
    |-- FileError              a file cannot be read or written (also an OSError)
    |   |-- FileMissing        ... because it does not exist (also a FileNotFoundError)
    |   `-- FileDenied         ... because of its permissions (also a PermissionError)
    |-- DeviceError            something on the way to, or on, a device
    |   |-- DeviceUnavailable  no such library, driver or device here
    |   |-- ModelLoadError     the file does not load on this device
    |   |-- UnsupportedError   this device, library or model cannot do it
    |   |-- DeviceMemoryError  memory ran out, on the host or on the device
    |   |-- InferenceError     this run failed; the session is still usable
    |   |   `-- InferenceCancelled  somebody asked for the run to stop
    |   `-- DeviceLost         the device is gone for this process
    |-- SessionClosed          you freed the session, or it belongs to the parent process
    |-- PoolError              the device pool
    |   |-- WorkerStartError   a worker did not get ready; carries device_id
    |   |-- WorkerDied         a worker ended with work in hand; carries device_id, pid, signal or exit_code, index
    |   |-- TaskTimeout        a task passed its deadline
    |   |-- PoolBroken         no worker is left and none can be started; the cause says why
    |   `-- PoolClosed         you closed the pool
    `-- TransportError         shared memory holds what it cannot hold, or the system refused it

Some classes also derive from the built-in class that Python itself raises for the same mistake, so an `except` clause for
that class catches them too. The error of one task of a pipeline or pool carries `index`, the place of its feeds among those of
the call, and `device_id`, the device it ran on; each is None where there is none.

`FeedWarning` and `TimesWarning` are warnings, not errors: a feed is used as its bytes, but its type looks like a mistake; a
device did not tell how long a run took.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

__all__ = [
    "AisBenchError",
    "ConfigError",
    "ConfigTypeError",
    "DeviceError",
    "DeviceLost",
    "DeviceMemoryError",
    "DeviceUnavailable",
    "FeedError",
    "FeedTypeError",
    "FeedWarning",
    "FileDenied",
    "FileError",
    "FileMissing",
    "InferenceCancelled",
    "InferenceError",
    "ModelLoadError",
    "PoolBroken",
    "PoolClosed",
    "PoolError",
    "SessionClosed",
    "TaskTimeout",
    "TimesWarning",
    "TransportError",
    "UnsupportedError",
    "WorkerDied",
    "WorkerStartError",
]


class AisBenchError(RuntimeError):
    """Root of the tree above.

    `index` is the place of the failed task's feeds among those of its call, and `device_id` the device it ran on or was sent
    to. Each is None if the error does not belong to one task or one device.
    """

    index: int | None = None
    device_id: int | None = None


class ConfigError(AisBenchError, ValueError):
    """An option or argument is wrong. Nothing was opened or changed."""


class ConfigTypeError(ConfigError, TypeError):
    """An option or argument is of the wrong type."""


class FeedError(AisBenchError):
    """The inputs given do not fit the model: their number, size, shape or kind. The session stays usable."""


class FeedTypeError(FeedError, TypeError):
    """An input is of a type that cannot be fed."""


class FileError(AisBenchError, OSError):
    """A file cannot be read or written. `errno`, `strerror` and `filename` are those of the system's error."""

    __new__ = OSError.__new__  # type: ignore[assignment]
    __init__ = OSError.__init__
    __str__ = OSError.__str__
    __reduce__ = OSError.__reduce__


class FileMissing(FileError, FileNotFoundError):
    """A file does not exist."""


class FileDenied(FileError, PermissionError):
    """A file's permissions forbid it."""


class DeviceError(AisBenchError):
    """A device, or the way to it, failed. `code` is the vendor's number where the vendor gave one, else 0."""

    code: int = 0


class DeviceUnavailable(DeviceError):
    """No such library, driver or device on this machine. The message lists what was tried."""


class ModelLoadError(DeviceError):
    """The model file cannot be read, is not a model, or does not load on this device. The message has its path."""


class UnsupportedError(DeviceError):
    """This device, library or model cannot do what was asked."""


class DeviceMemoryError(DeviceError):
    """Memory ran out on the host or on the device."""


class InferenceError(DeviceError):
    """This run failed on the device. The session stays usable."""


class InferenceCancelled(InferenceError):
    """The run was asked to stop before it finished."""


class DeviceLost(DeviceError):
    """The device or its context is gone; a new process is needed to use it again."""


class SessionClosed(AisBenchError):
    """The session was freed before, or was made in the process this one was forked from."""


class PoolError(AisBenchError):
    """The device pool could not do its work."""


class WorkerStartError(PoolError):
    """A worker did not get ready. The cause is what it raised."""


class WorkerDied(PoolError):
    """A worker process ended while it held work."""

    pid: int | None = None
    signal: int | None = None
    exit_code: int | None = None


class TaskTimeout(PoolError):
    """A task passed its deadline."""


class PoolBroken(PoolError):
    """No worker is left and none can be started again. The cause says why."""


class PoolClosed(PoolError):
    """The pool was closed by its owner."""


class TransportError(AisBenchError):
    """Shared memory between two processes could not be made, or holds what it cannot hold."""


class FeedWarning(UserWarning):
    """A feed fits in bytes but its element type is of another kind than the model's, once for each input."""


class TimesWarning(UserWarning):
    """A device did not tell how long a run took: its result is good, its times are left out. Once for each session."""


def file_error(error: OSError, doing: str) -> FileError:
    """Return the FileError of a file that the system refused. `doing`: what for, "read an input" say."""
    kinds: dict[type, type[FileError]] = {FileNotFoundError: FileMissing, PermissionError: FileDenied}
    kind = kinds.get(type(error), FileError)
    made: FileError = kind(error.errno, f"cannot {doing}: {error.strerror or error}", error.filename)
    return made


def no_copies(name: str, instead: str) -> ConfigTypeError:
    """Return the error of an object that was to be pickled or copied."""
    return ConfigTypeError(f"{name} cannot be pickled or copied: it belongs to one device and one process; {instead}")


E = TypeVar("E", bound=BaseException)


def name_task(error: E, index: int | None = None, device_id: int | None = None) -> E:
    """Say in an error which task it belongs to, and return it: in its attributes, and in its text or, if the class is not of
    this module, a note. What the error says already stays as it is."""
    said = []
    for name, value, words in (("index", index, f"feeds with index {index}"), ("device_id", device_id, f"device {device_id}")):
        if value is None or getattr(error, name, None) is not None:
            continue
        with suppress(Exception):  # a class of the user's may allow no attributes
            setattr(error, name, value)
        said.append(words)
    if said and isinstance(error, AisBenchError) and len(error.args) == 1:
        error.args = (f"{error.args[0]} ({', '.join(said)})",)
    elif said:
        with suppress(Exception):  # `add_note`, which Python 3.10 lacks
            error.__notes__ = [*getattr(error, "__notes__", []), f"({', '.join(said)})"]  # type: ignore[attr-defined]
    return error


def rename_task(error: E, index: int) -> E:
    """Give an error that names a task of a part of the call the task's place in the whole call, and return it."""
    told = getattr(error, "index", None)
    if told is None:
        return name_task(error, index)
    with suppress(Exception):
        error.index = index  # type: ignore[attr-defined]
    before, after = f"feeds with index {told}", f"feeds with index {index}"
    if error.args and isinstance(error.args[0], str):
        error.args = (error.args[0].replace(before, after), *error.args[1:])
    if getattr(error, "__notes__", None):
        error.__notes__ = [note.replace(before, after) for note in error.__notes__]  # type: ignore[attr-defined]
    return error
