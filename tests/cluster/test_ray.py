"""A session over several nodes: raylets on this machine, each with emulated NPUs. Skipped without Ray.

One cluster serves all tests of this file (the fixture `host`); each test is a separate program that joins it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from support.cluster import BEGIN, ON_A_CLUSTER, Host, own_lines, run, started
from support.scripts import run_python
from support.waiting import wait_until

pytestmark = ON_A_CLUSTER
NPUS = 4  # of each node


def test_results_come_in_order_from_all_devices(host: Host, model_on_npus: str, tmp_path: Path) -> None:
    program = """
with ClusterSession(model, address=address) as session:
    assert len({node for node, _ in session.devices}) == 2 and len(session.devices) == 8, session.devices
    used = set()
    for n, (outputs, item) in enumerate(session.map((feeds(n) for n in range(200)), details=True)):
        assert (outputs[0] == n).all() and item.index == n and outputs[0].flags.writeable
        used.add(item.device_id)
    assert used == set(session.devices), used
    assert {index: int(outputs[0][0, 0]) for index, outputs in session.map_unordered(feeds(n) for n in range(50))} == {
        n: n for n in range(50)}
    (whole,) = session.infer_batch([np.arange(60, dtype=np.float32).reshape(20, 3), np.zeros((20, 3), np.float32)])
    assert (whole == np.arange(60, dtype=np.float32).reshape(20, 3)).all()
    report = session.report()
    assert (report.tasks, report.failures, len(report.nodes)) == (260, 0, 2), report
    first = session.devices[-1]
    assert (session.infer(feeds(3), device=first)[0] == 3).all()
said("in order")
"""
    assert run(host, model_on_npus, tmp_path, program) == "in order\n"


def test_errors_name_their_place_in_the_stream(host: Host, model_on_npus: str, tmp_path: Path) -> None:
    program = """
from ais_bench.errors import FeedError, ConfigError
bad = {17, 40}
items = [feeds(n) if n not in bad else [np.zeros(1, np.float32)] for n in range(60)]
with ClusterSession(model, address=address) as session:
    results = list(session.map(items, on_error="return"))
    assert {n for n, result in enumerate(results) if isinstance(result, Exception)} == bad
    for n in bad:
        assert isinstance(results[n], FeedError) and results[n].index == n and f"index {n}" in str(results[n]), results[n]
    try:
        list(session.map(items))
    except FeedError as error:
        assert error.index == 17
    else:
        raise AssertionError("nothing was raised")
    def source():
        yield feeds(1)
        raise LookupError("the source")
    got = []
    try:
        for outputs in session.map(source()): got.append(outputs)
    except LookupError:
        assert len(got) == 1
for wrong in ({"task_timout": 1}, {"nodes": ["nowhere"]}, {"chunk": 0}):
    try:
        ClusterSession(model, address=address, **wrong).start()
    except ConfigError as error:
        said(str(error)[:40])
"""
    told = run(host, model_on_npus, tmp_path, program).splitlines()
    assert [line.split()[0] for line in told] == ["unknown", "nodes", "chunk"]


@pytest.mark.long
def test_an_item_that_costs_its_nodes_fails_alone_by_name(host: Host, model_on_npus: str, tmp_path: Path) -> None:
    program = """
from ais_bench.errors import WorkerDied

def prepare(n):
    if n == 33:
        import os, signal
        os.kill(os.getppid(), signal.SIGKILL)  # the actor
        time.sleep(60)
    return [np.full((2, 3), n, np.float32), np.zeros((2, 3), np.float32)]

with ClusterSession(model, address=address, preprocess=prepare, chunk=8) as session:
    results = list(session.map(range(80), on_error="return"))
    failed = [n for n, result in enumerate(results) if isinstance(result, Exception)]
    assert failed == [33], failed
    assert isinstance(results[33], WorkerDied) and results[33].index == 33, results[33]
    assert all((results[n][0] == n).all() for n in range(80) if n != 33)
said("alone")
"""
    assert run(host, model_on_npus, tmp_path, program) == "alone\n"


def test_a_node_that_is_killed_costs_no_item_and_one_that_joins_is_used(host: Host, model_on_npus: str, tmp_path: Path) -> None:
    program = """
import pathlib
here = pathlib.Path(marks)
with ClusterSession(model, address=address) as session:
    session.start()
    (here / "ready").touch()
    before = set(session.devices)
    used, n = set(), 0
    def until_used():
        number = 0
        while number < 60000 and not (here / "enough").exists():
            yield feeds(number)
            number += 1
        for number in range(number, number + 100):
            yield feeds(number)
    for outputs, item in session.map(until_used(), details=True):
        assert (outputs[0] == n).all() and item.index == n, (n, item)
        n += 1
        if n == 200: (here / "begun").touch()
        if item.device_id not in before:
            (here / "enough").touch()
            used.add(item.device_id)
    assert used, "the new node was not used"
    assert n > 200
said("all")
"""
    with started(host, model_on_npus, tmp_path, program) as process:
        wait_until(lambda: (tmp_path / "begun").exists() or process.poll() is not None, 90)
        host.tell("kill")
        host._line()
        host.tell("add")
        out, err = process.communicate(timeout=300)  # the new node starts slowly on a busy machine
    assert (process.returncode, own_lines(out)) == (0, "all\n"), out + err


def test_nothing_is_left_of_a_driver_that_is_killed(host: Host, model_on_npus: str, tmp_path: Path) -> None:
    program = """
import pathlib, signal
session = ClusterSession(model, address=address)
for n, _ in enumerate(session.map(feeds(n) for n in range(100000))):
    if n == 50:
        pathlib.Path(marks, "pids").write_text(" ".join(str(worker.pid)
            for report in session.report().nodes.values() for worker in report.workers))
        os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_python("-c", BEGIN + program, model_on_npus, host.address, str(tmp_path), seconds=120)
    assert done.returncode == -9, done.stderr
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 4
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 60)


def test_a_score_has_the_same_bits_as_on_one_machine_and_a_run_goes_on_elsewhere(
    host: Host, model_on_npus: str, tmp_path: Path
) -> None:
    program = """
import pathlib
from ais_bench.emulator import npus
from ais_bench.evaluate import MeanError, evaluate, load
from ais_bench.session import InferSession, MultiDeviceSession

rng = np.random.default_rng(5)
truth = rng.random((100, 3))
samples = [([rng.random(3, np.float32), rng.random(3, np.float32)], truth[n]) for n in range(100)]

def on_cluster(*arguments, **options):
    return ClusterSession(*arguments, address=address, **options)

def score(**how):
    return evaluate(model, samples, metrics=[MeanError("relative")], progress=False, **how)

there = score(session=on_cluster)
with npus(2):
    here = score(devices=[0, 1])
    with InferSession(0, model) as session:
        alone = evaluate(session, samples, metrics=[MeanError("relative")], progress=False)
assert there.metrics == here.metrics == alone.metrics, (there.metrics, here.metrics)
devices = {record["device"] for record in there.records}
assert len({device.split("/")[0] for device in devices}) == 2, devices

class Metric(MeanError):
    left = 40
    def update(self, outputs, target):
        if Metric.left == 0: raise KeyboardInterrupt
        Metric.left -= 1
        super().update(outputs, target)
run = str(pathlib.Path(marks, "run"))
try:
    evaluate(model, samples, metrics=[Metric("relative")], progress=False, output=run, session=on_cluster)
except KeyboardInterrupt:
    pass
before = len(load(run).records)
assert 0 < before < 100, before
with npus(2):
    resumed = score(devices=[0, 1], output=run, resume=True)
assert len(resumed.records) == 100 and resumed.metrics == here.metrics, resumed.metrics
# The other way round: begun on one machine, ended on the cluster.
Metric.left = 40
run = str(pathlib.Path(marks, "back"))
with npus(2):
    try:
        evaluate(model, samples, metrics=[Metric("relative")], progress=False, output=run, devices=[0, 1])
    except KeyboardInterrupt:
        pass
assert 0 < len(load(run).records) < 100
resumed = score(session=on_cluster, output=run, resume=True)
assert len(resumed.records) == 100 and resumed.metrics == here.metrics, resumed.metrics
where = {str(record["device"]).count("/") for record in resumed.records}
assert where == {0, 1}, where
said("the same")
"""
    assert run(host, model_on_npus, tmp_path, program) == "the same\n"


def test_a_predictor_turns_columns_into_inputs_and_outputs_into_columns(
    host: Host, multi_device_models: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    for needed in ("pyarrow", "pandas"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    program = """
import ray
from ais_bench.errors import FeedError
from ais_bench.ray import Predictor

predictor = Predictor(model, inputs={"a": "x"}, outputs={"c": "sum"}, keep=["id"])
batch = {"id": np.arange(4), "x": np.ones((4, 3), np.float32), "b": np.full((4, 3), 2, np.float32), "other": np.zeros(4)}
answer = predictor(batch)
assert sorted(answer) == ["id", "sum"] and (answer["sum"] == 3).all()
lists = np.empty(4, object)
lists[:] = [[1.0, 2.0, 3.0]] * 4  # as Ray Data has columns of lists
assert (predictor({**batch, "x": lists})["sum"] == [3, 4, 5]).all()
try:
    predictor({"b": batch["b"]})
except FeedError as error:
    assert "['x']" in str(error), error
else:
    raise AssertionError("a column was missing")

ray.init(address=address, log_to_driver=False)
context = ray.data.DataContext.get_current()
context.execution_options.preserve_order = True
context.enable_progress_bars = False
rows = [{"id": n, "x": np.full(3, n, np.float32), "b": np.ones(3, np.float32)} for n in range(200)]
found = (
    ray.data.from_items(rows, override_num_blocks=4)
    .map_batches(
        Predictor,
        fn_constructor_kwargs={"model": model, "inputs": {"a": "x"}, "outputs": {"c": "sum"}, "keep": ["id"]},
        batch_size=16,
        concurrency=2,
        num_cpus=0.25,
    )
    .take_all()
)
assert [row["id"] for row in found] == list(range(200)), found[:20]
assert all(set(row) == {"id", "sum"} and (row["sum"] == row["id"] + 1).all() for row in found), found[:2]
said("columns")
"""
    assert run(host, multi_device_models("ort")["open"], tmp_path, program) == "columns\n"


def test_importing_the_library_never_imports_ray() -> None:
    done = run_python(
        "-c", "import sys, ais_bench.session, ais_bench.evaluate; import ais_bench.pool; print('ray' in sys.modules)"
    )
    assert done.stdout == "False\n", done.stderr
