"""A common workspace for sessions that never run at the same time, and their behaviour if they do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ais_bench import _native
from ais_bench.emulator import Emulator, pack
from ais_bench.session import InferSession
from support import emulator_models
from support.acl import Packed, equal
from support.scripts import run_script

pytestmark = pytest.mark.usefixtures("leaves_nothing")
SIDE = 512
WORK = 3 * SIDE * SIDE * 4  # two inputs and an output
FEEDS = [np.ones((SIDE, SIDE), np.float32)] * 2
WANTED = [np.full((SIDE, SIDE), 2, np.float32)]


@pytest.fixture(scope="module")
def om(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("work")
    return str(pack(emulator_models.add(folder, (SIDE, SIDE)), folder / "add.om"))


def used() -> int:
    free, total = _native.device_memory("acl", 0)
    return total - free


def test_a_chain_has_one(npu: Emulator, om: str) -> None:
    """Sessions that share need only one workspace on the device. Results are right, for models from a path and from bytes."""
    content = Path(om).read_bytes()
    with InferSession(0, om, share_workspace=True) as first:
        one = used()
        with InferSession(0, content, share_workspace=True) as second, InferSession(0, om, share_workspace=True) as third:
            assert used() - one < WORK
            with InferSession(0, om):
                assert used() - one >= WORK
            for session in (first, second, third, first):
                equal(session.infer(FEEDS), WANTED)
            first.free_resource()
            equal(second.infer(FEEDS), WANTED)
    assert used() == 0


def test_runs_at_the_same_time_take_turns(npu: Emulator, om: str) -> None:
    """This holds for every kind of run. The emulator reports concurrent use of a workspace, and `npu` checks its report."""
    npu.set_faults("device.execute=delay(20)")  # long enough that runs would overlap if they took no turns
    with ThreadPoolExecutor(6) as threads:
        sessions = [InferSession(0, om, share_workspace=True) for _ in range(3)]
        runs = [threads.submit(lambda s=session: [s.infer(FEEDS) for _ in range(4)]) for session in sessions]
        runs += [threads.submit(session.infer_pipeline, [FEEDS] * 6) for session in sessions]
        for run in runs:
            for outputs in run.result(60):
                equal(outputs, WANTED)
        for session in sessions:
            session.free_resource()
    npu.set_faults()


def test_a_chain_through_a_generator(npu: Emulator, om: str) -> None:
    """The second model runs while runs of the first are in progress, on the same thread, without a deadlock."""
    with InferSession(0, om, share_workspace=True) as first, InferSession(0, om, share_workspace=True) as second:

        def items() -> object:
            for _ in range(6):
                yield second.infer(FEEDS) * 2

        for outputs in first.infer_pipeline(items()):
            np.testing.assert_array_equal(outputs[0], 2 * WANTED[0])


def test_without_the_functions(packed: Callable[[str], Packed]) -> None:
    code = """
    import sys
    import numpy as np
    from ais_bench.emulator import npus
    from ais_bench.session import InferSession
    with npus(1, without=sys.argv[2:]):
        for model in (sys.argv[1], open(sys.argv[1], "rb").read()):
            with InferSession(0, model, share_workspace=True) as session:
                assert session.infer([np.ones((1, 4), np.float32)] * 2)[0].sum() == 8
    """
    run_script(code, packed("static").om, "aclmdlQuerySize", "aclmdlLoadFromMemWithMem")


def test_a_cpu_device_needs_none(packed: Callable[[str], Packed]) -> None:
    with InferSession(0, packed("static").onnx, share_workspace=True) as session:
        assert len(session.infer(packed("static").case.feeds[0])) == 1
