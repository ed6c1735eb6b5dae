"""The arrows of the floor plan, read from the imports and includes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ais_bench

PACKAGE = Path(ais_bench.__file__).parent
CSRC = PACKAGE.parent / "csrc"

# What the files of a folder may import of ais_bench, themselves and ais_bench.errors apart. The native module is below all.
PYTHON = {
    "errors": set(),
    "shm": {"_native"},
    "pool": {"shm", "_native"},
    "session": {"pool", "shm", "_native"},
    "infer": {"session"},
    "evaluate": {"session", "infer"},
    "cli": {"evaluate", "session", "infer"},
}
# What the files of a folder under csrc/ may include of others.
NATIVE = {
    "base": set(),
    "device": {"base"},
    "session": {"device", "base"},
    "shm": {"base"},
    "worker": {"session", "shm", "device", "base"},
    "bind": {"worker", "session", "shm", "device", "base"},
    "emulator": set(),
}


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def native_files() -> list[Path]:
    return sorted(path for suffix in ("cpp", "hpp", "inc") for path in CSRC.rglob(f"*.{suffix}"))


needs_sources = pytest.mark.skipif(not CSRC.is_dir(), reason="the C++ sources are not beside the installed package")


def _imports(path: Path) -> Iterator[str]:
    """The modules a file imports, in full."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import, which hides where it points"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _area(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "ais_bench" and len(parts) > 1 else None


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_python_imports_point_down(path: Path) -> None:
    mine = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    used = {area for area in map(_area, _imports(path)) if area not in (None, mine, "errors")}
    if mine == "__init__":
        assert not used, "the package's root imports nothing, another distribution may replace it"
    else:
        assert mine in PYTHON, f"{mine} is not on the floor plan"
        assert used <= PYTHON[mine]


def test_the_check_of_imports_sees_imports() -> None:
    seen = {area for path in python_files() for area in map(_area, _imports(path))}
    assert {"session", "_native", "errors"} <= seen


@pytest.mark.parametrize("module", ["infer/__init__", "infer/interface", "infer/summary"])
def test_import_paths_hold_names_only(module: str) -> None:
    for node in ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8")).body:
        assert isinstance(node, (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign)), f"{module} holds logic: {ast.dump(node)}"


@needs_sources
def test_native_includes_point_down() -> None:
    seen = set()
    for path in native_files():
        mine = path.relative_to(CSRC).parts[0]
        assert mine in NATIVE, f"{mine} is not on the floor plan"
        for target in re.findall(r'#include "(\w+)/', path.read_text(encoding="utf-8")):
            seen.add((mine, target))
            assert target == mine or target in NATIVE[mine], f"{path.relative_to(CSRC)} includes {target}/"
    assert {("bind", "session"), ("session", "device"), ("device", "base")} <= seen


def _code(path: Path) -> str:
    """A file without its comments and strings."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', " ", text, flags=re.DOTALL)


@needs_sources
@pytest.mark.parametrize(
    ("words", "folders"),
    [
        (r"\bOrt[A-Z]\w*|\bORT_\w+", ("device/ort",)),
        (r"\bacl(?:rt|mdl|op)?[A-Z]\w*|\bACL_\w+", ("device/acl", "emulator")),
        (r"\bdl(?:open|sym|close|error)\b", ("base/dylib.cpp",)),
        (r"\bpy::|\bPy[A-Z]\w*_\w+", ("bind",)),
    ],
    ids=["onnxruntime", "AscendCL", "dlopen", "Python"],
)
def test_names_stay_in_their_folder(words: str, folders: tuple[str, ...]) -> None:
    homes = [CSRC / folder for folder in folders]
    found_at_home = False
    for path in native_files():
        at_home = any(home == path or home in path.parents for home in homes)
        found = re.findall(words, _code(path))
        found_at_home = found_at_home or (at_home and bool(found))
        # What `device` knows of a vendor is the one function that opens its runtime.
        assert at_home or not found, f"{path.relative_to(CSRC)} has {sorted(set(found))}"
    assert found_at_home or "device/acl" in folders


@needs_sources
def test_exceptions_are_thrown_in_bind_alone() -> None:
    for path in native_files():
        if CSRC / "bind" not in path.parents and CSRC / "emulator" not in path.parents:
            assert not re.search(r"\bthrow\b", _code(path)), path


@needs_sources
def test_files_stay_readable() -> None:
    for path in [*native_files(), *python_files()]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, f"{path} is too long to be one thing"
