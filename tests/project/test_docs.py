"""The documents are true: their examples run, and the reference and the guide have every method with its parameters.

Every python block of README.md, of the API reference, of the guide and of the how-to pages that does not contain "..." is a
whole program. Each runs in a new process and a new folder, with the model.onnx of the guide's first block.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ais_bench
import ais_bench.evaluate
import ais_bench.pool
import ais_bench.session
from ais_bench import errors
from ais_bench.infer.interface import InferSession, MemorySummary, MultiDeviceSession
from ais_bench.pool.settings import PoolSettings
from ais_bench.session.last_times import LastTimes
from support import ROOT
from support.scripts import run_script

GUIDE = ROOT / "docs" / "api-guide.zh.md"
REFERENCE = ROOT / "docs" / "api.md"
CLASSES = [InferSession, MultiDeviceSession, MemorySummary]
ATTRIBUTES = {"summary": LastTimes.__call__}  # public members of MultiDeviceSession that are not in its class

# On a machine with many processors "all devices" would mean as many workers.
TWO_PROCESSORS = "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])\n"


def examples(document: Path) -> list[tuple[int, str]]:
    """Return the whole programs of a document: (line, code)."""
    text = document.read_text(encoding="utf-8")
    blocks = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start()) + 1, block[1]) for block in blocks if "..." not in block[1]]


MAKE_MODEL, *GUIDE_EXAMPLES = examples(GUIDE)
OTHERS = [ROOT / "README.md", REFERENCE, *sorted((ROOT / "docs" / "howto").glob("*.md"))]
PROGRAMS = [
    pytest.param(code, id=f"{document.name}:{line}")
    for document, found in ((GUIDE, GUIDE_EXAMPLES), *((page, examples(page)) for page in OTHERS))
    for line, code in found
]


def run_in(folder: Path, code: str) -> None:
    run_script(f"{TWO_PROCESSORS}os.chdir({str(folder)!r})\n{code}")


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guide")
    run_in(folder, MAKE_MODEL[1])
    return folder / "model.onnx"


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("code", PROGRAMS)
def test_an_example_runs(code: str, model_file: Path, tmp_path: Path) -> None:
    shutil.copy(model_file, tmp_path)
    run_in(tmp_path, code)


def test_no_example_is_left_out_by_mistake() -> None:
    assert len(examples(GUIDE)) == GUIDE.read_text(encoding="utf-8").count("```python")  # no "..." in the guide
    for document in OTHERS:
        assert examples(document), f"{document.name} has no example that runs"


def section(document: Path, title: str) -> str:
    (text,) = re.findall(rf"^## {title}\n(.*?)^## ", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(text)


def described(document: Path, cls: type) -> dict[str, str | None]:
    """Return the names in a document's section on a class, with their parameters; None: it gives no parameters."""
    text = section(document, cls.__name__)
    return {found[1]: found[2] for found in re.finditer(r"^(?:#### |\| )`(\w+)(?:\((.*)\))?`", text, re.MULTILINE)}


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    signature = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default) for one in signature if one.name not in ("self", "unknown")]


on_both = pytest.mark.parametrize("document", [GUIDE, REFERENCE], ids=["guide", "reference"])
on_each_class = pytest.mark.parametrize("cls", CLASSES)


@on_both
@on_each_class
def test_the_documents_give_the_true_parameters(document: Path, cls: type) -> None:
    checked = 0
    for name, given in described(document, cls).items():
        member = cls if name == cls.__name__ else getattr(cls, name, ATTRIBUTES.get(name))
        if not callable(member):  # a property, or the name of a setting or field
            assert given is None, f"{name} takes no parameters"
            continue
        assert given is not None, f"the document gives no parameters of {name}"
        assert parameters(eval(f"lambda {given}: None")) == parameters(member), name
        checked += 1
    assert checked >= 3


@on_both
@on_each_class
def test_the_documents_describe_every_public_member(document: Path, cls: type) -> None:
    names = described(document, cls)
    members = {name: member for name, member in vars(cls).items() if not name.startswith("_")}
    known = [members[name] for name in names if name in members]  # an alias is the same object under another name
    assert [name for name, member in members.items() if not any(member is one for one in known)] == []


@on_both
def test_the_documents_describe_every_setting(document: Path) -> None:
    settings = {field.name for field in dataclasses.fields(PoolSettings)} - {"affinity"}  # a parameter of the class itself
    assert settings <= set(described(document, MultiDeviceSession))


@on_each_class
def test_guide_and_reference_have_the_same_headings(cls: type) -> None:
    found = [re.findall(r"^#### (`.*`)$", section(document, cls.__name__), re.MULTILINE) for document in (GUIDE, REFERENCE)]
    assert found[0] == found[1]


@pytest.mark.parametrize("cls", [InferSession, MultiDeviceSession])
def test_the_reference_says_what_every_argument_of_a_constructor_is(cls: type) -> None:
    rows = re.findall(r"^\| ([\w, ]+) \|", section(REFERENCE, cls.__name__), re.MULTILINE)
    named = {name for row in rows for name in row.split(", ")}
    assert {name for name, _, _ in parameters(cls)} - {"settings"} <= named


@pytest.mark.parametrize(("cls", "title"), [(InferSession, "One device"), (MultiDeviceSession, "All devices")])
def test_the_readme_has_every_option(cls: type, title: str) -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", section(ROOT / "README.md", title), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"\w+", row)}
    settings = {field.name for field in dataclasses.fields(PoolSettings)} if cls is MultiDeviceSession else set()
    assert ({name for name, _, _ in parameters(cls)} | settings) - {"settings"} <= named


def test_the_reference_says_what_every_error_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section(REFERENCE, "Errors"), re.MULTILINE)
    bases = {name: re.findall(r"`(\w+)`", derives) for name, derives in rows}
    classes = {name: getattr(errors, name) for name in errors.__all__ if not issubclass(getattr(errors, name), Warning)}
    assert bases == {name: [base.__name__ for base in cls.__bases__] for name, cls in classes.items()}


def test_the_reference_names_every_public_name() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    pages = text + (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    # What functions return, and hooks.
    beside_the_table = {"SystemInfo", "DeviceInfo", "WorkerInfo", "Factory", "freeze_support"}
    for module in (ais_bench, ais_bench.session, ais_bench.pool, ais_bench.evaluate):
        missing = {name for name in module.__all__ if name not in pages} - beside_the_table - {"__version__"}
        assert missing == set(), module.__name__


def test_the_site_leads_to_every_page() -> None:
    listed = re.findall(r"^ *- (?:[^:]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(pages)


def test_the_glossary_has_the_words_of_the_code() -> None:
    """It is at most half a page, and has only words that the code uses."""
    rows = re.findall(r"^\| ([a-z, ]+) \| (\S.*) \|$", (ROOT / "docs" / "design" / "glossary.md").read_text(), re.MULTILINE)
    names = [row for row, _ in rows if row != "term"]
    assert 20 <= len(names) <= 30
    assert names == sorted(names)
    terms = [term for row in names for term in row.split(", ")]
    code = [
        path.read_text() for folder in ("ais_bench", "csrc") for path in (ROOT / folder).rglob("*.?[py]p") if path.is_file()
    ]
    code += [path.read_text() for path in (ROOT / "ais_bench").rglob("*.py")]
    unused = [term for term in terms if sum(bool(re.search(rf"\b{term}", text, re.IGNORECASE)) for text in code) < 2]
    assert unused == []
