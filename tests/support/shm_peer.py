"""Worker processes for the transport's tests: they run this file, and `Peer` starts one.

The command line of a peer names one of the bodies below; everything else goes through the lane. A peer must not exit by itself
before the lane is closed, because the tests would take this for the fault that they cause.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ais_bench.shm import OBJECT, RAISED, Channel, Doorbell, EchoHandler, Lane, Reply, SessionHandler, decode, encode
from support.scripts import environment

PATIENCE_S = 60.0


class Peer:
    """A lane, and the process at its other end."""

    def __init__(self, body: str, *arguments: str, **lane_options: Any) -> None:
        self.bell = Doorbell()
        self.lane = Lane(self.bell, **lane_options)
        fds = (self.lane.fd, self.bell.fd)
        command = [sys.executable, "-m", "support.shm_peer", body, *map(str, fds), *arguments]
        self.process = subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, env=environment())
        self.lane.release_fd()

    def reply(self) -> Reply:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            ticket = self.bell.ticket()
            reply = self.lane.poll()
            if reply is not None:
                return reply
            assert self.bell.wait(ticket, deadline - time.monotonic()), "no reply came"

    def call(self, feeds: Any, mode: int = 0, **options: Any) -> Reply:
        assert self.lane.try_submit(feeds, mode, None, **options)
        return self.reply()

    def wait_taken(self) -> None:
        """Wait until the worker has taken a task, for peers that report this."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"taken\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def peer(body: str, *arguments: str, **lane_options: Any) -> Iterator[Peer]:
    """Start a peer. At the end close its lane and wait for its exit."""
    made = Peer(body, *arguments, **lane_options)
    try:
        yield made
        made.lane.close()
        made.process.wait(PATIENCE_S)
    finally:
        made.kill()


def tasks_of(channel: Channel) -> Iterator[Any]:
    while True:
        try:
            task = channel.next_task(PATIENCE_S)
        except EOFError:
            return
        assert task is not None
        yield task


def native(channel: Channel) -> None:
    channel.serve(EchoHandler())


def model(channel: Channel) -> None:
    from ais_bench.session import InferSession

    channel.serve(SessionHandler(InferSession(0, sys.argv[4])._native))


def native_and_objects(channel: Channel) -> None:
    def answer(task: Any) -> None:
        channel.reply(task, encode(("seen", decode(task.feeds))), kind=OBJECT)

    channel.serve(EchoHandler(), answer)


def objects(channel: Channel) -> None:
    for task in tasks_of(channel):
        function, *args = decode(task.feeds)
        try:
            outputs, kind = encode(function(*args)), OBJECT
        except Exception as error:
            outputs, kind = encode(error), RAISED
        channel.reply(task, outputs, kind=kind)


def double(channel: Channel) -> None:
    for task in tasks_of(channel):
        channel.reply(task, [feed * 2 for feed in task.feeds])


def fail(channel: Channel) -> None:
    for task in tasks_of(channel):
        channel.fail(task, task.mode, f"code {task.mode} as asked \u00fc" + "x" * task.option, 7)


def backwards(channel: Channel) -> None:
    """Take `option` tasks, then answer them in reverse order."""
    taken = []
    for task in tasks_of(channel):
        taken.append(task)
        if len(taken) == task.option:
            for each in reversed(taken):
                channel.reply(each, [feed.copy() for feed in each.feeds])
            taken.clear()


def hold(channel: Channel) -> None:
    """Answer tasks of mode 0; for others report that they are taken, and never answer."""
    for task in tasks_of(channel):
        if task.mode == 0:
            channel.reply(task, task.feeds)
        else:
            os.write(1, b"taken\n")


def scribble(channel: Channel) -> None:
    """Overwrite the end of the feed slot, with the table, like a wild pointer; then act like `hold`."""
    for task in tasks_of(channel):
        ctypes.memset(task.feeds[0].ctypes.data + task.feeds[0].nbytes, 0xFF, 64)
        os.write(1, b"taken\n")


BODIES = {body.__name__: body for body in (native, model, native_and_objects, objects, double, fail, backwards, hold, scribble)}

if __name__ == "__main__":
    BODIES[sys.argv[1]](Channel(int(sys.argv[2]), int(sys.argv[3])))
