"""How many devices there are, without opening a vendor's library in this process."""

from __future__ import annotations

import os
import subprocess

from ais_bench import _native
from ais_bench.errors import DeviceUnavailable
from ais_bench.pool.process import OFF_THE_WORKING_DIRECTORY, Place, python_executable

_ASK = (
    OFF_THE_WORKING_DIRECTORY
    + """\
import json
sys.path[:] = json.loads(sys.argv[1])
from ais_bench import _native
if not _native.die_with_parent(int(sys.argv[3])): sys.exit()
print("devices", _native.device_count(sys.argv[2]))
"""
)
ASK_TIMEOUT_S = 60.0


def count_devices(runtime: str) -> int:
    """Devices of a runtime. Raises DeviceUnavailable.

    CPU devices are the processors this process may use. Others are counted in a process of its own: some drivers must not be
    opened in a process that later forks.
    """
    if runtime == "ort":
        return len(_native.allowed_cpus())
    import json  # here, because most pools never count so

    nothing = f"runtime {runtime!r} has no devices to offer"
    command = [python_executable(), "-c", _ASK, json.dumps(Place.here().path), runtime, str(os.getpid())]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ASK_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise DeviceUnavailable(
            f"{nothing}: it did not say how many within {ASK_TIMEOUT_S:g} s; pass devices=[...] to name them"
        ) from None
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("devices ")]
    if done.returncode != 0 or not found or found[-1] == "0":
        reason = done.stderr.strip().splitlines()[-1:] or ["it reports no device"]
        raise DeviceUnavailable(f"{nothing}: {reason[0]}; pass devices=[...] to name them")
    return int(found[-1])
