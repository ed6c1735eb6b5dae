"""The tests' folders: each is in the table of CONTRIBUTING.md, and shared code is only in the package `support`."""

from __future__ import annotations

import ast
import collections
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT, TESTS

WITHOUT_TESTS = {"support", "native", "model"}  # shared code; C++ programs; a model for a checker
FILES = sorted(TESTS.glob("*/test_*.py"))
HELPERS = ("scripts.py", "waiting.py")  # of support: no test file may define these helpers again
Function = (ast.FunctionDef, ast.ClassDef)


def described() -> list[str]:
    """Return the folders in the table of CONTRIBUTING.md, in its order."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| folder | ", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `tests/(\w+)` \|", section, re.MULTILINE)


def shared(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield the definitions of a file that several tests may use: functions and classes, except tests."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, Function) and not node.name.lower().startswith("test"):
            yield node


def test_every_test_is_in_a_folder_that_the_documentation_describes() -> None:
    assert len(FILES) > 90
    assert {path.parent for path in TESTS.rglob("test_*.py")} == {path.parent for path in FILES}
    folders = described()
    assert len(folders) == len(set(folders))
    assert set(folders) == {path.parent.name for path in FILES} | WITHOUT_TESTS
    assert {path.parent.name for path in FILES} & WITHOUT_TESTS == set()


def test_no_two_files_have_one_name() -> None:
    """pytest imports a file only by its name."""
    names = collections.Counter(path.name for path in FILES)
    assert [name for name, count in names.items() if count > 1] == []


def test_shared_code_is_in_support_alone() -> None:
    others = [path for path in TESTS.rglob("*.py") if path.relative_to(TESTS).parts[0] not in WITHOUT_TESTS]
    assert {path.name for path in set(others) - set(FILES)} == {"conftest.py"}
    for path in others:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in imported if re.match("test_|conftest", name)], f"{path} imports {imported}"


@pytest.mark.parametrize("path", sorted(TESTS.rglob("conftest.py")), ids=lambda path: path.parent.name)
def test_a_conftest_has_fixtures_and_hooks_alone(path: Path) -> None:
    for node in shared(path):
        decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
        assert "fixture" in decorators or node.name.startswith(("pytest_", "_")), f"{path}: {node.name}"


def test_no_helper_is_written_twice() -> None:
    found: dict[tuple[str, str], list[Path]] = collections.defaultdict(list)
    for path in TESTS.rglob("*.py"):
        for node in shared(path):
            body = [part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
            found[node.name, "\n".join(map(ast.unparse, body))].append(path)
    assert len(found) > 300
    assert [(name, paths) for (name, _), paths in found.items() if len(paths) > 1] == []
    once = {node.name for file in HELPERS for node in shared(TESTS / "support" / file)}
    assert {"run_script", "environment", "wait_until"} <= once
    assert [name for name, _ in found if name in once and sum(other == name for other, _ in found) > 1] == []
