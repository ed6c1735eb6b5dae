"""Arrays and objects between one process and its workers, over shared memory without names.

    parent                                         worker
    Doorbell <------------------- rings ---------- Channel
    Lane     ---- feeds in a slot, a descriptor -> Channel
    Lane     <- a descriptor, outputs in a slot -- Channel

A `Lane` is the parent's end of one worker's arena, a `Channel` the worker's. The memory is an anonymous memfd that the
worker is given as a descriptor. Layout, ownership and ordering are stated in csrc/shm/layout.hpp and docs/memory-model.md.

`encode` and `decode` are looked up when they are used: they need numpy, and a worker that serves natively does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from ais_bench.shm.objects import decode, encode

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


def __getattr__(name: str) -> Any:
    if name not in ("decode", "encode"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ais_bench.shm import objects

    globals().update(decode=objects.decode, encode=objects.encode)
    return globals()[name]
