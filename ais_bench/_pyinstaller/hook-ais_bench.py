"""What PyInstaller cannot see: modules that workers import by name, and ONNX Runtime's C library."""

import glob
import importlib.util
import os

from PyInstaller.utils.hooks import collect_submodules

# A program for several servers imports ais_bench.ray itself; all others would carry Ray about.
left_out = ("ais_bench._pyinstaller", "ais_bench.ray")
hiddenimports = [name for name in collect_submodules("ais_bench") if not name.startswith(left_out)]
hiddenimports += ["ml_dtypes"]
spec = importlib.util.find_spec("onnxruntime")
binaries = [
    (library, os.path.join("onnxruntime", "capi"))
    for folder in (spec.submodule_search_locations or [] if spec is not None else [])
    for library in glob.glob(os.path.join(folder, "capi", "libonnxruntime.so*"))
]
