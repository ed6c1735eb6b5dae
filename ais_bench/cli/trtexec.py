"""Run trtexec, and print the speed that it measured."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import Any

from ais_bench.cli.log import CliError, info

__all__ = ["run_trtexec"]


def run_trtexec(options: Any) -> int:
    """Run `trtexec` on the model, and print its figures. Raises CliError."""
    if options.backend is None:
        raise CliError("--perf needs --backend trtexec")
    if shutil.which("trtexec") is None:
        raise CliError("--backend trtexec needs the program trtexec, which was not found")
    device = options.device[0] if isinstance(options.device, list) else options.device
    command = ["trtexec", f"--onnx={options.model}", "--fp16", f"--device={device}", f"--iterations={options.loop}"]
    if options.batchsize is not None:
        command.append(f"--batch={options.batchsize}")
    info(f"Trtexec Build command: {shlex.join(command)}")
    figures: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                info(line.strip())
            _note(line, figures)
    if process.returncode != 0:
        raise CliError(f"trtexec exited with {process.returncode}")
    info(f"perf info:{figures}")
    return 0


def _note(line: str, figures: dict[str, Any]) -> None:
    for name, words in (("throughput", "Throughput"), ("host_wall_time", "Total Host Walltime")):
        found = re.search(rf"{words}.*?: ([\d.]+)", line)
        if found:
            figures[name] = float(found[1])
    for name, words in (
        ("h2d_latency", "H2D Latency"),
        ("compute_time", "GPU Compute Time: min"),
        ("d2h_latency", "D2H Latency"),
    ):
        if words in line:
            numbers = [float(number) for number in re.findall(r"= ([\d.]+)", line)]
            figures[name] = dict(zip(("min", "max", "mean", "median", "percentile"), numbers, strict=False))
