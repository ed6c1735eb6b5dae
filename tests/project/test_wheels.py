"""Wheels for other machines: an older glibc, another processor, and no free-threaded Python."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from ais_bench import _native
from ais_bench.emulator.binary import library_path
from support import ROOT

CROSS = "aarch64-linux-gnu-g++"
GENERATES_CODE = ("shm",)  # has code of each processor's own; the others differ by declarations only
PORTABLE = ["device", "device/ort", "device/acl", "session", "pool", "worker", "bind", "emulator"]


def newest_glibc(library: Path, objdump: str = "objdump") -> tuple[int, ...]:
    """Return the newest version of glibc that a library needs."""
    said = subprocess.run([objdump, "-T", str(library)], capture_output=True, text=True, check=True).stdout
    versions = [tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([\d.]+)", said)]
    assert versions
    return max(versions)


@pytest.mark.skipif(shutil.which("g++") is None or shutil.which("objdump") is None, reason="g++ or objdump is not installed")
def test_a_library_with_the_replacements_asks_for_glibc_2_28_at_most(tmp_path: Path) -> None:
    source = tmp_path / "uses.cpp"
    source.write_text("""
    #include <chrono>
    #include <cmath>
    #include <condition_variable>
    #include <dlfcn.h>
    #include <memory>
    #include <mutex>
    #include <random>
    #include <sys/stat.h>
    #include <thread>
    extern "C" double uses(double x) {
      std::mutex lock;
      std::condition_variable changed;
      std::unique_lock<std::mutex> held(lock);
      const bool woken = changed.wait_for(held, std::chrono::milliseconds(20), [] { return false; });
      std::shared_ptr<int> shared = std::make_shared<int>(1);
      std::thread([shared] {}).join();
      struct stat found;
      const bool there = stat("/", &found) == 0 && S_ISDIR(found.st_mode);
      const bool opened = dlopen(nullptr, RTLD_NOW) != nullptr && dlsym(RTLD_DEFAULT, "exp") != nullptr;
      std::random_device()();
      return std::exp(std::log(x)) + (woken ? 100 : 0) + (there ? 10 : 0) + (opened ? 20 : 0);
    }
    """)
    plain, with_old = tmp_path / "plain.so", tmp_path / "old.so"
    shim = tmp_path / "old_glibc.o"
    shared = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", str(source)]
    subprocess.run([*shared, "-o", str(plain)], check=True)
    compiled = ["gcc", "-O2", "-fPIC", "-fno-builtin", "-c", str(ROOT / "csrc/base/old_glibc.c"), "-o", str(shim)]
    subprocess.run(compiled, check=True)
    subprocess.run([*shared, str(shim), "-static-libstdc++", "-o", str(with_old)], check=True)
    assert newest_glibc(with_old) <= (2, 28)
    if newest_glibc(plain) <= (2, 28):
        pytest.skip("this machine's glibc is as old as that of the wheels")
    called = """
import ctypes, sys, time
uses = ctypes.CDLL(sys.argv[1]).uses
uses.restype, uses.argtypes = ctypes.c_double, [ctypes.c_double]
began = time.monotonic()
print(round(uses(3.0), 6), time.monotonic() - began >= 0.02)
"""
    said = subprocess.run([sys.executable, "-c", called, str(with_old)], capture_output=True, text=True, check=False)
    assert said.stdout.split() == ["33.0", "True"], said.stderr


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
@pytest.mark.parametrize("library", [_native.__file__, library_path()], ids=["extension", "emulator"])
def test_every_newer_symbol_of_our_libraries_has_a_replacement(library: str | Path) -> None:
    """Otherwise no wheel can be made. The libraries of the C++ compiler are linked statically into a wheel."""
    said = subprocess.run(["objdump", "-T", str(library)], capture_output=True, text=True, check=True).stdout
    symbols = re.findall(r"\(?GLIBC_([\d.]+)\)?\s+(\w+)$", said, re.MULTILINE)
    assert len(symbols) > 20
    newer = {name for version, name in symbols if tuple(map(int, version.split("."))) > (2, 28)}
    replaced = set(re.findall(r"\b(\w+)(?=\(|, \(| = 0;)", (ROOT / "csrc/base/old_glibc.c").read_text()))
    assert newer <= replaced


@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"{CROSS} is not installed (Debian: g++-aarch64-linux-gnu)")
@pytest.mark.parametrize("folder", ["base", "shm", *(pytest.param(name, marks=pytest.mark.long) for name in PORTABLE)])
def test_native_code_compiles_for_arm(folder: str, tmp_path: Path) -> None:
    """The files of a folder are compiled together, as in a build."""
    pybind11 = pytest.importorskip("pybind11")
    headers = Path(sysconfig.get_path("include"))
    if folder == "bind" and not (headers / "Python.h").exists():
        pytest.skip("Python.h is not installed")
    # Debian has a pyconfig.h for each processor; those of two 64-bit processors are equal.
    own = tmp_path / f"{platform.machine()}-linux-gnu"
    if (found := headers.parent / own.name).is_dir():
        shutil.copytree(found, tmp_path / "aarch64-linux-gnu")
    include = [f"-I{ROOT / 'csrc'}", f"-I{tmp_path}", f"-isystem{pybind11.get_include()}", f"-isystem{headers}"]
    unit = tmp_path / "unit.cpp"
    unit.write_text("".join(f'#include "{path}"\n' for path in sorted((ROOT / "csrc" / folder).glob("*.cpp"))))
    how = ["-c", "-o", str(tmp_path / "unit.o")] if folder in GENERATES_CODE else ["-fsyntax-only"]
    command = [CROSS, "-std=c++17", "-O0", "-fPIC", "-DNDEBUG", *include, str(unit), *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which(CROSS.replace("g++", "gcc")) is None, reason="no compiler for aarch64 is installed")
def test_the_replacements_compile_for_arm(tmp_path: Path) -> None:
    object_file = tmp_path / "old_glibc.o"
    command = [CROSS.replace("g++", "gcc"), "-O2", "-fPIC", "-fno-builtin", "-c", str(ROOT / "csrc/base/old_glibc.c")]
    subprocess.run([*command, "-o", str(object_file)], check=True)
    assert object_file.stat().st_size > 0


def test_a_free_threaded_python_is_refused_by_name() -> None:
    code = """
import runpy, sysconfig
own = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: 1 if name == "Py_GIL_DISABLED" else own(name)
runpy.run_path("setup.py")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "free-threaded Python" in done.stderr
    assert "Traceback" not in done.stderr


def metadata(repository: str) -> dict[str, Any]:
    """Return what setup.py passes to setuptools."""
    code = """
import json, runpy, setuptools
setuptools.setup = lambda **given: print(json.dumps({name: given[name] for name in ("long_description", "project_urls")}))
runpy.run_path("setup.py")
"""
    environment = {**os.environ, "AIS_BENCH_REPOSITORY": repository}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_links_of_the_index_page_lead_somewhere() -> None:
    pytest.importorskip("pybind11")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    relative = re.compile(r"\]\((?!https?:|#)([^)]+)\)")
    targets = relative.findall(readme)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target.partition("#")[0]).exists()] == []
    made = metadata("https://example.org/ais_bench/")
    assert made["project_urls"]["Source"] == "https://example.org/ais_bench"
    assert made["long_description"].count("](https://example.org/ais_bench/blob/main/") == len(targets)
    for found in (made, plain := metadata("")):
        assert not relative.search(found["long_description"])
    assert plain["project_urls"] == {}
    assert plain["long_description"].startswith(readme[:20])
