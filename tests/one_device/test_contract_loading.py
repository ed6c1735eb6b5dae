"""Sources of a model, and the cost of imports."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ais_bench.errors import ConfigError, FileMissing, ModelLoadError
from ais_bench.session import InferSession, MultiDeviceSession
from support import models
from support.scripts import run_script

pytestmark = pytest.mark.usefixtures("leaves_nothing")
ModelPath = Callable[[str], str]

X = np.ones((1, 4), np.float32)


def test_the_content_decides_not_the_suffix(model: ModelPath, tmp_path: Path) -> None:
    shutil.copy(model("batch"), tmp_path / "x.om")
    with InferSession(0, tmp_path / "x.om") as session:
        assert np.array_equal(session.infer([X])[0], -X)


def test_path_and_str_and_bytes(model: ModelPath) -> None:
    for source in (model("batch"), Path(model("batch")), models.build("batch").SerializeToString()):
        with InferSession(0, source) as session:
            assert np.array_equal(session.infer([X])[0], -X)
    with pytest.raises(ConfigError, match="model_path must be a path .*got None"):
        InferSession(0, None)


def test_positional_and_keyword_forms(model: ModelPath) -> None:
    for session in (
        InferSession(0, model("batch")),
        InferSession(device_id=0, model_path=model("batch"), acl_json_path=None, debug=False, loop=1),
        InferSession(0, model("batch"), None, False, 1),
    ):
        assert np.array_equal(session.infer(feeds=[X], mode="static", custom_sizes=100000, out_array=True)[0], -X)
        session.free_resource()
    with pytest.raises(TypeError, match="nonsense"):
        InferSession(0, model("batch"), nonsense=1)  # type: ignore[call-arg]


def test_names_and_contents_that_are_not_plain(model: ModelPath, tmp_path: Path) -> None:
    for name in ("a b.onnx", "модель.onnx", os.fsdecode(b"\xff\xfe.onnx")):
        shutil.copy(model("batch"), tmp_path / name)
        with InferSession(0, tmp_path / name) as session:
            assert np.array_equal(session.infer([X])[0], -X)


def test_a_relative_path(model: ModelPath, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(model("batch"))
    monkeypatch.chdir(path.parent)
    with InferSession(0, path.name) as session:
        assert np.array_equal(session.infer([X])[0], -X)


def test_a_relative_path_from_a_folder_that_is_gone(model: ModelPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ModelLoadError, match=r"'m\.onnx': the working directory does not exist any more.*an absolute one"):
        MultiDeviceSession("m.onnx")
    for option in ({"weight_dir": "w"}, {"profile": "p"}, {"custom_ops": "c.so"}):
        with pytest.raises(FileMissing, match="the working directory does not exist any more"):
            InferSession(0, model("batch"), **option)  # type: ignore[arg-type]


def test_weights_in_a_file_beside_the_model(tmp_path: Path) -> None:
    import onnx

    proto = models.build("old_style")
    onnx.save_model(
        proto, tmp_path / "m.onnx", save_as_external_data=True, all_tensors_to_one_file=True, location="w", size_threshold=0
    )
    assert (tmp_path / "w").stat().st_size > 0
    with InferSession(0, tmp_path / "m.onnx") as session:
        assert session.infer([np.array([1, 2], np.float32)])[0].tolist() == [11, 22]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"nowhere\.onnx") as error:
        InferSession(0, tmp_path / "nowhere.onnx")
    assert isinstance(error.value, RuntimeError)
    assert "no such file" in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads every file")
def test_an_unreadable_file_is_named(model: ModelPath, tmp_path: Path) -> None:
    shutil.copy(model("batch"), tmp_path / "secret.onnx")
    (tmp_path / "secret.onnx").chmod(0)
    with pytest.raises(ModelLoadError, match=r"secret\.onnx"):
        InferSession(0, tmp_path / "secret.onnx")


def test_importing_is_cheap_and_touches_no_device() -> None:
    printed = run_script(
        """
        import os, sys
        import numpy  # whose own threads and libraries do not count
        threads = len(os.listdir("/proc/self/task"))
        import ais_bench.infer.interface, ais_bench.infer.summary, aclruntime
        assert len(os.listdir("/proc/self/task")) == threads, "a thread was started"
        maps = open("/proc/self/maps").read()
        for library in ("onnxruntime", "ascend"):
            assert library not in maps, library + " was opened"
        for module in ("onnxruntime", "torch", "ml_dtypes"):
            assert module not in sys.modules, module + " was imported"
        print("cheap")
        """
    )
    assert printed == "cheap\n"


def test_torch_and_ml_dtypes_are_not_imported_by_a_run(model: ModelPath) -> None:
    printed = run_script(
        """
        import sys
        import numpy as np
        from ais_bench.infer.interface import InferSession
        for feed in (np.ones((1, 4), np.float32), np.ones((4, 1), np.float32).T, np.float32([1, 2, 3, 4])):
            InferSession(0, sys.argv[1]).infer([feed])
        print([name for name in ("torch", "ml_dtypes", "onnxruntime") if name in sys.modules])
        """,
        model("batch"),
    )
    assert printed == "[]\n"


def test_the_package_root_holds_nothing_that_callers_need(tmp_path: Path) -> None:
    """Another distribution installs an empty ais_bench/__init__.py over ours."""
    import ais_bench

    shutil.copytree(Path(ais_bench.__file__).parent, tmp_path / "ais_bench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "ais_bench" / "__init__.py").write_text("")
    printed = run_script(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import ais_bench, aclruntime
        from ais_bench.infer.interface import InferSession, MemorySummary, MultiDeviceSession
        from ais_bench.infer.summary import summary
        print(ais_bench.__file__ == sys.argv[1] + "/ais_bench/__init__.py")
        """,
        str(tmp_path),
    )
    assert printed == "True\n"
