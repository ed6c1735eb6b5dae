"""Convert recorded calls of AscendCL to their effects: the source and target of copies, the memory of executions.

A transcript is a list of lines such as "copy in m1 16" or "execute [m1:16, m2:16] -> [m3:16]". Memory, streams and events are
numbered by their first appearance (m, s, e), and the content of a dataset is that of its buffers at that moment, so that a
transcript does not depend on which free block an allocation gets, nor on which buffers had to be pointed again.
Queries, context changes, allocations, and the calls that build datasets have no line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ais_bench.emulator import Emulator
from ais_bench.emulator.control import Call

_KINDS = {0: "host", 1: "in", 2: "out", 3: "on device"}
_SILENT = (
    "aclmdlGet",
    "aclGet",
    "aclrtGet",
    "aclrtSetCurrentContext",
    "aclrtEventElapsedTime",
    "aclrtQuery",
    "aclrtStreamQuery",
)


def _waits_for(call: Call | None, before: Call | None) -> bool:
    """Return whether `call` waits for the execution `before` it, on its stream."""
    return (
        call is not None
        and before is not None
        and (call["call"], before["call"]) == ("aclrtSynchronizeStream", "aclmdlExecuteAsync")
        and call["args"][0] == before["args"][3]
    )


class Transcript:
    """Reads calls in order; `lines` grows, and can be cleared at any time."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._numbers: dict[str, str] = {}
        self._buffers: dict[str, tuple[str, int]] = {}  # data buffer -> its memory
        self._datasets: dict[str, list[str]] = {}
        self._descs: dict[str, str] = {}  # tensor description -> its shape
        self._last: Call | None = None
        self._waited: Call | None = None  # the wait for an execution without a later call

    def read(self, calls: Iterable[Call]) -> list[str]:
        """Return the lines of only these calls, numbered from 1."""
        self.lines, self._numbers = [], {}
        heard = [call for call in calls if not call["call"].startswith(_SILENT)]
        for call, after in zip(heard, [*heard[1:], None], strict=True):
            self._waited = after if _waits_for(after, call) else None
            if self._waited is None and _waits_for(call, self._last):
                continue  # included in the execution's line
            self._last = call
            handler: Callable[..., None] = getattr(self, f"_{call['call']}", None) or self._other
            handler(call, *call["args"])
        return self.lines

    def _say(self, text: str) -> None:
        self.lines.append(text)

    def _name(self, thing: object) -> str:
        """Return m1, s1, e1... by first appearance; for other objects only the kind."""
        text = str(thing)
        kind = next((kind for kind in ("memory", "stream", "event") if kind in text), None)
        if kind is None:
            return text.partition("#")[0]
        if text not in self._numbers:
            self._numbers[text] = f"{kind[0]}{1 + sum(name[0] == kind[0] for name in self._numbers.values())}"
        return self._numbers[text]

    def _content(self, dataset: object) -> str:
        parts = [self._buffers[buffer] for buffer in self._datasets[str(dataset)]]
        return f"[{', '.join(f'{self._name(at)}:{size}' if at != 'null' else 'none' for at, size in parts)}]"

    # objects and datasets, without a line

    def _aclrtMalloc(self, call: Call, memory: str, size: int, *_: object) -> None:
        pass

    def _aclrtMallocHost(self, call: Call, *_: object) -> None:
        pass

    def _aclmdlCreateDataset(self, call: Call) -> None:
        self._datasets[str(call["result"])] = []

    def _aclCreateDataBuffer(self, call: Call, address: str, size: int) -> None:
        self._buffers[str(call["result"])] = (address, size)

    def _aclmdlAddDatasetBuffer(self, call: Call, dataset: str, buffer: str) -> None:
        self._datasets[dataset].append(buffer)

    def _aclUpdateDataBuffer(self, call: Call, buffer: str, address: str, size: int) -> None:
        self._buffers[buffer] = (address, size)

    def _aclCreateTensorDesc(self, call: Call, dtype: int, count: int, dims: str, layout: int) -> None:
        self._descs[str(call["result"])] = f"({dims if count else ''})"

    def _aclDestroyTensorDesc(self, call: Call, desc: str) -> None:
        del self._descs[desc]

    # settings

    def _aclmdlSetDatasetTensorDesc(self, call: Call, dataset: str, desc: str, index: int) -> None:
        self._say(f"shape of input {index}: {self._descs[desc]}")

    def _aclmdlSetDynamicBatchSize(self, call: Call, model: int, dataset: str, index: int, batch: int) -> None:
        self._say(f"gear at {index}: {batch}")

    def _aclmdlSetDynamicHWSize(self, call: Call, model: int, dataset: str, index: int, *size: int) -> None:
        self._say(f"gear at {index}: {','.join(map(str, size))}")

    def _aclmdlSetInputDynamicDims(self, call: Call, model: int, dataset: str, index: int, dims: str) -> None:
        self._say(f"gear at {index}: {dims}")

    def _aclmdlSetInputAIPP(self, call: Call, model: int, dataset: str, index: int, aipp: str) -> None:
        self._say(f"aipp at {index}")

    # work

    def _aclmdlLoadFromFile(self, call: Call, path: str, model: int) -> None:
        self._say(f"load {path}")

    def _aclmdlUnload(self, call: Call, model: int) -> None:
        self._say("unload")

    def _aclrtMemcpy(self, call: Call, to: str, room: int, source: str, size: int, kind: int) -> None:
        assert room >= size
        ends = {1: self._name(to), 2: self._name(source)}.get(kind, f"{self._name(source)} to {self._name(to)}")
        self._say(f"copy {_KINDS[kind]} {ends} {size}")

    def _aclrtMemcpyAsync(self, call: Call, to: str, room: int, source: str, size: int, kind: int, stream: str) -> None:
        assert room >= size
        ends = self._name(to if kind == 1 else source)
        assert str(source if kind == 1 else to).startswith("pinned"), "an asynchronous copy is one only with pinned memory"
        self._say(f"copy {_KINDS[kind]} {ends} {size} on {self._name(stream)}")

    def _aclmdlExecute(self, call: Call, model: int, given: str, results: str) -> None:
        self._say(f"execute {self._content(given)} -> {self._content(results)}{'' if call['result'] == 0 else ' failed'}")

    def _aclmdlExecuteAsync(self, call: Call, model: int, given: str, results: str, stream: str) -> None:
        text = f"execute {self._content(given)} -> {self._content(results)}"
        if self._waited is None:
            self._say(f"{text} on {self._name(stream)}")
        else:  # like a synchronous execution, but it can be stopped
            self._say(text if self._waited["result"] == 0 else f"{text} failed")

    def _other(self, call: Call, *arguments: object) -> None:
        verb = call["call"].removeprefix("aclrt").removeprefix("aclmdl").removeprefix("acl")
        self._say(" ".join([verb, *(self._name(argument) for argument in arguments)]))


class Recorder:
    """The transcript of the calls since the last query."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator, self._transcript = emulator, Transcript()
        emulator.start_recording()

    def look(self) -> list[str]:
        lines = self._transcript.read(self._emulator.stop_recording())
        self._emulator.start_recording()
        return list(lines)


def opening(path: str, gears: list[str], inputs: int) -> list[str]:
    """Return the lines of opening a session on device 0. The results of `gears` are queried one by one."""
    lines = ["Init null", "SetDevice 0", "CreateContext context 0", f"load {path}", "CreateDesc"]
    return lines + [f"gear at {inputs}: {gear}" for gear in gears]
