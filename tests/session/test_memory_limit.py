"""The memory limit of a container: its value, and an error with both numbers, not a kill, for data that cannot fit."""

from __future__ import annotations

import contextlib
import os
import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper

from ais_bench import _native
from ais_bench.pool import supervisor
from ais_bench.session import MultiDeviceSession
from support.scripts import run_script
from support.session import save
from support.waiting import wait_until

MIB = 1 << 20
LIMIT = 250 * 1000 * 1000
NO_LIMIT_V1 = 2**63 - 4096


def write(folder: Path, files: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


def room(root: Path, own: str) -> tuple[int, int, str]:
    (root / "own").write_text(own)
    return _native.memory_room(str(root), str(root / "own"))


def test_without_a_cgroup_the_machine_is_the_limit(tmp_path: Path) -> None:
    limit, available, of = room(tmp_path, "0::/nowhere\n")
    memory = psutil.virtual_memory()
    assert limit == memory.total == _native.memory_limit(str(tmp_path), str(tmp_path / "own"))
    assert 0 < available <= limit + psutil.swap_memory().total
    assert of == "the memory of this machine"


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_that_leaves_least_counts(tmp_path: Path, version: int) -> None:
    """This holds for all cgroups up to the root. File caches count as free, shared memory does not."""
    root = tmp_path / "memory" if version == 1 else tmp_path
    limit, used, total = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_") if version == 1 else ("memory.max", "memory.current", "")
    )
    stat = f"cache 1\n{total}inactive_file {30 * MIB}\n{total}active_file {10 * MIB}\n{total}shmem {5 * MIB}"
    write(root / "a" / "b", {limit: NO_LIMIT_V1 if version == 1 else "max", used: 5 * MIB, "memory.stat": ""})
    write(root / "a", {limit: 100 * MIB, used: 90 * MIB, "memory.stat": stat})
    write(root, {limit: 60 * MIB, used: 8 * MIB, "memory.stat": stat})
    own = "7:cpu,cpuacct:/z\n4:memory:/a/b\n" if version == 1 else "0::/a/b\n"
    assert room(tmp_path, own) == (100 * MIB, 50 * MIB, "the memory limit of cgroup /a")
    assert _native.memory_limit(str(tmp_path), str(tmp_path / "own")) == 60 * MIB
    (root / "a" / used).write_text(str(200 * MIB))  # more than the limit, as may happen for a moment
    assert room(tmp_path, own)[:2] == (100 * MIB, 0)


def test_a_group_that_a_container_does_not_see_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "memory", {"memory.limit_in_bytes": 64 * MIB, "memory.usage_in_bytes": 4 * MIB, "memory.stat": ""})
    assert room(tmp_path, "4:memory:/docker/0123\n") == (64 * MIB, 60 * MIB, "the memory limit of cgroup /")


@contextlib.contextmanager
def cgroup(limit: int) -> Iterator[str]:
    """Yield the file to which a process writes its id to join a group with this limit."""
    version_1 = Path("/sys/fs/cgroup/memory")
    root = version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")
    folder = root / f"ais_bench-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        try:
            (folder / ("memory.limit_in_bytes" if root == version_1 else "memory.max")).write_text(str(limit))
        except OSError as error:
            pytest.skip(f"cgroups have no memory limit here: {error}")
        yield str(folder / "cgroup.procs")
    finally:
        deadline = time.monotonic() + 10
        while True:
            try:
                folder.rmdir()
                break
            except OSError:  # its last process is still ending
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


SCRIPT = """
import os, sys
import numpy as np
open(sys.argv[1], "w").write(str(os.getpid()))
from ais_bench.errors import DeviceMemoryError
from ais_bench.session import MultiDeviceSession

def refused(call):
    try:
        call()
    except DeviceMemoryError as error:
        print("refused:", error)
    else:
        print("not refused")

with MultiDeviceSession(sys.argv[2], devices=[0]) as session:
    small = np.arange(1 << 20, dtype=np.uint8)
    large = np.zeros(300_000_000, np.uint8)  # no page of it was touched
    assert np.array_equal(session.infer([small])[0], small)
    {body}
    assert np.array_equal(session.infer([small])[0], small)
    print("alive", session.report().workers[0].restarts)
"""


@pytest.mark.parametrize(
    "body",
    [
        "refused(lambda: session.infer([large]))",
        "refused(lambda: list(session.map([[large]])))",
        "refused(lambda: session.submit([large]).result(60))",
        "refused(lambda: session.new_feeds([large.shape]))",
    ],
)
def test_feeds_that_cannot_fit_are_refused(tmp_path: Path, body: str) -> None:
    model = save(tmp_path / "same.onnx", [_identity()], {"x": (TensorProto.UINT8, ["n"])}, {"y": (TensorProto.UINT8, ["n"])})
    with cgroup(LIMIT) as group:
        printed = run_script(SCRIPT.format(body=body), group, model).splitlines()
    assert printed[1:] == ["alive 0"]
    found = re.search(
        r"shared memory of (\d+) bytes more is needed, but only (\d+) bytes are left of the memory limit of .*, (\d+)",
        printed[0],
    )
    assert found is not None, printed
    needed, left, limit = map(int, found.groups())
    assert 300_000_000 <= needed < 301_000_000
    assert 0 < left < limit <= LIMIT


def fills(folder: Path, elements: int) -> str:
    """Return the file of a model with one small input and an output of so many float32."""
    return save(
        folder / "fill.onnx",
        [helper.make_node("Constant", [], ["shape"], value_ints=[elements]), helper.make_node("Expand", ["x", "shape"], ["y"])],
        {"x": (TensorProto.FLOAT, [1])},
        {"y": (TensorProto.FLOAT, [elements])},
    )


def test_outputs_that_cannot_fit_are_refused(tmp_path: Path) -> None:
    """The model has small inputs and large outputs. The worker is not killed."""
    model = fills(tmp_path, 60_000_000)
    code = """
import os, sys
import numpy as np
open(sys.argv[1], "w").write(str(os.getpid()))
from ais_bench.errors import DeviceMemoryError
from ais_bench.session import MultiDeviceSession

with MultiDeviceSession(sys.argv[2], devices=[0]) as session:
    for _ in range(2):
        try:
            session.infer([np.ones(1, np.float32)])
        except DeviceMemoryError as error:
            print(error)
    print("alive", session.report().workers[0].restarts)
"""
    with cgroup(LIMIT) as group:
        *refusals, end = run_script(code, group, model).splitlines()
    assert end == "alive 0"
    assert len(refusals) == 2
    for text in refusals:
        needed, left = map(int, re.findall(r"(\d{4,}) bytes", text)[:2])
        assert left < needed <= 240_000_000 + 4096, text
        assert needed > 239_000_000, text


def test_outputs_get_the_memory_that_another_worker_no_longer_uses(tmp_path: Path) -> None:
    """Only the parent can release free slots, so the task of a worker without room runs again."""
    code = """
import os, sys
import numpy as np
del os.environ["AIS_BENCH_CHECK_OUTPUTS"]  # this check copies the outputs
open(sys.argv[1], "w").write(str(os.getpid()))
from ais_bench.session import MultiDeviceSession

with MultiDeviceSession(sys.argv[2], devices=[0, 1]) as session:
    for device in (0, 1, 0, 1):
        assert session.infer([np.ones(1, np.float32)], device=device)[0].all()  # nothing keeps the outputs
    report = session.report()
    print([(device.tasks, device.failures, device.restarts) for device in report.devices.values()])
"""
    with cgroup(250_000_000) as group:
        printed = run_script(code, group, fills(tmp_path, 35_000_000))
    assert printed == "[(2, 0, 0), (2, 0, 0)]\n"


def test_what_free_slots_hold_is_given_up_first(tmp_path: Path) -> None:
    """Used slots keep their memory, but it must be released for the feeds of another device."""
    body = textwrap.indent(
        textwrap.dedent(
            """
            for size in (30_000_000, 45_000_000, 60_000_000):
                assert session.infer([np.zeros(size, np.uint8)])[0].shape == (size,)
            """
        ),
        "    ",
    ).strip()
    model = save(tmp_path / "same.onnx", [_identity()], {"x": (TensorProto.UINT8, ["n"])}, {"y": (TensorProto.UINT8, ["n"])})
    with cgroup(400_000_000) as group:
        assert run_script(SCRIPT.format(body=body), group, model).splitlines() == ["alive 0"]


def _identity() -> object:
    return helper.make_node("Identity", ["x"], ["y"])


def shared_memory_in_use() -> int:
    """Return the bytes of arenas in this process's memory."""
    found, mine = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            mine = "ais_bench-arena" in line
        elif mine and line.startswith("Rss:"):
            found += int(line.split()[1]) << 10
    return found


def test_an_idle_pool_gives_large_slots_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "IDLE_S", 0.3)
    monkeypatch.setattr(supervisor, "LOOK_AGAIN_S", 0.3)
    model = save(tmp_path / "same.onnx", [_identity()], {"x": (TensorProto.UINT8, ["n"])}, {"y": (TensorProto.UINT8, ["n"])})
    before = shared_memory_in_use()
    feeds = [np.ones(48 * MIB, np.uint8)]
    with MultiDeviceSession(model, devices=[0]) as session:
        for _ in range(2):
            assert session.infer(feeds)[0].all()
            wait_until(lambda: shared_memory_in_use() - before < 20 * MIB, what="the memory to be given back")
            kept = session.infer(feeds)
        own = session.new_feeds([feeds[0].shape])
        own[0][:] = 3
        wait_until(lambda: shared_memory_in_use() - before < 120 * MIB, what="the free slots' memory to be given back")
        assert kept[0].all()  # the caller's outputs stay
        assert (session.infer(own)[0] == 3).all()
