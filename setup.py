"""Hands the native libraries to CMake (CMakeLists.txt), which compiles with ninja.

All metadata is in pyproject.toml, except what depends on the repository's address: AIS_BENCH_REPOSITORY, set for a release.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(
        "ais_bench does not support free-threaded Python: its pool relies on the GIL as its lock. Use a build with the GIL."
    )

ROOT = Path(__file__).resolve().parent
# Build elsewhere if the source tree is read-only, or if another kind of build would mix with the first one.
SCRATCH = os.environ.get("AIS_BENCH_BUILD_DIR") or (
    "build" if os.access(ROOT, os.W_OK) else tempfile.mkdtemp(prefix="ais_bench-build-")
)
# The CMake target of each library.
TARGETS = {"ais_bench._native": "_native", "ais_bench.emulator.libascendcl_emulator": "ascendcl_emulator"}
if os.environ.get("AIS_BENCH_WITHOUT_EMULATOR") == "1":  # a checkout that is only used for inference does not need it
    del TARGETS["ais_bench.emulator.libascendcl_emulator"]
if os.environ.get("AIS_BENCH_WITHOUT_LIBRARIES") == "1":  # an editable install that compiles nothing: see the Makefile
    TARGETS = {}
REPOSITORY = os.environ.get("AIS_BENCH_REPOSITORY", "").rstrip("/")


def description():
    """Return README.md for package indexes, where relative links lead nowhere: with absolute links, or with plain text."""
    link = rf"[\1]({REPOSITORY}/blob/main/\2)" if REPOSITORY else r"\1"
    return re.sub(r"\[([^]]+)\]\((?!https?:|#)([^)]+)\)", link, (ROOT / "README.md").read_text(encoding="utf-8"))


def urls():
    """Return the project's links for package indexes."""
    pages = {"Source": "", "Documentation": "/tree/main/docs", "Changelog": "/blob/main/CHANGELOG.md", "Issues": "/issues"}
    return {name: REPOSITORY + page for name, page in pages.items()} if REPOSITORY else {}


class CMakeBuild(build_ext):
    """Builds the libraries with CMake and ninja, in a folder that is kept."""

    def get_ext_filename(self, name):
        """The file of one extension. The emulator is no Python module: programs open it by a plain name."""
        plain = name.endswith("libascendcl_emulator")
        return name.replace(".", os.sep) + ".so" if plain else super().get_ext_filename(name)

    def build_extension(self, extension):
        """Compile what changed and put the library in its place."""
        folder = Path(SCRATCH).resolve() / f"cmake-{sysconfig.get_config_var('SOABI')}"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:  # two builds at the same time would write the same files
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._compile(extension, folder)

    def _compile(self, extension, folder):
        flags = {
            "CMAKE_CXX_FLAGS": os.environ.get("AIS_BENCH_CFLAGS", ""),
            "CMAKE_MODULE_LINKER_FLAGS": os.environ.get("AIS_BENCH_LDFLAGS", ""),
            "AIS_BENCH_OLD_GLIBC": os.environ.get("AIS_BENCH_OLD_GLIBC", "OFF"),  # tools/build_wheels.py
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
        }
        subprocess.run(
            ["cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, *(f"-D{name}={value}" for name, value in flags.items())],
            check=True,
        )
        target = TARGETS[extension.name]
        jobs = os.environ.get("AIS_BENCH_BUILD_JOBS")
        subprocess.run(["cmake", "--build", folder, "--target", target, *(["-j", jobs] if jobs else [])], check=True)
        (built,) = (
            path for path in folder.iterdir() if path.suffix == ".so" and path.name.removeprefix("lib").startswith(target)
        )
        place = Path(self.get_ext_fullpath(extension.name))
        place.parent.mkdir(parents=True, exist_ok=True)
        # A program that runs keeps the file that it has open.
        beside = place.with_name(place.name + ".new")
        shutil.copy2(built, beside)
        os.replace(beside, place)


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    project_urls=urls(),
    ext_modules=[Extension(name, []) for name in TARGETS],
    options={"build": {"build_base": SCRATCH}, "egg_info": {"egg_base": SCRATCH}} if SCRATCH != "build" else {},
    cmdclass={"build_ext": CMakeBuild},
)
