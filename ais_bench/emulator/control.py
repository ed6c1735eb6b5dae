"""The emulator's own functions, for tests and tools: faults, recordings, and live objects.

They act on this process only. The workers of a pool are other processes: set their faults, recording or report file with `npus`
or the environment.
"""

from __future__ import annotations

import ctypes
import json
import os
from typing import TypedDict, cast

from ais_bench.emulator.binary import library_path
from ais_bench.errors import ConfigError, FileError
from ais_bench.options import as_device_id, as_path, as_text


class Call(TypedDict):
    """One recorded call: `args` and `result` are numbers or names of objects (csrc/emulator/record.hpp)."""

    call: str
    args: list[int | float | str]
    result: int | float | str
    device: int
    thread: int


class Emulator:
    """The emulator that is loaded in this process. All objects of this class refer to the same emulator. Thread-safe.

    `path`: the library, if it is not the installed one (see `library_without`). A copy is a separate emulator.

    Raises FileError if it cannot be loaded, ConfigError if it is another library.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        file = str(library_path()) if path is None else as_path("path", path)
        try:
            self._library = ctypes.CDLL(file)
        except OSError as error:
            raise FileError(None, f"cannot load the emulator's library: {error}", file) from None
        if not file or not hasattr(self._library, "aisEmulatorSetFaults"):
            raise ConfigError(f"path must be the emulator's library, got {file!r}")
        for name in (
            "aisEmulatorConfigure",
            "aisEmulatorSetFaults",
            "aisEmulatorStopRecording",
            "aisEmulatorReport",
            "aisEmulatorLiving",
        ):
            getattr(self._library, name).restype = ctypes.c_char_p
        for name in ("FaultsFired", "CallCount", "Violations", "Leaks", "Timeouts", "MemoryUsed"):
            getattr(self._library, f"aisEmulator{name}").restype = ctypes.c_uint64

    def _text(self, function: str, *arguments: object) -> str:
        return cast(bytes, getattr(self._library, function)(*arguments)).decode(errors="replace")

    def _configure(self, *, new_process: bool = False) -> str:
        """Read the environment's settings again; return "" or an error text. Called by `npus`."""
        return self._text("aisEmulatorConfigure", ctypes.c_int(new_process))

    def set_faults(self, rules: str = "") -> None:
        """Replace all fault rules (docs/emulator.md has their form) and restart the counts of calls.

        Raises ConfigError for an invalid rule.
        """
        complaint = self._text("aisEmulatorSetFaults", as_text("rules", rules).encode())
        if complaint:
            raise ConfigError(complaint)

    def faults_fired(self) -> int:
        """Return how many times a rule took effect since the last `set_faults`."""
        return int(self._library.aisEmulatorFaultsFired())

    def call_count(self, function: str) -> int:
        """Return how often this function of AscendCL was called in this process. Raises ConfigTypeError."""
        return int(self._library.aisEmulatorCallCount(as_text("function", function).encode()))

    def start_recording(self) -> None:
        """Delete earlier recorded calls and start to record."""
        self._library.aisEmulatorStartRecording(None)

    def stop_recording(self) -> list[Call]:
        """End the recording and return it, in the order in which the calls returned."""
        return [cast(Call, json.loads(line)) for line in self._text("aisEmulatorStopRecording").splitlines()]

    def report(self) -> list[str]:
        """Return violations of AscendCL's rules, leaks and timed-out waits since `clear_report`, as texts."""
        return self._text("aisEmulatorReport").splitlines()

    def violations(self) -> int:
        """Return the number of violations in the report."""
        return int(self._library.aisEmulatorViolations())

    def leaks(self) -> int:
        """Return the number of leaks in the report."""
        return int(self._library.aisEmulatorLeaks())

    def timeouts(self) -> int:
        """Return how many waits timed out. CANN logs each of them as an error, so a program should have none."""
        return int(self._library.aisEmulatorTimeouts())

    def clear_report(self) -> None:
        """Delete violations, leaks and time-outs from the report."""
        self._library.aisEmulatorClearReport()

    def living(self) -> list[str]:
        """Return the names of all live objects of the program: memory, streams, models, datasets..."""
        return self._text("aisEmulatorLiving").splitlines()

    def memory_used(self, device: int) -> int:
        """Return the bytes of device memory in use on `device`, with padding, weights and workspaces. Raises
        ConfigError."""
        return int(self._library.aisEmulatorMemoryUsed(as_device_id(device)))
