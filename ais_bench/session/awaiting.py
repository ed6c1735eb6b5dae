"""Waiting for a future of `concurrent.futures` in asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from typing import Any


async def outcome(future: Future[Any]) -> Any:
    """Return the future's result, or raise its error. Cancelling this coroutine cancels the future.

    `asyncio.wrap_future` would pass the error through a future of asyncio, which does not accept StopIteration, so that error
    would be lost. Raised here, StopIteration becomes a RuntimeError, as in every coroutine.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not arrived.done():
            arrived.set_result(None)

    def tell(_future: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no coroutine waits
            loop.call_soon_threadsafe(note)

    future.add_done_callback(tell)
    try:
        await arrived
    except asyncio.CancelledError:
        future.cancel()
        raise
    if future.cancelled():
        raise asyncio.CancelledError
    return future.result()
