"""Call a function periodically in a separate thread while a block runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

__all__ = ["periodically"]


@contextlib.contextmanager
def periodically(work: Callable[[], None], seconds: float, name: str) -> Iterator[None]:
    """Call `work` every `seconds` while the block runs. An error of `work` ends the thread, not the block."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
