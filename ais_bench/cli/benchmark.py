"""The benchmark command: check the options, then run on one device, on several, over a range of shapes, or under a profiler."""

from __future__ import annotations

import copy
import itertools
import os
import sys
import time
from typing import Any

from ais_bench.cli import profiling
from ais_bench.cli.log import CliError, error, info, set_debug
from ais_bench.cli.one_device import DeviceOutcome, prefix_of, run_device

__all__ = ["run"]

STAMP = "%Y_%m_%d-%H_%M_%S"


def run(options: Any) -> int:
    """Run the command and return its exit code. Raises CliError and the errors of sessions."""
    set_debug(options.debug)
    options.argv = list(sys.argv)
    try:
        code = _run(options)
    except BaseException:
        _leave_exit_code(1)
        raise
    _leave_exit_code(code)
    return code


def _leave_exit_code(code: int) -> None:
    path = os.environ.get(profiling.EXIT_FILE)
    if path:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(code))


def _run(options: Any) -> int:
    _check_rules(options)
    profiling.takes_over(options)
    if options.perf:
        from ais_bench.cli.trtexec import run_trtexec

        return run_trtexec(options)
    if options.profiler:
        binary = profiling.msprof()
        if binary is not None:
            return profiling.run_under_msprof(options, binary, options.argv[1:])
    if options.dym_shape_range and options.dym_shape is None:
        return _run_range(options)
    return _run_once(options, time.strftime(STAMP))[0]


def _check_rules(options: Any) -> None:
    """Check which options are given together. Raises CliError."""
    if options.profiler and options.dump:
        raise CliError("--profiler and --dump cannot be used together")
    if options.output_dirname and os.path.isabs(options.output_dirname):
        raise CliError(f"--output_dirname must be a relative path below --output, got {options.output_dirname!r}")
    if (options.profiler or options.dump) and options.output is None:
        raise CliError("--profiler and --dump need --output")
    if options.output is None and options.output_dirname is not None:
        raise CliError("--output_dirname is a folder below --output: give --output too")
    if options.profiler and options.warmup_count and options.input is not None:
        info("profiler mode with input change warmup_count to 0")
        options.warmup_count = 0
    if options.threads > 1 and not options.pipeline:
        info("need to set --pipeline when setting threads number to be more than one.")
        options.threads = 1
    devices = options.device if isinstance(options.device, list) else [options.device]
    if options.energy_consumption and isinstance(options.npu_id, list) and len(options.npu_id) != len(devices):
        raise CliError(f"--npu_id names {len(options.npu_id)} NPUs for {len(devices)} devices; name one for each")


def _run_once(options: Any, stamp: str) -> tuple[int, float]:
    """Run on one device or several. Return the exit code and the throughput."""
    acl_json = profiling.acl_settings(options)
    dump = profiling.dump_folder(acl_json) if acl_json and options.dump_npy else None
    before = profiling.dumped(dump) if dump else set()
    if isinstance(options.device, list):
        from ais_bench.cli.several_devices import run_devices

        code, throughput = run_devices(options, acl_json, stamp)
    else:
        npu = options.npu_id[0] if isinstance(options.npu_id, list) else options.npu_id
        outcome: DeviceOutcome = run_device(options, options.device, prefix_of(options, stamp), acl_json, npu=npu)
        code, throughput = 0, outcome.figures["throughput"]
    if dump and acl_json:
        profiling.convert_dump(acl_json, before)
    return code, throughput


def _run_range(options: Any) -> int:
    """Run each shape separately. Return exit code 1 if one failed."""
    results: list[tuple[float, str, str]] = []
    for shape in shapes_of(options.dym_shape_range):
        one = copy.copy(options)
        one.dym_shape = shape
        throughput, result = 0.0, "Failed"
        try:
            code, throughput = _run_once(one, _free_stamp(options))
            result = "Failed" if code else "OK"
        except CliError as failed:
            error(f"dymshape:{shape}: {failed}")
        except Exception as failed:
            error(f"dymshape:{shape}: {type(failed).__name__}: {failed}")
        info(f"dymshape:{shape} end run result:{result}")
        results.append((throughput if result == "OK" else 0.0, shape, result))
    good = [throughput for throughput, _, result in results if result == "OK"]
    info("-----------------dyshape_range Performance Summary------------------")
    average = sum(good) / len(good) if good else float("nan")
    info(f"run_count:{len(results)} success_count:{len(good)} avg_throughput:{average}")
    for place, (throughput, shape, result) in enumerate(sorted(results, key=lambda one: -one[0])):
        info(f"{place} dymshape:{shape}  result:{result} throughput:{throughput}")
    info("------------------------------------------------------")
    return 0 if len(good) == len(results) else 1


def _free_stamp(options: Any) -> str:
    """Return the time as an unused folder name. Shapes that run within the same second need different folders."""
    moment = time.time()
    while True:
        stamp = time.strftime(STAMP, time.localtime(moment))
        if options.output is None or not os.path.exists(os.path.join(options.output, stamp)):
            return stamp
        moment += 1


def shapes_of(text: str) -> list[str]:
    """Return the shapes of a range, or of every line of an .info file. Raises CliError."""
    lines = [text]
    if os.path.isfile(text):
        with open(text, encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.strip()]
    found = [shape for line in lines for shape in _combinations(line)]
    if not found:
        raise CliError(f"--dymShape_range {text} contains no shape")
    return found


def _combinations(line: str) -> list[str]:
    inputs = []
    for entry in line.split(";"):
        name, _, shape = entry.rpartition(":")
        try:
            dims = [_choices(part) for part in shape.split(",")]
        except ValueError:
            raise CliError(f"--dymShape_range: invalid range {entry!r}; write name:1,3,200~224,224-230") from None
        inputs.append([f"{name}:{','.join(one)}" for one in itertools.product(*dims)])
    return [";".join(one) for one in itertools.product(*inputs)]


def _choices(part: str) -> list[str]:
    """Return the values of 200~224 or 200~224~8 (a range), 224-230 (a choice) or 224. Raises ValueError."""
    if "~" in part:
        bounds = [int(bound) for bound in part.split("~")]
        if len(bounds) > 3 or (len(bounds) == 3 and bounds[2] < 1):
            raise ValueError
        return [str(number) for number in range(bounds[0], bounds[1] + 1, bounds[2] if len(bounds) == 3 else 1)]
    return [str(int(choice)) for choice in part.split("-")]
