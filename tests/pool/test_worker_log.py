"""Log records of a worker, which its parent logs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ais_bench.pool import DevicePool
from support.handlers import LogsWhenUnpickled
from support.scripts import environment
from support.waiting import wait_until


def test_logging_is_carried_from_the_moment_it_is_begun() -> None:
    """This needs a new process in which nothing has imported it."""
    script = """
import sys
from ais_bench.worker import log
class Connection:
    def send(self, line):
        print(line.name, line.level, line.text)
log.begin()  # this process is not a worker
log.carry(Connection(), 20, now=False)
assert "logging" not in sys.modules
log.begin()
import logging
logging.getLogger("a").info("first %d", 1)
logging.getLogger("b").debug("too low")
log.begin()
logging.warning("second")
log.carry(Connection(), 30, now=False)
print(logging.getLogger().level)
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == ["a 20 first 1", "root 30 second", "30"]


def test_what_a_factory_logs_while_it_is_unpickled_is_carried(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), DevicePool(LogsWhenUnpickled(), [0]) as pool:
        pool.start()
        (worker,) = pool.workers()
        wait_until(lambda: f"unpickled in {worker.pid}" in caplog.text)
