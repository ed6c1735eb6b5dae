"""The calls of every kind of session, their order and arguments, compared with CANN's documentation.

The expected calls follow the documentation, for each kind: initialise, set the device, make a context, load, describe; in a run
copy each input in, select the gear or set the shapes if they change, execute, copy each output out with its actual size; at the
end release streams and events, then datasets, the model, memory, context, device. The sizes come from the feeds and from ONNX
Runtime's results, not from the calls.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench.emulator import Emulator, npus
from ais_bench.session import InferSession, MultiDeviceSession
from support.acl import CASES, Case, Packed
from support.acl_transcript import Recorder, Transcript, opening

Feeds = list[np.ndarray]
#: Bytes of the outputs at the upper ends of the ranges. AscendCL reports them at load.
LARGEST = {"shape in a range": [4 * 3 * 16 * 16 * 4, 4 * 3 * 4]}
#: Results of these models have no description, so their size is not kept from run to run.
UNDESCRIBED = {"result of unknown size"}


@pytest.fixture
def recorder(npu: Emulator) -> Recorder:
    return Recorder(npu)


class Expected:
    """Makes the expected lines of the runs of one session. It keeps the present settings and the learned sizes."""

    def __init__(self, model: Packed) -> None:
        self.case = model.case
        with InferSession(0, model.onnx) as reference:
            self._results = {id(feeds): reference.infer(feeds, model.case.mode) for feeds in model.case.feeds}
        self._shapes: list[tuple[int, ...]] = []
        self._gear = self.gears()[-1] if self.has_gears else ""  # the results of each gear were queried at load
        self._learned = [0] * len(self.results(model.case.feeds[0]))
        self.has_stream = False  # made for the first execution whose outputs all have memory

    def results(self, feeds: Feeds) -> list[np.ndarray]:
        return self._results[id(feeds)]

    @property
    def has_gears(self) -> bool:
        return self.case.mode in ("dymbatch", "dymhw", "dymdims")

    def gear(self, shapes: list[tuple[int, ...]]) -> str:
        """Return the gear for shapes: the batch, height and width, or all dimensions in the order of ATC's --input_shape."""
        if self.case.mode == "dymbatch":
            return str(shapes[0][0])
        if self.case.mode == "dymhw":
            return ",".join(map(str, shapes[0][2:]))
        names = ["data", "label", "mask"]
        order = [names.index(part.split(":")[0]) for part in self.case.options["input_shape"].split(";")]
        return ",".join(str(dim) for index in order for dim in shapes[index])

    def gears(self) -> list[str]:
        """Return every gear of the model, in the order given to ATC."""
        if "dynamic_dims" not in self.case.options:
            text = self.case.options.get("dynamic_batch_size", "").replace(",", ";") or self.case.options["dynamic_image_size"]
            return text.split(";")
        found = []
        for gear in self.case.options["dynamic_dims"].split(";"):
            values = iter(gear.split(","))
            parts = [part.split(":")[1].split(",") for part in self.case.options["input_shape"].split(";")]
            found.append(",".join(next(values) if dim == "-1" else dim for part in parts for dim in part))
        return found

    @property
    def gear_bytes(self) -> int:
        """Return the bytes of the gear's input: four for each number that varies."""
        varying = self.case.options["input_shape"].count("-1") if self.case.mode == "dymdims" else len(self._gear.split(","))
        return 4 * varying

    def settings(self, feeds: Feeds) -> list[str]:
        shapes = [feed.shape for feed in feeds]
        before, self._shapes = self._shapes or [()] * len(shapes), shapes
        if self.has_gears:
            gear, self._gear = self._gear, self.gear(shapes)
            return [] if gear == self._gear else [f"gear at {len(feeds)}: {self._gear}"]
        if self.case.mode == "dymshape":
            changed = [i for i, shape in enumerate(shapes) if shape != before[i] or shape == ()]
            return [f"shape of input {i}: ({','.join(map(str, shapes[i]))})" for i in changed]
        return []

    def room(self, feeds: Feeds) -> list[int]:
        """Return the bytes of each output's buffer; 0 if AscendCL must allocate it."""
        if self.case.name in LARGEST:
            return LARGEST[self.case.name]
        if self.case.predictable:
            return [max(results[i].nbytes for results in self._results.values()) for i in range(len(self._learned))]
        return [size + size // 4 for size in self._learned]

    def run(self, feeds: Feeds) -> list[str]:
        results = self.results(feeds)
        names = (f"m{number}" for number in itertools.count(1))
        inputs = [(next(names), feed.nbytes) for feed in feeds]
        lines = [f"copy in {name} {size}" for name, size in inputs] + self.settings(feeds)
        given = [f"{name}:{size}" for name, size in inputs] + ([f"{next(names)}:{self.gear_bytes}"] if self.has_gears else [])
        outputs = [(next(names), size) if size else ("none", 0) for size in self.room(feeds)]

        def execute(buffers: list[tuple[str, int]]) -> str:
            texts = [f"{name}:{size}" if size else name for name, size in buffers]
            return f"execute [{', '.join(given)}] -> [{', '.join(texts)}]"

        if not self.has_stream and all(size for _, size in outputs):
            self.has_stream = True
            lines.append("CreateStream s1")
        lines.append(execute(outputs))
        if any(0 < size < result.nbytes for (_, size), result in zip(outputs, results, strict=True)):
            # More than was learned: run again with memory of AscendCL, after the stream is idle.
            lines[-1] += " failed"
            outputs = [("none", 0) for _ in outputs]
            lines.append(execute(outputs))
        if not self.case.predictable and self.case.name not in LARGEST | {name: [] for name in UNDESCRIBED}:
            self._learned = [result.nbytes for result in results]
        placed = [
            (next(names) if name == "none" else name, result.nbytes) for (name, _), result in zip(outputs, results, strict=True)
        ]
        lines += [f"copy out {name} {size}" for name, size in placed]
        return lines + [f"Free {name}" for (name, _), (before, _) in zip(placed, outputs, strict=True) if before == "none"]


def assert_closing(lines: list[str], buffers: tuple[int, int], has_stream: bool) -> None:
    """Release stream, datasets with buffers, description, model, all memory, context, device: nothing else, nothing twice."""
    inputs, outputs = buffers
    datasets = [["DestroyDataset dataset"] + ["DestroyDataBuffer data buffer"] * count for count in (outputs, inputs)]
    head = ["SynchronizeStream s1", "DestroyStream s1"] * has_stream
    head += [*datasets[0], *datasets[1], "DestroyDesc model desc", "unload"]
    tail = ["DestroyContext context", "ResetDevice 0", "FinalizeReference host"]
    assert lines[: len(head)] == head
    assert lines[-len(tail) :] == tail
    freed = lines[len(head) : -len(tail)]
    assert freed
    assert all(line.startswith("Free m") for line in freed)
    assert len(set(freed)) == len(freed)


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_a_session_of_each_kind(recorder: Recorder, packed: Callable[[str], Packed], name: str) -> None:
    model = packed(name)
    expected = Expected(model)
    first, second = model.case.feeds[0], model.case.feeds[1]
    session = InferSession(0, model.om)
    assert recorder.look() == opening(model.om, expected.gears() if expected.has_gears else [], len(first))
    for feeds in (first, first, second, first):
        session.infer(feeds, model.case.mode, None)
        assert recorder.look() == expected.run(feeds)
    session.free_resource()
    InferSession.finalize()
    inputs = len(first) + expected.has_gears
    assert_closing(recorder.look(), (inputs, len(expected.results(first))), expected.has_stream)


def test_a_model_from_memory(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    content = Path(packed("static").om).read_bytes()
    npu.start_recording()
    InferSession(0, content).free_resource()
    calls = npu.stop_recording()
    (load,) = [call for call in calls if call["call"].startswith("aclmdlLoad")]
    assert (load["call"], load["args"][:2]) == ("aclmdlLoadFromMem", ["host", len(content)])
    (unload,) = [call for call in calls if call["call"] == "aclmdlUnload"]
    assert unload["args"] == load["args"][2:]


def test_outputs_that_stay_on_the_device(recorder: Recorder, packed: Callable[[str], Packed]) -> None:
    """Outputs are copied out only on request, and outputs that are fed again are not copied in."""
    model = packed("static")
    with InferSession(0, model.om) as session:
        recorder.look()
        (tensor,) = session.infer(model.case.feeds[0], out_array=False)
        assert recorder.look() == ["copy in m1 16", "copy in m2 16", "CreateStream s1", "execute [m1:16, m2:16] -> [m3:16]"]
        (result,) = session.infer([tensor, model.case.feeds[0][1]], out_array=False)
        assert recorder.look() == ["copy in m1 16", "execute [m2:16, m1:16] -> [m3:16]"]
        result.to_host()
        assert recorder.look() == ["copy out m1 16"]


@pytest.mark.parametrize("mem_copy", [True, False])
def test_an_iteration(recorder: Recorder, packed: Callable[[str], Packed], mem_copy: bool) -> None:
    """Feeds are copied in once, outputs out once. A run's output is an input of the next, in two alternating blocks."""
    model = packed("static")
    with InferSession(0, model.om) as session:
        recorder.look()
        session.infer_iteration(model.case.feeds[0], [0, -1], 4, mem_copy=mem_copy)
        assert recorder.look() == [
            "copy in m1 16", "copy in m2 16", "copy on device m1 to m3 16", "copy on device m2 to m4 16",
            "CreateStream s1", "execute [m3:16, m4:16] -> [m5:16]",
            "execute [m5:16, m4:16] -> [m6:16]", "execute [m6:16, m4:16] -> [m5:16]",
            "execute [m5:16, m4:16] -> [m6:16]", "copy out m6 16",
        ]  # fmt: skip


def piped(case: Case, index: int, gear: tuple[str, int] | None, room: list[int], sizes: list[int]) -> list[str]:
    """Return the lines of one run of a pipeline: three streams (copy in, execute, copy out), connected by events."""
    feeds = case.feeds[index]
    memory = [f"m{number + 1}" for number in range(len(feeds) + bool(gear) + len(room))]
    given = [f"{name}:{feed.nbytes}" for name, feed in zip(memory, feeds, strict=False)]
    outputs = memory[-len(room) :]
    if gear:
        given.append(f"{memory[len(feeds)]}:{gear[1]}")
    taken = [f"{name}:{size}" for name, size in zip(outputs, room, strict=True)]
    return [
        "RecordEvent e1 s1",
        *[f"copy in {name} {feed.nbytes} on s1" for name, feed in zip(memory, feeds, strict=False)],
        "RecordEvent e2 s1",
        *([f"gear at {len(feeds)}: {gear[0]}"] if gear else []),
        "StreamWaitEvent s2 e2", "RecordEvent e3 s2",
        f"execute [{', '.join(given)}] -> [{', '.join(taken)}] on s2",
        "RecordEvent e4 s2", "StreamWaitEvent s3 e4", "RecordEvent e5 s3",
        *[f"copy out {name} {size} on s3" for name, size in zip(outputs, sizes, strict=True)],
        "RecordEvent e6 s3",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [case.name for case in CASES if case.predictable])
def test_a_pipeline_of_each_kind(npu: Emulator, packed: Callable[[str], Packed], name: str) -> None:
    """Each run has the lines of `piped`. All runs begin before the first wait, and each is waited for in order by its event."""
    model = packed(name)
    case, expected, transcript = model.case, Expected(model), Transcript()
    npu.start_recording()
    with InferSession(0, model.om) as session:
        transcript.read(npu.stop_recording())
        npu.start_recording()
        session.infer_pipeline(case.feeds[:2], case.mode)
        calls = npu.stop_recording()
        npu.start_recording()
    closing = transcript.read(npu.stop_recording())
    begun = [index for index, call in enumerate(calls) if call["call"] == "aclrtRecordEvent"][::6]
    dealt = [index for index, call in enumerate(calls) if call["call"] == "aclrtSynchronizeEvent"]
    waited = dealt[::7]  # the end of a run; its other events follow, for its times
    ends = [*begun[1:], waited[0]]
    reader = Transcript()
    made = reader.read(calls[: begun[0]])
    assert [line for line in made if not line.startswith("CreateEvent")] == [f"CreateStream s{n}" for n in (1, 2, 3)]
    events = [line.split() for line in made if line.startswith("CreateEvent")]
    waitable = {name for kind, name, *_ in events if kind == "CreateEvent"}
    assert {tuple(flags) for kind, _, *flags in events if kind != "CreateEvent"} == {("8",)}  # ACL_EVENT_TIME_LINE
    assert (len(waitable), len(events)) == (8, 24)  # for each of four runs: two for streams to wait for, four with times
    for index in (0, 1):
        feeds = case.feeds[index]
        gear = (expected.gear([feed.shape for feed in feeds]), expected.gear_bytes) if expected.has_gears else None
        sizes = [result.nbytes for result in expected.results(feeds)]
        assert reader.read(calls[begun[index] : ends[index]]) == piped(case, index, gear, expected.room(feeds), sizes)
    recorded = [call["args"][0] for call in calls if call["call"] == "aclrtRecordEvent"]
    assert [calls[index]["args"][0] for index in waited] == recorded[5::6]
    assert [calls[index]["args"][0] for index in dealt] == [
        event for run in (recorded[:6], recorded[6:]) for event in (run[5], *run)
    ]
    kinds = [line.split()[0] for line in closing]
    order = [
        kind for kind, _ in itertools.groupby(kinds) if kind in ("DestroyEvent", "unload", "DestroyContext", "ResetDevice")
    ]
    assert order == ["DestroyEvent", "unload", "DestroyContext", "ResetDevice"]
    assert kinds.count("DestroyStream") == 3
    assert kinds.count("DestroyEvent") == sum(line.startswith("CreateEvent") for line in made)
    assert max(index for index, kind in enumerate(kinds) if kind == "DestroyStream") < kinds.index("unload")


def test_times_are_those_of_one_stream(npu: Emulator, packed: Callable[[str], Packed]) -> None:
    """Both recordings are on the same stream, and the host has synchronised with each of them."""
    case = packed("static").case
    with InferSession(0, packed("static").om) as session:
        npu.start_recording()
        session.infer_pipeline(case.feeds * 2, case.mode)
        calls = npu.stop_recording()
    recorded_on: dict[Any, Any] = {}
    dealt: set[Any] = set()
    asked = 0
    for call in calls:
        name, args = call["call"], call["args"]
        if name == "aclrtRecordEvent":
            recorded_on[args[0]] = args[1]
            dealt.discard(args[0])
        elif name == "aclrtSynchronizeEvent":
            dealt.add(args[0])
        elif name == "aclrtEventElapsedTime":
            _, start, end = args
            assert recorded_on[start] == recorded_on[end]
            assert {start, end} <= dealt
            asked += 1
    assert asked == 3 * 2 * len(case.feeds)  # the copy in, the execution and the copy out of each run


def test_a_worker_of_a_pool_does_as_a_pipeline(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    model = packed("static")
    feeds = model.case.feeds * 4
    with npus(2, record=tmp_path / "calls.%p"), MultiDeviceSession(model.om, devices=[1]) as session:
        session.start()
        list(session.map(feeds))
        (pid,) = [line.pid for line in session.report().workers]
    calls: list[Any] = [json.loads(line) for line in (tmp_path / f"calls.{pid}").read_text().splitlines()]
    names = [call["call"] for call in calls]
    begun = [index for index, call in enumerate(calls) if call["call"] == "aclrtRecordEvent"][::6]
    assert len(begun) == len(feeds)
    reader = Transcript()
    opened = reader.read(calls[: begun[0]])
    assert opened[:5] == ["Init null", "SetDevice 1", "CreateContext context 1", f"load {model.om}", "CreateDesc"]
    marks = [index for index, name in enumerate(names) if name == "aclrtRecordEvent"]
    for run, start in enumerate(begun):
        lines = reader.read(calls[start : marks[6 * run + 5] + 1])
        assert [line for line in lines if not line.startswith("SynchronizeEvent")] == piped(
            model.case, run % 3, None, [16], [16]
        )
    assert names.count("aclmdlExecuteAsync") == len(feeds)
    ends = {
        **{f"aclrtCreate{thing}": f"aclrtDestroy{thing}" for thing in ("Context", "Stream")},
        **{f"aclrtMalloc{where}": f"aclrtFree{where}" for where in ("", "Host")},
        **{f"{create}{thing}": f"{destroy}{thing}" for create, destroy, thing in (
            ("aclmdlCreate", "aclmdlDestroy", "Dataset"), ("aclmdlCreate", "aclmdlDestroy", "Desc"),
            ("aclCreate", "aclDestroy", "DataBuffer"), ("aclrtSet", "aclrtReset", "Device"))},
        "aclmdlLoadFromFile": "aclmdlUnload",
    }  # fmt: skip
    assert names.count("aclrtCreateEvent") + names.count("aclrtCreateEventWithFlag") == names.count("aclrtDestroyEvent") > 0
    made = {begin: names.count(begin) for begin in ends}
    assert min(made.values()) > 0
    assert made == {begin: names.count(end) for begin, end in ends.items()}
