"""Compute how many nodes one driver keeps busy: a cluster session's scheduler with simulated nodes, in simulated time.

    python benchmarks/bench_cluster_plan.py [--call-us N]

The scheduler is the real one, and its processor time for each chunk is measured. The rest is simulated: a node has eight
devices and works on its chunks one after the other; a chunk takes 1 ms each way; and the driver is one thread that needs, for
each chunk, the scheduler's time and Ray's time for the call and its answer (`--call-us`, see bench_cluster.py).
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import time
from typing import NamedTuple

from ais_bench import _native
from ais_bench.tuning import CHUNKS_A_NODE

WAY_NS = 1_000_000
CHUNKS = 30  # chunks of each node


class Plan(NamedTuple):
    """The result of a simulated run."""

    efficiency: float  # of the nodes' time
    scheduler_us: float  # this machine's processor time for each chunk
    driver_busy: float  # share of the driver's time


def simulate(nodes: int, chunk_ms: float, call_us: float) -> Plan:
    """Run CHUNKS chunks for each node through one driver."""
    scheduler = _native.Scheduler(in_flight=CHUNKS_A_NODE)
    workers = [scheduler.add_worker(number, 8.0) for number in range(nodes)]
    place = {worker: number for number, worker in enumerate(workers)}
    left, total = CHUNKS * nodes, CHUNKS * nodes
    window = (CHUNKS_A_NODE + 1) * nodes
    work_ns, call_ns = int(chunk_ms * 1e6), int(call_us * 1e3)
    free_at = [0] * nodes  # when a node has finished its chunks
    # Answers in transit: arrival time, tie-breaker, task, time of sending.
    arrivals: list[tuple[int, int, _native.ScheduledTask, int]] = []
    ties = itertools.count()
    now, busy_ns, spent_ns, under_way, done = 0, 0, 0, 0, 0
    while done < total:
        while left and under_way < window:
            scheduler.add(_native.ScheduledTask(None))
            left, under_way = left - 1, under_way + 1
        began = time.perf_counter_ns()
        placed = scheduler.next(now)
        took = time.perf_counter_ns() - began
        spent_ns += took
        if placed is not None:
            task, worker = placed
            number = place[worker]
            now, busy_ns = now + took + call_ns // 2, busy_ns + took + call_ns // 2
            free_at[number] = max(now + WAY_NS, free_at[number]) + work_ns
            heapq.heappush(arrivals, (free_at[number] + WAY_NS, next(ties), task, now))
            continue
        when, _tie, task, sent = heapq.heappop(arrivals)
        now = max(now, when)
        began = time.perf_counter_ns()
        scheduler.answered(task, sent, now)
        took = time.perf_counter_ns() - began
        spent_ns, busy_ns = spent_ns + took, busy_ns + took + call_ns // 2
        now += took + call_ns // 2
        done, under_way = done + 1, under_way - 1
    return Plan(total * work_ns / nodes / now, spent_ns / total / 1e3, busy_ns / now)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--call-us", type=float, default=400, help="of the driver's time for Ray's part of a chunk")
    asked = parser.parse_args()
    print(f"{'nodes':>6} {'a chunk is':>11} {'efficiency':>10} {'driver busy':>11} {'scheduler, a chunk':>19}", flush=True)
    for nodes, works in ((10, (10, 20, 100)), (100, (20, 100, 200)), (1000, (100, 500, 1000, 2000, 4000))):
        for chunk_ms in works:
            plan = simulate(nodes, chunk_ms, asked.call_us)
            print(
                f"{nodes:6} {chunk_ms:8} ms {plan.efficiency:10.2f} {plan.driver_busy:11.2f} {plan.scheduler_us:16.1f} us",
                flush=True,
            )


if __name__ == "__main__":
    main()
