"""A hand-written alternative to this library: slots in shared memory, descriptors over a pipe.

Each worker runs a model through onnxruntime with bound buffers. It does not handle errors. The module also has bare processes
that only run a model in a loop, which is the maximum for the processors.
"""

from __future__ import annotations

import multiprocessing
import os
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import shared_memory
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 64  # tasks in flight for each worker
_INDEX = struct.Struct("<I")
_READY = _INDEX.pack(0xFFFFFFFF)
_STOP = 0xFFFFFFFE


def open_session(path: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _layout(session: Any) -> tuple[list[tuple[str, list[int]]], list[tuple[str, list[int]]]]:
    return [(i.name, i.shape) for i in session.get_inputs()], [(o.name, o.shape) for o in session.get_outputs()]


def _views(block: NDArray[np.uint8], offset: int, tensors: list[tuple[str, list[int]]]) -> tuple[list[NDArray[Any]], int]:
    views = []
    for _, shape in tensors:
        size = int(np.prod(shape)) * 4
        views.append(block[offset : offset + size].view(np.float32).reshape(shape))
        offset += (size + 63) // 64 * 64
    return views, offset


def _buffer(block: shared_memory.SharedMemory) -> memoryview:
    assert block.buf is not None  # it is open
    return block.buf


def _work(path: str, block_name: str, slots: int, cpu: int, tasks: int, results: int) -> None:
    os.sched_setaffinity(0, {cpu})
    session = open_session(path)
    inputs, outputs = _layout(session)
    block = shared_memory.SharedMemory(block_name)
    memory = np.frombuffer(_buffer(block), np.uint8)
    bindings = []
    offset = 0
    for _ in range(slots):
        views, offset = _views(memory, offset, inputs)
        targets, offset = _views(memory, offset, outputs)
        binding = session.io_binding()
        for (name, shape), view in zip(inputs, views, strict=True):
            binding.bind_input(name, "cpu", 0, np.float32, shape, view.ctypes.data)
        for (name, shape), view in zip(outputs, targets, strict=True):
            binding.bind_output(name, "cpu", 0, np.float32, shape, view.ctypes.data)
        bindings.append(binding)
    os.write(results, _READY)
    while data := os.read(tasks, 4096):
        for (index,) in _INDEX.iter_unpack(data):
            if index == _STOP:
                return
            session.run_with_iobinding(bindings[index])
            os.write(results, _INDEX.pack(index))


class HandwrittenPool:
    """Runs static float32 models. `map` returns ordered outputs; `apply` one output."""

    def __init__(self, path: str, workers: int, window: int = WINDOW) -> None:
        inputs, outputs = _layout(open_session(path))
        _, slot_bytes = _views(np.empty(1 << 30, np.uint8), 0, inputs + outputs)
        self._window = window
        self._workers = []
        context = multiprocessing.get_context("fork")
        for cpu in sorted(os.sched_getaffinity(0))[:workers]:
            block = shared_memory.SharedMemory(create=True, size=slot_bytes * window)
            memory = np.frombuffer(_buffer(block), np.uint8)
            memory[:] = 0  # fault the pages in
            task_read, task_write = os.pipe()
            result_read, result_write = os.pipe()
            process = context.Process(target=_work, args=(path, block.name, window, cpu, task_read, result_write))
            process.start()
            slots, offset = [], 0
            for _ in range(window):
                feeds, offset = _views(memory, offset, inputs)
                results, offset = _views(memory, offset, outputs)
                slots.append((feeds, results))
            assert os.read(result_read, 4) == _READY
            self._workers.append((process, block, task_write, result_read, slots))

    def apply(self, feeds: list[NDArray[Any]]) -> list[NDArray[Any]]:
        _, _, tasks, results, slots = self._workers[0]
        targets, outputs = slots[0]
        for target, feed in zip(targets, feeds, strict=True):
            np.copyto(target, feed)
        os.write(tasks, _INDEX.pack(0))
        os.read(results, 4)
        return [output.copy() for output in outputs]

    def map(self, items: Iterable[list[NDArray[Any]]]) -> Iterator[list[NDArray[Any]]]:
        queues: list[deque[int]] = [deque() for _ in self._workers]  # slots in flight, oldest first
        done = [0] * len(self._workers)  # answers that were read and not yet delivered
        sent = 0
        received = 0
        count = len(self._workers)

        def deliver() -> list[NDArray[Any]]:
            nonlocal received
            which = received % count
            _, _, _, results, slots = self._workers[which]
            while not done[which]:
                done[which] += len(os.read(results, 4096)) // 4
            done[which] -= 1
            received += 1
            return [output.copy() for output in slots[queues[which].popleft()][1]]

        for feeds in items:
            which = sent % count
            if len(queues[which]) == self._window:
                yield deliver()
            _, _, tasks, _, slots = self._workers[which]
            index = (sent // count) % self._window
            for target, feed in zip(slots[index][0], feeds, strict=True):
                np.copyto(target, feed)
            queues[which].append(index)
            os.write(tasks, _INDEX.pack(index))
            sent += 1
        while received < sent:
            yield deliver()

    def close(self) -> None:
        for process, block, tasks, results, slots in self._workers:
            os.write(tasks, _INDEX.pack(_STOP))
            process.join()
            os.close(tasks)
            os.close(results)
            slots.clear()
            try:
                block.close()
            except BufferError:
                vars(block)["_buf"] = None  # there are still views of the memory; the process ends soon
            block.unlink()


def _loop(path: str, cpu: int, seconds: float, start: Any, counts: Any) -> None:
    os.sched_setaffinity(0, {cpu})
    session = open_session(path)
    binding = session.io_binding()
    rng = np.random.default_rng(0)
    keep = []
    for tensor in session.get_inputs():
        value = rng.random(tensor.shape, np.float32)
        keep.append(value)
        binding.bind_input(tensor.name, "cpu", 0, np.float32, tensor.shape, value.ctypes.data)
    for tensor in session.get_outputs():
        value = np.empty(tensor.shape, np.float32)
        keep.append(value)
        binding.bind_output(tensor.name, "cpu", 0, np.float32, tensor.shape, value.ctypes.data)
    session.run_with_iobinding(binding)
    start.wait()
    count, begin = 0, time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        session.run_with_iobinding(binding)
        count += 1
    counts.put(count / (now - begin))


def bare_throughput(path: str, processes: int, seconds: float) -> float:
    """Return the runs per second of bare processes, one on each processor, with bound buffers."""
    context = multiprocessing.get_context("spawn")
    start, counts = context.Barrier(processes), context.Queue()
    cpus = sorted(os.sched_getaffinity(0))[:processes]
    children = [context.Process(target=_loop, args=(path, cpu, seconds, start, counts)) for cpu in cpus]
    for child in children:
        child.start()
    total: float = sum(counts.get() for _ in children)
    for child in children:
        child.join()
    return total
