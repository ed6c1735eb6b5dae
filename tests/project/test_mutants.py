"""The mutants of `make mutants` and `make native-test` fit the present code: each changes a text that is in its file.

The mutants themselves take minutes, so they are not part of the suite. Without this test they would go stale unnoticed.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support import ROOT, driver_mutants


def test_every_mutant_of_the_driver_applies() -> None:
    changed = driver_mutants.mutated()
    assert set(changed) == {file for mutant in driver_mutants.MUTANTS.values() for file, _, _ in mutant.edits}
    for name, mutant in driver_mutants.MUTANTS.items():
        assert any(f'"{name}"' in changed[file] for file, _, _ in mutant.edits), f"nothing asks whether {name!r} is on"


def test_every_mutant_of_the_driver_has_tests_that_exist() -> None:
    for name, mutant in driver_mutants.MUTANTS.items():
        assert mutant.tests, name
        for test in mutant.tests:
            file, _, function = test.partition("::")
            code = (ROOT / "tests" / "acl" / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {function}\b", code, re.MULTILINE), f"{name}: no test {test}"


def test_a_mutant_whose_text_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = driver_mutants.Mutant("X", driver_mutants.context("no such text", "ON"), ["test_acl_rules.py::test_an_old_kernel"])
    monkeypatch.setitem(driver_mutants.MUTANTS, "stale", gone)
    with pytest.raises(LookupError, match="mutant 'stale'.*acl_context.cpp must contain 'no such text'"):
        driver_mutants.mutated()


def test_every_mutant_of_the_transport_applies(tmp_path: Path) -> None:
    script = ROOT / "tests" / "native" / "mutants.sh"
    done = subprocess.run(["sh", str(script), str(ROOT), str(tmp_path), "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("applies: ") == 7
