"""Tuning constants are in two files, each with its trade-off and its measurement."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import ais_bench.tuning
from support import ROOT

NATIVE, PYTHON = ROOT / "csrc" / "base" / "tuning.hpp", ROOT / "ais_bench" / "tuning.py"
# The words in a comment for a value that was not measured; others have "Measured:".
SET_BY = re.compile(r"Measured|measured|[Gg]uess")
# Names of times and of steps. Names of counts and sizes do not differ from those of formats.
A_TIME = re.compile(r"k\w*(Ns|Us|Ms|Every)")


def native_code(path: Path) -> str:
    return re.sub(r"//[^\n]*", "", path.read_text())


def native_choices(code: str) -> list[str]:
    """Return the times and steps that a file defines as constants."""
    defined = re.findall(r"\bconstexpr\s+([\w:]+)\s+(k\w+)\s*[={]", code)
    return [name for kind, name in defined if kind.startswith("std::chrono::") or A_TIME.fullmatch(name)]


def python_choices(code: str) -> list[str]:
    """Return the times that a module defines as constants: numbers with UPPER_CASE names that end in a unit."""
    found = []
    for node in ast.parse(code).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and re.fullmatch(r"_?[A-Z][A-Z0-9_]*_(S|MS|US|NS|EVERY)", target.id):
            found += [target.id] if isinstance(node.value, (ast.Constant, ast.BinOp)) else []
    return found


def native_files() -> list[Path]:
    found = [path for path in (ROOT / "csrc").rglob("*.?pp") if "emulator" not in path.parts and path != NATIVE]
    assert len(found) > 100
    return found


def python_files() -> list[Path]:
    found = [path for path in (ROOT / "ais_bench").rglob("*.py") if path != PYTHON]
    assert len(found) > 100
    return found


def test_a_time_that_is_defined_elsewhere_is_found() -> None:
    code = "static constexpr std::int64_t kNapNs = 5; constexpr std::chrono::milliseconds kStep{5}; constexpr int kLookMs = 2;"
    assert native_choices(code) == ["kNapNs", "kStep", "kLookMs"]
    assert native_choices("constexpr int kMagic = 1; constexpr std::uint64_t kTryEvery = 1;") == ["kTryEvery"]
    assert python_choices("A_S = 1.0\n_B_MS: int = 5\nNAMES = 3\nC_S = ('a',)\nclass D:\n    E_S = 1\n") == ["A_S", "_B_MS"]


def test_times_are_defined_in_the_two_files_only() -> None:
    native = {str(path.relative_to(ROOT)): native_choices(native_code(path)) for path in native_files()}
    assert {path: names for path, names in native.items() if names} == {}
    python = {str(path.relative_to(ROOT)): python_choices(path.read_text()) for path in python_files()}
    # The width of a mark in a drawing.
    assert {path: names for path, names in python.items() if names} == {"ais_bench/evaluate/page/trace.py": ["MARK_US"]}


def constants(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and comment of each constant; the constants of one block share the comment above them."""
    comment, names = "", False
    sign, define = ("#", r"([A-Z]\w*) = ") if path.suffix == ".py" else ("//", r"constexpr [\w:]+ (k\w+)\s*[={]")
    for line in path.read_text().split("\n"):
        if line.startswith(sign):
            comment, names = line if names else f"{comment}\n{line}", False
        elif found := re.match(define, line):
            names = True
            yield found[1], comment
        elif not line:
            comment = ""


def test_each_constant_says_what_set_it_and_is_used() -> None:
    for path, files, prefix in ((NATIVE, native_files(), "tuning::"), (PYTHON, python_files(), "")):
        known = list(constants(path))
        assert len(known) > 50
        assert len({name for name, _ in known}) == len(known)
        code = "\n".join(file.read_text() for file in files)
        for name, comment in known:
            assert SET_BY.search(comment), f"{path.name}: {name} does not say what set it, nor that it is a guess"
            assert re.search(rf"\b{prefix}{name}\b", code), f"{path.name}: nobody uses {name}"
    assert {name for name in vars(ais_bench.tuning) if name.isupper()} == {name for name, _ in constants(PYTHON)}


def test_the_module_imports_nothing() -> None:
    assert not [node for node in ast.walk(ast.parse(PYTHON.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))]
