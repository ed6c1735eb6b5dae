"""Where the vendors' libraries may be, best first. Looking imports none of their Python packages."""

from __future__ import annotations

import importlib.util
import os
import sys

__all__ = ["candidates"]


def candidates(runtime: str) -> list[str]:
    """Return the paths to try for a runtime, `"ort"` or `"acl"`; an explicit one in the environment replaces the search."""
    return {"ort": _onnxruntime, "acl": _ascendcl}.get(runtime, lambda: [])()


def _onnxruntime() -> list[str]:
    explicit = os.environ.get("AIS_BENCH_ORT_LIBRARY")
    if explicit:
        return [explicit]
    paths: list[str] = []
    spec = importlib.util.find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec is not None else None
    # A frozen program has the library in its folder, but need not have the package.
    for folder in folders or [os.path.join(entry, "onnxruntime") for entry in sys.path if isinstance(entry, str)]:
        # The versioned file; a build from source may also have the plain name.
        capi = os.path.join(folder, "capi")
        names = os.listdir(capi) if os.path.isdir(capi) else []
        paths += sorted((os.path.join(capi, name) for name in names if name.startswith("libonnxruntime.so")), reverse=True)
    return [*paths, "libonnxruntime.so.1", "libonnxruntime.so"]


def _ascendcl() -> list[str]:
    explicit = os.environ.get("AIS_BENCH_ACL_LIBRARY")
    if explicit:
        return [explicit]
    name = "libascendcl.so"
    homes = [os.environ[key] for key in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH") if os.environ.get(key)]
    defaults = ["/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/latest", "/usr/local/Ascend/nnrt/latest"]
    in_homes = [f"{home}/{folder}/{name}" for home in homes for folder in ("lib64", "runtime/lib64")]
    return [*in_homes, name, *(f"{home}/lib64/{name}" for home in defaults)]
