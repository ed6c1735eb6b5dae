"""Other libraries of the process that use AscendCL, too: our sessions never change their objects.

The other library is a stand-in: the same library file, called directly.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.acl import Packed
from support.scripts import run_script

PRELUDE = """
import ctypes, os, sys, threading
import numpy as np
from ais_bench.emulator import Emulator, npus
from ais_bench.session import InferSession

class Other:
    # What torch_npu or pyACL would do.
    def __init__(self, device):
        self.cdll = ctypes.CDLL(os.environ["AIS_BENCH_ACL_LIBRARY"])
        self.device, self.memory, self.values = device, ctypes.c_void_p(), np.arange(16, dtype=np.float32)
        assert self.cdll.aclInit(None) in (0, 100002)
        self.call("aclrtSetDevice", device)
        self.call("aclrtMalloc", ctypes.byref(self.memory), ctypes.c_size_t(64), 0)
        self.copy(self.memory, self.values.ctypes.data_as(ctypes.c_void_p), 1)

    def call(self, function, *arguments):
        code = getattr(self.cdll, function)(*arguments)
        assert code == 0, (function, code)

    def copy(self, to, of, kind):
        self.call("aclrtMemcpy", to, ctypes.c_size_t(64), of, ctypes.c_size_t(64), kind)

    def context(self):
        found = ctypes.c_void_p()
        self.call("aclrtGetCurrentContext", ctypes.byref(found))
        return found.value

    def is_well(self):
        back = np.zeros_like(self.values)
        self.copy(back.ctypes.data_as(ctypes.c_void_p), self.memory, 2)
        return np.array_equal(back, self.values)

    def close(self):
        self.call("aclrtFree", self.memory)
        self.call("aclrtResetDevice", self.device)
        left = ctypes.c_uint64(99)
        self.call("aclFinalizeReference", ctypes.byref(left))
        return left.value

om = sys.argv[1]
feeds = [np.ones((1, 4), np.float32)] * 2
"""


@pytest.mark.parametrize("first", ["we", "they"])
def test_their_memory_outlives_our_sessions(packed: Callable[[str], Packed], first: str) -> None:
    """There are two sessions, one of which frees and finalizes, on a device where another library has memory."""
    code = """
    with npus(2, on_violation="abort"):
        other = Other(0) if sys.argv[2] == "they" else None
        freed, left = InferSession(0, om), InferSession(0, om)
        other = other or Other(0)
        freed.infer(feeds), left.infer(feeds)
        freed.free_resource()
        assert other.is_well()
        InferSession.finalize()
        assert other.is_well()
        InferSession.finalize()
        with InferSession(0, om) as again:
            assert len(again.infer(feeds)) == 1
        assert other.is_well()
        InferSession.finalize()
        assert other.is_well() and other.close() == 0, "not the last reference"
        assert not Emulator().living() and not Emulator().report()
    """
    run_script(PRELUDE + code.replace("\n    ", "\n"), packed("static").om, first)


def test_a_library_that_does_not_count_is_left_to_who_was_first(packed: Callable[[str], Packed]) -> None:
    code = """
    with npus(2, without=["aclFinalizeReference"]):
        other = Other(0)
        with InferSession(0, om) as session:
            session.infer(feeds)
        InferSession.finalize()
        assert other.is_well()
        other.call("aclrtFree", other.memory)
        other.call("aclFinalize")
        with InferSession(0, om) as session:  # no other user is left, so this session ends it
            session.infer(feeds)
        InferSession.finalize()
        assert other.cdll.aclrtSetDevice(0) == 100001
    """
    run_script(PRELUDE + code.replace("\n    ", "\n"), packed("static").om)


def test_a_thread_keeps_the_context_that_another_library_chose(packed: Callable[[str], Packed]) -> None:
    """This holds after each of our calls, and if one session is freed during a call of another."""
    code = """
    import aclruntime
    with npus(3):
        other = Other(1)
        theirs = other.context()
        sessions = []
        def made(): sessions.extend([InferSession(0, om), InferSession(1, om)])
        def pipeline(): sessions[0].infer_pipeline([feeds] * 5)
        def tensors():
            tensor = aclruntime.Tensor(feeds[0])
            tensor.to_device(0)
            tensor.to_host()
        def refused():
            try: sessions[0].infer([np.ones(3, np.float32)] * 2)
            except RuntimeError: return
            raise AssertionError
        def no_model():
            try: InferSession(0, __file__ if "__file__" in globals() else os.__file__, runtime="acl")
            except RuntimeError: return
            raise AssertionError
        for use in (made, lambda: [one.infer(feeds) for one in sessions], pipeline, tensors, refused, no_model,
                    lambda: sessions[1].first_inner_run(feeds), lambda: sessions[1].inner_run([0, -1]),
                    lambda: sessions.pop().free_resource(), InferSession.finalize):
            use()
            assert other.context() == theirs, use
        assert other.is_well() and other.close() == 0
    """
    run_script(PRELUDE + code.replace("\n    ", "\n"), packed("static").om)


def test_sessions_in_turn_on_a_thread_that_no_other_library_uses(packed: Callable[[str], Packed]) -> None:
    """Our own context is not restored, because no one needs it: a change of sessions costs one call, otherwise none."""
    code = """
    with npus(1):
        emulator = Emulator()
        with InferSession(0, om) as one, InferSession(0, om) as two:
            for session in (one, two):
                session.infer(feeds)
            before = emulator.call_count("aclrtSetCurrentContext")
            for session in (one, two, one, two, two, two):
                session.infer(feeds)
            assert emulator.call_count("aclrtSetCurrentContext") - before == 4
    """
    run_script(PRELUDE + code.replace("\n    ", "\n"), packed("static").om)
