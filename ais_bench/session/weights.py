"""Weights that the workers of a pool share: the side of the process that holds the pool.

Without this, every worker on a CPU device would hold a copy of the model's weights and optimise the same graph. Instead a
helper process does this once (ais_bench.worker.prepare), and the workers map its files (ais_bench.wire.prepared). `close`
removes the files. If this process ends in another way, the helper removes them.
"""

from __future__ import annotations

import _socket
import contextlib
import json
import os
import pickle
import tempfile
from typing import Any

from ais_bench import _native
from ais_bench.errors import AisBenchError
from ais_bench.pool.interpreter import ImportEnvironment, command
from ais_bench.pool.process import above_stdio, connection
from ais_bench.pool.threads import Lock
from ais_bench.session.own_process import OwnProcess
from ais_bench.tuning import ASK_TIMEOUT_S, WORTH_SHARING
from ais_bench.wire.parcel import Parcel
from ais_bench.wire.prepared import PREFIX, READY, Request, model_bytes, remove

__all__ = ["SharedWeights"]

HELPER = "ais_bench.worker.prepare"


class SharedWeights:
    """The prepared weights of one session's pool. Every method may be called from any thread.

    Attributes:
        folder: the folder in which workers search the weights. It may not exist; "": there is no folder for temporary files.
        why: the reason if nothing is shared although sharing was wanted; "": weights are shared, or sharing was not wanted.
    """

    def __init__(self, wanted: bool | None, cache: str | None) -> None:
        try:
            self.folder = os.path.join(os.path.abspath(tempfile.gettempdir()), f"{PREFIX}{os.urandom(16).hex()}")
        except OSError:  # a read-only root: pools work there, too
            self.folder = ""
        self.why = ""
        self.started = False
        self._wanted, self._cache = wanted, cache
        self._process = OwnProcess()
        self._lock = Lock()  # guards the next attributes
        self._child: _native.Child | None = None
        self._line: _socket.socket | None = None  # the helper's standard input: the helper ends when this ends
        self._closed = False

    def refuse(self, why: str) -> None:
        """Share nothing, and record the reason for the report."""
        self.why, self.started, self._wanted = why, self._wanted is True, False

    def is_worth_it(self, model: Any, workers: int) -> bool:
        """Return whether this many workers share the weights of this model."""
        if self._wanted is not None:
            return self._wanted
        return self._cache is not None or (workers - 1) * model_bytes(model) >= WORTH_SHARING

    def start(self, parcel: Parcel, threads: int) -> None:
        """Start the helper once. Wait until workers may wait for the weights, but not until the weights are prepared.

        `parcel` has the session's factory; `threads` is the number of threads of a worker.
        """
        if self.started:
            return
        self.started = True
        if not self.folder:
            self.why = "there is no folder for temporary files; set TMPDIR to one that can be written to"
            return
        try:
            said = self._launch(parcel, threads)
        except (OSError, AisBenchError) as error:
            self.why = f"no process can be started that prepares the weights: {error}"
            return
        if said != READY:
            last = (said.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            self.why = f"the process that prepares the weights did not start: {last}"

    def _launch(self, parcel: Parcel, threads: int) -> bytes:
        """Start the helper. Return READY, or the last text that it wrote."""
        with contextlib.ExitStack() as stack:
            mine, its = connection()  # the helper's standard input and output, and its errors
            stack.callback(its.close)
            mine.settimeout(ASK_TIMEOUT_S)
            keep = [] if parcel.inline is not None else [above_stdio(parcel.fd, stack)]
            stdio = above_stdio(its.fileno(), stack)
            owner = (self.folder, str(os.getpid()))
            guard = json.dumps(command("guard", *owner))
            words = command("call", json.dumps(ImportEnvironment.here().path), HELPER, *owner, guard)
            with self._lock:
                if self._closed:
                    mine.close()
                    return b"the session is closed"
                self._line = mine
                self._child = _native.Child([os.fsencode(word) for word in words], stdio, stdio, stdio, keep)
        request = Request(parcel.inline, keep[0] if keep else -1, parcel.sizes, threads, self._cache)
        said = b""
        while not said.endswith(READY):
            part = mine.recv(1 << 16)
            if not part:
                return said
            said += part
        mine.sendall(pickle.dumps(request, protocol=5), _socket.MSG_NOSIGNAL)
        return READY

    def close(self) -> None:
        """End the helper and remove the files. Workers keep their mappings. Idempotent; no effect in a forked child."""
        if not self._process.is_here():
            return
        with self._lock:
            self._closed = True
            child, self._child = self._child, None
            line, self._line = self._line, None
        if child is not None:
            child.kill(9)
            child.reap()
            child.close()
            remove(self.folder)
        if line is not None:
            line.close()
