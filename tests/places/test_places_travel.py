"""Objects that travel by value, from scripts, children of multiprocessing, and modules loaded from a path."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ais_bench.wire import travel
from ais_bench.wire.pickling import dumps_error, loads_error
from support.scripts import environment, run_python

# A module with all objects that can travel, and a pool that sends them there and back. `PLACE`: the expected `__name__`.
DEFINITIONS = """
from ais_bench.pool import Answer
from ais_bench.shm import OBJECT, decode, encode

class Refused(Exception):
    def __init__(self, what, why):
        super().__init__(f"{what}: {why}")
        self.why = why

class Point:
    def __init__(self, x): self.x = x

def moved(point): return Point(point.x + 1)

class Handler:
    native = None
    def __init__(self, context): pass
    def describe(self): return None
    def close(self): pass
    def run(self, task):
        point = decode(task.feeds)
        if point.x < 0: raise Refused("point", point.x)
        return Answer(encode((moved(point), moved, isinstance(point, Point))), OBJECT)
"""
USE = """
def there_and_back(here):
    from ais_bench.pool import DevicePool, Task
    from ais_bench.shm import OBJECT, encode
    with DevicePool(here.Handler, [0]) as pool:
        for x in (3, 5):
            point, function, same = pool.run(Task(encode(here.Point(x)), kind=OBJECT)).result()
            assert type(point) is here.Point and point.x == x + 1, point
            assert function is here.moved and same, function
        try: pool.run(Task(encode(here.Point(-1)), kind=OBJECT)).result()
        except here.Refused as error: assert (error.why, str(error)) == (-1, "point: -1"), error
        else: raise AssertionError("nothing was raised")
"""


def test_a_child_of_multiprocessing_sends_what_its_script_defines(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\n" + DEFINITIONS + USE + "def child():\n    there_and_back(sys.modules['__mp_main__'])\n"
        "if __name__ == '__main__':\n"
        "    there_and_back(sys.modules['__main__'])\n"
        "    for how in ('spawn', 'forkserver'):\n"
        "        process = multiprocessing.get_context(how).Process(target=child)\n"
        "        process.start(); process.join(); print(how, process.exitcode)\n"
    )
    done = run_python(str(script))
    assert (done.stdout, done.returncode) == ("spawn 0\nforkserver 0\n", 0), done.stderr


LOADERS = {
    "as itself": "",
    "unlisted": "del sys.modules['loaded']",  # as importlib's recipe without its last line
    "in the place of another": "",
}


@pytest.mark.parametrize("how", LOADERS)
def test_a_module_that_was_loaded_from_a_path_travels(how: str, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "loaded.py").write_text(DEFINITIONS)
    if how == "in the place of another":
        (tmp_path / "loaded.py").write_text("raise ImportError('the other one')")
    script = tmp_path / "script.py"
    script.write_text(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('loaded', {str(tmp_path / 'away' / 'loaded.py')!r})\n"
        "loaded = importlib.util.module_from_spec(spec)\n"
        "sys.modules['loaded'] = loaded\n"
        f"spec.loader.exec_module(loaded)\n{LOADERS[how]}\n{USE}\n"
        "if 'loaded' in sys.modules: there_and_back(loaded)\n"
        "import numpy as np\n"
        "from ais_bench.pool import DevicePool, Task\n"
        "def by_script(context): return loaded.Handler(context)\n"  # the module itself goes along
        "with DevicePool(by_script, [0]) as pool: pool.start()\n"
        "print('done')\n"
    )
    done = run_python(str(script))
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("mode", ["importlib", "prepend", "append"])
def test_what_a_test_defines_travels_in_every_import_mode_of_pytest(mode: str, tmp_path: Path) -> None:
    folder = tmp_path / "checks" / "deep"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(
        f"import sys\n{DEFINITIONS}{USE}\ndef test_it():\n    there_and_back(sys.modules[__name__])\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--import-mode={mode}", "checks"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_module_that_only_a_finder_knows_goes_by_name_if_workers_have_the_finder(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "special.py").write_text(DEFINITIONS)
    finder = f"""
import importlib.util, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "special":
            return importlib.util.spec_from_file_location(name, {str(tmp_path / "hidden" / "special.py")!r})
sys.meta_path.append(Finder)
"""
    use = """
import ais_bench.pool.interpreter
from ais_bench.wire.travel import goes_by_name
import special
print(goes_by_name(special.Point))
"""
    (tmp_path / "sitecustomize.py").write_text(finder)
    places = {**environment(), "PYTHONPATH": f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"}
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60}
    everywhere = subprocess.run([sys.executable, "-c", use], env=places, **how)
    assert everywhere.stdout == "True\n", everywhere.stderr
    here = subprocess.run([sys.executable, "-c", finder + use], env=environment(), **how)
    assert here.stdout == "False\n", here.stderr


@pytest.mark.parametrize("name", ["numpy", "numpy.linalg", "os.path", "collections.abc", "importlib._bootstrap", "_io"])
def test_what_a_worker_can_import_goes_by_name(name: str) -> None:
    assert travel.goes_by_name(importlib.import_module(name))


def _hidden(x: int) -> int:
    return x + 1


_kept = _hidden
_hidden = None  # type: ignore[assignment]


def test_what_is_not_what_its_name_says_goes_by_value() -> None:
    assert travel.loads(travel.dumps(_kept))(3) == 4


def test_a_module_made_by_hand_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("made_by_hand")
    exec("def double(x): return 2 * x", vars(module))
    monkeypatch.setitem(sys.modules, "made_by_hand", module)
    assert not travel.goes_by_name(module.double)
    sent = travel.dumps(module.double)
    monkeypatch.delitem(sys.modules, "made_by_hand")
    assert travel.loads(sent)(4) == 8


def test_a_lock_travels_open() -> None:
    class Guarded:
        def __init__(self) -> None:
            self.lock, self.turns = threading.Lock(), threading.RLock()

    guarded = Guarded()
    with guarded.lock:
        copy = travel.loads(travel.dumps(guarded))
    assert type(copy) is Guarded
    assert copy.lock.acquire(False)
    assert copy.turns.acquire(False)


# ---- exceptions ----


class _Two(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.two = two


class _Keyword(ValueError):
    def __init__(self, *, code: int) -> None:
        super().__init__("with a keyword")
        self.code = code


class _System(OSError):
    def __init__(self, path: str, why: int) -> None:
        super().__init__(why, os.strerror(why), path)


class _Decode(UnicodeDecodeError):
    def __init__(self, data: bytes) -> None:
        super().__init__("utf-8", data, 0, 1, "because")


class _New(Exception):
    def __new__(cls, one: int, two: int) -> _New:
        return super().__new__(cls, one)

    def __init__(self, one: int, two: int) -> None:
        self.sum = one + two


class _Holds(Exception):
    def __init__(self, file: Any, text: str) -> None:
        super().__init__(text, file)
        self.file, self.text = file, text


ERRORS = [_Two(1, 2), _Keyword(code=3), _System("here", 2), _Decode(b"\xff"), _New(1, 2), KeyError("k"), SystemExit(3)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_keeps_its_type_whatever_its_constructor_takes(error: BaseException) -> None:
    there = loads_error(dumps_error(error))
    assert type(there) is type(error)
    assert (there.args, str(there), vars(there)) == (error.args, str(error), vars(error))
    if isinstance(error, UnicodeDecodeError | OSError | SystemExit):
        for name in ("errno", "filename", "reason", "object", "code"):
            assert getattr(there, name, None) == getattr(error, name, None)


def test_an_exception_loses_only_what_cannot_be_sent() -> None:
    with open(os.devnull) as file:
        there = loads_error(dumps_error(_Holds(file.buffer.raw, "no")))
    assert type(there) is _Holds
    assert (there.text, there.args[0]) == ("no", "no")
    assert "FileIO" in there.args[1]
    assert not hasattr(there, "file")


def test_pickle_itself_could_not() -> None:
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(_Two(1, 2)))
