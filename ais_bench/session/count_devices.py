"""Count devices without opening a vendor's library in this process."""

from __future__ import annotations

import os

from ais_bench import _native
from ais_bench.errors import DeviceUnavailable
from ais_bench.pool.interpreter import ImportEnvironment, run


def count_devices(runtime: str) -> int:
    """Return the number of devices of a runtime. Raises DeviceUnavailable.

    CPU devices are the processors that this process may use. A separate process counts other devices, because some drivers must
    not be opened in a process that later forks.
    """
    if runtime == "ort":
        return len(_native.allowed_cpus())
    import json  # here, because most pools never count devices this way

    nothing = f"runtime {runtime!r} has no devices to offer"
    try:
        code, out, err = run("count", json.dumps(ImportEnvironment.here().path), runtime, str(os.getpid()))
    except TimeoutError as late:
        raise DeviceUnavailable(f"{nothing}: {late}; pass devices=[...] to name them") from None
    found = [line.split()[1] for line in out.splitlines() if line.startswith("devices ")]
    if code or not found or found[-1] == "0":
        raise DeviceUnavailable(f"{nothing}: {_reason(err)}; pass devices=[...] to name them")
    return int(found[-1])


def _reason(stderr: str) -> str:
    """Return the message of the error that ended the process: all lines of an AisBenchError, otherwise the last line."""
    ours = stderr.rpartition(f"{DeviceUnavailable.__module__}.")[2].partition(": ")[2].strip()
    return ours or (stderr.strip().splitlines() or ["it reports no device"])[-1]
