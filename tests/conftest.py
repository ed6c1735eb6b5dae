"""What all tests share: nothing may be left behind, and the small models."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import models
import psutil
import pytest


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


def _snapshot() -> dict[str, set[object]]:
    """What a test could leave behind in this process and its folders, by kind."""
    return {
        "child processes": {child.pid for child in psutil.Process().children(recursive=True)},
        "Python threads": {thread for thread in threading.enumerate()},
        "native threads": set(os.listdir("/proc/self/task")),
        "descriptors": set(_descriptors()),
        "shared memory": {line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:" in line},
        "files": {path for folder in (Path("/dev/shm"), Path.cwd()) for path in folder.glob("*ais_bench*")},
    }


def _left_since(before: dict[str, set[object]]) -> dict[str, set[object]]:
    gc.collect()
    after = _snapshot()
    return {kind: after[kind] - before[kind] for kind in after if after[kind] - before[kind]}


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Fails a test after which a process, a thread, a descriptor, shared memory or a file is left.

    An end that was asked for may still be under way, so it waits for it, five seconds at most.
    """
    before = _snapshot()
    yield
    deadline = time.monotonic() + 5
    while (left := _left_since(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`model("add")` is the path of a small model, made at its first use; tests/models.py says what each one is."""
    folder = tmp_path_factory.mktemp("models")

    def path(name: str) -> str:
        file = folder / f"{name}.onnx"
        if not file.exists():
            file.write_bytes(models.build(name).SerializeToString())
        return str(file)

    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the models that a conformance test found refused, with the reasons."""
    refused: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for reason, names in report.user_properties:
            refused.setdefault(reason, []).extend(names)
    for reason, names in sorted(refused.items()):
        terminalreporter.write_line(f"{reason}: {len(names)} models: {', '.join(sorted(names))}")
