"""Read the power of an NPU from npu-smi."""

from __future__ import annotations

import re
import subprocess

from ais_bench.cli.log import CliError
from ais_bench.tuning import POWER_TIMEOUT_S

__all__ = ["power_of"]


def power_of(npu: int) -> float:
    """Return the present power of an NPU in watts. Raises CliError."""
    command = ["npu-smi", "info", "-t", "power", "-i", str(npu)]
    shown = " ".join(command)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=POWER_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise CliError("--energy_consumption needs npu-smi, which was not found") from None
    except subprocess.TimeoutExpired:
        raise CliError(f"{shown!r} did not answer within {POWER_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        raise CliError(f"{shown!r} exited with {done.returncode}; 'npu-smi info' lists the NPUs for --npu_id")
    found = re.search(r"Power Dissipation\(W\)[^\d\n]*([\d.]+)", done.stdout.decode(errors="replace"))
    if found is None:
        raise CliError(f"the output of {shown!r} contains no power dissipation")
    return float(found[1])
