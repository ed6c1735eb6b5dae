"""Describe a model: inputs, outputs, gears, size and digest."""

from __future__ import annotations

import argparse
from typing import Any

from ais_bench.cli.options import model_file
from ais_bench.cli.show import lines, print_json, table

EXAMPLES = """\
  ais-bench inspect model.onnx
  ais-bench inspect model.om --device 3 --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the model and the device that loads it."""
    parser.add_argument("model", type=model_file, help="an .om or .onnx file; its content decides which")
    parser.add_argument("--device", type=int, default=0, metavar="ID", help="the device that loads it (%(default)s)")


def run(options: Any) -> int:
    """Load the model and print its description."""
    found = describe(options.model, options.device)
    if options.json:
        print_json(found)
        return 0
    lines([("model", found["path"]), ("bytes", found["bytes"]), ("sha256", found["sha256"]), ("runtime", found["runtime"])])
    if found["gears"]["kind"]:
        lines([("gears", f"{found['gears']['kind']}: {found['gears']['values']}")])
    print()
    for side in ("inputs", "outputs"):
        rows = [(desc["name"], desc["dtype"], str(desc["shape"]), desc["bytes"] or "open") for desc in found[side]]
        table(side, ("name", "type", "shape", "bytes"), rows)
    return 0


def describe(model: str, device: int) -> dict[str, Any]:
    """Return the model's description in the form of --json. Raises the errors of a session."""
    from ais_bench.evaluate.plan import model_facts
    from ais_bench.session import InferSession

    facts = model_facts(model)
    session = InferSession(device, model)
    try:
        kind, gears = session._native.gears()
        return {
            **facts,
            "runtime": session._native.runtime,
            "inputs": [_side(desc) for desc in session.get_inputs()],
            "outputs": [_side(desc) for desc in session.get_outputs()],
            "gears": {"kind": kind if gears else None, "values": [list(gear) for gear in gears]},
        }
    finally:
        session.free_resource()


def _side(desc: Any) -> dict[str, Any]:
    return {"name": desc.name, "dtype": desc.datatype.name, "shape": list(desc.shape), "bytes": desc.realsize}
