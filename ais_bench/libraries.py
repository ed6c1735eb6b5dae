"""The possible paths of the vendors' libraries, best first. The search imports none of their Python packages."""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import sys

from ais_bench.errors import DeviceUnavailable

__all__ = ["candidates", "plugins"]

PLUGINS = "AIS_BENCH_PROVIDER_LIBRARY"
# Distributions that contain the package `onnxruntime`, by the names of their folders in site-packages.
_FLAVOURS = (
    "",
    "_azure",
    "_cann",
    "_directml",
    "_dnnl",
    "_gpu",
    "_migraphx",
    "_openvino",
    "_qnn",
    "_rocm",
    "_training",
    "_vitisai",
)


def candidates(runtime: str) -> list[str]:
    """Return the paths to try for a runtime, `"ort"` or `"acl"`. An explicit path in the environment replaces the search."""
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
        found = sorted((name for name in names if name.startswith("libonnxruntime.so")), key=_version, reverse=True)
        if found:
            found = _of_the_distribution(os.path.dirname(folder), found)
        paths += [os.path.join(capi, name) for name in found]
    return [*paths, "libonnxruntime.so.1", "libonnxruntime.so"]


def _version(name: str) -> list[int]:
    """Return a library's version as numbers: 1.9 is older than 1.24."""
    return [int(digits) for digits in re.findall(r"\d+", name)]


def _of_the_distribution(site: str, libraries: list[str]) -> list[str]:
    """Return the libraries of the one installed distribution; all of them if it does not list its files.

    Raises DeviceUnavailable if several distributions are installed: they overwrite each other's files, so a library may load
    providers of another version.
    """
    flavours = {f"onnxruntime{suffix}" for suffix in _FLAVOURS}
    installed = sorted(
        entry for entry in os.listdir(site) if entry.endswith(".dist-info") and entry.partition("-")[0].lower() in flavours
    )
    if len(installed) > 1:
        plain = [entry.partition("-")[0].replace("_", "-") for entry in installed]
        names = [
            f"{name} {entry.removesuffix('.dist-info').partition('-')[2]}" for name, entry in zip(plain, installed, strict=True)
        ]
        raise DeviceUnavailable(
            f"{' and '.join(names)} are installed together in {site}. They own the same package, so each has overwritten files "
            f"of the other. Keep one: 'pip uninstall -y {' '.join(plain)} && pip install {plain[-1]}' "
            f"(or {', '.join(plain[:-1])}), or name a library in the environment variable AIS_BENCH_ORT_LIBRARY"
        )
    if len(libraries) > 1 and installed:
        try:
            with open(os.path.join(site, installed[0], "RECORD"), encoding="utf-8") as record:
                brought = {line.split(",")[0].rpartition("/")[2] for line in record}
        except OSError:
            return libraries
        return [name for name in libraries if name in brought] or libraries
    return libraries


def nvidia_gpus(folder: str = "/sys/class/drm") -> int:
    """Return how many GPUs of NVIDIA the system has, whether this process may use them or not; 0 if it does not list them."""
    found = 0
    for card in glob.glob(os.path.join(folder, "card[0-9]*")):
        try:
            with open(os.path.join(card, "device", "vendor"), encoding="ascii") as file:
                found += file.read().strip() == "0x10de" and "-" not in os.path.basename(card)  # card0-DP-1 is a connector
        except OSError:
            continue
    return found


def plugins() -> list[str]:
    """Return the libraries of execution providers that register with ONNX Runtime: those that the environment variable
    AIS_BENCH_PROVIDER_LIBRARY names, and those in packages `onnxruntime_ep_*`."""
    found = [path for path in os.environ.get(PLUGINS, "").split(os.pathsep) if path]
    for site in dict.fromkeys(entry or os.curdir for entry in sys.path if isinstance(entry, str)):
        try:
            packages = sorted(name for name in os.listdir(site) if name.startswith("onnxruntime_ep_"))
        except OSError:
            continue
        for package in packages:
            folder = os.path.join(site, package)
            if os.path.isdir(folder):
                found += [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if _is_plugin(folder, name)]
    return found


def _is_plugin(folder: str, name: str) -> bool:
    if not name.endswith(".so"):  # the same with a version behind it are copies
        return False
    with open(os.path.join(folder, name), "rb") as file:
        return b"CreateEpFactories" in file.read()


def _ascendcl() -> list[str]:
    explicit = os.environ.get("AIS_BENCH_ACL_LIBRARY")
    if explicit:
        return [explicit]
    name = "libascendcl.so"
    homes = [os.environ[key] for key in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH") if os.environ.get(key)]
    defaults = ["/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/latest", "/usr/local/Ascend/nnrt/latest"]
    in_homes = [f"{home}/{folder}/{name}" for home in homes for folder in ("lib64", "runtime/lib64")]
    return [*in_homes, name, *(f"{home}/lib64/{name}" for home in defaults)]
