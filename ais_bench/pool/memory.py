"""The memory that this process may use: the machine's memory, or the lower limit of its cgroups."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def memory_limit() -> int:
    """Return the limit in bytes. A limit that cannot be read is ignored."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, name = (CGROUPS, "memory.max") if controllers == "" else (CGROUPS / "memory", "memory.limit_in_bytes")
        folder = root / path.lstrip("/")
        for place in (folder, *folder.parents):
            if place == CGROUPS.parent:
                break
            text = _read(place / name).strip()
            if text.isdigit():
                limits.append(int(text))
    return min(limits)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
