"""`share_weights`: workers map weights that were prepared once, with the same results, and no file is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest

from ais_bench import _native
from ais_bench.errors import ConfigError, ConfigTypeError
from ais_bench.session import MultiDeviceSession
from ais_bench.wire.factories import SessionFactory
from ais_bench.wire.parcel import pack
from ais_bench.wire.prepared import MODEL, Prepared, Request
from ais_bench.worker import prepare
from support import weighted_models
from support.scripts import environment
from support.versions import ONNXRUNTIME
from support.waiting import gone, wait_until
from support.weighted_models import KINDS, save

pytestmark = [
    pytest.mark.usefixtures("leaves_nothing"),
    pytest.mark.skipif(ONNXRUNTIME < prepare.LEAST_VERSION, reason="ONNX Runtime shares weights from 1.32 on"),
]

MIB = 1 << 20


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Use a new folder for temporary files, which must be empty after the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    wait_until(lambda: not list(folder.iterdir()), what=f"{folder} to be empty")


def answers(model: str | bytes, feeds: list[Any], share: bool, **options: Any) -> tuple[list[Any], Any, Any]:
    """Return the outputs of both workers of a pool, its description of the model, and its report."""
    with MultiDeviceSession(model, devices=[0, 1], share_weights=share, **options) as session:
        by_device = session.infer({0: [feeds], 1: [feeds]})
        outputs = [output for device in (0, 1) for output in by_device[device][0]]
        side = (*session.get_inputs(), *session.get_outputs(), *session.get_overridable_initializers())
        said = [(desc.name, desc.datatype, tuple(desc.shape), desc.size) for desc in side]
        return outputs, (said, session.metadata), session.report()


def check_same(model: str | bytes, feeds: list[Any], **options: Any) -> None:
    alone, said_alone, report_alone = answers(model, feeds, False, **options)
    shared, said_shared, report = answers(model, feeds, True, **options)
    assert report_alone.shared_weights == {}
    assert report.shared_weights == {0: "shared", 1: "shared"}
    assert "weights of device 0, 1: shared" in str(report)
    assert [output.tobytes() for output in shared] == [output.tobytes() for output in alone]
    assert [(output.shape, output.dtype) for output in shared] == [(output.shape, output.dtype) for output in alone]
    assert said_shared == said_alone


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_descriptions_are_those_of_workers_that_share_nothing(kind: str, tmp_path: Path) -> None:
    model, feeds = KINDS[kind]()
    check_same(save(model, tmp_path / "model.onnx"), feeds)


@pytest.mark.parametrize("level", ["disable", "basic", "extended", "layout"])
def test_every_level_of_optimisation(level: str, tmp_path: Path) -> None:
    model, feeds = weighted_models.convolutions()
    check_same(save(model, tmp_path / "model.onnx"), feeds, graph_optimization_level=level)


def test_a_model_from_bytes(tmp_path: Path) -> None:
    model, feeds = weighted_models.layers()
    check_same(model.SerializeToString(), feeds)
    small = onnx.load_from_string(model.SerializeToString())
    assert len(small.SerializeToString()) > 64 << 10, "it must take the way of large models"
    few, feeds = weighted_models.layers(width=32)
    assert len(few.SerializeToString()) < 64 << 10
    check_same(few.SerializeToString(), feeds)


def test_weights_in_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = weighted_models.layers()
    path = save(model, tmp_path / "model.onnx", external=True)
    assert _native.external_data(os.fsencode(path)) == (2 * 4 * 96 * 96, [b"weights.bin"])
    check_same(path, feeds)
    monkeypatch.chdir(tmp_path)
    check_same("model.onnx", feeds)
    apart = tmp_path / "apart"
    apart.mkdir()
    (tmp_path / "weights.bin").rename(apart / "weights.bin")
    check_same(path, feeds, weight_dir=apart)


def test_options_of_the_session_hold_for_the_shared_weights_too(tmp_path: Path) -> None:
    model, feeds = weighted_models.layers()
    path = save(model, tmp_path / "model.onnx")
    check_same(path, feeds, provider_options={"session.disable_prepacking": "1"})
    check_same(path, feeds, profile=tmp_path / "profile", threads=1)


def private_dirty(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_Dirty:"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Any]]:
    """48 MiB of weights: 3 of 16 MiB."""
    model, feeds = weighted_models.layers(count=3, width=2048)
    return save(model, tmp_path_factory.mktemp("large") / "model.onnx"), feeds


def worker_pids(session: MultiDeviceSession) -> list[int]:
    return [worker.pid for worker in session.report().workers if worker.pid is not None and worker.state == "ready"]


def test_workers_have_the_weights_once_and_so_has_one_that_is_restarted(large: tuple[str, list[Any]]) -> None:
    path, feeds = large
    memory = {}
    for share in (False, True):
        with MultiDeviceSession(path, devices=[0], workers_per_device=2, share_weights=share) as session:
            expected = session.infer(feeds)
            memory[share] = max(private_dirty(pid) for pid in worker_pids(session))
            if share:
                killed = worker_pids(session)[0]
                os.kill(killed, signal.SIGKILL)
                wait_until(lambda s=session, k=killed: len(pids := worker_pids(s)) == 2 and k not in pids)
                assert session.report().shared_weights == {0: "shared"}
                assert max(private_dirty(pid) for pid in worker_pids(session)) < memory[True] + 8 * MIB
                assert session.infer(feeds)[0].tobytes() == expected[0].tobytes()
    assert memory[False] - memory[True] > 40 * MIB


def test_nothing_is_loaded_in_this_process(large: tuple[str, list[Any]]) -> None:
    path, feeds = large
    before = private_dirty(os.getpid())
    with MultiDeviceSession(path, devices=[0, 1], share_weights=True) as session:
        session.infer(feeds)
        assert private_dirty(os.getpid()) - before < 24 * MIB


def test_auto_shares_what_is_worth_it(large: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, feeds = large
    with MultiDeviceSession(path, devices=[0, 1]) as session:
        session.infer(feeds)
        assert session.report().shared_weights == {}
    monkeypatch.setattr("ais_bench.session.weights.WORTH_SHARING", 48 * MIB)
    with MultiDeviceSession(path, devices=[0]) as session:
        session.infer(feeds)
        assert session.report().shared_weights == {}
        session.add_device(1)  # from here on it is: the first worker keeps its own
        assert session.report().shared_weights == {0: "", 1: "shared"}
    with MultiDeviceSession(path, devices=[0, 1]) as session:
        session.infer(feeds)
        assert session.report().shared_weights == {0: "shared", 1: "shared"}


@pytest.mark.parametrize("wrong", [1, None, "yes", 0.5])
def test_values_that_are_none(wrong: Any, large: tuple[str, list[Any]]) -> None:
    with pytest.raises((ConfigError, ConfigTypeError), match="share_weights must be"):
        MultiDeviceSession(large[0], share_weights=wrong)


# ---- a cache that stays ----


def entries(cache: Path) -> list[str]:
    return sorted(entry.name for entry in cache.iterdir())


def test_a_cache_keeps_what_was_prepared(tmp_path: Path) -> None:
    model, feeds = weighted_models.layers()
    path, cache = save(model, tmp_path / "model.onnx"), tmp_path / "cache"
    expected, _, _ = answers(path, feeds, False)

    def check(given: str | bytes, **options: Any) -> None:
        with MultiDeviceSession(given, devices=[0], weights_cache=cache, **options) as session:
            assert session.infer(feeds)[0].tobytes() == expected[0].tobytes()
            assert session.report().shared_weights == {0: "shared"}

    check(path)
    first = entries(cache)
    assert len(first) == 1
    prepared = cache / first[0] / MODEL
    made = prepared.stat().st_mtime_ns
    check(path)
    check(model.SerializeToString())  # the content counts
    assert entries(cache) == first
    assert prepared.stat().st_mtime_ns == made
    check(path, graph_optimization_level="basic")
    assert len(entries(cache)) == 2
    other, _ = weighted_models.layers()
    save(other, tmp_path / "model.onnx")
    with MultiDeviceSession(path, devices=[0], weights_cache=cache) as session:
        assert session.infer(feeds)[0].tobytes() != expected[0].tobytes()
    assert len(entries(cache)) == 3


def test_a_cache_sees_that_weights_in_other_files_have_changed(tmp_path: Path) -> None:
    model, feeds = weighted_models.layers()
    path, cache = save(model, tmp_path / "model.onnx", external=True), tmp_path / "cache"
    for scale in (1, 2):
        with MultiDeviceSession(path, devices=[0], weights_cache=cache) as session:
            session.infer(feeds)
        assert len(entries(cache)) == scale
        weights = np.fromfile(tmp_path / "weights.bin", np.float32)
        (weights * 2).tofile(tmp_path / "weights.bin")


# ---- weights that cannot be shared: this is reported, and works ----


def factory_of(model: str) -> SessionFactory:
    return SessionFactory(model, "ort", {}, None, False, 1, 0, 2, None, 0, 0, False)


def prepared_by(model: str, folder: Path) -> Prepared:
    return prepare._prepare(Request(pack(factory_of(model)), -1, (), 1, None), str(folder))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(weighted_models.layers()[0], tmp_path / "model.onnx")
    monkeypatch.setattr(prepare, "model_bytes", lambda _model: 1 << 60)
    found = prepared_by(path, tmp_path)
    assert found.path is None
    assert "MiB of room, and about 2199023255616 MiB are needed" in found.why


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = weighted_models.layers()
    path = save(model, tmp_path / "model.onnx")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with MultiDeviceSession(path, devices=[0, 1], share_weights=True) as session:
        session.infer(feeds)
        said = session.report().shared_weights
    assert said[0].startswith("not shared: the process that prepares the weights did not start: FileNotFoundError")


def test_a_helper_that_is_killed_costs_nothing_but_the_sharing(large: tuple[str, list[Any]], monkeypatch: Any) -> None:
    path, feeds = large
    with MultiDeviceSession(path, devices=[0, 1], share_weights=True) as session:
        weights = session._weights
        assert weights is not None
        start = weights.start

        def start_and_kill(*arguments: Any) -> None:
            start(*arguments)
            assert weights._child is not None
            weights._child.kill(signal.SIGKILL)

        monkeypatch.setattr(weights, "start", start_and_kill)
        session.infer(feeds)
        said = session.report().shared_weights
        assert said[0] == "not shared: the process that prepares the weights ended before it had done so"


def test_a_model_that_does_not_load_is_named_as_ever(tmp_path: Path) -> None:
    model, _ = weighted_models.layers()
    model.graph.node[0].op_type = "NoSuchOperator"
    path = save(model, tmp_path / "model.onnx")
    with MultiDeviceSession(path, devices=[0, 1], share_weights=True) as session, pytest.raises(Exception, match="model.onnx"):
        session.start()


# ---- nothing is left ----

HOLDER = """
    import sys, time
    import numpy as np
    from ais_bench.session import MultiDeviceSession

    session = MultiDeviceSession(sys.argv[1], devices=[0, 1], share_weights=True)
    if sys.argv[2] == "ready":
        session.start()
        print("ready", flush=True)
        time.sleep(600)
    print("starting", flush=True)
    session.start()
    time.sleep(600)
"""


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, None], ids=str)
def test_a_pool_whose_process_is_killed_leaves_nothing(
    after_s: float | None, large: tuple[str, list[Any]], temporary: Path
) -> None:
    """This is tested at several moments of the start, and (None) when the pool is ready."""
    state = "ready" if after_s is None else "starting"
    code = textwrap.dedent(HOLDER)
    holder = subprocess.Popen(
        [sys.executable, "-c", code, large[0], state], stdout=subprocess.PIPE, env=environment(), text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == state
    if after_s is None:
        assert len(list(temporary.iterdir())) == 1
    else:
        time.sleep(after_s)  # a moment among many, not a condition that something waits for
    children = [child.pid for child in psutil.Process(holder.pid).children(recursive=True)]
    holder.kill()
    holder.wait()
    holder.stdout.close()
    wait_until(lambda: not list(temporary.iterdir()), what="the files to go")
    wait_until(lambda: all(map(gone, children)), what="the processes to end")


def test_what_a_killed_guard_has_left_goes_with_the_next_pool(tmp_path: Path, temporary: Path) -> None:
    model, feeds = weighted_models.layers()
    path = save(model, tmp_path / "model.onnx")
    with MultiDeviceSession(path, devices=[0], share_weights=True) as living:
        living.infer(feeds)
        kept = set(temporary.iterdir())
        left = temporary / "ais_bench-weights-0123"
        left.mkdir()
        (left / MODEL).write_bytes(b"x")
        with MultiDeviceSession(path, devices=[0], share_weights=True) as session:
            session.infer(feeds)
            assert not left.exists()
            assert kept < set(temporary.iterdir())


def test_a_session_that_is_dropped_takes_its_files_along(tmp_path: Path, temporary: Path) -> None:
    model, feeds = weighted_models.layers()
    session = MultiDeviceSession(save(model, tmp_path / "model.onnx"), devices=[0], share_weights=True)
    session.infer(feeds)
    assert list(temporary.iterdir())
    del session
    wait_until(lambda: not list(temporary.iterdir()))


def test_a_forked_child_that_ends_leaves_the_files_to_its_parent(tmp_path: Path, temporary: Path) -> None:
    model, _feeds = weighted_models.layers()
    path = save(model, tmp_path / "model.onnx")
    code = """
        import os, sys, tempfile
        import numpy as np
        from ais_bench.session import MultiDeviceSession
        session = MultiDeviceSession(sys.argv[1], devices=[0], share_weights=True)
        session.start()
        child = os.fork()
        if child == 0:
            session.close()
            sys.exit()
        os.waitpid(child, 0)
        assert len(os.listdir(tempfile.gettempdir())) == 1
        session.close()
        assert not os.listdir(tempfile.gettempdir())
        print("good")
    """
    from support.scripts import run_script

    assert run_script(code, path) == "good\n"
