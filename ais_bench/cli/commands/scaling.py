"""Measure how the speed grows with the number of devices."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from ais_bench.cli.commands.bench import add_measuring, input_shapes, measured, open_session
from ais_bench.cli.measurements import SCALING, measured_run, print_report
from ais_bench.cli.options import ids_to, model_file, shape_list

EXAMPLES = """\
  ais-bench scaling m.om
  ais-bench scaling m.onnx --devices 0,1,2,3 --seconds 5 --json
"""
SLOWER = 1.1  # a device is reported if it takes this many times the median


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the devices and how long to measure."""
    parser.add_argument("model", type=model_file, help="an .om or .onnx file; its content decides which")
    parser.add_argument("--devices", "-d", type=ids_to(1023), metavar="IDS", help="comma-separated (all devices)")
    parser.add_argument("--shape", type=shape_list, metavar="S", help='shapes of open inputs, "x:1,3,4;y:1"')
    parser.add_argument("--data", choices=("random", "zero"), default="random", help="the generated data (%(default)s)")
    parser.add_argument("--mode", default="static", help="as for infer (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="computing threads of a CPU device, for any number of devices")
    add_measuring(parser)


def run(options: Any) -> int:
    """Measure with one device, with two, and so on up to all, and print the curve."""
    from ais_bench.session import MultiDeviceSession

    ids = [options.devices] if isinstance(options.devices, int) else options.devices
    if ids is None:
        with MultiDeviceSession(options.model) as session:
            ids = list(session.devices)
    more = {} if options.threads is None else {"threads": options.threads}
    with measured_run(options, SCALING) as report:
        curve = report["curve"] = []
        for count in range(1, len(ids) + 1):
            with open_session(options, devices=ids[:count], **more) as session:
                shapes = input_shapes(options.shape, None, session.get_inputs())
                result = measured(options, session, shapes)
            rate = result["throughput_per_s"]
            alone = curve[0]["throughput_per_s"] if curve else rate
            efficiency = rate / (count * alone) if alone else 0.0
            setting = {"shapes": shapes or None, "workers_per_device": 1, "device_ids": ids[:count]}
            gain = {"speedup": rate / alone if alone else 0.0, "efficiency": efficiency}
            curve.append({"devices_used": ids[:count], **gain, **setting, **result})
        report.update(stragglers=_stragglers(curve[-1]["devices"]), slower=SLOWER)
    print_report(options, report)
    return 0 if all(one["stable"] for one in curve) else 3


def _stragglers(devices: dict[str, Any]) -> dict[str, float]:
    """Return the devices that are slower than the median device, slowest first, each with its factor."""
    means = {device: one["execute_ms"]["mean"] for device, one in devices.items() if one["execute_ms"]["count"]}
    if len(means) < 2:
        return {}
    middle = statistics.median_low(means.values())
    slow = {device: mean / middle for device, mean in means.items() if middle and mean > SLOWER * middle}
    return dict(sorted(slow.items(), key=lambda one: -one[1]))
