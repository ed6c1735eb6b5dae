"""The emulator's own functions, for tests and tools: faults, recordings, and what is still alive.

They act on this process. The workers of a pool are other processes: give them faults, a recording or a report file through
`npus` or the environment.
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
    """The emulator as it is loaded in this process. Any number of these refer to the same one. Thread-safe.

    `path`: the library, when it is not the one that is installed (see `library_without`): a copy is an emulator of its own.
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
        """Have the environment's settings read again; return "" or why that cannot be. `npus` does it."""
        return self._text("aisEmulatorConfigure", ctypes.c_int(new_process))

    def set_faults(self, rules: str = "") -> None:
        """Replace all fault rules (docs/emulator.md has their form) and count calls anew.

        Raises ConfigError for what is no rule.
        """
        complaint = self._text("aisEmulatorSetFaults", as_text("rules", rules).encode())
        if complaint:
            raise ConfigError(complaint)

    def faults_fired(self) -> int:
        """How many times a rule did something since the last `set_faults`."""
        return int(self._library.aisEmulatorFaultsFired())

    def call_count(self, function: str) -> int:
        """How often this function of AscendCL was called in this process."""
        return int(self._library.aisEmulatorCallCount(as_text("function", function).encode()))

    def start_recording(self) -> None:
        """Forget earlier recorded calls and record from here on."""
        self._library.aisEmulatorStartRecording(None)

    def stop_recording(self) -> list[Call]:
        """End the recording and return it, in the order in which the calls returned."""
        return [cast(Call, json.loads(line)) for line in self._text("aisEmulatorStopRecording").splitlines()]

    def report(self) -> list[str]:
        """Violations of AscendCL's rules, leaks and waits that timed out, in words, since `clear_report`."""
        return self._text("aisEmulatorReport").splitlines()

    def violations(self) -> int:
        """How many violations the report holds."""
        return int(self._library.aisEmulatorViolations())

    def leaks(self) -> int:
        """How many leaks the report holds."""
        return int(self._library.aisEmulatorLeaks())

    def timeouts(self) -> int:
        """How many waits timed out. CANN logs each of them as an error, so a program should have none."""
        return int(self._library.aisEmulatorTimeouts())

    def clear_report(self) -> None:
        """Forget violations, leaks and time-outs."""
        self._library.aisEmulatorClearReport()

    def living(self) -> list[str]:
        """Names of everything that a program made and has not given back: memory, streams, models, datasets..."""
        return self._text("aisEmulatorLiving").splitlines()

    def memory_used(self, device: int) -> int:
        """Bytes of device memory in use on `device`, with padding, weights and workspaces."""
        return int(self._library.aisEmulatorMemoryUsed(as_device_id(device)))
