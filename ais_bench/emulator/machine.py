"""`npus`: emulated NPUs for a block of code, and for every process that starts in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ais_bench.emulator.binary import library_without
from ais_bench.emulator.control import Emulator
from ais_bench.errors import ConfigError
from ais_bench.libraries import candidates
from ais_bench.options import as_bool, as_choice, as_device_id, as_int, as_list, as_path, as_text, unknown_argument, wrong

#: The variable that names AscendCL's library; the `acl` runtime reads it.
LIBRARY_VARIABLE = "AIS_BENCH_ACL_LIBRARY"

PerDevice = float | str | Mapping[int, float | str]


@contextmanager
def npus(
    count: int = 8,
    *,
    exec_ms: PerDevice | None = None,
    copy_gbps: PerDevice | None = None,
    memory_mb: PerDevice | None = None,
    faults: str | Iterable[str] = (),
    faults_across_processes: bool = False,
    without: Iterable[str] = (),
    product: str | None = None,
    soc: str | None = None,
    kernel: str | None = None,
    record: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    on_violation: str = "report",
    threads: int = 1,
    seed: int = 0,
    **unknown: NoReturn,
) -> Iterator[Path]:
    """Replace AscendCL by the emulator with `count` NPUs inside the block, and yield the library's path.

    This sets environment variables and restores them at the end, so start worker processes inside the block. A process may
    enter it any number of times, also nested, while no NPU is in use. Open sessions keep their NPUs, and while there are any,
    the NPUs cannot change. A process loads only one AscendCL, so sessions with another library (`without`) need another
    process. Only one thread at a time may use it.

    Args:
        count: number of NPUs; they are numbered from 0.
        exec_ms: milliseconds of one execution: a number, a distribution such as "normal:5,0.5" (docs/emulator.md), or
            `{device: either}`. Default: the time that the CPU takes.
        copy_gbps: 1e9 bytes per second in each direction, or `{device: number}`. Default: as fast as the host copies.
        memory_mb: MiB of device memory, a number or `{device: number}`. Default 32768.
        faults: rules like "aclmdlExecute:3=507011@2" (docs/emulator.md): calls that fail, hang or crash.
        faults_across_processes: count calls over all processes of the block, so that a restarted worker does not fail again.
        without: symbols that the library must lack; see `ais_bench.emulator.binary.OPTIONAL`.
        product: decides which functions work (docs/emulator.md): "310P3", "910", "910B", "A2", "A3", "310B", "950", a SoC.
        soc: the answer of aclrtGetSocName, if it does not follow from `product`. Models packed for another SoC are refused.
        kernel: the release of the host's kernel, such as "5.10": old kernels cannot register all memory. Default: this host's.
        record: a file to which every call of every process is appended as a line of JSON; "%p" becomes the process id.
        report: a file for violations and leaks, as `record`. Default: stderr.
        on_violation: "report", or "abort" to end the process at a violation of AscendCL's rules.
        threads, seed: ONNX Runtime threads of one model; the seed of the distributions.

    Raises ConfigError, and changes nothing, for invalid settings, or if this process uses NPUs with other settings.
    """
    if unknown:
        raise unknown_argument(unknown, npus)
    with tempfile.TemporaryDirectory(prefix="ais_bench_npus_") as folder:
        settings = {
            **_machine_settings(count, exec_ms, copy_gbps, memory_mb, _soc(product, soc), kernel),
            **_fault_settings(faults, folder if as_bool("faults_across_processes", faults_across_processes) else None),
            **_log_settings(record, report, on_violation),
            **_library_settings(without, threads, seed),
        }
        with _emulated(settings) as library:
            yield library


def _machine_settings(
    count: int,
    exec_ms: PerDevice | None,
    copy_gbps: PerDevice | None,
    memory_mb: PerDevice | None,
    soc: str | None,
    kernel: Any,
) -> dict[str, str | None]:
    count = as_int("count", count, 1, 1024)
    return {
        "AIS_EMULATOR_DEVICES": str(count),
        "AIS_EMULATOR_EXEC_MS": _per_device("exec_ms", exec_ms, count),
        "AIS_EMULATOR_COPY_GBPS": _per_device("copy_gbps", copy_gbps, count),
        "AIS_EMULATOR_MEMORY_MB": _per_device("memory_mb", memory_mb, count),
        "AIS_EMULATOR_SOC": soc,
        "AIS_EMULATOR_KERNEL": None if kernel is None else as_text("kernel", kernel),
        "ASCEND_RT_VISIBLE_DEVICES": None,
    }


def _fault_settings(faults: str | Iterable[str], folder: str | None) -> dict[str, str | None]:
    """Return the settings of faults. `folder`: all processes count calls together there; None: each process counts its own."""
    rules = (
        [faults] if isinstance(faults, str) else [as_text("a fault rule", one) for one in as_list("faults", faults, "rules")]
    )
    state = None if folder is None else os.path.join(folder, "faults")
    return {"AIS_EMULATOR_FAULTS": ";".join(rules), "AIS_EMULATOR_FAULT_STATE": state}


def _log_settings(record: Any, report: Any, on_violation: str) -> dict[str, str | None]:
    return {
        "AIS_EMULATOR_RECORD": None if record is None else os.path.abspath(as_path("record", record)),
        "AIS_EMULATOR_REPORT": None if report is None else os.path.abspath(as_path("report", report)),
        "AIS_EMULATOR_ON_VIOLATION": as_choice("on_violation", on_violation, ("report", "abort")),
    }


def _library_settings(without: Iterable[str], threads: int, seed: int) -> dict[str, str | None]:
    settings: dict[str, str | None] = {
        "AIS_EMULATOR_THREADS": str(as_int("threads", threads, 1, 1024)),
        "AIS_EMULATOR_SEED": str(as_int("seed", seed, 0, 2**63 - 1)),
        LIBRARY_VARIABLE: str(library_without(without)),
    }
    if "AIS_BENCH_ORT_LIBRARY" not in os.environ:
        settings["AIS_BENCH_ORT_LIBRARY"] = find_onnxruntime()
    return settings


@contextmanager
def _emulated(settings: Mapping[str, str | None]) -> Iterator[Path]:
    library = Path(str(settings[LIBRARY_VARIABLE]))
    try:
        with _environment(settings):
            complaint = Emulator(library)._configure()
            if not complaint:
                yield library
    finally:  # restore the settings around the block; open sessions keep their NPUs
        Emulator(library)._configure()
    if complaint:
        raise ConfigError(complaint)


#: Products by their usual names, and a SoC of each.
PRODUCTS = {
    "310": "Ascend310",
    "310P": "Ascend310P3",
    "310B": "Ascend310B4",
    "910": "Ascend910A",
    "910A": "Ascend910A",
    "910B": "Ascend910B3",
    "A2": "Ascend910B3",
    "910C": "Ascend910_9391",
    "A3": "Ascend910_9391",
    "950": "Ascend950PR",
}
_KNOWN_SOCS = ("Ascend310", "Ascend910", "Ascend950")


def _soc(product: str | None, soc: str | None) -> str | None:
    """Return the answer of aclrtGetSocName; None for the default."""
    if soc is not None:
        return as_text("soc", soc)
    if product is None:
        return None
    name = PRODUCTS.get(as_text("product", product), product)
    name = name if name.startswith("Ascend") else f"Ascend{name}"
    if not name.startswith(_KNOWN_SOCS):
        raise wrong("product", f"{', '.join(map(repr, PRODUCTS))} or a SoC such as 'Ascend310P3'", product)
    return name


def find_onnxruntime() -> str | None:
    """Return the path of the ONNX Runtime that a session would load, without importing the package; None if there is none."""
    return next((path for path in candidates("ort") if os.path.isfile(path)), None)


def _per_device(name: str, value: PerDevice | None, count: int) -> str | None:
    """Return a setting in the form of the environment: "default;device=value;..."."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return str(value)
    by_device = {as_device_id(device): setting for device, setting in value.items()}
    for device in by_device:
        if device >= count:
            raise ConfigError(f"{name} must be for devices 0 to {count - 1}, got one for device {device}")
    return ";".join(f"{device}={setting}" for device, setting in by_device.items())


@contextmanager
def _environment(settings: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables (None: unset them) and restore the old values."""
    for name, value in settings.items():
        if value is not None and "\0" in value:
            raise ConfigError(f"a setting must hold no NUL character, got {value!r} for {name}")
    before = {name: os.environ.get(name) for name in settings}
    _assign(settings)
    try:
        yield
    finally:
        _assign(before)


def _assign(settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
