"""The parent's side of one worker process: start, watch, read, kill and reap it.

A worker is a fresh interpreter (exec), so nothing of the caller's `__main__` runs in it. It inherits only three descriptors:
its end of the control connection, the arena and the doorbell. It leads its own session, so Ctrl-C at the terminal reaches only
the parent, which then ends the workers. Only the supervisor's thread may use this file, except `kill`, `pid` and `tail`.
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import os
import signal
from collections import deque
from typing import NamedTuple

from ais_bench import _native
from ais_bench.pool.interpreter import ImportEnvironment, command
from ais_bench.tuning import LONGEST_LINE, TAIL_LINES
from ais_bench.wire.connection import ParentEnd


class Exit(NamedTuple):
    """How a process ended: `signal` or `exit_code`; neither if other code reaped it."""

    signal: int | None
    exit_code: int | None

    def __str__(self) -> str:
        if self.signal is not None:
            known = self.signal in set(signal.Signals)
            return f"was killed by {signal.Signals(self.signal).name if known else f'signal {self.signal}'}"
        return "ended for an unknown reason" if self.exit_code is None else f"exited with code {self.exit_code}"


def above_stdio(fd: int, stack: contextlib.ExitStack) -> int:
    """Return `fd`. If it is 0, 1 or 2, return a duplicate that lasts as long as `stack`, because a child uses these numbers. A
    process with closed standard descriptors, such as a daemon, gets such numbers."""
    if fd > 2:
        return fd
    higher = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    stack.callback(os.close, higher)
    return higher


def connection() -> tuple[_socket.socket, _socket.socket]:
    """Return two connected sockets of the system. The module `socket` may have been replaced by a library whose sockets belong
    to one thread, and `socket.setdefaulttimeout` would make new sockets non-blocking."""
    mine, its = _socket.socketpair()
    mine.setblocking(False)
    its.setblocking(True)
    return mine, its


class WorkerProcess:
    """A running worker process and the parent's descriptors for it. `inherited`: the descriptor numbers in the worker."""

    def __init__(self, environment: ImportEnvironment, inherited: tuple[int, ...]) -> None:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            mine, its = connection()
            ours.callback(mine.close)
            theirs.callback(its.close)
            output_fd, its_output = os.pipe()
            ours.callback(os.close, output_fd)
            theirs.callback(os.close, its_output)
            nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            theirs.callback(os.close, nothing)
            control, *self.inherited = [above_stdio(fd, theirs) for fd in (its.fileno(), *inherited)]
            words = [os.fsencode(word) for word in command("worker", str(control))]
            # Not `subprocess`: some programs replace it, and others ignore or handle the signals that it needs.
            self._child = _native.Child(words, nothing, its_output, its_output, [control, *self.inherited])
            ours.pop_all()
        self.pid: int = self._child.pid
        self.watch_fd = self._child.watch_fd  # readable once the process has ended
        self.control = ParentEnd(mine)
        self.output_fd = output_fd
        os.set_blocking(output_fd, False)
        self._partial = b""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.exit: Exit | None = None
        self.control.send({"path": list(environment.path), "cwd": environment.cwd})

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to this process and to no other one. No effect once the process is gone. Any thread may call it."""
        self._child.kill(number)

    def reap(self) -> Exit:
        """Wait for the end of the process. Call it when `watch_fd` is readable."""
        self.exit = Exit(*self._child.reap())
        return self.exit

    def read_output(self) -> list[str]:
        """Return the lines that the worker wrote since the last call to stdout and stderr. Raises EOFError at the end."""
        try:
            data = os.read(self.output_fd, 1 << 16)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > LONGEST_LINE:
            lines.append(self._partial)
            self._partial = b""
        return self._remember(lines)

    def read_last_output(self) -> list[str]:
        """Return the rest of the output after the process died, and an unfinished line. Its children may hold the pipe open."""
        lines: list[str] = []
        with contextlib.suppress(EOFError):
            while more := self.read_output():
                lines += more
        lines += self._remember([self._partial])
        self._partial = b""
        return lines

    def _remember(self, lines: list[bytes]) -> list[str]:
        texts = [text for line in lines if (text := line.decode(errors="replace").rstrip())]
        self.tail.extend(texts)
        return texts

    def close(self) -> None:
        """Close the parent's descriptors. The process must have been reaped."""
        self.control.close()
        if self.output_fd >= 0:
            os.close(self.output_fd)
            self.output_fd = -1
        self._child.close()
