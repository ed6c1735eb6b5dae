"""AscendCL's symbols: without an optional one everything else works; without a required one the error names it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ais_bench.emulator import library_without, pack
from ais_bench.emulator.binary import MEDIA, NEW_IN_1_17, OPTIONAL, PROFILING
from support import ROOT, emulator_models
from support.acl import Packed
from support.scripts import run_script

LISTED = re.findall(
    r"^ACL_(REQUIRED|OPTIONAL)\([^,]+, (\w+), ", (ROOT / "csrc/device/acl/acl_symbols.inc").read_text(), re.MULTILINE
)
OPTIONAL_HERE = [name for kind, name in LISTED if kind == "OPTIONAL"]
REQUIRED = [name for kind, name in LISTED if kind == "REQUIRED"]


def test_what_an_older_cann_lacks_is_not_required() -> None:
    assert len(REQUIRED) > 50
    assert OPTIONAL_HERE
    assert not set(REQUIRED) & set(OPTIONAL)
    assert set(OPTIONAL_HERE) <= set(OPTIONAL)


def test_the_documentation_says_what_each_optional_one_is_for() -> None:
    text = (ROOT / "docs" / "ascend.md").read_text(encoding="utf-8")
    table = text.split("| function | for | without it |\n|---|---|---|\n", 1)[1].split("\n\n", 1)[0]
    assert sorted(name for row in table.splitlines() for name in re.findall(r"`(acl\w+)`", row.split("|")[1])) == sorted(
        OPTIONAL_HERE
    )


EVERYTHING = """
import sys
import numpy as np
from ais_bench.emulator import Emulator, npus
from ais_bench.session import InferSession, MultiDeviceSession
om, onnx, without = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
feeds = [[np.full((n, 3), n, np.float32)] for n in (1, 2, 4, 1)]
with InferSession(0, onnx) as reference:
    wanted = [reference.infer(one, "dymbatch")[0] for one in feeds]
with npus(2, without=without) as library:
    for _ in range(2):
        with InferSession(0, om) as session:
            outputs = [session.infer(one, "dymbatch")[0] for one in feeds]
            piped = [one for one, in session.infer_pipeline(feeds, "dymbatch")]
            tensors = [session.infer(one, "dymbatch", out_array=False)[0] for one in feeds]
            for tensor in tensors:
                tensor.to_host()
            for got in (outputs, piped, [np.array(tensor) for tensor in tensors]):
                for one, want in zip(got, wanted, strict=True):
                    np.testing.assert_array_equal(one, want)
            del tensors, tensor
        InferSession.finalize()
    emulator = Emulator(library)
    assert not any(hasattr(emulator._library, name) for name in without)
    assert emulator.living() == [] and emulator.report() == [], emulator.report()
    with MultiDeviceSession(om, devices=[0, 1]) as session:
        for (got,), want in zip(session.map(feeds, mode="dymbatch"), wanted, strict=True):
            np.testing.assert_array_equal(got, want)
print("equal")
"""


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(
    "missing",
    [pytest.param([name], marks=pytest.mark.long) for name in OPTIONAL_HERE]
    + [list(NEW_IN_1_17), list(MEDIA), list(PROFILING), list(OPTIONAL)],
    ids=[*OPTIONAL_HERE, "new in 1.17", "media", "profiling", "all"],
)
def test_without_optional_functions_the_rest_works(packed: Callable[[str], Packed], missing: list[str]) -> None:
    model = packed("batch")
    assert run_script(EVERYTHING, model.om, model.onnx, ",".join(missing)) == "equal\n"


#: The purpose of each function. Without the function only this is missing.
FEATURES = {
    **dict.fromkeys(("aclmdlQuerySize", "aclmdlLoadFromFileWithMem"), "one work space from file"),
    **dict.fromkeys(("aclmdlQuerySizeFromMem", "aclmdlLoadFromMemWithMem"), "one work space from bytes"),
    "aclmdlSetExternalWeightAddress": "weights once",
    **dict.fromkeys(
        ("aclmdlCreateConfigHandle", "aclmdlDestroyConfigHandle", "aclmdlSetConfigOpt", "aclmdlLoadWithConfig"),
        "weights once, weights elsewhere",
    ),
    "aclrtGetMemInfo": "memory",
}
LARGE = """
import sys
import numpy as np
from ais_bench import _native
from ais_bench.emulator import Emulator, npus
from ais_bench.errors import UnsupportedError
from ais_bench.session import InferSession
weighty, elsewhere, plain, *without = sys.argv[1:]
had = []

def right(session):
    feed = np.ones([int(dim) for dim in session.get_inputs()[0].shape], np.float32)
    outputs = session.infer([feed] * len(session.get_inputs()))
    assert outputs[0].ravel()[1] == (1 + 5001 + 10001 if len(session.get_inputs()) == 1 else 2), outputs
    return True

with npus(1, without=without) as library:
    emulator = Emulator(library)
    for what, model in (("file", plain), ("bytes", open(plain, "rb").read())):
        with InferSession(0, model, share_workspace=True) as one:
            with InferSession(0, model, share_workspace=True) as two:
                assert right(one) and right(two)
                with InferSession(0, model) as alone:
                    right(alone)
        calls = [emulator.call_count(f"aclmdlLoadFrom{kind}WithMem") for kind in ("File", "Mem")]
        had += [f"one work space from {what}"] if calls[what == "bytes"] == 2 else []
    with InferSession(0, weighty) as one, InferSession(0, weighty) as two:
        assert right(one) and right(two)  # beside the model, whatever is missing
        had += ["weights once"] if emulator.call_count("aclmdlSetExternalWeightAddress") == 2 else []
    try:
        with InferSession(0, open(weighty, "rb").read(), weight_dir=elsewhere) as session:
            had += ["weights elsewhere"] if right(session) else []
    except UnsupportedError as error:
        assert "no aclmdlLoadWithConfig" in str(error)
    try:
        had += ["memory"] if _native.device_memory("acl", 0) is not None else []
    except UnsupportedError:
        pass
    InferSession.finalize()
    assert emulator.living() == [] and emulator.report() == [], emulator.report()
print(", ".join(had))
"""
ALL_FEATURES = "one work space from file, one work space from bytes, weights once, weights elsewhere, memory"


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("missing", [None, *FEATURES])
def test_an_absent_function_costs_its_feature_alone(
    packed: Callable[[str], Packed], tmp_path: Path, missing: str | None
) -> None:
    weighty = pack(emulator_models.matmul(tmp_path, 5000), tmp_path / "large.om", input_shape="x:2,3", external_weight=True)
    shutil.copytree(tmp_path / "weight", tmp_path / "elsewhere")
    arguments = [str(weighty), str(tmp_path / "elsewhere"), packed("static").om, *filter(None, [missing])]
    lost = FEATURES[missing].split(", ") if missing else []
    wanted = [feature for feature in ALL_FEATURES.split(", ") if feature not in lost]
    assert run_script(LARGE, *arguments).strip().split(", ") == wanted


def test_without_a_required_function_the_error_names_it(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    """This tests every function in one process: an unsuitable library is closed, and the next one is tried."""
    libraries = [str(library_without([name], tmp_path)) for name in REQUIRED]
    code = """
    import os, sys
    from ais_bench.errors import DeviceUnavailable
    from ais_bench.session import InferSession
    om, *libraries = sys.argv[1:]
    for library in libraries:
        os.environ["AIS_BENCH_ACL_LIBRARY"] = library
        try:
            InferSession(0, om)
        except DeviceUnavailable as error:
            print([line for line in str(error).splitlines() if "it lacks" in line])
        else:
            print("loaded")
    """
    lines = run_script(code, packed("static").om, *libraries).splitlines()
    assert len(lines) == len(REQUIRED)
    for name, library, line in zip(REQUIRED, libraries, lines, strict=True):
        assert f"{library}: it lacks {name}, so it is not AscendCL, or one too old" in line


@pytest.mark.parametrize("counts", [True, False], ids=["with aclFinalizeReference", "without"])
def test_an_initialisation_of_another_library_is_left_alone(
    packed: Callable[[str], Packed], tmp_path: Path, counts: bool
) -> None:
    """Like torch_npu, the program initialises AscendCL before our use and uses it afterwards."""
    code = """
    import ctypes, sys
    import numpy as np
    from ais_bench.emulator import Emulator, npus
    from ais_bench.errors import ConfigError
    from ais_bench.session import InferSession
    with npus(2, without=sys.argv[2].split()) as library:
        other = ctypes.CDLL(str(library))
        assert other.aclInit(None) == 0 and other.aclrtSetDevice(0) == 0
        memory = ctypes.c_void_p()
        assert other.aclrtMalloc(ctypes.byref(memory), ctypes.c_size_t(64), 0) == 0
        emulator = Emulator(library)
        emulator.start_recording()
        for _ in range(2):
            with InferSession(0, sys.argv[1]) as session:
                print(session.infer([np.ones((1, 4), np.float32)] * 2)[0].sum())
            InferSession.finalize()
        try:
            InferSession(0, sys.argv[1], acl_json_path=sys.argv[3])
        except ConfigError as error:
            print(error)
        calls = [call["call"] for call in emulator.stop_recording()]
        print(calls.count("aclInit"), calls.count("aclFinalizeReference"), calls.count("aclFinalize"))
        assert other.aclrtSetDevice(0) == 0 and other.aclrtFree(memory) == 0  # still the other's, and as it was
        assert other.aclrtResetDevice(0) == 0 and other.aclrtResetDevice(0) == 0 and other.aclFinalize() == 0
        assert emulator.living() == [] and emulator.report() == [], emulator.report()
    """
    (tmp_path / "acl.json").write_text('{"err_msg_mode": "0"}')
    missing = "" if counts else "aclFinalizeReference"
    printed = run_script(code, packed("static").om, missing, str(tmp_path / "acl.json")).splitlines()
    assert printed[:2] == ["8.0", "8.0"]
    assert "acl_json_path" in printed[2]
    assert "another library of this process was first" in printed[2]
    assert printed[3] == ("3 3 0" if counts else "3 0 0")  # each reference is released if the library counts them
