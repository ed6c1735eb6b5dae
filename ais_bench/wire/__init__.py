"""Everything that crosses between a process and its workers. Both sides import this package; it imports neither.

    objects        Python objects as buffers in shared memory
    travel         the rule for what is sent by name and what by value
    pickling       callables and exceptions as bytes
    parcel         one object for many workers, with its large parts in memory that all of them map
    protocol       the messages of the control connection, and the interface of handlers
    connection     both ends of that connection
    factories      the data that a session sends: the model with its settings, and items that are more than arrays
    carry, lent    a preprocess's extra object; arrays that stay in another worker's memory

The ends of the shared memory are native (csrc/shm):

    parent                                         worker
    Doorbell <------------------- rings ---------- Channel
    Lane     ---- feeds in a slot, a descriptor -> Channel
    Lane     <- a descriptor, outputs in a slot -- Channel

A `Lane` is the parent's end of one worker's arena, and a `Channel` is the worker's end. The memory is an anonymous memfd; the
worker gets its descriptor. csrc/shm/layout.hpp and docs/memory-model.md define layout, ownership and ordering.
"""

from __future__ import annotations

from ais_bench._native import (
    Channel,
    Doorbell,
    EchoHandler,
    Lane,
    NativeHandler,
    Reply,
    SessionHandler,
    Stats,
    Task,
    take,
)
from ais_bench.wire.objects import decode, encode

__all__ = [
    "ERROR",
    "OBJECT",
    "RAISED",
    "RETRY",
    "TENSORS",
    "Channel",
    "Doorbell",
    "EchoHandler",
    "Lane",
    "NativeHandler",
    "Reply",
    "SessionHandler",
    "Stats",
    "Task",
    "decode",
    "encode",
    "take",
]

# What a task or a reply is; the numbers of `Kind` in csrc/shm/layout.hpp.
TENSORS = 0
OBJECT = 1
RAISED = 2
ERROR = 3
RETRY = 5
