"""The states of a seat: only the moves of the table are possible."""

from __future__ import annotations

import itertools
import re

import pytest

from ais_bench.errors import PoolBroken
from ais_bench.pool.cores import CoreShare
from ais_bench.pool.seats import MOVES, DeviceRecord, Seat, SeatState
from ais_bench.pool.settings import PoolSettings


def seat_in(state: SeatState) -> Seat:
    return Seat(DeviceRecord(0), CoreShare((), 1), state)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(SeatState, SeatState)))
def test_a_seat_moves_as_the_table_says(before: SeatState, after: SeatState) -> None:
    seat = seat_in(before)
    if after in MOVES[before]:
        seat.move(after)
        assert seat.state is after
        return
    with pytest.raises(AssertionError, match=f"device 0: from {before.value} to {after.value}"):
        seat.move(after)
    assert seat.state is before


def test_the_table_in_words_has_the_same_moves_but_for_the_end_of_all() -> None:
    """Its rows name the following states; "as waiting" means the states of that row."""
    rows = dict(re.findall(r"^ *\| (\w+): [^|]*\| ([^|]*) \|$", SeatState.__doc__ or "", re.MULTILINE))
    assert list(rows) == [state.value for state in SeatState]
    rows["quarantined"] = rows["quarantined"].replace("as waiting", rows["waiting"])
    names = "|".join(rows)
    for state, words in rows.items():
        told = {SeatState(name) for name in re.findall(rf"\b({names})\b", words)}
        assert told | {SeatState.EMPTY} == MOVES[SeatState(state)], state


@pytest.mark.parametrize("state", [SeatState.WAITING, SeatState.LOADING, SeatState.READY, SeatState.QUARANTINED])
def test_a_death_leads_to_another_try_and_too_many_quarantine_the_device(state: SeatState) -> None:
    settings = PoolSettings(max_restarts=2)
    seat = seat_in(state)
    seen = []
    for _ in range(3):
        seat.after_death(settings, 100.0, PoolBroken("died"), answered=0, final=False, blamed_on_task=False)
        seen.append(seat.state)
    assert seen == [SeatState.WAITING, SeatState.WAITING, SeatState.QUARANTINED]
    assert seat.due == 100.0 + settings.retry_device_after
    assert not seat.may_become_ready
