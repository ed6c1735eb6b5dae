"""The control connection: pickled messages over a stream socket, each after its length (8 bytes, little-endian).

The parent's end never blocks, because the supervisor serves all workers from one thread: bytes that the socket does not accept
are kept, and sent when it is writable again. The worker's end blocks, and several threads may use it.
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
LONGEST = 1 << 40  # a longer frame is invalid


def frame(message: Any) -> bytes:
    """Return the bytes of one message."""
    body = pickle.dumps(message, protocol=5)
    return len(body).to_bytes(HEADER_BYTES, "little") + body


class ParentEnd:
    """The parent's end. Only one thread may use it."""

    def __init__(self, sock: _socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._incoming = bytearray()
        self._outgoing = bytearray()

    def fileno(self) -> int:
        """Return the descriptor; -1 if closed."""
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether a part of a message still waits. If so, call `flush` when the socket is writable."""
        return bool(self._outgoing)

    def send(self, message: Any) -> None:
        """Queue the message, and send as much as the socket accepts at once."""
        self._outgoing += frame(message)
        self.flush()

    def flush(self) -> None:
        """Send as much as the socket accepts. If the worker has ended, drop the messages; the supervisor sees its death."""
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            return
        except OSError:
            self._outgoing.clear()

    def receive(self) -> Iterator[Any]:
        """Yield the complete messages that have arrived. Raises EOFError after the last one if the worker has hung up."""
        ended = False
        try:
            while data := self._socket.recv(1 << 16):
                self._incoming += data
            ended = True
        except BlockingIOError:
            pass  # no more data for now
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
        """Close the connection: the worker reads end of file and ends."""
        self._socket.close()


class WorkerEnd:
    """The worker's end, a descriptor. Any thread may call `send`, only one thread `receive`."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, True)  # the parent's sockets may be non-blocking by default
        self._fd = fd
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Block until the message is in the socket. Raises OSError if the parent has ended."""
        data = memoryview(frame(message))
        with self._sending:
            while data:
                data = data[os.write(self._fd, data) :]

    def receive(self) -> Any:
        """Return the next message. Raises EOFError if the parent has ended."""
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
