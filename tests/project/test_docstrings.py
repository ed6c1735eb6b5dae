"""Docstrings say what is raised, and the texts of errors say what is wanted and what was given."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support import ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef
# Calls that raise, besides `raise` itself: the checks of ais_bench.options and of AIPP settings.
CHECKS = re.compile(r"as_\w+|check_\w+|check|absolute|absolute_path|_check|_listed")
# "NAME is VALUE; it is a TYPE" contradicts itself, and "is no X" does not say what is wanted.
CONTRADICTION = re.compile(r"(?<!there )\bis no (?!longer)\w|; it is (an?|one of)\b|\bwhole number|\bis made-up\b")


def modules() -> list[Path]:
    found = [path for folder in ("ais_bench", "aclruntime") for path in (ROOT / folder).rglob("*.py")]
    assert len(found) > 100
    return found


def public(body: list[ast.stmt], cls: ast.ClassDef | None = None) -> Iterator[tuple[ast.ClassDef | None, Function]]:
    """Yield the public functions and methods, and constructors of public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, node)
        elif isinstance(node, Function) and is_public(node, cls):
            yield cls, node


def is_public(node: Function, cls: ast.ClassDef | None) -> bool:
    overload = any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
    return not overload and (not node.name.startswith("_") or (cls is not None and node.name == "__init__"))


def raises(function: Function) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if isinstance(node, ast.Call) and CHECKS.fullmatch(ast.unparse(node.func).rpartition(".")[2]):
            return True
    return False


def says(cls: ast.ClassDef | None, function: Function) -> bool:
    text = ast.get_docstring(function) or ""
    if function.name == "__init__" and cls is not None:
        text += ast.get_docstring(cls) or ""
    return re.search(r"\b[Rr]aises?\b", text) is not None


def test_every_public_function_that_raises_says_what() -> None:
    silent, checked = [], 0
    for path in modules():
        for cls, function in public(ast.parse(path.read_text()).body):
            if raises(function):
                checked += 1
                if not says(cls, function):
                    silent.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}")
    assert checked > 150
    assert silent == []


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module, except docstrings: an error's text may be made before the error is raised."""
    tree = ast.parse(path.read_text())
    described = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, described) and ast.get_docstring(node)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_errors_say_what_is_wanted() -> None:
    found = [(f"{path.relative_to(ROOT)}:{line}", text) for path in modules() for line, text in texts(path)]
    assert len(found) > 1000
    assert CONTRADICTION.search("loop is 'abc'; it is a whole number")
    assert [(place, text) for place, text in found if CONTRADICTION.search(text)] == []
