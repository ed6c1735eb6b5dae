"""The native extension, and the AscendCL emulator, a plain shared library. Metadata is in pyproject.toml."""

import os
import tempfile
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import Extension, setup

FOLDERS = ["base", "device", "device/ort", "device/acl", "session", "shm", "worker", "bind"]
# Sanitizer builds add to these, see the Makefile.
CFLAGS = os.environ.get("AIS_BENCH_CFLAGS", "").split()
LDFLAGS = os.environ.get("AIS_BENCH_LDFLAGS", "").split()

# A source tree that cannot be written to is built elsewhere, and so is a second kind of build that would mix with the first.
WRITABLE = os.access(".", os.W_OK)
SCRATCH = os.environ.get("AIS_BENCH_BUILD_DIR") or (None if WRITABLE else tempfile.mkdtemp(prefix="ais_bench-build-"))
OPTIONS = {"build": {"build_base": SCRATCH}, "egg_info": {"egg_base": SCRATCH}} if SCRATCH else {}

EMULATOR = "ais_bench.emulator.libascendcl_emulator"
# It drives ONNX Runtime with the same sources as the extension does.
EMULATOR_SOURCES = [
    *(source for folder in ["base", "device/ort", "emulator"] for source in sorted(glob(f"csrc/{folder}/*.cpp"))),
    "csrc/device/gears.cpp",
    "csrc/device/onnx_file.cpp",
]


class BuildExt(build_ext):
    """Names the emulator as programs open it: it is no Python module."""

    def get_ext_filename(self, name):
        """The file of one extension."""
        plain = name.split(".")[-1] == EMULATOR.split(".")[-1]
        return name.replace(".", os.sep) + ".so" if plain else super().get_ext_filename(name)


ParallelCompile("AIS_BENCH_BUILD_JOBS").install()
setup(
    ext_modules=[
        Pybind11Extension(
            "ais_bench._native",
            sorted(source for folder in FOLDERS for source in glob(f"csrc/{folder}/*.cpp")),
            depends=glob("csrc/**/*.hpp", recursive=True) + glob("csrc/**/*.inc", recursive=True),
            include_dirs=["csrc"],
            cxx_std=17,
            extra_compile_args=["-O3", "-Wall", "-Wextra", *CFLAGS],
            extra_link_args=["-ldl", "-pthread", *LDFLAGS],
        ),
        Extension(
            EMULATOR,
            EMULATOR_SOURCES,
            depends=glob("csrc/**/*.hpp", recursive=True) + glob("csrc/**/*.inc", recursive=True),
            include_dirs=["csrc"],
            language="c++",
            extra_compile_args=["-std=c++17", "-O2", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra", *CFLAGS],
            extra_link_args=["-ldl", "-pthread", *LDFLAGS],
        ),
    ],
    options=OPTIONS,
    cmdclass={"build_ext": BuildExt},
)
