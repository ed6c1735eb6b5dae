"""A very large number of times in a session, and their use with other libraries."""

from __future__ import annotations

import json
import pickle
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ais_bench.one_device.times import ExecTimes, TimeSpan, sumary
from ais_bench.session import InferSession


class Log:
    """A fake of a native session's log, without a million runs."""

    def __init__(self) -> None:
        self.spans: list[TimeSpan] = []
        self.clears = 0

    def check_process(self) -> None: ...

    def exec_times(self, since: int) -> tuple[list[TimeSpan], int, int]:
        return self.spans[since:], len(self.spans), self.clears

    def clear_exec_times(self) -> None:
        self.spans, self.clears = [], self.clears + 1

    def run(self, times: int) -> None:
        first = len(self.spans)
        self.spans += [TimeSpan(number, number + 0.5) for number in range(first, first + times)]


def read(log: Log) -> sumary:
    return ExecTimes(log).read()  # type: ignore[arg-type]


def is_filled(times: sumary) -> bool:
    return times._source is None


def test_the_last_of_very_many_is_had_without_the_rest() -> None:
    log = Log()
    log.run(300_000)
    times = read(log).exec_time_list
    assert (times[-1], times[0], len(times), bool(times)) == (0.5, 0.5, 300_000, True)
    assert list(times[-1]) == [299_999, 299_999.5]
    assert list(times[-300_000]) == [0, 0.5]
    assert not is_filled(times)
    for outside in (300_000, -300_001):
        with pytest.raises(IndexError):
            times[outside]
    assert isinstance(times, list)


USES: list[Callable[[Any], Any]] = [
    list,
    tuple,
    lambda times: times[2:5],
    lambda times: times[::-1],
    lambda times: [0.0] + times,  # noqa: RUF005
    lambda times: times + [0.0],  # noqa: RUF005
    lambda times: times * 2,
    lambda times: sorted(times)[:3],
    lambda times: np.asarray(times).tolist(),
    lambda times: np.mean(times),
    lambda times: statistics.mean(times),
    lambda times: sum(times),
    lambda times: [end - start for start, end in times],
    lambda times: 0.5 in times,
    lambda times: times.index(0.5),
    lambda times: times.count(0.5),
    lambda times: pickle.loads(pickle.dumps(times)),
    lambda times: json.dumps(times),
    lambda times: repr(times),
    lambda times: list(reversed(times)),
    lambda times: times.pop(),
    lambda times: (times.append(1.0), times[-1])[1],
    lambda times: (times.sort(), list(times))[1],
    lambda times: times == list(times),
    lambda times: list(times) == times,
    lambda times: times != [],
    lambda times: [*times],
]


@pytest.mark.parametrize("use", USES, ids=range(len(USES)))
def test_a_long_list_is_as_the_plain_one(use: Callable[[Any], Any]) -> None:
    log = Log()
    log.run(20_000)
    assert not is_filled(read(log))
    assert use(read(log)) == use(list(log.spans))


def test_a_list_stays_as_it_was_read() -> None:
    log = Log()
    reader = ExecTimes(log)  # type: ignore[arg-type]
    log.run(20_000)
    before = reader.read()
    log.run(10)
    after = reader.read()
    assert (len(before), len(after)) == (20_000, 20_010)
    reader.clear()
    assert reader.read() == []
    log.run(3)
    assert len(reader.read()) == 3
    assert (len(list(before)), len(list(after))) == (20_000, 20_010)


def test_only_the_newest_are_kept() -> None:
    log = Log()
    reader = ExecTimes(log)  # type: ignore[arg-type]
    for _ in range(3):
        log.run(900_000)
        times = reader.read()
    assert len(times) == 1 << 20
    assert times[-1].end == 2_700_000 - 0.5
    assert times[0].start == 2_700_000 - (1 << 20)


def test_an_entry_is_a_number_and_no_sequence(model: Callable[[str], str]) -> None:
    with InferSession(0, model("batch")) as session:
        for _ in range(4):
            session.infer([np.ones((2, 4), np.float32)], "dymshape")
        times = session.summary().exec_time_list
    for array in (np.asarray(times), np.array(list(times)), np.array(times, np.float32)):
        assert array.shape == (4,)
    span = times[-1]
    start, end = span
    assert (span[0], span[1], span[-1], span[:], len(span)) == (start, end, end, (start, end), 2)
    assert (span.start, span.end) == (start, end)
    assert span == end - start
    again = pickle.loads(pickle.dumps(span))
    assert (type(again), again, tuple(again)) == (TimeSpan, span, tuple(span))
    assert json.loads(json.dumps(span)) == float(span)
    with pytest.raises(IndexError):
        span[2]
    assert tuple(TimeSpan(3)) == (0, 3)
    with pytest.raises(TypeError):
        TimeSpan("now")  # type: ignore[arg-type]


def test_torch_takes_a_list_of_times_for_one_dimension(model: Callable[[str], str]) -> None:
    torch = pytest.importorskip("torch")
    with InferSession(0, model("batch")) as session:
        session.infer([np.ones((2, 4), np.float32)], "dymshape")
        assert torch.tensor(session.summary().exec_time_list).shape == (1,)
