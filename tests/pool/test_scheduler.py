"""The pool's policy in the simulator: the state is checked at every step, and the promises of the policy are counted."""

from __future__ import annotations

import pytest

from ais_bench._native import SimulatedDevice, SimulatedSource, simulate
from ais_bench.errors import ConfigError

MS = 1_000_000


def even(count: int, **how: int) -> list[SimulatedDevice]:
    return [SimulatedDevice(10 * MS, **how) for _ in range(count)]


def stream(count: int, **how: bool | int) -> list[SimulatedSource]:
    return [SimulatedSource([1.0] * count, **how)]


@pytest.mark.parametrize("devices", [1, 2, 8, 64, 512, 1024])
def test_no_device_is_idle_while_a_stream_has_more(devices: int) -> None:
    done = simulate(even(devices), stream(devices * 20), check=devices <= 64)
    assert sum(done.tasks) == devices * 20
    assert done.wall_ns < 1.01 * 20 * 10 * MS
    assert done.idle_beside_waiting == 0


@pytest.mark.parametrize("slow_ms", [100, 200, 500, 1000])
@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("known_end", [False, True])
def test_a_slow_device_costs_no_more_than_one_of_its_tasks(slow_ms: int, depth: int, known_end: bool) -> None:
    devices = [SimulatedDevice(slow_ms * MS, depth=depth), *even(7, depth=depth)]
    done = simulate(devices, stream(400, known_end=known_end), fewest=6)
    assert done.wall_ns <= 1.15 * 400 / 7 * 10 * MS + slow_ms * MS
    assert done.most_in_hand[0] == 1  # it never gets a second task, which another device would finish sooner
    if known_end and slow_ms < 500:
        assert done.wall_ns <= 1.15 * 400 / 7 * 10 * MS  # nor one at the end that the others would finish before


@pytest.mark.parametrize("quick", [0, 10, 50, 1000])
def test_long_tasks_after_short_ones_are_spread(quick: int) -> None:
    devices = [SimulatedDevice(200_000) for _ in range(8)]
    done = simulate(devices, [SimulatedSource([1.0] * quick + [1500.0] * 8)])
    assert done.wall_ns < 1.2 * 300 * MS + quick * 200_000 / 8


def test_quick_calls_do_not_wait_behind_a_long_one() -> None:
    calls = SimulatedSource([1.0] * 50 + [3000.0] + [1.0] * 20, arrivals_ns=[n * MS for n in range(50)] + [60 * MS] * 21)
    done = simulate([SimulatedDevice(MS), SimulatedDevice(MS)], [calls])
    assert max(done.done_ns[0][51:]) < 30 * MS


def test_a_call_is_served_beside_a_stream_that_never_ends() -> None:
    sources = [SimulatedSource([1.0] * 5000), SimulatedSource([1.0] * 50, arrivals_ns=[n * 50 * MS for n in range(50)])]
    done = simulate(even(4), sources)
    assert max(done.done_ns[1]) <= 4 * 10 * MS  # what is in hand, and one turn


def test_no_stream_starves_another_whatever_its_tasks_take() -> None:
    done = simulate(even(4), [SimulatedSource([1.0] * 1000), SimulatedSource([5.0] * 200)])  # as much work each
    ends = [max(times) for times in done.done_ns]
    first = ends.index(min(ends))
    other = sum(ns <= ends[first] for ns in done.done_ns[1 - first]) / len(done.done_ns[1 - first])
    assert other > 1 / 3  # had done that part of its work when the other one was through


def test_a_window_bounds_what_is_under_way_behind_a_straggler() -> None:
    devices = [SimulatedDevice(2000 * MS), *even(7)]
    done = simulate(devices, stream(2000, window=100))
    assert done.most_ahead == 100


def test_nothing_is_taken_back_for_a_device_that_would_not_get_it() -> None:
    """One device shares the processor of the busy caller; the other one is delayed and has many tasks."""
    devices = [SimulatedDevice(10_000, only_cpu=0), SimulatedDevice(10_000, only_cpu=1)]
    items = [SimulatedSource([1.0] * 500 + [1000.0] + [1.0] * 500)]
    done = simulate(devices, items, skip_cpu=0)
    assert done.tasks == [0, 1001]
    assert max(done.most_in_hand) > 16  # there was something to take back
    assert done.taken_back == 0
    assert simulate(devices, items).taken_back > 0  # else the second device gets it


def test_with_hedge_a_task_that_stands_still_holds_up_no_stream() -> None:
    """One task of 10 ms takes 30 s. There is room for 100 tasks behind it."""
    lengths = [1.0] * 100 + [3000.0] + [1.0] * 300
    stuck = simulate(even(8), [SimulatedSource(lengths, window=100)])
    assert stuck.wall_ns > 30_000 * MS
    assert stuck.hedged == 0
    devices = [SimulatedDevice(30_000 * MS), *even(7)]  # the second run is as quick as all the others
    slow = simulate(devices, stream(400, window=100), hedge=2.0)
    assert slow.hedged == 1
    assert slow.wall_ns < 1.3 * 400 / 7 * 10 * MS


def test_without_stragglers_nothing_runs_twice() -> None:
    assert simulate(even(8), stream(800, window=100), hedge=2.0).hedged == 0
    assert simulate(even(1), stream(100), hedge=1.0).hedged == 0  # no other device


@pytest.mark.parametrize("seed", range(1, 11))
def test_with_hedge_by_lot_every_task_still_counts_once(seed: int) -> None:
    devices = [*even(5, depth=1 + seed % 4), SimulatedDevice(MS, spread=1.0), SimulatedDevice(10 * MS, dies_at_ns=20 * MS)]
    done = simulate(devices, stream(300), random=seed, hedge=1.0, max_attempts=3)
    assert done.hedged > 0
    assert all(ns >= 0 for ns in done.done_ns[0])


def test_tasks_in_flight_is_an_upper_bound() -> None:
    assert max(simulate(even(4), stream(500), in_flight=3).most_in_hand) <= 3


def test_a_device_that_dies_loses_nothing() -> None:
    devices = [*even(6), SimulatedDevice(10 * MS, dies_at_ns=35 * MS), SimulatedDevice(10 * MS, dies_at_ns=36 * MS)]
    done = simulate(devices, stream(300))
    assert (done.crashes, done.failed) == (2, 0)
    assert all(ns >= 0 for ns in done.done_ns[0])


def test_a_task_that_kills_as_many_workers_as_it_may_fails_alone() -> None:
    devices = [SimulatedDevice(10 * MS, dies_at_ns=5 * MS), SimulatedDevice(10 * MS, dies_at_ns=9 * MS)]
    done = simulate(devices, stream(20), max_attempts=1)
    assert (done.crashes, done.failed) == (2, 2)
    assert sum(done.tasks) == 18


@pytest.mark.parametrize("spread", [0.2, 0.5, 1.0])
def test_uneven_times_leave_no_device_idle_for_long(spread: float) -> None:
    done = simulate([SimulatedDevice(10 * MS, spread=spread) for _ in range(16)], stream(1600))
    assert done.idle_beside_waiting == 0
    assert min(done.busy_ns) > 0.7 * done.wall_ns


@pytest.mark.parametrize("seed", range(1, 21))
def test_whatever_is_decided_every_task_is_done_once(seed: int) -> None:
    """Decisions are random: correctness must not depend on the policy. The simulator raises if a task is lost or repeated."""
    devices = [
        *even(5, depth=1 + seed % 4),
        SimulatedDevice(MS, spread=1.0),
        SimulatedDevice(10 * MS, dies_at_ns=20 * MS),
        SimulatedDevice(500 * MS, dies_at_ns=90 * MS),
    ]
    calls = SimulatedSource([0.1] * 100, arrivals_ns=[n * MS for n in range(100)])
    done = simulate(devices, [*stream(300), calls], random=seed, max_attempts=3)
    assert sum(done.tasks) + done.failed == 400


def test_times_are_made_up_and_runs_repeat() -> None:
    runs = [simulate([SimulatedDevice(10 * MS, spread=0.5) for _ in range(8)], stream(200), seed=7) for _ in range(2)]
    assert runs[0].done_ns == runs[1].done_ns


def test_a_simulation_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one device"):
        simulate([], stream(1))
    with pytest.raises(ConfigError, match="one entry for each of the 2"):
        simulate(even(1), [SimulatedSource([1.0, 1.0], arrivals_ns=[0])])
