"""Memory does not grow over thousands of sessions and hundreds of thousands of runs, each in a separate process.

Some growth is not a leak: the session's log of executions (16 bytes for each entry) and the process's two logs of copies (4
bytes for each entry), each up to 2**20 entries in a vector that doubles. 200,000 infers of one input and one output leave 2**18
* (16 + 4 + 4) bytes = 6.3 MB of logs, and the old vector exists while it is copied: at most 9.4 MB. Constructions add no log
entries. The allocators of the runtime and of libc also keep some memory between runs; the observed variation is 4 MB. A leak of
64 bytes in each run would be 12.8 MB, one of 2 kB in each session 4 MB.
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
    runs, growth = map(int, run_script(SCRIPT, onnx_model("batch"), what, seconds=300).split())
    assert runs == count
    assert growth <= logs + SLACK, f"{count} {what} left {growth / MEGABYTE:.1f} MB"
