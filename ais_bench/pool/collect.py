"""Who waits for replies, and who collects them.

Handing a reply from one thread to another costs more than most small tasks, so whoever waits collects. Of several waiting
threads one leads: it waits on the doorbell and delivers to all; the others sleep until their tasks are done or the lead is
free. Everybody who leaves passes the lead on, an exception on the way included, so it is never lost.

The background waiter, which collects for futures that nobody waits for in here, gives way to every caller: the caller rings
the bell, the background wakes, passes the lead on and stands by for a moment before it asks for the lead again.
"""

from __future__ import annotations

from collections.abc import Callable

from ais_bench.pool.task import Waiter
from ais_bench.pool.threads import RLock, get_ident
from ais_bench.shm import Doorbell

STAND_BY_S = 0.001  # how long the background leaves the lead to callers that come and go


class _NoBell:
    """Stands in for the doorbell once no worker is left that could ring it."""

    def ticket(self) -> int:
        return 0

    def wait(self, _ticket: int, _timeout: float | None = None, _spin_us: float = 0.0) -> bool:
        return True

    def ring(self) -> None:
        return None


class Collector:
    """The lead and those who sleep. Shares the lock of its dispatcher, whose `drain` delivers what has arrived, and makes a
    leader that it is given `resign` in the same breath: next to a short task every lock counts."""

    def __init__(
        self, lock: RLock, bell: Doorbell, drain: Callable[[Waiter | None], int], spin_us: Callable[[], float]
    ) -> None:
        self.background = Waiter()
        self._lock = lock
        self.bell: Doorbell | _NoBell = bell
        self._drain = drain
        self._spin_us = spin_us
        self._leader: Waiter | None = None
        self._lead_thread = 0
        self._sleepers: dict[Waiter, None] = {}

    @property
    def used(self) -> bool:
        """Whether any thread is in `progress`."""
        return self._leader is not None or bool(self._sleepers)

    def silence(self) -> None:
        """No worker is left: the doorbell's descriptor and memory can go, although somebody may keep the closed pool."""
        self.bell = _NoBell()

    def progress(self, waiter: Waiter, seen: int, timeout: float | None = None, ticket: int | None = None) -> None:
        """Returns when `waiter.finished` differs from `seen`, when anything else has changed, or after `timeout` seconds.

        `ticket`: taken from the bell before a task was sent that the waiter waits for, so there is no need to look first.
        """
        leading = False
        try:
            with self._lock:
                if waiter.finished != seen:
                    return
                me = get_ident()
                # A lead of this thread waits, and a signal handler has come in between.
                if self._leader is None or self._lead_thread == me:
                    leading = True
                    self._leader, self._lead_thread = waiter, me
                else:
                    if self._leader is self.background:
                        self.bell.ring()
                    self._sleepers[waiter] = None
                    waiter.prepare()
            if leading:
                self._lead(waiter, seen, timeout, ticket)
            else:
                waiter.sleep(timeout)
        finally:
            if self._leader is waiter or waiter in self._sleepers:
                try:
                    self._leave(waiter)
                except BaseException:  # an interrupt here, of all places
                    self._leave(waiter)
                    raise

    def background_progress(self, seen: int, rests: Callable[[], bool]) -> None:
        """The same for the background: it leads only while no caller does. `rests`: whether there is nothing to collect, so
        that it sleeps until woken; asked under the lock that it falls asleep under, so that no wake-up comes in between."""
        waiter = self.background
        with self._lock:
            if waiter.finished != seen:
                return
            idle = rests()
            stand_by = self._leader is not None or bool(self._sleepers)
            if stand_by or idle:
                waiter.prepare()
        if idle:
            waiter.sleep()
        elif stand_by:
            waiter.sleep(STAND_BY_S)
        else:
            self.progress(waiter, seen)

    def _lead(self, waiter: Waiter, seen: int, timeout: float | None, ticket: int | None) -> None:
        look = ticket is None
        ticket = self.bell.ticket() if ticket is None else ticket
        if not look or (self._drain(None) == 0 and waiter.finished == seen):
            self.bell.wait(ticket, timeout, 0.0 if waiter is self.background else self._spin_us())
            self._drain(waiter)

    def _leave(self, waiter: Waiter) -> None:
        """Twice is fine."""
        with self._lock:
            waiter.asleep = False
            self._sleepers.pop(waiter, None)
            self.resign(waiter)

    def resign(self, waiter: Waiter) -> None:
        """Passes the lead on, if the waiter has it or nobody has. Call under the lock. Twice is fine."""
        if self._leader is not None and self._leader is not waiter:
            return
        # The latest first: of several waiters of one thread that is the one of a signal handler, which the others wait for.
        for sleeper in reversed(self._sleepers):
            if sleeper.asleep:
                sleeper.wake()
                break
        self._leader, self._lead_thread = None, 0  # last: after an interrupt the waiter still has it, and leaves again
