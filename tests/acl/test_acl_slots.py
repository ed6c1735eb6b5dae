"""The pool's slots are registered with the device, which copies directly from feed slots and to result slots."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ais_bench.emulator import Emulator, npus, pack
from ais_bench.session import InferSession, MultiDeviceSession
from ais_bench.shm import Channel, Doorbell, Lane, Reply, SessionHandler
from support import emulator_models
from support.acl import equal
from support.waiting import wait_until

WIDTH = 1 << 16  # 256 KiB a tensor
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def add_om(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("slots")
    return str(pack(emulator_models.add(folder, (1, WIDTH)), folder / "add.om"))


@pytest.fixture(scope="module")
def open_om(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("open")
    return str(pack(emulator_models.matmul(folder, 1024), folder / "matmul.om"))


def feeds_of(value: float) -> list[np.ndarray]:
    return [np.full((1, WIDTH), value, np.float32), np.arange(WIDTH, dtype=np.float32).reshape(1, WIDTH)]


class Home:
    """A lane with a worker in a thread of this process, and a session on an emulated NPU."""

    def __init__(self, om: str) -> None:
        self.bell = Doorbell()
        self.lane = Lane(self.bell)
        self.session = InferSession(0, om)
        channel = Channel(os.dup(self.lane.fd), os.dup(self.bell.fd))
        self.worker = threading.Thread(target=channel.serve, args=(SessionHandler(self.session._native),))
        self.worker.start()

    def submit(self, feeds: list[np.ndarray], mode: int = 0) -> None:
        assert self.lane.try_submit(feeds, mode, None)

    def reply(self) -> Reply:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            ticket = self.bell.ticket()
            reply = self.lane.poll()
            if reply is not None:
                assert reply.error is None
                return reply
            assert self.bell.wait(ticket, deadline - time.monotonic()), "no reply came"

    def call(self, feeds: list[np.ndarray], mode: int = 0) -> list[np.ndarray]:
        self.submit(feeds, mode)
        return [output.copy() for output in self.reply().outputs]


@contextmanager
def home(om: str) -> Iterator[Home]:
    made = Home(om)
    try:
        yield made
    finally:
        made.lane.close()
        made.worker.join(PATIENCE_S)
        made.session.free_resource()
    assert not made.worker.is_alive()


def asynchronous_copies(calls: list) -> list[tuple[str, str]]:
    """Return (from, to) of each copy, as kinds of memory."""
    copies = [call["args"] for call in calls if call["call"] == "aclrtMemcpyAsync"]
    return [(str(arguments[2]).split("#")[0], str(arguments[0]).split("#")[0]) for arguments in copies]


def test_slots_that_come_back_are_copied_from_and_to_directly(npu: Emulator, add_om: str) -> None:
    """Two uses go through pinned memory, the third one registers the slot, later ones register nothing."""
    with home(add_om) as worker:
        kinds = []
        for value in range(5):
            npu.start_recording()
            equal(worker.call(feeds_of(value)), [feeds_of(value)[0] + feeds_of(value)[1]])
            calls = npu.stop_recording()
            kinds.append((sum(call["call"] == "aclrtHostRegisterV2" for call in calls), asynchronous_copies(calls)))
        pinned = [("pinned", "device 0 memory")] * 2 + [("device 0 memory", "pinned")]
        direct = [("registered", "device 0 memory")] * 2 + [("device 0 memory", "registered")]
        assert kinds == [(0, pinned), (0, pinned), (3, direct), (0, direct), (0, direct)]
        assert any(name.startswith("registered") for name in npu.living())
    assert not any(name.startswith("registered") for name in npu.living())  # unregistered when the lane was closed


def test_several_runs_under_way_over_registered_slots(npu: Emulator, add_om: str) -> None:
    with home(add_om) as worker:
        for start in range(0, 40, 4):
            for value in range(start, start + 4):
                worker.submit(feeds_of(value))
            for value in range(start, start + 4):
                equal([output.copy() for output in worker.reply().outputs], [feeds_of(value)[0] + feeds_of(value)[1]])
        npu.start_recording()
        worker.call(feeds_of(1))
        assert ("registered", "device 0 memory") in asynchronous_copies(npu.stop_recording())


def test_memory_that_the_parent_gave_back_is_registered_anew(npu: Emulator, add_om: str) -> None:
    """The memory has new pages, and the device must not use the old ones."""
    with home(add_om) as worker:
        for value in range(4):
            worker.call(feeds_of(value))
        before = npu.call_count("aclrtHostUnregister")
        for value in range(3, 9):
            worker.lane.trim()
            equal(worker.call(feeds_of(value)), [feeds_of(value)[0] + feeds_of(value)[1]])
        assert npu.call_count("aclrtHostUnregister") > before
        npu.start_recording()
        for value in range(3):
            equal(worker.call(feeds_of(value)), [feeds_of(value)[0] + feeds_of(value)[1]])
        assert asynchronous_copies(npu.stop_recording())[-1] == ("device 0 memory", "registered")


def test_slots_that_do_not_come_back_are_not_registered(npu: Emulator, add_om: str) -> None:
    """Otherwise a caller that keeps every output would pay for a registration each time."""
    with home(add_om) as worker:
        before = npu.call_count("aclrtHostRegisterV2")
        kept = []
        for value in range(8):
            worker.submit(feeds_of(value))
            kept.append(worker.reply().outputs)
        lent = [outputs for outputs in kept if worker.lane.owns(outputs[0])]
        assert len(lent) > 3
        assert npu.call_count("aclrtHostRegisterV2") - before <= 2 + len(kept) - len(
            lent
        )  # those of feeds, and of returned slots
        for value, outputs in enumerate(kept):
            equal(outputs, [feeds_of(value)[0] + feeds_of(value)[1]])
        del kept, lent, outputs


def test_results_of_unknown_size_grow_in_registered_slots(npu: Emulator, open_om: str) -> None:
    weights = np.arange(3 * 1024, dtype=np.float32).reshape(3, 1024)
    with home(open_om) as worker:
        for count in (20, 20, 20, 100, 300, 30, 600, 600, 600):
            feed = np.random.default_rng(count).standard_normal((count, 3)).astype(np.float32)
            equal(worker.call([feed], 4), [feed @ weights])
        npu.start_recording()
        worker.call([feed], 4)
        assert asynchronous_copies(npu.stop_recording())[-1] == ("device 0 memory", "registered")


def test_feeds_in_a_slot_that_several_tasks_share(npu: Emulator, add_om: str) -> None:
    with home(add_om) as worker:
        shared = worker.lane.new_feeds([((1, WIDTH), np.float32), ((1, WIDTH), np.float32)])
        shared[0][...], shared[1][...] = 1, 2
        for _ in range(6):
            for _ in range(3):
                worker.submit(shared)
            for _ in range(3):
                equal([output.copy() for output in worker.reply().outputs], [np.full((1, WIDTH), 3, np.float32)])
        del shared


@pytest.mark.parametrize("function", ["aclrtHostRegisterV2", "aclrtHostUnregister"])
def test_a_device_that_refuses_is_asked_once(npu: Emulator, add_om: str, function: str) -> None:
    """Copies then go through pinned memory."""
    with home(add_om) as worker:
        if function == "aclrtHostRegisterV2":
            npu.set_faults(f"{function}=507000")
        for value in range(4):
            equal(worker.call(feeds_of(value)), [feeds_of(value)[0] + feeds_of(value)[1]])
        if function == "aclrtHostUnregister":
            npu.set_faults(f"{function}:1=507000")
            worker.lane.trim()
            worker.call(feeds_of(5))
            worker.call(feeds_of(6))
        assert npu.faults_fired() == 1
        npu.set_faults()


@pytest.mark.parametrize(
    ("calls", "said"), [("2+", "page-locked (aclrtHostRegisterV2"), ("3+", "registered, and page-locked for more (")]
)
def test_the_report_says_when_registering_ends(add_om: str, tmp_path: Path, calls: str, said: str) -> None:
    """The trial works, and a slot is refused later: the results are right, and the report is updated."""
    with (
        npus(1, faults=f"aclrtHostRegisterV2:{calls}=507000", report=tmp_path / "report"),
        MultiDeviceSession(add_om) as session,
    ):
        session.start()
        assert session.report().host_memory == {0: "registered"}
        for value, outputs in enumerate(session.map(feeds_of(value) for value in range(60))):
            equal(outputs, [feeds_of(value)[0] + feeds_of(value)[1]])
        # A stream may use many slots, each of them a few times. Single calls use one again and again.
        for value in range(5):
            equal(session.infer(feeds_of(value)), [feeds_of(value)[0] + feeds_of(value)[1]])
        wait_until(lambda: session.report().host_memory[0].startswith(said))
        assert "507000" in session.report().host_memory[0]
        assert said in str(session.report())
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("without", [[], ["aclrtHostRegisterV2"]])
def test_a_pool_with_and_without_registration(add_om: str, tmp_path: Path, without: list[str]) -> None:
    """The results are equal, and with registration slots that come back are copied directly."""
    record = tmp_path / "record"
    with npus(1, record=record, report=tmp_path / "report", without=without), MultiDeviceSession(add_om) as session:
        for value, outputs in enumerate(session.map(feeds_of(value) for value in range(200))):
            equal(outputs, [feeds_of(value)[0] + feeds_of(value)[1]])
        # A stream may use many slots, each of them a few times. Single calls use one again and again.
        for value in range(20):
            equal(session.infer(feeds_of(value)), [feeds_of(value)[0] + feeds_of(value)[1]])
    calls = [json.loads(line) for line in record.read_text().splitlines()]
    copies = asynchronous_copies(calls)
    direct = sum("registered" in copy for copy in copies)
    assert len(copies) == 3 * 220
    assert (direct == 0) if without else (direct >= 3 * 18)
    assert not (tmp_path / "report").exists() or (tmp_path / "report").read_text() == ""
