"""The life of a session: frees, reloads, exits, threads and processes."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ais_bench import _native
from ais_bench.errors import ConfigError, InferenceCancelled, SessionClosed
from ais_bench.session import InferSession
from support.scripts import in_child, run_script
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("leaves_nothing")
ModelPath = Callable[[str], str]

X = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
CPUS = _native.usable_cpu_count()
FOREVER = np.int64(2**62)  # steps of the loop model: only a cancel ends it
START = np.zeros(1, np.float32)


def threads_of_process() -> int:
    """Count the threads, without the one that watches for signals and ends by itself some time after a run."""
    names = [Path(f"/proc/self/task/{thread}/comm") for thread in os.listdir("/proc/self/task")]
    count = 0
    for name in names:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            count += name.read_text() != "ais_bench watch\n"
    return count


def test_dropping_the_last_reference_frees_the_device(model: ModelPath) -> None:
    before = threads_of_process()
    session = InferSession(0, model("batch"), threads=3)
    wait_until(lambda: threads_of_process() == before + 2, 30, "the session has its threads")
    gone = weakref.ref(session)
    del session
    assert gone() is None, "a cycle keeps it alive until the garbage collector runs"
    wait_until(lambda: threads_of_process() == before, 30, "its threads are gone")


def test_free_twice_and_load_again(model: ModelPath) -> None:
    session = InferSession(0, model("batch"))
    session.free_resource()
    session.free_resource()
    for call in (
        lambda: session.infer([X]),
        lambda: session.infer([X], out_array=False),
        lambda: session.run([X]),
        lambda: session.infer_iteration([X], [0], 3),
        lambda: session.first_inner_run([X]),
        lambda: session.cancel(),
    ):
        with pytest.raises(SessionClosed) as error:
            call()
        assert isinstance(error.value, RuntimeError)
    assert session.get_inputs()[0].name == "x"
    again = InferSession(0, model("batch"))
    assert np.array_equal(again.infer([X])[0], -X)
    again.free_resource()


@pytest.mark.parametrize("free", [InferSession.free_resource, lambda _: InferSession.finalize()])
def test_inner_run_after_a_free_raises(model: ModelPath, free: Callable[[InferSession], None]) -> None:
    session = InferSession(0, model("batch"))
    session.first_inner_run([X])
    free(session)
    with pytest.raises(RuntimeError):
        session.inner_run([0])


def test_finalize_with_live_sessions_twice_and_open_again(model: ModelPath) -> None:
    sessions = [InferSession(0, model("batch")) for _ in range(3)]
    InferSession.finalize()
    sessions[0].finalize()
    for session in sessions:
        with pytest.raises(SessionClosed):
            session.infer([X])
        session.free_resource()
    with InferSession(0, model("batch")) as session:
        assert np.array_equal(session.infer([X])[0], -X)


def test_interpreter_exit_with_free_in_del_and_finalize_in_atexit(model: ModelPath) -> None:
    printed = run_script(
        """
        import atexit, sys
        import numpy as np
        from ais_bench.infer.interface import InferSession

        class Net:
            def __init__(self):
                self.session = InferSession(0, sys.argv[1])
            def __del__(self):
                self.session.free_resource()
                print("freed")

        net = Net()
        net.self = net                     # a cycle: it dies when the interpreter does
        kept = InferSession(0, sys.argv[1])
        atexit.register(InferSession.finalize)
        atexit.register(kept.finalize)
        print(net.session.infer([np.ones((1, 4), np.float32)])[0].sum())
        """,
        model("batch"),
    )
    assert printed.split()[0] == "-4.0"


@pytest.mark.parametrize("call", ["short", "long"])
def test_interpreter_exit_while_daemon_threads_run(model: ModelPath, call: str) -> None:
    run_script(
        """
        import sys, threading
        import numpy as np
        from ais_bench.infer.interface import InferSession

        session = InferSession(0, sys.argv[1])
        begun = threading.Barrier(4)
        def serve():
            begun.wait()
            while True:
                session.infer([np.int64(sys.argv[2]), np.zeros(1, np.float32)])
        for _ in range(3):
            threading.Thread(target=serve, daemon=True).start()
        begun.wait()
        while len(session.summary()) < 3:
            pass
        """,
        model("loop"),
        {"short": "1", "long": "20000"}[call],
    )


def test_many_sessions_on_several_devices(model: ModelPath) -> None:
    sessions = [InferSession(index % CPUS, model("batch")) for index in range(8)]
    for index, session in enumerate(sessions):
        assert session.device_id == index % CPUS
        assert np.array_equal(session.infer([X + index])[0], -(X + index))
    for session in sessions:
        session.free_resource()


def test_attributes_hasattr_and_set_context(model: ModelPath) -> None:
    session = InferSession(0, model("batch"))
    session.anything = "goes"  # type: ignore[attr-defined]
    assert session.anything == "goes"  # type: ignore[attr-defined]
    assert hasattr(session, "infer_pipeline")
    assert not hasattr(session, "no_such_thing")
    session.set_context()
    session.free_resource()


def test_only_the_bound_method_is_kept(model: ModelPath) -> None:
    run = InferSession(0, model("batch")).infer
    gc.collect()
    assert np.array_equal(run([X])[0], -X)


def test_a_session_on_a_torch_module(model: ModelPath) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Module()
    module.session = InferSession(0, model("batch"))
    assert np.array_equal(module.eval().session.infer([X])[0], -X)


# Threads


def test_eight_unlocked_threads_each_get_their_own_answer(model: ModelPath) -> None:
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for i in range(200):
            x = np.full((1 + (number + i) % 5, 4), number * 1000 + i, np.float32)
            (output,) = session.infer([x], mode="dymshape")
            assert np.array_equal(output, -x)

    with InferSession(0, model("batch")) as session, ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result()
        assert len(session.summary().exec_time_list) == 1600


def test_made_in_one_thread_used_and_freed_in_others(model: ModelPath) -> None:
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second, ThreadPoolExecutor(1) as third:
        session = first.submit(InferSession, 0, model("batch")).result()
        assert np.array_equal(second.submit(session.infer, [X]).result()[0], -X)
        third.submit(session.free_resource).result()
    with pytest.raises(SessionClosed):
        session.infer([X])


def test_the_gil_is_released_while_the_device_works_and_cancel_ends_it(model: ModelPath, runtime: str) -> None:
    # An NPU answers when the run ends. On a busy machine a short one may have ended before this thread cancels it.
    steps = (300_000, 3_000_000, 15_000_000) if runtime == "acl" else (FOREVER,)
    with InferSession(0, model("loop")) as session, ThreadPoolExecutor(1) as pool:
        for count in steps:
            run = pool.submit(session.infer, [np.int64(count), START])
            while not run.done():  # this thread runs only if the other one has released the GIL
                session.cancel()
                time.sleep(0.001)
            if run.exception() is not None:
                break
        assert isinstance(run.exception(), InferenceCancelled)
        assert session.infer([np.int64(3), START])[0].tolist() == [3]


@pytest.mark.parametrize("call", ["infer", "tensors", "infer_iteration", "infer_pipeline"])
def test_one_cancel_ends_a_call_of_many_short_runs(model: ModelPath, call: str) -> None:
    """Often the cancel comes between two runs."""
    feeds, ended = [X], threading.Event()

    def cancelled_once(run: Future[Any]) -> None:
        wait_until(lambda: session.summary() or run.done(), 30, "a run has ended")
        session.cancel()
        try:
            with pytest.raises(InferenceCancelled):
                run.result(20)
        finally:  # if it fails, the thread must end
            ended.set()
            while not run.done():
                session.cancel()
            ended.clear()

    with InferSession(0, model("batch"), loop=1 if call.startswith("infer_") else 2**31 - 1) as session:
        calls: dict[str, Callable[[], Any]] = {
            "infer": lambda: session.infer(feeds),
            "tensors": lambda: session.infer(feeds, out_array=False),
            "infer_iteration": lambda: session.infer_iteration(feeds, [0], 2**31 - 1),
            "infer_pipeline": lambda: session.infer_pipeline(feeds for _ in iter(ended.is_set, True)),
        }
        with ThreadPoolExecutor(1) as pool:
            for _ in range(10):
                session.reset_summaryinfo()
                cancelled_once(pool.submit(calls[call]))
        session.set_loop_count(1)
        assert session.infer_pipeline([feeds] * 3)[2][0].tolist() == (-X).tolist()  # later runs are not affected


def test_free_during_a_run_lets_the_run_end(model: ModelPath) -> None:
    session = InferSession(0, model("loop"))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(session.infer, [np.int64(200_000), START])
        wait_until(lambda: run.running() or run.done(), 30, "the run began")
        session.free_resource()
        error = run.exception()
        assert error is None or isinstance(error, SessionClosed)  # closed before it began
        if error is None:
            assert run.result()[0].tolist() == [200_000]


def test_sessions_made_and_freed_in_threads_at_once(model: ModelPath) -> None:
    path = model("batch")  # one thread makes the file

    def work(number: int) -> bool:
        for _ in range(10):
            with InferSession(number % CPUS, path) as session:
                assert np.array_equal(session.infer([X])[0], -X)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


# Processes


def test_a_session_made_in_a_forked_child_works(model: ModelPath, runtime: str) -> None:
    path = model("batch")
    options: dict[str, Any] = {"threads": 2} if runtime == "ort" else {}  # threads, which a fork does not copy
    with InferSession(0, path) as session:
        assert np.array_equal(session.infer([X])[0], -X)
        assert in_child(lambda: float(InferSession(0, path, **options).infer([X])[0].sum())) == str(float(-X.sum()))
        assert np.array_equal(session.infer([X])[0], -X)


def test_the_parents_session_refuses_in_a_forked_child(model: ModelPath) -> None:
    with InferSession(0, model("batch")) as session:
        for call in (lambda: session.infer([X]), lambda: session.run([X]), lambda: session.infer_iteration([X], [0], 2)):
            assert in_child(call).startswith("SessionClosed"), in_child(call)
        assert in_child(lambda: session.free_resource()) == "None"
        assert in_child(lambda: session.finalize()) == "None"
        assert np.array_equal(session.infer([X])[0], -X)


def test_a_forked_child_that_only_runs_destructors_and_exit_hooks_ends(model: ModelPath, runtime: str) -> None:
    printed = run_script(
        """
        import atexit, os, sys, threading
        import numpy as np
        from ais_bench.infer.interface import InferSession

        session = InferSession(0, sys.argv[1], **({"threads": 2} if sys.argv[2] == "ort" else {}))
        tensors = session.infer([np.ones((1, 4), np.float32)], out_array=False)
        atexit.register(InferSession.finalize)
        busy = threading.Event()

        def hammer():       # so that a lock may be held at the moment of the fork
            while not busy.is_set():
                session.infer([np.ones((1, 4), np.float32)])

        thread = threading.Thread(target=hammer)
        thread.start()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                session.free_resource()
                del session, tensors
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
        busy.set()
        thread.join()
        print(session.infer([np.ones((1, 4), np.float32)])[0].sum())
        """,
        model("batch"),
        runtime,
    )
    assert printed.split() == ["-4.0"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing_children_of_a_parent_that_holds_a_session(model: ModelPath, method: str, tmp_path: Any) -> None:
    (tmp_path / "child_work.py").write_text(
        "import numpy as np\n"
        "from ais_bench.infer.interface import InferSession\n"
        "def work(path, factor):\n"
        "    return float(InferSession(0, path).infer([np.full((1, 4), factor, np.float32)])[0].sum())\n"
    )
    printed = run_script(
        """
        import multiprocessing, sys
        sys.path.insert(0, sys.argv[3])
        import numpy as np
        from ais_bench.infer.interface import InferSession
        from child_work import work

        if __name__ == "__main__":
            session = InferSession(0, sys.argv[1])
            session.infer([np.ones((1, 4), np.float32)])
            with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
                print(pool.starmap(work, [(sys.argv[1], 1), (sys.argv[1], 2)]))
                pool.close()
                pool.join()
            print(session.infer([np.ones((1, 4), np.float32)])[0].sum())
        """,
        model("batch"),
        method,
        str(tmp_path),
    )
    assert printed.split("\n")[:2] == ["[-4.0, -8.0]", "-4.0"]


def test_the_loop_count_may_change_while_another_thread_runs(model: ModelPath) -> None:
    done = threading.Event()
    with InferSession(0, model("nonzero")) as session, ThreadPoolExecutor(2) as threads:

        def change() -> None:
            while not done.is_set():
                for loop in (1, 2, 3):
                    session.set_loop_count(loop)

        changes = [threads.submit(change) for _ in range(2)]
        try:
            for _ in range(5000):
                (where,) = session.infer([np.eye(3, 4, dtype=np.float32)])
                assert where.tolist() == [[0, 1, 2]] * 2
        finally:
            done.set()
        for thread in changes:
            thread.result()


def test_times_are_read_by_several_threads_at_once(model: ModelPath) -> None:
    done = threading.Event()
    interval = sys.getswitchinterval()
    reads, runs = [0] * 4, 0
    with InferSession(0, model("batch")) as session, ThreadPoolExecutor(4) as threads:

        def read(number: int) -> None:
            while not done.is_set():
                starts = [start for start, _ in session.summary()]
                assert len(set(starts)) == len(starts), "an execution was reported twice"
                reads[number] += 1

        sys.setswitchinterval(1e-6)
        try:
            readers = [threads.submit(read, number) for number in range(4)]
            while runs < 1000 or (min(reads) < 3 and not any(reader.done() for reader in readers) and runs < 100_000):
                session.infer([X])
                runs += 1
        finally:
            sys.setswitchinterval(interval)
            done.set()
        for reader in readers:
            reader.result()
        assert min(reads) >= 3
        assert len(session.summary()) == runs


@pytest.mark.parametrize(("steps", "runs"), [(1, 2000), (200_000, 2)], ids=["short runs", "long runs"])
def test_an_interrupt_ends_a_long_iteration(model: ModelPath, steps: int, runs: int) -> None:
    printed = run_script(
        """
        import os, signal, sys, threading
        import numpy as np
        from ais_bench.infer.interface import InferSession

        session = InferSession(0, sys.argv[1])
        steps, runs = map(int, sys.argv[2:])
        def interrupt():
            while len(session.summary()) < runs:   # the iteration is under way
                pass
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            session.infer_iteration([np.int64(steps), np.zeros(1, np.float32)], [-1, 0], 2**31 - 1)
        except KeyboardInterrupt:
            print("interrupted")
        print(session.infer([np.int64(3), np.zeros(1, np.float32)])[0].sum())
        """,
        model("loop"),
        str(steps),
        str(runs),
    )
    assert printed.split() == ["interrupted", "3.0"]


@pytest.mark.parametrize("device", [0, np.int64(0), "0", np.uint8(0)])
def test_device_ids_that_are_accepted(model: ModelPath, device: Any) -> None:
    with InferSession(device, model("batch")) as session:
        assert session.device_id == 0


@pytest.mark.parametrize("device", [None, 0.0, "zero", True, -1, [0]])
def test_device_ids_that_are_not(model: ModelPath, device: Any) -> None:
    with pytest.raises(ConfigError, match="device_id must be"):
        InferSession(device, model("batch"))
