"""Split the processors of this process among workers. Pure functions, except for reading the topology."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

from ais_bench import _native


class CoreShare(NamedTuple):
    """The share of one worker: the processors to which it is pinned (empty: not pinned), and its number of threads."""

    cpus: tuple[int, ...]
    threads: int


def split_cores(cpus: Sequence[int], usable: int, workers: int) -> list[CoreShare]:
    """Return `workers` shares of `cpus`, as even as possible, and without overlap if there are enough processors.

    `usable` is the number of processors whose time is available (a cgroup quota may allow less than len(cpus)). It limits the
    threads, so the workers together do not start more threads than can run.
    """
    usable = max(1, min(usable, len(cpus)))
    if workers >= len(cpus):
        return [CoreShare((cpus[index % len(cpus)],), 1) for index in range(workers)]
    edges = [len(cpus) * index // workers for index in range(workers + 1)]
    shares = [tuple(cpus[low:high]) for low, high in itertools.pairwise(edges)]
    extra = usable % workers
    return [
        CoreShare(share, max(1, min(len(share), usable // workers + (index < extra)))) for index, share in enumerate(shares)
    ]


def allowed_cpus() -> list[int]:
    """Return the processors of the calling thread's affinity mask, with the hardware threads of one core side by side."""
    return sorted(os.sched_getaffinity(0), key=_core_of)


def usable_cpu_count() -> int:
    """Return the number of processors whose time is available: the affinity mask, reduced by a cgroup quota."""
    return _native.usable_cpu_count()


def _core_of(cpu: int) -> tuple[int, int, int]:
    try:
        return _topology(cpu, "physical_package_id"), _topology(cpu, "core_id"), cpu
    except (OSError, ValueError):  # not every kernel and container shows the topology; then the plain order is used
        return 0, cpu, cpu


def _topology(cpu: int, name: str) -> int:
    with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/{name}") as file:
        return int(file.read())
