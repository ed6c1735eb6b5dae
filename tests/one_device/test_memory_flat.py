"""Memory stays flat over thousands of sessions and hundreds of thousands of runs, each in a process of its own.

What may grow, and does not count as a leak: the session's log of executions (16 bytes an entry) and the process's two logs of
copies (4 bytes an entry), each up to 2**20 entries in a vector that doubles. 200,000 infers of one input and one output leave
2**18 * (16 + 4 + 4) bytes = 6.3 MB of logs, and the old vector lives while it is copied: 9.4 MB at worst. Constructions add no
log entries. On top of that the allocators of the runtime and of libc keep some memory from run to run; 4 MB is what they
were seen to vary by. A leak of 64 bytes a run would be 12.8 MB, one of 2 kB a session 4 MB.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.scripts import run_script

MEGABYTE = 1 << 20
SLACK = 4 * MEGABYTE

SCRIPT = """
import sys
import numpy as np
import psutil
from ais_bench.infer.interface import InferSession

path, what = sys.argv[1:]
x = np.ones((1, 4), np.float32)
session = None if what == "sessions" else InferSession(0, path, threads=1)

def step():
    if session is None:
        with InferSession(0, path, threads=1) as short:
            short.infer([x])
    elif what == "tensors":
        session.infer([x], out_array=False)
    else:
        session.infer([x])

def rss():
    return psutil.Process().memory_info().rss

count = 2_000 if session is None else 200_000
for _ in range(count // 10):
    step()
warm = rss()
for _ in range(count):
    step()
growth = rss() - warm  # before the summary, which makes a list of the log
print(count if session is None else len(session.summary()), growth)
"""


@pytest.mark.parametrize(
    ("what", "count", "logs"),
    [
        ("sessions", 2_000, 0),
        ("infers", 220_000, int(9.4 * MEGABYTE)),
        ("tensors", 220_000, int(9.4 * MEGABYTE)),
    ],
)
def test_memory_is_flat(onnx_model: Callable[[str], str], what: str, count: int, logs: int) -> None:
    runs, growth = map(int, run_script(SCRIPT, onnx_model("batch"), what, seconds=110).split())
    assert runs == count
    assert growth <= logs + SLACK, f"{count} {what} left {growth / MEGABYTE:.1f} MB"
