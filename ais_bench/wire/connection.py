"""The control connection: pickled messages over a stream socket, each behind its length (8 bytes, little-endian).

The parent's end never blocks, because the supervisor serves all workers from one thread: what the socket does not take now
is kept and sent when it is writable again. The worker's end blocks, and may be used from several threads there.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import _socket

HEADER_BYTES = 8
LONGEST = 1 << 40  # a longer frame is nonsense, not a message


def frame(message: Any) -> bytes:
    """One message as it travels."""
    body = pickle.dumps(message, protocol=5)
    return len(body).to_bytes(HEADER_BYTES, "little") + body


class ParentEnd:
    """The end of the parent. One thread only."""

    def __init__(self, sock: _socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._incoming = bytearray()
        self._outgoing = bytearray()

    def fileno(self) -> int:
        """For a selector; -1 when closed."""
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Part of a message still waits for the socket to take it: call `flush` when it is writable."""
        return bool(self._outgoing)

    def send(self, message: Any) -> None:
        """Queues the message and sends what the socket takes at once."""
        self._outgoing += frame(message)
        self.flush()

    def flush(self) -> None:
        """Sends what the socket takes. A worker that is gone loses its messages: its death is seen elsewhere."""
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            return
        except OSError:
            self._outgoing.clear()

    def receive(self) -> Iterator[Any]:
        """The messages that have arrived whole. Raises EOFError after the last one when the worker has hung up."""
        ended = False
        try:
            while data := self._socket.recv(1 << 16):
                self._incoming += data
            ended = True
        except BlockingIOError:
            pass  # all there is for now
        except ConnectionResetError:
            ended = True
        while len(self._incoming) >= HEADER_BYTES:
            length = int.from_bytes(self._incoming[:HEADER_BYTES], "little")
            if length > LONGEST:
                raise EOFError(f"a frame of {length} bytes: the worker's end of the control connection is broken")
            end = HEADER_BYTES + length
            if len(self._incoming) < end:
                break
            body = bytes(self._incoming[HEADER_BYTES:end])
            del self._incoming[:end]
            yield pickle.loads(body)
        if ended:
            raise EOFError("the worker closed its control connection")

    def close(self) -> None:
        """Hangs up: the worker reads end of file and ends."""
        self._socket.close()


class WorkerEnd:
    """The end of the worker, a descriptor. `send` from any thread, `receive` from one."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, True)  # whatever the parent's sockets are by default
        self._fd = fd
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Blocks until the message is in the socket. Raises OSError when the parent is gone."""
        data = memoryview(frame(message))
        with self._sending:
            while data:
                data = data[os.write(self._fd, data) :]

    def receive(self) -> Any:
        """The next message. Raises EOFError when the parent is gone."""
        length = int.from_bytes(self._exactly(HEADER_BYTES), "little")
        return pickle.loads(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                part = os.read(self._fd, min(count - len(data), 1 << 20))
            except ConnectionResetError:
                part = b""
            if not part:
                raise EOFError("the parent closed the control connection")
            data += part
        return bytes(data)
