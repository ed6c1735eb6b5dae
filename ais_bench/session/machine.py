"""Versions and devices of this machine, for bug reports and lists of devices."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from ais_bench import _native
from ais_bench.errors import AisBenchError, ConfigError
from ais_bench.options import unknown_argument
from ais_bench.pool.interpreter import ImportEnvironment, run

__all__ = ["DeviceEntry", "RuntimeInfo", "SystemInfo", "system_info"]


@dataclass(frozen=True)
class DeviceEntry:
    """One device: the bytes of its memory if the runtime reports them, otherwise the reason."""

    id: int
    free: int | None = None
    total: int | None = None
    error: str = ""


@dataclass(frozen=True)
class RuntimeInfo:
    """A runtime: "ort" or "acl".

    Attributes:
        version: version of the library; "" if the library was not found, and `error` says why.
        toolkit: the toolkit of the library: "CANN 8.5.0"; "" if it is not known.
        chip: the chip that the library drives: "Ascend310P3"; "" if it is not known.
        devices: the devices of the runtime.
    """

    name: str
    version: str = ""
    toolkit: str = ""
    chip: str = ""
    devices: list[DeviceEntry] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class SystemInfo:
    """Versions and devices of this machine. `str()` is readable text, `to_dict()` is ready for JSON."""

    ais_bench: str
    python: str
    numpy: str
    system: str
    processors: int
    runtimes: list[RuntimeInfo]

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts and lists of numbers and texts."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"ais_bench {self.ais_bench}, Python {self.python}, numpy {self.numpy}"]
        lines.append(f"{self.system}, {self.processors} processors for this process")
        for runtime in self.runtimes:
            if runtime.error:
                lines.append(f"{runtime.name}: {runtime.error}")
                continue
            parts = [runtime.version, runtime.toolkit, runtime.chip, f"{len(runtime.devices)} devices"]
            lines.append(f"{runtime.name}: {', '.join(filter(None, parts))}")
            lines += [f"  device {device.id}: {_memory(device)}" for device in runtime.devices if _memory(device)]
        return "\n".join(lines)


def _memory(device: DeviceEntry) -> str:
    if device.free is None or device.total is None:
        return device.error
    return f"{device.free >> 20} MiB free of {device.total >> 20} MiB"


def system_info(*, devices: bool = True, **unknown: NoReturn) -> SystemInfo:
    """Return versions and devices of this machine. If a runtime is not installed, its entry says what is missing.

    A separate process opens AscendCL. With `devices` it opens each NPU to read its free memory, which takes a while; without
    `devices` it only counts the NPUs. Raises ConfigTypeError for an unknown argument.
    """
    if unknown:
        raise unknown_argument(unknown, system_info)
    processors = len(_native.allowed_cpus())
    return SystemInfo(
        _version("ais_bench"),
        sys.version.split()[0],
        _version("numpy"),
        f"{platform.system()} {platform.release()} {platform.machine()}",
        processors,
        [_ort(processors), _acl(devices)],
    )


def _version(distribution: str) -> str:
    from importlib import metadata  # here, because it takes a third of the time of importing this package

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _ort(processors: int) -> RuntimeInfo:
    try:
        version, toolkit, chip = _native.runtime_about("ort")
    except AisBenchError as error:
        return RuntimeInfo("ort", error=str(error))
    return RuntimeInfo("ort", f"ONNX Runtime {version}", toolkit, chip, [DeviceEntry(id) for id in range(processors)])


def _acl(open_devices: bool) -> RuntimeInfo:
    try:
        code, out, err = run(
            "about", json.dumps(ImportEnvironment.here().path), "acl", str(os.getpid()), "open" if open_devices else "count"
        )
    except (ConfigError, TimeoutError) as error:
        return RuntimeInfo("acl", error=str(error))
    answers = [line.partition(" ")[2] for line in out.splitlines() if line.startswith("about ")]
    if not answers:
        ended = f"the process that asks for devices ended with exit code {code}"
        return RuntimeInfo("acl", error=(err.strip().splitlines()[-1:] or [ended])[0])
    (version, toolkit, chip), found = json.loads(answers[-1])
    version = version.partition(" on ")[0]
    return RuntimeInfo("acl", f"AscendCL {version}", toolkit, chip, [_entry(id, one) for id, one in enumerate(found)])


def _entry(id: int, answer: Any) -> DeviceEntry:
    if answer is None or isinstance(answer, str):
        return DeviceEntry(id, error=answer or "")
    return DeviceEntry(id, *answer)
