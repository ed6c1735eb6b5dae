"""The native extension: every source under csrc/ but the emulator's, compiled in parallel. The rest is in pyproject.toml."""

import os
import tempfile
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

FOLDERS = ["base", "device", "device/ort", "device/acl", "session", "shm", "worker", "bind"]
# Sanitizer builds add to these, see the Makefile.
CFLAGS = os.environ.get("AIS_BENCH_CFLAGS", "").split()
LDFLAGS = os.environ.get("AIS_BENCH_LDFLAGS", "").split()

# A source tree that cannot be written to is built elsewhere.
SCRATCH = None if os.access(".", os.W_OK) else tempfile.mkdtemp(prefix="ais_bench-build-")
OPTIONS = {"build": {"build_base": SCRATCH}, "egg_info": {"egg_base": SCRATCH}} if SCRATCH else {}

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
        )
    ],
    options=OPTIONS,
    cmdclass={"build_ext": build_ext},
)
