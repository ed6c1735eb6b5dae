"""The table of a runtime's limits equals that of the documentation, and existing tests check every row."""

from __future__ import annotations

import ast
from fnmatch import fnmatchcase

import pytest

from support import ROOT, TESTS
from support.runtimes import CANNOT, RUNTIMES, Limit

DOCUMENT = ROOT / "docs" / "ascend.md"


def documented() -> list[tuple[str, ...]]:
    """Return the rows of the section "What a runtime cannot do", without its head."""
    section = DOCUMENT.read_text(encoding="utf-8").split("## What a runtime cannot do\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows[2:]]


def test_the_documentation_has_the_same_rows() -> None:
    assert documented() == [(row.what, row.ort, row.acl, row.why) for row in CANNOT]


@pytest.fixture(scope="module")
def parameters() -> dict[str, set[str]]:
    """Return the parameters of every test function, by its name."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in TESTS.glob("*/test_*.py")]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {function.name: {argument.arg for argument in function.args.args} for function in functions}


@pytest.mark.parametrize("row", CANNOT, ids=lambda row: row.what)
def test_every_row_is_held_by_a_test(row: Limit, parameters: dict[str, set[str]]) -> None:
    """If a refusal is expected, this test runs on both runtimes."""
    assert row.runtime in RUNTIMES
    assert row.tests
    for pattern in row.tests:
        meant = [name for name in parameters if fnmatchcase(name, pattern.partition("[")[0])]
        assert meant, f"there is no test {pattern}"
        if row.refusal is not None:
            assert all(parameters[name] & {"model", "models", "runtime"} for name in meant)
