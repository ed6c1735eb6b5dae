"""The dependencies in ARCHITECTURE.md, compared with imports and includes in the sources."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import ROOT
from support.scripts import run_script
from support.session import add_model

# Package of ais_bench -> the packages and modules of ais_bench that it imports. pool and session run in the parent, worker in
# the child; wire has everything that crosses between them, and one_device runs on both sides.
PYTHON = {
    "errors": set(),
    "tuning": set(),
    "options": {"_native", "errors"},
    "libraries": {"errors"},
    "providers": {"_native", "errors", "libraries"},
    "wire": {"_native", "errors", "tuning"},
    "shm": {"wire"},
    "one_device": {"_native", "errors", "options", "providers", "tuning"},
    "worker": {"_native", "errors", "one_device", "options", "providers", "tuning", "wire"},
    "pool": {"_native", "errors", "options", "tuning", "wire"},
    "session": {"_native", "errors", "one_device", "options", "pool", "providers", "tuning", "wire"},
    "_pyinstaller": set(),
    "infer": {"errors", "options", "session"},
    "emulator": {"errors", "libraries", "options"},
    "evaluate": {"errors", "one_device", "options", "session", "tuning", "wire"},
    "ray": {"_native", "errors", "one_device", "options", "pool", "session", "tuning", "wire"},
    "cli": {"errors", "evaluate", "infer", "libraries", "one_device", "session", "tuning"},
}
# Packages that run in a worker, or may run there.
CHILD = {"errors", "libraries", "one_device", "options", "providers", "tuning", "wire", "worker", "_native"}
# Python modules that native code imports, or that are named in a text: file -> modules. The tables above do not have these
# dependencies; all files may name ais_bench.errors.
NAMED = {
    "csrc/bind/arrays.cpp": {"ais_bench.one_device.feeds"},
    "csrc/bind/exchange.cpp": {"ais_bench.one_device.feeds"},
    "csrc/bind/pool.cpp": {"ais_bench.pool.task"},
    "csrc/bind/runtimes.cpp": {"ais_bench.libraries"},
    "csrc/bind/session.cpp": {"ais_bench.options"},
    "csrc/bind/time_span.cpp": {"ais_bench.one_device.times"},
    "ais_bench/pool/interpreter.py": {"ais_bench.worker.main"},
    "ais_bench/session/providers.py": {"ais_bench.worker.probe"},
    "ais_bench/session/weights.py": {"ais_bench.worker.prepare"},
    "ais_bench/wire/factories.py": {"ais_bench.worker.preprocess", "ais_bench.worker.session_handler"},
}
# Folder of csrc -> the folders that it includes.
CPP = {
    "base": set(),
    "device": {"base"},
    "device/ort": {"base", "device"},
    "device/acl": {"base", "device"},
    "session": {"base", "device"},
    "shm": {"base"},
    "worker": {"base", "device", "session", "shm"},
    "pool": {"base"},
    "emulator": {"base", "device"},
    "bind": {"base", "device", "pool", "session", "shm", "worker"},
}
LOGGERS = {"ais_bench.pool", "ais_bench.session", "ais_bench.ray", "ais_bench.evaluate", "ais_bench.worker"}
# Headers that pass on a lock: the type that holds a lock together with what it guards, and the model of an NPU, because the
# runs of a pipeline (acl_staged_runs.cpp) prepare and submit several steps while no other run does.
GUARDS = {"csrc/base/guarded.hpp": ["std::mutex*"], "csrc/device/acl/acl_loaded.hpp": ["std::mutex&"]}
# Names that only these folders may use, because they belong to a vendor or to one concern.
WORDS = {
    r"\bOrt[A-Z]\w*": {"device/ort"},
    r"\bacl(rt|mdl|Init|Finalize|Get|Create|Destroy)\w*": {"device/acl", "emulator"},
    r"\bdl(open|sym)\s*\(": {"base"},
    r"\bpy::|\bpybind11::": {"bind"},
    r"\bSYS_futex\b": {"shm"},
    r"\bmemfd_create\b": {"shm"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {parts[1] for parts in (name.split(".") for name in names) if parts[0] == "ais_bench" and len(parts) > 1}


def sources(folder: str) -> list[Path]:
    return [path for path in (ROOT / "csrc" / folder).iterdir() if path.suffix in {".cpp", ".hpp", ".inc"}]


@pytest.mark.parametrize("package", sorted(PYTHON))
def test_python_packages_import_what_the_table_says(package: str) -> None:
    folder = ROOT / "ais_bench" / package
    files = list(folder.rglob("*.py")) if folder.is_dir() else [ROOT / "ais_bench" / f"{package}.py"]
    assert files
    assert set().union(*map(imported, files)) - {package} == PYTHON[package]
    for path in files:
        assert imported(path) <= PYTHON[package] | {package}, path


def test_the_low_level_module_needs_no_pool() -> None:
    assert imported(ROOT / "aclruntime" / "__init__.py") == {"one_device"}


def test_the_document_draws_the_same_arrows() -> None:
    rows = re.findall(r"^\| `(\S+)` \|.*\|([^|]*)\|$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    drawn = {folder: set(re.findall(r"`([\w/]+)`", uses)) for folder, uses in rows if "/" in folder}
    native = {f"csrc/{folder}": uses for folder, uses in CPP.items() if "/" not in folder}
    python = {
        f"ais_bench/{name}": uses - {"_native", "errors", "tuning"}
        for name, uses in PYTHON.items()
        if name[0] != "_" and name != "errors"
    }
    assert {folder.removesuffix(".py"): uses for folder, uses in drawn.items()} == native | python


def below(package: str) -> set[str]:
    return {package}.union(*(below(other) for other in PYTHON.get(package, ())))


def test_no_arrow_goes_back_up() -> None:
    for package in PYTHON:
        assert all(package not in below(other) for other in PYTHON[package]), package


def test_the_child_does_not_import_the_parent_nor_the_parent_the_child() -> None:
    assert below("worker") <= CHILD
    assert not {package for package in PYTHON if "worker" in below(package)} - {"worker"}


def named(path: Path) -> set[str]:
    """Return the modules of ais_bench that a file names in a text, and imports when it runs."""
    code = path.read_text()
    if path.suffix == ".py":
        texts = [
            node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        found = {text for text in texts if re.fullmatch(r"ais_bench(\.[a-z]\w*)+", text) and importlib.util.find_spec(text)}
        lines = "\n".join(text for text in texts if "sys.argv" in text)  # programs
        found |= set(re.findall(r"^from (ais_bench\.[\w.]+) import", lines, re.MULTILINE))
        return found - LOGGERS
    found = set(re.findall(r'import\("(ais_bench[\w.]+)"\)', code)) | set(re.findall(r'"(ais_bench[\w.]+)\.[A-Z]\w+"', code))
    return found - {"ais_bench.errors", "ais_bench._native"}


def test_python_that_is_named_in_a_text_is_listed_and_there() -> None:
    files = [*(ROOT / "csrc").rglob("*.?pp"), *(ROOT / "ais_bench").rglob("*.py")]
    assert {str(path.relative_to(ROOT)): names for path in files if (names := named(path))} == NAMED
    for module in set().union(*NAMED.values()):
        importlib.import_module(module)


def test_each_side_runs_without_the_code_of_the_other(tmp_path: Path) -> None:
    """Check the imports of workers and of their parent, with arrays, callables, an iteration, and preprocess workers."""
    seen = tmp_path / "imported"
    code = """
    import sys
    import numpy as np
    from ais_bench.session import MultiDeviceSession
    model, seen = sys.argv[1:]
    def init():
        import sys
        def note(names):
            with open(seen, "a") as file:
                file.writelines(name + "\\n" for name in names)
        note(list(sys.modules))
        sys.addaudithook(lambda event, given: note([given[0]]) if event == "import" else None)
    ones = [np.ones((2, 3), np.float32)] * 2
    for more in ({}, {"preprocess": lambda item: ones}, {"preprocess": lambda item: ones, "preprocess_workers": 1}):
        with MultiDeviceSession(model, devices=[0], init=init, **more) as session:
            assert len(session.infer(ones)) == 1
            if not more:
                session.infer_iteration(ones, [0, -1], 2)
    print([name for name in sys.modules if name.startswith("ais_bench.worker")])
    """
    model = add_model(tmp_path / "add.onnx", [2, 3])
    assert run_script(code, model, str(seen)).strip() == "[]"
    packages = {name.split(".")[1] for name in seen.read_text().split() if name.startswith("ais_bench.")}
    assert packages == CHILD


def test_every_python_package_has_a_rule() -> None:
    packages = {path.stem for path in (ROOT / "ais_bench").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert packages - {"__init__", "__main__"} <= set(PYTHON)


def test_a_worker_that_moves_arrays_imports_neither_numpy_nor_logging(tmp_path: Path) -> None:
    code = """
    import logging, sys
    import numpy as np
    from ais_bench.session import MultiDeviceSession
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    with MultiDeviceSession(sys.argv[1], devices=[0]) as session:
        session.infer([np.ones((2, 3), np.float32)] * 2)
    """
    model = add_model(tmp_path / "add.onnx", [2, 3])
    said = run_script(code, model, PYTHONPROFILEIMPORTTIME="1")  # the worker's output arrives as log lines
    imports = set(re.findall(r"import time:.*\| +(\S+)", said))
    assert "ais_bench.wire.carry" in imports  # the handler was made
    assert not imports & {"numpy", "logging", "cloudpickle", "dataclasses", "ais_bench.one_device"}


@pytest.mark.parametrize("folder", sorted(CPP))
def test_native_folders_include_what_the_table_says(folder: str) -> None:
    files = sources(folder)
    assert files
    used: set[str] = set()
    for path in files:
        for header in re.findall(r'#include "([^"]+)"', path.read_text()):
            target = str(Path(header).parent)
            runtimes = folder == "device" and header == "device/runtimes.hpp"
            assert target in CPP[folder] | {folder} or runtimes, f"{path} includes {header}"
            used.add(target)
    assert CPP[folder] <= used


@pytest.mark.parametrize("word", sorted(WORDS))
def test_words_of_one_concern_stay_in_its_folder(word: str) -> None:
    for folder in set(CPP) - WORDS[word]:
        for path in sources(folder):
            code = re.sub(r"//[^\n]*|\"(?:[^\"\\]|\\.)*\"", "", path.read_text())
            assert not re.search(word, code), f"{path} says {re.search(word, code)}"


def test_native_code_throws_only_at_the_edge() -> None:
    for folder in set(CPP) - {"bind"}:
        for path in sources(folder):
            assert not re.search(r"\bthrow\b", re.sub(r"//[^\n]*", "", path.read_text())), path


def test_importing_starts_nothing_and_loads_no_vendor_library() -> None:
    program = """
import sys, threading
import ais_bench.infer.interface, ais_bench.infer.summary, aclruntime
maps = open("/proc/self/maps").read()
heavy = {"onnxruntime", "torch", "ml_dtypes", "onnx", "cloudpickle"} & set(sys.modules)
print(threading.active_count(), sorted(heavy), "libonnxruntime" in maps, "libascendcl" in maps)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[0] == "1 [] False False", result.stdout


def test_the_package_file_has_short_names_and_nothing_needs_it() -> None:
    """Another distribution may overwrite the file with an empty one."""
    program = """
import sys
import ais_bench
heavy = sorted(name for name in sys.modules if name.startswith("ais_bench.") or name == "numpy")
assert heavy == [], heavy
assert {"InferSession", "MemorySummary", "MultiDeviceSession", "__version__"} <= set(dir(ais_bench))
if len(sys.argv) > 1:
    for name in set(vars(ais_bench)) - {"__path__", "__name__", "__spec__", "__file__", "__loader__"}:
        delattr(ais_bench, name)  # what an empty file leaves
    try:
        ais_bench.InferSession
    except AttributeError:
        print("empty")
else:
    from ais_bench import InferSession, MemorySummary, MultiDeviceSession, __version__
    import ais_bench.session as session
    assert (InferSession, MultiDeviceSession) == (session.InferSession, session.MultiDeviceSession)
    assert {"InferSession", "MemorySummary", "MultiDeviceSession"} <= set(dir(session))
    print(__version__)
import ais_bench.infer.interface, ais_bench.infer.summary, ais_bench.emulator, aclruntime, ais_bench.session.multi_device
"""
    for arguments, words in (([], importlib.metadata.version("ais_bench")), (["empty"], "empty")):
        result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout.strip()) == (0, words), result.stderr


class _Imports(ast.NodeVisitor):
    """Collects the imports of a file that run, at its import or later, but not those for the type checker alone."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.names |= {f"{node.module}.{alias.name}" for alias in node.names}


def python_files() -> dict[str, set[str]]:
    """Return the files of ais_bench by module name, each with the files that it imports."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "ais_bench").rglob("*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        seen = _Imports()
        seen.visit(ast.parse(path.read_text()))
        modules = {one if one in paths else one.rpartition(".")[0] for one in seen.names}
        found[name] = {module for module in modules if module in paths and module not in (name, "ais_bench")}
    del found["ais_bench"]  # the short names, the one exception: looked up when they are used
    return found


def native_files() -> dict[str, set[str]]:
    paths = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".cpp", ".hpp", ".inc"}]
    return {
        str(path.relative_to(ROOT / "csrc")): set(re.findall(r'#include "([^"]+)"', path.read_text()))
        - {str(path.relative_to(ROOT / "csrc"))}
        for path in paths
    }


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the files of one circle; an empty list if there is none."""
    left = {name: set(uses) for name, uses in graph.items()}
    while ends := [name for name, uses in left.items() if not uses & left.keys()]:
        for name in ends:
            del left[name]
    return sorted(left)


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]  # with what leads to it


@pytest.mark.parametrize("files", [python_files, native_files])
def test_no_files_use_each_other_in_a_circle(files: Callable[[], dict[str, set[str]]]) -> None:
    graph = files()
    assert len(graph) > 100
    assert sum(map(len, graph.values())) > 200
    assert circle(graph) == []


# A lock that is reached through another object, or handed over: whose it is, the same file must show.
FOREIGN_LOCK = re.compile(
    r"(?<!self)(?<!this)(?:\.|->)(\w*(?:lock|mutex)\w*_)\b|\bstd::mutex[&*]|(?<![\w.])(?!self\.)\w+\.(_\w*lock)\b"
)


def unit(path: Path) -> str:
    """Return the code of a file and of its header."""
    return "".join(
        part.read_text() for part in sorted(path.parent.glob(f"{path.stem}.*")) if part.suffix in {".hpp", ".cpp", ".py"}
    )


def foreign_locks(path: Path) -> list[str]:
    code = re.sub(r"//[^\n]*|#[^\n]*", "", path.read_text())
    found = []
    for match in FOREIGN_LOCK.finditer(code):
        name = match[1] or match[2]
        if name is None:
            found += [match[0]] if path.suffix == ".hpp" else []  # in a .cpp it is of the file, or comes from a header
            continue
        own = re.search(rf"std::mutex (?:mutable )?{name};|self\.{name}\b.*= ", unit(path))
        if not own:
            found.append(match[0])
    return found


def test_no_file_needs_the_lock_of_another(tmp_path: Path) -> None:
    example = tmp_path / "example.hpp"
    example.write_text("void f(Other* other) { std::lock_guard<std::mutex> guard(other->mutex_); }\nstd::mutex& lock();")
    assert foreign_locks(example) == ["->mutex_", "std::mutex&"]
    (tmp_path / "example.py").write_text("with other._lock, self._lock:\n    pass")
    assert foreign_locks(tmp_path / "example.py") == ["other._lock"]
    files = [*(ROOT / "csrc").rglob("*.?pp"), *(ROOT / "ais_bench").rglob("*.py")]
    found = {str(path.relative_to(ROOT)): locks for path in files if (locks := foreign_locks(path))}
    assert found == GUARDS


LONGEST_FUNCTION = 60


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def native_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield functions and methods by clang-format's indentation: from the signature to the closing brace in its column."""
    lines = path.read_text().split("\n")
    other = r" *(namespace|class|struct|enum|union|extern|if|for|while|switch|do|else|case)\b"
    for last, line in enumerate(lines):
        if re.match(other, line) or not re.match(r" {0,2}[^\s}].*\{$", line):
            continue
        first = last
        while lines[first - 1].strip() and not re.search(r"([;{}:>]|\*/|//.*)$", lines[first - 1]):
            first -= 1
        indent = re.match(" *", lines[first])[0]
        end = next((at for at in range(last, len(lines)) if re.match(f"{indent}\\}}", lines[at])), None)
        if end is not None and len(indent) <= 2 and "(" in "".join(lines[first : last + 1]):
            yield f"{path.relative_to(ROOT)}:{first + 1} {lines[first].strip()}", end - first + 1


def test_no_function_is_longer_than_a_screen() -> None:
    folders = ("ais_bench", "aclruntime", "benchmarks", "examples", "tests", "tools")
    python = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    native = [path for folder in ("csrc", "tests/native") for path in (ROOT / folder).rglob("*.?pp")]
    for files, functions in ((python, python_functions), (native, native_functions)):
        lengths = {name: length for path in files for name, length in functions(path)}
        assert len(lengths) > 1000
        long = {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}
        assert long == {}


def test_no_package_imports_its_names_when_they_are_used() -> None:
    """Only the short names of the package do so. The interface of the original's evaluator has an error in place of a name."""
    files = list((ROOT / "ais_bench").rglob("*.py"))
    lazy = {
        str(path.relative_to(ROOT))
        for path in files
        if any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in ast.parse(path.read_text()).body)
    }
    assert lazy == {"ais_bench/__init__.py", "ais_bench/evaluate/interface.py"}
    hooks = [
        path for path in files if re.search(r"sys\.(meta_path|path_hooks)(\.(insert|append)|\[.*\] *=| *=)", path.read_text())
    ]
    assert hooks == []


# Python classes for the same thing as the native class of this name.
ONE_THING_IN_BOTH = {"AippSettings", "Handler", "Tensor"}
# Nested native classes that no other file sees.
NESTED = {"Entry", "State"}


def test_a_name_of_a_class_means_one_thing() -> None:
    """The emulator is a library of its own. Its classes have the names of what they emulate."""
    python: list[str] = []
    for path in (ROOT / "ais_bench").rglob("*.py"):
        python += [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    assert len(python) > 200
    assert {name for name in python if python.count(name) > 1} == set()
    native: list[str] = []
    for path in (ROOT / "csrc").rglob("*.?pp"):
        if "emulator" not in path.parts:
            code = re.sub(r"//[^\n]*", "", path.read_text())
            native += re.findall(r"^ *(?:class|struct|enum class|enum) (\w+)(?: final)?(?: *:[^;{]*)?\s*\{", code, re.MULTILINE)
    assert len(native) > 200
    assert {name for name in native if native.count(name) > 1} == NESTED
    assert set(python) & set(native) == ONE_THING_IN_BOTH
