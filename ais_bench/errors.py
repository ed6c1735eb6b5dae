"""Everything this library raises on purpose.

    AisBenchError (a RuntimeError: programs written for this API catch that)
    |-- ConfigError            an option or argument is wrong; nothing was opened or changed
    |-- FeedError              the inputs given do not fit the model
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

`FeedWarning` is a warning, not an error: the feed is used as its bytes, but its type looks like a mistake.
"""

from __future__ import annotations

__all__ = [
    "AisBenchError",
    "ConfigError",
    "DeviceError",
    "DeviceLost",
    "DeviceMemoryError",
    "DeviceUnavailable",
    "FeedError",
    "FeedWarning",
    "InferenceCancelled",
    "InferenceError",
    "ModelLoadError",
    "PoolBroken",
    "PoolClosed",
    "PoolError",
    "SessionClosed",
    "TaskTimeout",
    "TransportError",
    "UnsupportedError",
    "WorkerDied",
    "WorkerStartError",
]


class AisBenchError(RuntimeError):
    """Root of the tree above."""


class ConfigError(AisBenchError):
    """An option or argument is wrong. Nothing was opened or changed."""


class FeedError(AisBenchError):
    """The inputs given do not fit the model: their number, size, shape or kind. The session stays usable."""


class DeviceError(AisBenchError):
    """A device, or the way to it, failed. `code` is the vendor's number where the vendor gave one, else 0."""

    code: int = 0


class DeviceUnavailable(DeviceError):
    """No such library, driver or device on this machine. The message lists what was tried."""


class ModelLoadError(DeviceError):
    """The model file cannot be read, is not a model, or does not load on this device."""


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

    device_id: int | None = None


class WorkerDied(PoolError):
    """A worker process ended while it held work."""

    device_id: int | None = None
    pid: int | None = None
    signal: int | None = None
    exit_code: int | None = None
    index: int | None = None


class TaskTimeout(PoolError):
    """A task passed its deadline."""

    device_id: int | None = None
    index: int | None = None


class PoolBroken(PoolError):
    """No worker is left and none can be started again. The cause says why."""


class PoolClosed(PoolError):
    """The pool was closed by its owner."""


class TransportError(AisBenchError):
    """Shared memory between two processes could not be made, or holds what it cannot hold."""


class FeedWarning(UserWarning):
    """A feed fits in bytes but its element type is of another kind than the model's, once for each input."""
