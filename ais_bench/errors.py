"""All errors and warnings of this library.

    AisBenchError (a RuntimeError, because programs for this API catch RuntimeError)
    |-- ConfigError            an option or argument is wrong; nothing was opened or changed (also a ValueError)
    |   `-- ConfigTypeError    ... because it has the wrong type (also a TypeError)
    |-- FeedError              the given inputs do not fit the model
    |   `-- FeedTypeError      ... because one has a type that cannot be fed (also a TypeError)
    |-- FileError              a file cannot be read or written (also an OSError)
    |   |-- FileMissing        ... because it does not exist (also a FileNotFoundError)
    |   `-- FileDenied         ... because of its permissions (also a PermissionError)
    |-- DeviceError            a device, or its library, failed
    |   |-- DeviceUnavailable  the library, driver or device does not exist here
    |   |-- ModelLoadError     the file does not load on this device
    |   |-- UnsupportedError   this device, library or model does not support the request
    |   |-- DeviceMemoryError  memory ran out, on the host or on the device
    |   |-- InferenceError     this run failed; the session is still usable
    |   |   `-- InferenceCancelled  the run was cancelled
    |   `-- DeviceLost         this process can no longer use the device
    |-- SessionClosed          you freed the session, or it belongs to the parent process
    |-- PoolError              the device pool failed
    |   |-- WorkerStartError   a worker did not become ready; has device_id
    |   |-- WorkerDied         a task's worker died; has device_id, pid, signal or exit_code, index
    |   |-- TaskTimeout        a task passed its deadline
    |   |-- PoolBroken         no worker is left and none can be started; the cause says why
    |   `-- PoolClosed         you closed the pool
    `-- TransportError         shared memory contains invalid data, or the system refused it

Some classes also derive from the built-in class that Python itself raises for the same mistake, so an `except` clause for that
class catches them too. The error of one task of a pipeline or pool has `index`, the position of its feeds among those of the
call, and `device_id`, the device on which it ran. Each is None if it does not apply.

`FeedWarning` and `TimesWarning` are warnings, not errors. FeedWarning: the bytes of a feed are used unchanged, although its
type looks like a mistake. TimesWarning: a device did not report how long a run took.
"""

from __future__ import annotations

import errno
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
    """Base class of all errors of this library.

    `index` is the position of the failed task's feeds among those of its call. `device_id` is the device on which the task ran,
    or to which it was sent. Each is None if the error does not belong to one task or one device.
    """

    index: int | None = None
    device_id: int | None = None


class ConfigError(AisBenchError, ValueError):
    """An option or argument is wrong. Nothing was opened or changed."""


class ConfigTypeError(ConfigError, TypeError):
    """An option or argument has the wrong type."""


class FeedError(AisBenchError):
    """The given inputs do not fit the model: wrong number, size, shape or kind. The session stays usable."""


class FeedTypeError(FeedError, TypeError):
    """An input has a type that cannot be fed."""


class FileError(AisBenchError, OSError):
    """A file cannot be read or written. `errno`, `strerror` and `filename` come from the system's error."""

    __new__ = OSError.__new__  # type: ignore[assignment]
    __init__ = OSError.__init__
    __str__ = OSError.__str__
    __reduce__ = OSError.__reduce__


class FileMissing(FileError, FileNotFoundError):
    """A file does not exist."""


class FileDenied(FileError, PermissionError):
    """A file's permissions forbid the access."""


class DeviceError(AisBenchError):
    """A device, or its library, failed. `code` is the vendor's error number, 0 if there is none."""

    code: int = 0


class DeviceUnavailable(DeviceError):
    """The library, driver or device does not exist on this machine. The message lists what was tried."""


class ModelLoadError(DeviceError):
    """The model file cannot be read, is not a model, or does not load on this device. The message has its path."""


class UnsupportedError(DeviceError):
    """This device, library or model does not support the request."""


class DeviceMemoryError(DeviceError):
    """Memory ran out on the host or on the device."""


class InferenceError(DeviceError):
    """This run failed on the device. The session stays usable."""


class InferenceCancelled(InferenceError):
    """The run was cancelled before it finished."""


class DeviceLost(DeviceError):
    """This process can no longer use the device or its context; a new process may be able to."""


class SessionClosed(AisBenchError):
    """The session was freed, or belongs to the parent of this forked process."""


class PoolError(AisBenchError):
    """The device pool could not do its work."""


class WorkerStartError(PoolError):
    """A worker did not become ready. The cause is the error that it raised."""


class WorkerDied(PoolError):
    """A worker process ended while it held the task."""

    pid: int | None = None
    signal: int | None = None
    exit_code: int | None = None


class TaskTimeout(PoolError):
    """A task passed its deadline."""


class PoolBroken(PoolError):
    """No worker is left, and none can be started again. The cause says why."""


class PoolClosed(PoolError):
    """The pool was closed by its owner."""


class TransportError(AisBenchError):
    """Shared memory between two processes could not be made, or contains invalid data."""


class FeedWarning(UserWarning):
    """A feed has the right number of bytes, but its dtype differs from the model's. Given once for each input."""


class TimesWarning(UserWarning):
    """A device did not report how long a run took. The result is valid; its times are left out. Given once for each session."""


def file_error(error: OSError, doing: str) -> FileError:
    """Return the FileError for an error of the system. `doing`: the attempted action, for example "read an input"."""
    kinds: dict[type, type[FileError]] = {FileNotFoundError: FileMissing, PermissionError: FileDenied}
    kind = kinds.get(type(error), FileError)
    made: FileError = kind(error.errno, f"cannot {doing}: {error.strerror or error}", error.filename)
    return made


def refused(what: str, error: OSError) -> TransportError:
    """Return the error for something that the system has refused. `what`: what failed, as a sentence without its end."""
    return TransportError(f"{what}: {error}{advice_on_limit(error)}")


def advice_on_limit(error: BaseException) -> str:
    """Return what to do about an error, to append to its text, if the limit of open files is its reason; otherwise ""."""
    number = getattr(error, "errno", None)
    if number != errno.EMFILE and f"(errno {errno.EMFILE})" not in str(error):  # native code has its number in the text
        return ""
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"; this process may have {most} open files (ulimit -n): close some, or raise the limit"


def no_copies(name: str, instead: str) -> ConfigTypeError:
    """Return the error for an attempt to pickle or copy an object that does not allow it."""
    return ConfigTypeError(f"{name} cannot be pickled or copied: it belongs to one device and one process; {instead}")


E = TypeVar("E", bound=BaseException)


def name_task(error: E, index: int | None = None, device_id: int | None = None) -> E:
    """Add to an error the task to which it belongs, and return it. The index and device go into its attributes, and into its
    text or, if the class is not of this module, a note. Attributes that are already set do not change."""
    said = []
    for name, value, words in (("index", index, f"feeds with index {index}"), ("device_id", device_id, f"device {device_id}")):
        if value is None or _told(error, name) is not None:
            continue
        with suppress(Exception):  # a user's class may not allow attributes
            setattr(error, name, value)
        said.append(words)
    if said and isinstance(error, AisBenchError) and len(error.args) == 1:
        error.args = (f"{error.args[0]} ({', '.join(said)})",)
    elif said:
        with suppress(Exception):  # `add_note`, which Python 3.10 lacks
            error.__notes__ = [*getattr(error, "__notes__", []), f"({', '.join(said)})"]  # type: ignore[attr-defined]
    return error


def _told(error: BaseException, name: str) -> int | None:
    told: int | None = None
    with suppress(Exception):  # a user's class may have a `__getattr__` that raises
        told = getattr(error, name, None)
    return told


def rename_task(error: E, index: int) -> E:
    """Change an error's index from the position in a part of the call to the position in the whole call, and return it."""
    told = _told(error, "index")
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
