"""Parts of the pool without a worker: settings, shares of processors, the control connection, pickles."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading

import pytest

from ais_bench.errors import AisBenchError, ConfigError, WorkerDied
from ais_bench.options import as_device_ids
from ais_bench.pool import DevicePool, PoolSettings
from ais_bench.pool.cores import split_cores
from ais_bench.wire.connection import ParentEnd, WorkerEnd, frame
from ais_bench.wire.pickling import RemoteTraceback, dumps_by_value, dumps_error, loads, loads_error
from support.handlers import LogsWhenUnpickled, Obedient
from support.scripts import environment
from support.waiting import wait_until


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers_per_device", 0),
        ("workers_per_device", True),
        ("tasks_in_flight", 0),
        ("tasks_in_flight", 257),
        ("task_timeout", 0),
        ("task_timeout", "5"),
        ("start_timeout", -1),
        ("close_timeout", float("nan")),
        ("max_restarts", -1),
        ("max_attempts", 0),
        ("min_devices", 0),
        ("threads", 1.5),
        ("affinity", "both"),
        ("affinity", {0: []}),
        ("spin", -1),
        ("spin", "never"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named_with_its_value(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        PoolSettings(**{name: value})
    assert repr(value) in str(caught.value)


def test_settings_are_frozen_and_equal() -> None:
    assert PoolSettings(spin=3) == PoolSettings(spin=3)
    with pytest.raises(AttributeError):
        PoolSettings().spin = 1  # type: ignore[misc]


def test_device_ids_are_checked() -> None:
    import numpy as np

    assert as_device_ids([np.int64(2), "0"]) == (2, 0)
    assert as_device_ids(3) == (3,)
    for wrong in ([], [1, 1], [-1], ["x"], [True], [1.0]):
        with pytest.raises(ConfigError):
            as_device_ids(wrong)


def test_a_wrong_setting_starts_nothing() -> None:
    before = set(threading.enumerate())
    with pytest.raises(ConfigError, match="min_devices must be at most 2, the number of devices, got 3"):
        DevicePool(Obedient, [0, 1], PoolSettings(min_devices=3))
    assert not set(threading.enumerate()) - before


def test_processors_are_split_evenly_and_without_overlap() -> None:
    shares = split_cores([0, 1, 2, 3, 4, 5, 6], usable=7, workers=3)
    assert sorted(cpu for share in shares for cpu in share.cpus) == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(len(share.cpus) for share in shares) == [2, 2, 3]
    assert [share.threads for share in shares] == [len(share.cpus) for share in shares] or sum(s.threads for s in shares) <= 7


def test_a_quota_bounds_the_threads_but_not_the_processors() -> None:
    shares = split_cores(list(range(8)), usable=3, workers=2)
    assert [len(share.cpus) for share in shares] == [4, 4]
    assert [share.threads for share in shares] == [2, 1]


def test_more_workers_than_processors_share_them_in_turn() -> None:
    assert [share.cpus for share in split_cores([4, 6], usable=2, workers=5)] == [(4,), (6,), (4,), (6,), (4,)]


def test_messages_arrive_whole_however_they_are_cut() -> None:
    ours, theirs = socket.socketpair()
    parent = ParentEnd(ours)
    data = frame({"a": 1}) + frame([2])
    received = []
    for byte in data:
        theirs.send(bytes([byte]))
        received += list(parent.receive())
    assert received == [{"a": 1}, [2]]
    theirs.close()
    with pytest.raises(EOFError):
        list(parent.receive())
    parent.close()


def test_a_message_larger_than_the_socket_takes_is_sent_piece_by_piece() -> None:
    ours, theirs = socket.socketpair()
    parent, worker = ParentEnd(ours), WorkerEnd(theirs.fileno())
    big = b"x" * 5_000_000
    parent.send(big)
    assert parent.wants_to_write  # so there was more than the socket took
    received: list[object] = []
    reader = threading.Thread(target=lambda: received.append(worker.receive()))
    reader.start()
    while parent.wants_to_write:
        parent.flush()
    reader.join()
    assert received == [big]
    parent.close()
    theirs.close()


def test_a_frame_of_nonsense_ends_the_connection() -> None:
    ours, theirs = socket.socketpair()
    theirs.send(b"\xff" * 8)
    parent = ParentEnd(ours)
    with pytest.raises(EOFError, match="broken"):
        list(parent.receive())
    parent.close()
    theirs.close()


def test_logging_is_carried_from_the_moment_it_is_begun() -> None:
    """This needs a new process in which nothing has imported it."""
    script = """
import sys
from ais_bench.worker import log
class Connection:
    def send(self, line):
        print(line.name, line.level, line.text)
log.begin()  # this process is not a worker
log.carry(Connection(), 20, now=False)
assert "logging" not in sys.modules
log.begin()
import logging
logging.getLogger("a").info("first %d", 1)
logging.getLogger("b").debug("too low")
log.begin()
logging.warning("second")
log.carry(Connection(), 30, now=False)
print(logging.getLogger().level)
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == ["a 20 first 1", "root 30 second", "30"]


def test_what_a_factory_logs_while_it_is_unpickled_is_carried(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), DevicePool(LogsWhenUnpickled(), [0]) as pool:
        pool.start()
        (worker,) = pool.workers()
        wait_until(lambda: f"unpickled in {worker.pid}" in caplog.text)


def test_an_importable_callable_goes_by_name() -> None:
    assert b"cloudpickle" not in dumps_by_value(Obedient)
    assert loads(dumps_by_value(Obedient)) is Obedient


def test_what_main_defines_travels_by_value() -> None:
    script = """
import sys
import numpy as np
FACTOR = 3
class Base:
    def value(self): return 1
class Derived(Base):
    def value(self): return super().value() + FACTOR
def helper(x): return np.sum(x) * Derived().value()
def countdown(n): return n if n == 0 else countdown(n - 1)
def outer(k): return lambda x: helper(x) + k + countdown(3)
from ais_bench.wire.pickling import dumps_by_value
sys.stdout.buffer.write(dumps_by_value(outer(5)))
"""
    sent = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environment()).stdout
    assert loads(sent)([1, 2]) == 3 * 4 + 5


def test_what_cannot_be_pickled_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="cannot be sent to a worker"):
        dumps_by_value(number for number in [1])


def test_an_error_keeps_its_type_and_brings_its_traceback() -> None:
    def fail() -> None:
        raise KeyError("k")

    try:
        fail()
    except KeyError as error:
        there = loads_error(dumps_error(error))
    assert type(there) is KeyError
    assert there.args == ("k",)
    assert isinstance(there.__cause__, RemoteTraceback)
    assert "in fail" in str(there.__cause__)


class _Stubborn(Exception):
    def __reduce__(self) -> str:
        raise TypeError("not this one")


def test_an_error_that_does_not_pickle_has_a_stand_in_that_names_it() -> None:
    there = loads_error(dumps_error(_Stubborn("awkward")))
    assert type(there) is AisBenchError
    assert "_Stubborn: awkward" in str(there)


class _Speechless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


def test_an_error_whose_str_raises_is_still_of_its_type() -> None:
    there = loads_error(dumps_error(_Speechless()))
    assert type(there) is _Speechless
    assert "_Speechless: its str() raised" in str(there.__cause__)


def test_the_errors_of_the_pool_pickle_with_what_they_carry() -> None:
    error = WorkerDied("gone")
    error.device_id, error.signal = 3, 9
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.device_id, copy.signal, str(copy)) == (3, 9, "gone")
