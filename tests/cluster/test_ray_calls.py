"""Calls of a cluster session: invalid calls, calls from callbacks and threads, ends of programs. Skipped without Ray.

The first tests need no cluster. The others are programs that join one, with several checks each, because joining takes seconds.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from support.cluster import BEGIN, ON_A_CLUSTER, Host, own_lines, run, started
from support.scripts import run_python
from support.waiting import wait_until

pytestmark = ON_A_CLUSTER
NPUS = 2  # of each node


def test_what_is_wrong_is_told_before_anything_starts(model_on_npus: str) -> None:
    program = """
import socket, sys, time
from ais_bench.errors import AisBenchError
from ais_bench.ray import ClusterSession
free = socket.socket(); free.bind(("127.0.0.1", 0))  # no program listens there
nobody = "127.0.0.1:%d" % free.getsockname()[1]
wrong = [dict(chunk=0), dict(nodes=[]), dict(nodes="a"), dict(max_node_failures=-1), dict(reserve="x"), dict(devices=[0, 0]),
         dict(address=5), dict(max_node_failure=3), dict(preprocess=3), dict(task_timeout=-1), dict(on_error="x"),
         dict(address="nonsense"), dict(address=nobody)]
for how in wrong:
    try:
        ClusterSession(sys.argv[1], **how)
    except AisBenchError as error:
        print(type(error).__name__, *how, str(error).split()[0 if "address" not in how else -1:][0][:30])
    else:
        print("accepted", how)
try:
    ClusterSession("/no/such/model.om")
except AisBenchError as error:
    print(type(error).__name__)
import ray
assert not ray.is_initialized()
"""
    done = run_python("-c", program, model_on_npus, seconds=100)
    assert done.returncode == 0, done.stderr
    lines = [line.split()[:2] for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [
        *("ConfigError", "ConfigError", "ConfigTypeError", "ConfigError", "ConfigTypeError", "ConfigError", "ConfigError"),
        *("ConfigTypeError", "ConfigTypeError", "ConfigError", "ConfigError", "ConfigError", "ConfigError", "ModelLoadError"),
    ], done.stdout
    assert (
        "did you mean 'max_node_failures'"
        in run_python(
            "-c",
            "import sys; from ais_bench.ray import ClusterSession; ClusterSession(sys.argv[1], max_node_failure=3)",
            model_on_npus,
        ).stderr
    )


def test_without_ray_it_says_what_to_install() -> None:
    done = run_python("-c", "import sys; sys.modules['ray'] = None; import ais_bench.ray")
    assert "ais_bench.ray needs Ray, which is not installed: pip install 'ais_bench[ray]'" in done.stderr


def test_nodes_are_found_by_what_they_have_and_by_name() -> None:
    from ais_bench.errors import ConfigError
    from ais_bench.ray.nodes import Node, Settings, find_nodes, kinds_of, reservation

    def node(id: str, alive: bool = True, **resources: float) -> dict[str, Any]:
        return {
            "NodeID": id,
            "Alive": alive,
            "NodeManagerHostname": f"host-{id}",
            "NodeManagerAddress": f"10.0.0.{len(id)}",
            "Resources": resources,
        }

    head, npus, gpus, dead = node("h", CPU=4), node("nn", CPU=4, NPU=8), node("ggg", GPU=2), node("dddd", False, NPU=8)
    cluster = [head, npus, gpus, dead]
    kinds = kinds_of(cluster, None)
    assert set(find_nodes(cluster, None, kinds)) == {"nn", "ggg"}
    assert set(find_nodes([head], None, kinds)) == set()  # its devices are gone, and processors do not replace them
    assert set(find_nodes([head], None, kinds_of([head], None))) == {"h"}
    wanted = ["h", "host-nn", "10.0.0.3"]
    assert set(find_nodes(cluster, wanted, kinds_of(cluster, wanted))) == {"h", "nn", "ggg"}
    for wrong in (["nowhere"], ["h", "dddd"]):
        with pytest.raises(ConfigError, match="nodes must name nodes of the cluster"):
            kinds_of(cluster, wrong)
    with pytest.raises(ConfigError, match="no node with devices or processors"):
        kinds_of([node("x")], None)

    def asked(resources: dict[str, float], devices: Any = None, reserve: bool = True) -> Any:
        return reservation(Node(0, "n", "n", resources), Settings(None, None, devices, reserve, 3, 1, 1))

    assert asked({"NPU": 8, "CPU": 4}) == ({"num_cpus": 0, "resources": {"NPU": 8}}, ("NPU", 8))
    assert asked({"NPU": 8}, [2, 3])[1] == ("NPU", 4)  # Ray picks the devices, so the number follows from the largest id
    assert asked({"GPU": 2}, [0]) == ({"num_cpus": 0, "num_gpus": 1}, ("GPU", 1))
    assert asked({"CPU": 4}) == ({"num_cpus": 4}, ("CPU", 4))
    assert asked({"NPU": 8}, reserve=False) == ({"num_cpus": 0}, None)


@pytest.mark.long
def test_items_and_results_are_those_of_a_session_on_one_machine(host: Host, model_on_npus: str, tmp_path: Path) -> None:
    program = """
import threading
from ais_bench.session import Keyed

class Mine(Exception):
    def __init__(self, text, more):
        super().__init__(text)
        self.more = more

class Sample:
    def __init__(self, n): self.n = n

class Result:
    def __init__(self, n): self.n, self.arrays = n, {"large": np.zeros(50_000), "small": np.zeros(3)}

class NoWayBack:
    def __reduce__(self): raise RuntimeError("not me")

def read(sample):
    if isinstance(sample, np.ndarray): return feeds(int(sample[0]))
    if sample.n == 5: raise Mine("five", 55)
    return feeds(sample.n)

def finish(outputs):
    n = int(outputs[0][0, 0])
    return {7: NoWayBack(), 8: (i for i in range(3))}.get(n) or Result(n)

with ClusterSession(model, address=address, preprocess=read, postprocess=finish) as session:
    items = [Sample(n) for n in range(12)]
    items[4] = NoWayBack()
    for n, (result, item) in enumerate(session.map(items, on_error="return", details=True)):
        assert item.index == n
        if n in (4, 5, 7, 8):
            wanted = {4: RuntimeError, 5: Mine, 7: RuntimeError, 8: TypeError}[n]
            assert result.index == n and isinstance(result, wanted), result
            assert n != 5 or result.more == 55
        else:
            assert isinstance(result, Result) and result.n == n
            for array in result.arrays.values(): array[0] = 1  # it is the caller's
    assert [item.key for _, item in session.map((Keyed(("k", n), Sample(n)) for n in range(3)), details=True)] == [
        ("k", 0), ("k", 1), ("k", 2)]
    for size in (100_000, 1_000):  # through the object store, and not
        buffer = np.zeros(size, np.float32)
        def reused():
            for n in range(30, 60):
                buffer[:] = n
                yield buffer
        assert [result.n for result in session.map(reused())] == list(range(30, 60))
    numbers = []
    def go(first):
        numbers.append([result.n for result in session.map(Sample(n) for n in range(first, first + 40))])
    threads = [threading.Thread(target=go, args=(first,)) for first in (100, 200, 300)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert sorted(numbers) == [list(range(first, first + 40)) for first in (100, 200, 300)], numbers
said("the same")
"""
    assert run(host, model_on_npus, tmp_path, program) == "the same\n"


@pytest.mark.long
def test_single_calls_devices_and_two_sessions(host: Host, model_on_npus: str, tmp_path: Path) -> None:
    program = """
import asyncio, concurrent.futures, threading
from ais_bench.errors import ConfigError, FeedError, TaskTimeout, WorkerStartError
with ClusterSession(open(model, "rb").read(), address=address) as session:
    session.start()
    try:
        ClusterSession(model, address=address, start_timeout=1).start()
    except WorkerStartError as error:
        assert "0 of 2 NPU free" in str(error) and "reserve=False" in str(error), error
    with ClusterSession(model, address=address, reserve=False) as other:
        both = zip(session.map(feeds(n) for n in range(40)), other.map(feeds(n) for n in range(40)))
        assert all(a[0][0, 0] == n == b[0][0, 0] for n, (a, b) in enumerate(both))
    got, called = [], threading.Event()
    def call_again(future):
        got.extend([session.infer(feeds(7))[0][0, 0], session.submit(feeds(8)).result(60)[0][0, 0]])
        called.set()
    session.submit(feeds(1)).add_done_callback(call_again)
    assert called.wait(60) and got == [7, 8]
    futures = [session.submit(feeds(n)) for n in range(40)]
    cancelled = [future.cancel() for future in futures[20:]]
    assert not concurrent.futures.wait(futures, 60).not_done and any(cancelled)
    assert all(futures[n].result()[0][0, 0] == n for n in range(20))
    late = [session.submit(feeds(n), timeout=0.05) for n in range(100)]
    assert isinstance(late[-1].exception(60), TaskTimeout) and "0.05 seconds" in str(late[-1].exception())
    async def many():
        outputs = await asyncio.gather(*[session.infer_async(feeds(n)) for n in range(30)])
        assert [int(output[0][0, 0]) for output in outputs] == list(range(30))
    asyncio.run(many())
    name = session.get_outputs()[0].name
    assert len(session.infer(feeds(1), outputs=[name])) == 1
    for how, kind in ((dict(device=3), ConfigError), (dict(device=("x", 0)), ConfigError), (dict(outputs=["no"]), FeedError)):
        try:
            session.infer(feeds(1), **how)
        except kind: continue
        raise AssertionError(how)
with ClusterSession(model, address=address, devices=[1]) as session:
    assert [device for _, device in session.devices] == [1, 1]
with ClusterSession(model, address=address, devices=0) as one, ClusterSession(model, address=address, devices=0) as two:
    assert one.infer(feeds(4))[0][0, 0] == 4 == two.infer(feeds(5))[0][0, 0] - 1
    node = one.devices[0][0]
with ClusterSession(model, address=address, nodes=[node]) as session:
    assert {name for name, _ in session.devices} == {node}
import ais_bench
ais_bench.__version__ = "0.0.0"
try:
    ClusterSession(model, address=address).start()
except WorkerStartError as error:
    assert "this program 0.0.0: they must be equal" in str(error), error
said("all")
"""
    assert run(host, model_on_npus, tmp_path, program) == "all\n"


ENDINGS = """
import threading, pathlib
from ais_bench.errors import PoolBroken, PoolClosed
from ais_bench.ray.chunks import Chunk, Order, ChunkWaiter
from ais_bench.ray.nodes import NodeState
here = pathlib.Path(marks)

def closed_after(seconds, **how):
    session = ClusterSession(model, address=address)
    session.start()
    timer = threading.Timer(seconds, lambda: session.close(**how))
    timer.start()
    return session, timer

# From another thread, in the middle of a stream; what was accepted is done, and the stream says why it ends.
for how in ({}, {"force": True}):
    session, timer = closed_after(0.5, **how)
    try:
        for outputs in session.map((feeds(n) for n in range(10**6)), on_error="return"): pass
    except PoolClosed: pass
    else: raise AssertionError("the stream went on")
    timer.join()

# From a callback; and once more.
session, called = ClusterSession(model, address=address), threading.Event()
session.submit(feeds(1)).add_done_callback(lambda future: (session.close(), called.set()))
assert called.wait(60)
session.close()

# An event that comes between the thread's last look and its end is taken.
session = ClusterSession(model, address=address)
session.start()
driver, late = session._driver, Chunk(0, (), Order(), ChunkWaiter(), count=1)
goes_on = driver._goes_on
def last_look():
    if goes_on(): return True
    assert driver._post(lambda: driver._accept(late, None))
    return False
driver._goes_on = last_look
session.close()
assert late.done and isinstance(late.error, PoolClosed)
try: driver.submit(Chunk(0, (), Order(), ChunkWaiter(), count=1))
except PoolClosed: pass
else: raise AssertionError("it was accepted")
try: driver.ask(lambda: None)
except PoolClosed: pass
else: raise AssertionError("it was asked")

# Every node's actor dies with the only task, and the session is closed before any of them is there again.
def die_once(n):
    for place in range(2):
        try: (here / f"died-{place}").touch(exist_ok=False)
        except FileExistsError: continue
        os.kill(os.getppid(), 9)
        time.sleep(60)
    return feeds(n)
session = ClusterSession(model, address=address, preprocess=die_once, nodes=[driver.nodes()[0].id])
session.start()
future = session.submit(5)
deadline = time.monotonic() + 60
while not any(node.state is NodeState.RESTING for node in session._driver.nodes()):
    assert time.monotonic() < deadline
    time.sleep(0.001)
threading.Thread(target=session.close).start()
error = future.exception(60)
assert "nodes were lost with this item" in str(error), error

# A node that is given up at once fails what only it could do.
def die_below_0(n):
    return feeds(n) if n >= 0 else os.kill(os.getppid(), 9)
with ClusterSession(model, address=address, preprocess=die_below_0, max_node_failures=0) as session:
    here_, there = session.devices[0], session.devices[-1]
    lost = session.submit(-1, here_)
    assert isinstance(lost.exception(60), PoolBroken), lost.exception()
    assert {node for node, _ in session.devices} == {there[0]}
    assert session.infer(3)[0][0, 0] == 3

# The program leaves the cluster: the session says so, and Ray starts none of its own.
import ray
session = ClusterSession(model, address=address)
stream = session.map(feeds(n) for n in range(10**6))
next(stream)
ray.shutdown()
try:
    for outputs in stream: pass
except PoolBroken as error: assert "ray.shutdown() was called" in str(error), error
else: raise AssertionError("the stream went on")
session.close()
assert not ray.is_initialized()
said("ended")
"""


@pytest.mark.long
def test_no_call_waits_forever(host: Host, model_on_npus: str, tmp_path: Path) -> None:
    assert run(host, model_on_npus, tmp_path, ENDINGS) == "ended\n"


@pytest.mark.long
def test_ctrl_c_ends_a_call_and_not_the_session(host: Host, model_on_npus: str, tmp_path: Path) -> None:
    program = """
import pathlib
session = ClusterSession(model, address=address)
session.start()
try:
    for n, _ in enumerate(session.map(feeds(n) for n in range(10**6))):
        if n == 20: pathlib.Path(marks, "first").touch()
except KeyboardInterrupt:
    said("interrupted")
assert [int(outputs[0][0, 0]) for outputs in session.map(feeds(n) for n in range(50))] == list(range(50))
with session:
    for n, _ in enumerate(session.map(feeds(n) for n in range(10**6))):
        if n == 20: pathlib.Path(marks, "second").touch()
"""
    with started(host, model_on_npus, tmp_path, program) as process:
        for mark in ("first", "second"):
            wait_until(lambda mark=mark: (tmp_path / mark).exists() or process.poll() is not None, 90)  # type: ignore[misc]
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (own_lines(out), err.rstrip().splitlines()[-1:]) == ("interrupted\n", ["KeyboardInterrupt"]), err
    assert process.returncode in (1, 130, -signal.SIGINT)


@pytest.mark.long
def test_a_session_that_is_not_closed_ends_with_its_last_reference_and_with_the_program(
    host: Host, model_on_npus: str, tmp_path: Path
) -> None:
    program = """
import gc, psutil
session = ClusterSession(model, address=address)
workers = [worker.pid for report in (session.infer(feeds(1)), session.report())[1].nodes.values() for worker in report.workers]
assert len(workers) == 4 and all(map(psutil.pid_exists, workers))
del session
gc.collect()
deadline = time.monotonic() + 30
while any(map(psutil.pid_exists, workers)):
    assert time.monotonic() < deadline
    time.sleep(0.05)
assert ClusterSession(model, address=address).submit(feeds(6)).result(60)[0][0, 0] == 6
session = ClusterSession(model, address=address)
stream = session.map(feeds(n) for n in range(10**6))
assert next(stream)[0][0, 0] == 0
if os.fork() == 0:
    try: session.infer(feeds(1))
    except Exception as error: said(type(error).__name__)
    session.close()
    os._exit(0)
os.wait()
assert next(stream)[0][0, 0] == 1
said("the end")
"""
    done = run_python("-c", BEGIN + program, model_on_npus, host.address, str(tmp_path), seconds=100)
    assert (done.returncode, own_lines(done.stdout)) == (0, "SessionClosed\nthe end\n"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_a_node_that_is_drained_finishes_what_it_has(host: Host, model_on_npus: str, tmp_path: Path) -> None:
    program = """
import ray
with ClusterSession(model, address=address) as session:
    leaving = sys.argv[4]
    assert leaving in {node for node, _ in session.devices}
    late = set()
    for n, (outputs, item) in enumerate(session.map((feeds(n) for n in range(900)), details=True)):
        assert item.index == n and outputs[0][0, 0] == n
        if n == 100:
            gcs = ray._private.worker.global_worker.gcs_client
            accepted, why = gcs.drain_node(leaving, 2, "a test", time.time_ns() // 10**6 + 10**5)
            assert accepted, why
        if n > 700: late.add(item.device_id[0])
    assert leaving not in late and len(late) == 2, late
    assert leaving not in {node for node, _ in session.devices}
    said("drained")
"""
    node = host.tell("add")
    done = run_python("-c", BEGIN + program, model_on_npus, host.address, str(tmp_path), node, seconds=150)
    host.tell("kill")
    assert host._line() == "killed"
    assert (done.returncode, own_lines(done.stdout)) == (0, "drained\n"), done.stdout + done.stderr
    assert "suspected" not in done.stderr
