"""A future of what other futures become."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any


class Chained(Future[Any]):
    """A future of one or two steps: cancelling it cancels the one that is under way."""

    def __init__(self, change: Callable[[Any], Any] | None = None) -> None:
        """`change` makes the result of the last step's."""
        super().__init__()
        self._step: Future[Any] | None = None
        self._change = change

    def follow_first(self, step: Future[Any], go_on: Callable[[Future[Any]], None]) -> None:
        """Call `go_on` when the first step is done; it calls `follow` or `fail`."""
        self._step = step
        step.add_done_callback(go_on)

    def follow(self, step: Future[Any]) -> None:
        """Become what the last step becomes."""
        self._step = step
        if self.cancelled():
            step.cancel()
        step.add_done_callback(self._finish)

    def cancel(self) -> bool:
        """Cancel, and the step under way, too."""
        done = super().cancel()
        if done and self._step is not None:
            self._step.cancel()
        return done

    def fail(self, error: BaseException) -> None:
        """Fail, unless it was cancelled."""
        with contextlib.suppress(InvalidStateError):  # it was cancelled
            self.set_exception(error)

    def _finish(self, step: Future[Any]) -> None:
        if step.cancelled():
            super().cancel()
            return
        error = step.exception()
        if error is not None:
            self.fail(error)
            return
        with contextlib.suppress(InvalidStateError):
            self.set_result(step.result() if self._change is None else self._change(step.result()))
