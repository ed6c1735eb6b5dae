"""What crosses between a process and its workers. Both sides import this; it imports neither.

    objects        Python objects as buffers in shared memory
    travel         what goes by name and what by value
    pickling       callables and exceptions as bytes
    parcel         one object for many workers, its large parts in memory that all of them map
    protocol       the messages of the control connection, and what a factory has to make
    connection     both ends of that connection
    factories      what a session sends: the model with its settings, and items that are more than arrays
    carry, lent    what a preprocess hands on; arrays that stay in another worker's memory

The ends of the shared memory are native (csrc/shm):

    parent                                         worker
    Doorbell <------------------- rings ---------- Channel
    Lane     ---- feeds in a slot, a descriptor -> Channel
    Lane     <- a descriptor, outputs in a slot -- Channel

A `Lane` is the parent's end of one worker's arena, a `Channel` the worker's. The memory is an anonymous memfd that the
worker is given as a descriptor. Layout, ownership and ordering are stated in csrc/shm/layout.hpp and docs/memory-model.md.
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
