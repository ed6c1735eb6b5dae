"""The table of what a runtime cannot do is the one of the documentation, and every row is held by tests that are there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from runtimes import CANNOT, RUNTIMES, Limit

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "ascend.md"


def documented() -> list[tuple[str, ...]]:
    """The rows of the section "What a runtime cannot do", without its head."""
    section = DOCUMENT.read_text(encoding="utf-8").split("## What a runtime cannot do\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows[2:]]


def test_the_documentation_has_the_same_rows() -> None:
    assert documented() == [(row.what, row.ort, row.acl, row.why) for row in CANNOT]


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """Every test function's source, by its name."""
    found = {}
    for path in TESTS.glob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name] = ast.get_source_segment(text, node) or ""
    return found


@pytest.mark.parametrize("row", CANNOT, ids=lambda row: row.what)
def test_every_row_is_held_by_a_test(row: Limit, sources: dict[str, str]) -> None:
    assert row.runtime in RUNTIMES
    assert row.tests
    for pattern in row.tests:
        name = pattern.partition("[")[0]
        meant = [
            source for known, source in sources.items() if known == name or (name.endswith("*") and known.startswith(name[:-1]))
        ]
        assert meant, f"there is no test {name}"
        if row.refusal is not None:  # it is expected of the run on that runtime, so there must be one
            assert all("model" in source.partition("\n")[0] + source.partition(":\n")[0] for source in meant)
