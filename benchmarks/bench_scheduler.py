"""Measure the pool's policy on up to 1,024 simulated devices: their utilisation, and the parent's cost.

The simulator uses the scheduler of the pool; only time is simulated. The cost of a task is this machine's processor time in the
scheduler, without copies and system calls.
"""

from __future__ import annotations

from ais_bench._native import SimulatedDevice, SimulatedSource, simulate

MS = 1_000_000
TASKS_A_DEVICE = 50


def row(name: str, devices: list[SimulatedDevice], ideal_ms: float, sources: list[SimulatedSource], **how: int) -> None:
    """Print one line: the efficiency compared with the ideal, and the cost."""
    done = min((simulate(devices, sources, check=False, **how) for _ in range(3)), key=lambda run: run.nanoseconds_a_task)
    efficiency = ideal_ms * MS / done.wall_ns
    print(f"{name:52}  {efficiency:6.3f}  {done.nanoseconds_a_task:8.0f} ns a task  {done.taken_back:5} taken back")


def main() -> None:
    """Print the table."""
    print(f"{'simulated':52}  of ideal")
    for count in (8, 64, 512, 1024):
        items = [SimulatedSource([1.0] * count * TASKS_A_DEVICE)]
        row(f"{count} devices of 10 ms", [SimulatedDevice(10 * MS)] * count, 10 * TASKS_A_DEVICE, items)
    for count in (8, 64, 512):
        items = [SimulatedSource([1.0] * count * TASKS_A_DEVICE)]
        uneven = [SimulatedDevice(10 * MS, spread=0.5)] * count
        row(f"{count} devices of 10 ms, uneven", uneven, 10 * TASKS_A_DEVICE, items)
    for streams, count in ((8, 8), (24, 8), (40, 8), (40, 64)):  # each stream has its own kinds of tasks
        items = [SimulatedSource([1.0] * 60)] * streams
        row(
            f"{count} devices of 10 ms, {streams} streams", [SimulatedDevice(10 * MS)] * count, 10 * 60 * streams / count, items
        )
    for slow in (100, 200, 500, 1000):
        devices = [SimulatedDevice(slow * MS, depth=4), *[SimulatedDevice(10 * MS, depth=4)] * 7]
        row(f"8 devices, one at {slow} ms, 400 items; of seven", devices, 4000 / 7, [SimulatedSource([1.0] * 400)], fewest=6)
    for quick in (0, 10, 50, 1000):
        items = [SimulatedSource([1.0] * quick + [1500.0] * 8)]
        row(f"8 devices, 8 long items after {quick} quick ones", [SimulatedDevice(200_000)] * 8, 300 + quick / 40, items)


if __name__ == "__main__":
    main()
