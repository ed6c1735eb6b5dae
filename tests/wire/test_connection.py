"""The control connection between a pool and a worker: messages over a socket."""

from __future__ import annotations

import socket
import threading

import pytest

from ais_bench.wire.connection import ParentEnd, WorkerEnd, frame


def test_messages_arrive_whole_however_they_are_cut() -> None:
    ours, theirs = socket.socketpair()
    parent = ParentEnd(ours)
    data = frame({"a": 1}) + frame([2])
    received = []
    for byte in data:
        theirs.send(bytes([byte]))
        received += list(parent.receive())
    assert received == [{"a": 1}, [2]]
    theirs.close()
    with pytest.raises(EOFError):
        list(parent.receive())
    parent.close()


def test_a_message_larger_than_the_socket_takes_is_sent_piece_by_piece() -> None:
    ours, theirs = socket.socketpair()
    parent, worker = ParentEnd(ours), WorkerEnd(theirs.fileno())
    big = b"x" * 5_000_000
    parent.send(big)
    assert parent.wants_to_write  # so there was more than the socket took
    received: list[object] = []
    reader = threading.Thread(target=lambda: received.append(worker.receive()))
    reader.start()
    while parent.wants_to_write:
        parent.flush()
    reader.join()
    assert received == [big]
    parent.close()
    theirs.close()


def test_a_frame_of_nonsense_ends_the_connection() -> None:
    ours, theirs = socket.socketpair()
    theirs.send(b"\xff" * 8)
    parent = ParentEnd(ours)
    with pytest.raises(EOFError, match="broken"):
        list(parent.receive())
    parent.close()
    theirs.close()
