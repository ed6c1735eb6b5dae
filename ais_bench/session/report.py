"""Counts and times of a MultiDeviceSession: per device, in total, and for the workers. Plain data and a readable table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ais_bench.pool import DeviceInfo, WorkerInfo
from ais_bench.wire import Stats

MOST_NAMED = 10
QUANTITIES = ("mean", "p50", "p90", "p99", "max")
STAGES = ("queued_ms", "copy_in_ms", "execute_ms", "copy_out_ms", "end_to_end_ms", "preprocess_ms", "postprocess_ms")


@dataclass(frozen=True)
class Times:
    """The times of one stage of all tasks, in milliseconds. Quantiles are accurate to one percent.

    Attributes:
        count: number of tasks whose time is known; the figures are from these tasks.
        unknown: number of tasks whose device did not report the time.
    """

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0
    unknown: int = 0


@dataclass(frozen=True)
class Wall:
    """How a device's workers spent their time, in seconds. The sum is `Counts.wall_s` times the number of workers.

    Attributes:
        queued_s: a task was sent to a worker that had no other task, and the worker had not taken it yet.
        copy_in_s: feeds were copied to the device, or by the parent while the worker had no other task.
        callables_s: `preprocess` and `postprocess` ran while the device did not execute.
        execute_s: the device executed.
        copy_out_s: outputs were copied from the device.
        wait_s: workers had tasks, but none of these stages ran: one stage waited for another, or the device reported no times.
        idle_s: the workers had no tasks.

    If stages of several tasks overlap, the time counts for the execution first, then for the callables, then for the copies.
    """

    queued_s: float = 0.0
    copy_in_s: float = 0.0
    callables_s: float = 0.0
    execute_s: float = 0.0
    copy_out_s: float = 0.0
    wait_s: float = 0.0
    idle_s: float = 0.0


@dataclass(frozen=True)
class Counts:
    """The counts of one device, or of all devices.

    Attributes:
        tasks: answered tasks, including failures.
        failures: tasks that ended with an error.
        retries: tasks that ran again because their worker died.
        restarts: workers that were restarted.
        load_s: seconds from the start of a worker until it was ready; the longest of all workers.
        wall_s: seconds during which there were unfinished tasks.
        busy_share: the share of that time in which the workers had a task, 0 to 1.
        throughput_per_s: successful tasks for each second of wall time.
        wall: how the workers spent their time.
    """

    tasks: int
    failures: int
    retries: int
    restarts: int
    load_s: float
    wall_s: float
    busy_share: float
    throughput_per_s: float
    queued_ms: Times = field(default_factory=Times)
    copy_in_ms: Times = field(default_factory=Times)
    execute_ms: Times = field(default_factory=Times)
    copy_out_ms: Times = field(default_factory=Times)
    end_to_end_ms: Times = field(default_factory=Times)
    preprocess_ms: Times = field(default_factory=Times)
    postprocess_ms: Times = field(default_factory=Times)
    wall: Wall = field(default_factory=Wall)


@dataclass(frozen=True)
class Memory:
    """A device's memory in bytes, after its worker had loaded the model."""

    free: int
    total: int


@dataclass(frozen=True)
class Fallback:
    """The nodes that run on the processor because the provider does not support them.

    Attributes:
        nodes: the number of nodes of the optimised model.
        on_the_cpu: the nodes on the processor, as "MatMul 'name'".
    """

    nodes: int
    on_the_cpu: list[str]

    def __str__(self) -> str:
        if not self.on_the_cpu:
            return f"all {self.nodes} nodes run on the device"
        named = ", ".join(self.on_the_cpu[:MOST_NAMED]) + (", ..." if len(self.on_the_cpu) > MOST_NAMED else "")
        return f"{len(self.on_the_cpu)} of {self.nodes} nodes run on the CPU: {named}"


@dataclass(frozen=True)
class Report:
    """The counts and times of a session. `str()` is a table, `to_dict()` is ready for JSON.

    `memory` has the devices whose runtime reports it: NPUs. `ends` says how accepted tasks ended, on any device: "accepted" is
    the sum of "done", "failed", "cancelled", "timed_out", "refused" (no device could take the task) and "outstanding".
    `hedged` counts the tasks that ran a second time beside the first run (see the setting `hedge`); `hedges_won` counts those
    whose second answer came first. `preprocess` describes the CPU workers of `preprocess_workers`, numbered from 0: their
    `preprocess_ms` is the callable's time, and `total` does not include them.
    `host_memory` says by device how an NPU's worker copies feeds and outputs: "registered" (the NPU copies from and to the
    memory shared with this process), or "page-locked" and why (the worker's processor copies in between). For
    a device of a plugin provider it says whether page-locked memory of the provider is used. It is empty for CPU devices.
    `shared_weights` says by device whether its workers share prepared weights ("shared"), or why they do not. It is
    empty if sharing was not tried. `provider` is the execution provider, "" for the processor and for NPUs. `fallback` has by
    device the nodes that run on the processor; None if ONNX Runtime does not report them. `times_by` says whose clock measured
    copies and executions: "device" (an NPU's events), or "host". A time of the host includes waiting for other tasks' work.
    """

    devices: dict[int, Counts]
    total: Counts
    workers: list[WorkerInfo]
    memory: dict[int, Memory] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    preprocess: Report | None = None
    host_memory: dict[int, str] = field(default_factory=dict)
    hedged: int = 0
    hedges_won: int = 0
    shared_weights: dict[int, str] = field(default_factory=dict)
    provider: str = ""
    fallback: dict[int, Fallback | None] = field(default_factory=dict)
    times_by: str = "host"

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts and lists of numbers and texts."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [(f"device {device}", counts) for device, counts in self.devices.items()] + [("total", self.total)]
        if self.preprocess is not None:
            rows += [(f"preprocess {worker}", counts) for worker, counts in self.preprocess.devices.items()]
        heads = ["", "tasks", "failed", "retried", "restarts", "load s", "busy", "tasks/s", "p50 ms", "p99 ms", "execute ms"]
        table = [heads] + [[name, *_cells(counts)] for name, counts in rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        lines += [f"worker on device {w.device}: pid {w.pid}, {w.state}, {w.restarts} restarts" for w in self.workers]
        for worker in self.preprocess.workers if self.preprocess is not None else ():
            lines.append(f"preprocess worker {worker.device}: pid {worker.pid}, {worker.state}, {worker.restarts} restarts")
        lines += [
            f"memory of device {device}: {memory.free >> 20} MiB free of {memory.total >> 20} MiB, with the model loaded"
            for device, memory in self.memory.items()
        ]
        for what, by_device in (("host memory", self.host_memory), ("weights", self.shared_weights)):
            for text in dict.fromkeys(by_device.values()):
                devices = ", ".join(str(device) for device, said in by_device.items() if said == text)
                lines.append(f"{what} of device {devices}: {text}")
        untold = "ONNX Runtime does not report which nodes run on the CPU"
        for said in dict.fromkeys(untold if one is None else str(one) for one in self.fallback.values()):
            lines.append(f"provider {self.provider}: {said}")
        if self.provider and self.times_by == "host":
            lines.append(f"provider {self.provider}: copies and executions are measured by the host")
        if self.hedged:
            lines.append(f"{self.hedged} tasks were run a second time; {self.hedges_won} of the second answers came first")
        return "\n".join([*lines, f"wall time {self.total.wall_s:.3f} s"])


def _cells(counts: Counts) -> list[str]:
    end, execute = counts.end_to_end_ms, counts.execute_ms
    return [
        str(counts.tasks),
        str(counts.failures),
        str(counts.retries),
        str(counts.restarts),
        f"{counts.load_s:.2f}",
        f"{counts.busy_share:.0%}",
        f"{counts.throughput_per_s:.1f}",
        f"{end.p50:.3f}",
        f"{end.p99:.3f}",
        f"{execute.mean:.3f}" if execute.count or not execute.unknown else "unknown",
    ]


def make_report(
    devices: Sequence[DeviceInfo],
    workers: Sequence[WorkerInfo],
    wall_s: float,
    memory: Mapping[int, tuple[int, int] | None],
    ends: dict[str, int],
    preprocess: Report | None = None,
    host_memory: Mapping[int, str] | None = None,
    hedged: tuple[int, int] = (0, 0),
    shared_weights: Mapping[int, str] | None = None,
) -> Report:
    """Return a report of a pool's records. `memory` has free and total bytes of devices, None for an unknown device."""
    both = Stats()
    for info in devices:
        both.add(info.stats)
    total = DeviceInfo(
        -1,
        both,
        sum(info.restarts for info in devices),
        sum(info.retries for info in devices),
        sum(info.lost for info in devices),
        max((info.load_s for info in devices), default=0.0),
        sum(info.workers for info in devices),
    )
    return Report(
        {info.device: _counts(info, wall_s) for info in devices},
        _counts(total, wall_s),
        list(workers),
        {device: Memory(*sizes) for device, sizes in memory.items() if sizes is not None},
        ends,
        preprocess,
        dict(host_memory or {}),
        *hedged,
        dict(shared_weights or {}),
    )


def _counts(info: DeviceInfo, wall_s: float) -> Counts:
    stats = info.stats
    room = wall_s * info.workers
    stages = {
        stage: Times(
            count=int(values["count"]),
            unknown=stats.tasks - int(values["count"]),
            **{name: values[name] for name in QUANTITIES},
        )
        for stage, values in stats.to_dict().items()
        if stage in STAGES
    }
    return Counts(
        tasks=stats.tasks + info.lost,
        failures=stats.failures + info.lost,
        retries=info.retries,
        restarts=info.restarts,
        load_s=info.load_s,
        wall_s=wall_s,
        busy_share=min(1.0, stats.busy_ns / 1e9 / room) if room > 0 else 0.0,
        throughput_per_s=(stats.tasks - stats.failures) / wall_s if wall_s > 0 else 0.0,
        **stages,
        wall=_wall(stats, room),
    )


def _wall(stats: Stats, room_s: float) -> Wall:
    before, queued, copy_in, callables, execute, copy_out = (ns / 1e9 for ns in stats.occupied())
    busy = min(stats.busy_ns / 1e9, room_s)
    before = min(before, room_s - busy)
    queued = min(queued, before)
    left, parts = busy, []
    for part in (execute, callables, copy_in - (before - queued), copy_out):
        parts.append(max(0.0, min(part, left)))
        left -= parts[-1]
    executed, called, copied_in, copied_out = parts
    return Wall(queued, copied_in + before - queued, called, executed, copied_out, left, max(0.0, room_s - busy - before))
