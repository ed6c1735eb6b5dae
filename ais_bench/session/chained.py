"""A future whose result comes from other futures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any


class Chained(Future[Any]):
    """A future of one or two steps. Cancelling it cancels the present step."""

    def __init__(self, change: Callable[[Any], Any] | None = None) -> None:
        """Make a future without steps. `change` turns the result of the last step into the future's result."""
        super().__init__()
        self._step: Future[Any] | None = None
        self._change = change

    def follow_first(self, step: Future[Any], go_on: Callable[[Future[Any]], None]) -> None:
        """Call `go_on` when the first step is done. `go_on` must call `follow` or `fail`."""
        self._step = step
        step.add_done_callback(go_on)

    def follow(self, step: Future[Any]) -> None:
        """Take over the result or error of the last step."""
        self._step = step
        if self.cancelled():
            step.cancel()
        step.add_done_callback(self._finish)

    def cancel(self) -> bool:
        """Cancel this future and its present step. Return whether that was possible."""
        done = super().cancel()
        if done and self._step is not None:
            self._step.cancel()
        return done

    def fail(self, error: BaseException) -> None:
        """Fail with `error`, unless the future was cancelled."""
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
