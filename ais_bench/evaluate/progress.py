"""Show the progress of a run on stderr. A separate thread reads a counter, so items need no call."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ais_bench.tuning import PROGRESS_LINE_S, PROGRESS_LOOK_S

__all__ = ["Progress"]


class Progress:
    """A context that shows progress. Set `count` to the number of finished items.

    Args:
        total: the number of items; None if it is not known.
        title: the text that describes the work.
        show: False shows nothing. A class like `tqdm.tqdm` draws the bar in place of this one.
    """

    def __init__(self, total: int | None, title: str, show: Any = True, unit: str = "samples") -> None:
        self.total, self.title, self.unit = total, title, unit
        self.count = 0
        self.failed = 0
        self._show = show
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self._show:
            draw = self._tqdm if callable(self._show) else self._rich if _can_move() else self._plain
            self._thread = threading.Thread(target=self._run, args=(draw,), name="ais_bench-progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, draw: Callable[[], None]) -> None:
        try:
            draw()
        except Exception as error:  # a progress bar must not end the run
            print(f"{self.title}: progress is not shown: {error}", file=sys.stderr)

    def _rich(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        start, first = time.monotonic(), self.count
        with Bar(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
            task = bar.add_task(self.title, total=self.total, rate="", completed=first)
            more = True
            while more:
                more = not self._ended.wait(PROGRESS_LOOK_S)
                rate = (self.count - first) / max(time.monotonic() - start, 1e-9)
                failed = f", {self.failed} failed" if self.failed else ""
                bar.update(task, completed=self.count, rate=f"{rate:.1f} {self.unit}/s{failed}", refresh=True)

    def _plain(self) -> None:
        start, first = time.monotonic(), self.count
        while not self._ended.wait(PROGRESS_LINE_S):
            seconds = time.monotonic() - start
            rate = (self.count - first) / seconds
            total = "" if self.total is None else f"/{self.total}"
            left = "" if self.total is None or not rate else f", {(self.total - self.count) / rate:.0f} s left"
            failed = f", {self.failed} failed" if self.failed else ""
            print(f"{self.title}: {self.count}{total} {self.unit}, {rate:.1f}/s{left}{failed}", file=sys.stderr, flush=True)

    def _tqdm(self) -> None:
        bar = self._show(total=self.total, desc=self.title)
        more = True
        while more:
            more = not self._ended.wait(PROGRESS_LOOK_S)
            bar.update(self.count - bar.n)
        bar.close()


def _can_move() -> bool:
    """Return whether stderr is a terminal on which a line can be redrawn."""
    if os.environ.get("NO_COLOR") or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stderr is not None and sys.stderr.isatty()
