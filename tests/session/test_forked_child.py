"""In a forked child every call of a parent's session returns at once, and so does every new session."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import aclruntime
from ais_bench.errors import ModelLoadError
from ais_bench.session import InferSession, MultiDeviceSession
from support.scripts import in_child, run_script
from support.session import DEVICES

Path_ = Callable[[str], str]
X = np.ones((1, 4), np.float32)
TENSORS = "a tensor's own business"

# The arguments of public methods; others are called without arguments.
ARGUMENTS: dict[str, Any] = {
    "infer": ([X],),
    "infer_pipeline": ([[X]],),
    "infer_iteration": ([X], [0], 2),
    "run": ([X],),
    "run_from_tensors": ([X],),
    "first_inner_run": ([X],),
    "inner_run": ([0],),
    "set_dynamic_batchsize": (1,),
    "set_dynamic_hw": (1, 1),
    "set_dynamic_dims": ("x:1,4",),
    "set_dynamic_shape": ("x:1,4",),
    "set_custom_outsize": ([7],),
    "create_tensor_from_arrays_to_device": (X,),
    "submit": ([X],),
    "map": ([[X]],),
    "map_unordered": ([[X]],),
    "amap": ([[X]],),
    "infer_batch": (X,),
    "add_device": (1,),
    "remove_device": (0,),
}
# Calls that end a session do nothing, because destructors and exit hooks make them; the others use no state of the session.
QUIET = {"free_resource", "finalize", "close", "set_context", "infer_async"}
ELSEWHERE = {
    *("convert_tensors_to_host", "convert_tensors_to_arrays", "create_tensor_from_fileslist", "run_pipeline"),
    *("load_aipp_config_file", "set_loop_count", "check_dym_aipp_input_exist", "get_dym_aipp_input_exist"),
}


def methods_of(session: object) -> list[str]:
    return [name for name, _ in inspect.getmembers(type(session), callable) if not name.startswith("_")]


def outcome(session: Any, name: str) -> str:
    result = getattr(session, name)(*ARGUMENTS.get(name, ()))
    return repr(list(result) if name.startswith("map") else result)


def test_every_method_of_a_session_says_so(model: Path_) -> None:
    with InferSession(0, model("batch")) as session:
        session.infer([X])
        session.first_inner_run([X], "dymshape")
        for name in methods_of(session):
            if name in ELSEWHERE:
                continue
            said = in_child(lambda name=name: outcome(session, name))
            assert said == "None" if name in QUIET else said.startswith("SessionClosed"), (name, said)
        assert np.array_equal(session.infer([X])[0], -X)


def test_every_method_of_a_pool_says_so(model: Path_) -> None:
    with MultiDeviceSession(model("batch"), devices=DEVICES[:1]) as session:
        session.infer([X])
        names = [*methods_of(session), "summary"]
        for name in names:
            if name in QUIET:
                continue
            said = in_child(lambda name=name: outcome(session, name))
            assert said.startswith("SessionClosed"), (name, said)
        assert in_child(lambda: session.devices).startswith("SessionClosed")
        assert in_child(lambda: session.summary[0]).startswith("SessionClosed")
        assert in_child(session.close) == "None"
        assert np.array_equal(session.infer([X])[0], -X)


def test_a_lock_that_the_parent_holds_during_the_fork_is_left_alone(onnx_model: Path_) -> None:
    printed = run_script(
        """
        import os, sys, threading, time
        import numpy as np
        from ais_bench.errors import SessionClosed
        from ais_bench.session import InferSession

        session = InferSession(0, sys.argv[1], threads=1)
        x = np.ones((1, 4), np.float32)
        over = threading.Event()

        def hammer():
            while not over.is_set():
                session.infer([x], "dymshape")
                session.summary()
                session.get_inputs()

        threads = [threading.Thread(target=hammer) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(60):
            child = os.fork()
            if child == 0:
                refused = 0
                for name in ("summary", "reset_summaryinfo", "get_inputs", "cancel", "infer"):
                    try:
                        getattr(session, name)(*([x] if name == "infer" else []))
                    except SessionClosed:
                        refused += 1
                os._exit(refused)
            deadline = time.monotonic() + 40
            while True:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended or time.monotonic() > deadline:
                    break
                time.sleep(0.002)
            if not ended:
                os.kill(child, 9)
                os.waitpid(child, 0)
            assert ended and os.waitstatus_to_exitcode(status) == 5, (ended, status)
        over.set()
        for thread in threads:
            thread.join()
        print("none hung")
        """,
        onnx_model("batch"),
        seconds=120,
    )
    assert "none hung" in printed


@pytest.mark.parametrize("runtime", [None, "ort", "acl"])
def test_a_pipe_for_a_model_is_refused_at_once(tmp_path: Any, runtime: str | None) -> None:
    pipe = str(tmp_path / "model.onnx")
    os.mkfifo(pipe)
    said: list[BaseException] = []

    def open_it() -> None:
        for make in (
            lambda: InferSession(0, pipe, runtime=runtime),
            lambda: MultiDeviceSession(pipe, devices=[0], runtime=runtime),
            lambda: aclruntime.InferenceSession(pipe, 0, aclruntime.session_options()),
        ):
            try:
                made = make()
                made.start()  # type: ignore[attr-defined]
            except BaseException as error:
                said.append(error)

    thread = threading.Thread(target=open_it, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert len(said) == 3
    named = [error for error in said if isinstance(error, ModelLoadError) and "not a regular file" in str(error)]
    assert named or runtime is not None
