"""List the devices, the reasons why others are missing, and versions."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ais_bench.cli.show import lines, print_json, table

EXAMPLES = """\
  ais-bench devices
  ais-bench devices --json
"""
NAMES = {"ort": "CPU devices (ONNX Runtime)", "acl": "NPUs (AscendCL)"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add none."""


def run(options: Any) -> int:
    """Print the devices of this machine."""
    found = devices()
    if options.json:
        print_json(found)
        return 0
    rows = []
    for runtime, about in found["runtimes"].items():
        ids = ", ".join(map(str, about["devices"])) or "none"
        rows.append((NAMES[runtime], len(about["devices"]), ids))
    table("devices", ("runtime", "count", "ids"), rows)
    providers = [
        (name, len(about["devices"]), ", ".join(about["devices"]) or "-") for name, about in found["providers"].items()
    ]
    table("execution providers of ONNX Runtime", ("provider", "devices", "description"), providers)
    for runtime, about in found["runtimes"].items():
        if about["reason"]:
            print(f"no {NAMES[runtime]}: {about['reason']}")
    for name, about in found["providers"].items():
        if about["reason"]:
            print(f"no {name}: {about['reason']}")
    lines([("processors", found["processors"]), *found["versions"].items()])
    return 0


def devices() -> dict[str, Any]:
    """Return the devices, providers and versions in the form of --json."""
    from ais_bench.errors import AisBenchError
    from ais_bench.evaluate.plan import versions
    from ais_bench.libraries import candidates

    runtimes: dict[str, Any] = {}
    for runtime in NAMES:
        count, reason = _count(runtime)
        try:
            looked_for = candidates(runtime)
        except AisBenchError as error:  # the library could not be determined
            runtimes[runtime] = {"devices": [], "reason": str(error), "library": None, "tried": []}
            continue
        library = next((path for path in looked_for if os.path.exists(path)), None)
        runtimes[runtime] = {"devices": list(range(count)), "reason": reason, "library": library, "tried": looked_for}
    return {"runtimes": runtimes, "providers": _providers(), "processors": len(os.sched_getaffinity(0)), "versions": versions()}


def _providers() -> dict[str, Any]:
    """Return the state of each known provider. Each is probed in its own process."""
    from ais_bench.session.providers import list_providers

    return {
        found.name: {
            "devices": list(found.devices),
            "reason": found.why or None,
            "library": found.library or None,
            "version": found.version or None,
            "install": found.install or None,
        }
        for found in list_providers()
    }


def _count(runtime: str) -> tuple[int, str | None]:
    from ais_bench.errors import AisBenchError
    from ais_bench.session.count_devices import count_devices

    try:
        return count_devices(runtime), None
    except AisBenchError as error:
        return 0, str(error)
