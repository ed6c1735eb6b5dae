"""Execution providers of ONNX Runtime: which exist, and whether one can be used here.

A probe loads drivers. So a process that holds a pool probes in another process (ais_bench.session.providers), and a process
that opens its own session probes in itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from ais_bench import _native, libraries
from ais_bench.errors import AisBenchError, ConfigError, DeviceUnavailable

__all__ = ["PREFERENCE", "ProviderInfo", "check_devices", "choose", "probe", "provider_options_of"]


class _Known(NamedTuple):
    provider: str  # its name in ONNX Runtime
    install: str  # the distribution that contains it


_KNOWN = {  # in the order in which "auto" tries them
    "tensorrt": _Known("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "cuda": _Known("CUDAExecutionProvider", "onnxruntime-gpu"),
    "migraphx": _Known("MIGraphXExecutionProvider", "onnxruntime-migraphx"),
    "cann": _Known("CANNExecutionProvider", "onnxruntime-cann"),
    "qnn": _Known("QNNExecutionProvider", "onnxruntime-qnn"),
    "openvino": _Known("OpenVINOExecutionProvider", "onnxruntime-openvino"),
}
PREFERENCE = tuple(_KNOWN)
CPU = "CPUExecutionProvider"


class ProviderInfo(NamedTuple):
    """A provider on this machine. It can be used if it has devices.

    Attributes:
        name: "cuda", "openvino" and so on, or ONNX Runtime's name of another one.
        provider: its name in ONNX Runtime, "CUDAExecutionProvider".
        library: the file of a plugin; "": it is built into ONNX Runtime.
        devices: the names of its devices.
        why: the reason if it cannot be used, with everything that was tried; "": it can be used.
        install: how to install it.
        version: the version of ONNX Runtime; "" if there is none.
    """

    name: str
    provider: str
    library: str = ""
    devices: tuple[str, ...] = ()
    why: str = ""
    install: str = ""
    version: str = ""


def provider_name(name: str) -> tuple[str, str]:
    """Return this library's name and ONNX Runtime's name of a provider, given one of them. Raises ConfigError."""
    for ours, known in _KNOWN.items():
        if name.lower() in (ours, known.provider.lower()):
            return ours, known.provider
    if name.lower() in ("cpu", CPU.lower()):
        return "cpu", CPU
    if name.endswith("ExecutionProvider"):
        return name, name
    known_names = ", ".join(map(repr, (*_KNOWN, "cpu", "auto")))
    raise ConfigError(f"provider must be one of {known_names}, or the name of a provider in ONNX Runtime, got {name!r}")


def probe(name: str) -> ProviderInfo:
    """Probe a provider in this process. This loads its library and driver. Raises ConfigError for an unknown name."""
    ours, provider = provider_name(name)
    if ours == "cpu":
        return ProviderInfo("cpu", CPU, devices=tuple(f"processor {cpu}" for cpu in _native.allowed_cpus()))
    install = _KNOWN[ours].install if ours in _KNOWN else ""
    reasons = []
    try:
        version = _native.runtime_version("ort")
    except AisBenchError as error:
        return ProviderInfo(ours, provider, why=str(error), install=install)
    plugins = libraries.plugins()
    for library in ("", *plugins):
        options = {"provider": provider, **({"provider_library": library} if library else {})}
        try:
            devices = _native.provider_devices(options)
            if ours == "cann" and not library:
                devices = [f"NPU {npu}" for npu in range(_native.device_count("acl"))]
        except AisBenchError as error:
            reasons.append(f"{library or 'built in'}: {error}")
            continue
        if devices:
            if ours == "cuda" and not library:
                library = _own_plugin(provider, len(devices))
            return ProviderInfo(ours, provider, library, tuple(devices), install=install, version=version)
        reasons.append(f"{library or 'built in'}: it has no device here")
    if not plugins:
        reasons.append(f"plugin: there is no package onnxruntime_ep_*, and {libraries.PLUGINS} names no library")
    return ProviderInfo(ours, provider, why="\n  ".join(reasons), install=install, version=version)


def _own_plugin(provider: str, devices: int) -> str:
    """Return the library of the built-in CUDA provider if it can be registered like that of a plugin; "" if not.

    Since 1.23 it can, and only then ONNX Runtime offers memory of the devices to its callers. The library takes all GPUs of the
    system for CUDA's, in order, so a part of them (CUDA_VISIBLE_DEVICES) cannot be registered.
    """
    library = os.path.join(os.path.dirname(_native.runtime_library("ort")), "libonnxruntime_providers_cuda.so")
    if not os.path.exists(library) or libraries.nvidia_gpus() != devices:
        return ""
    try:
        found = _native.provider_devices({"provider": provider, "provider_library": library})
    except AisBenchError:
        return ""
    return library if len(found) == devices else ""


def choose(name: str) -> ProviderInfo:
    """Return the provider of this name; for "auto" the best available one.

    Raises DeviceUnavailable, with everything that was tried, if the named provider cannot be used. The last choice of "auto" is
    the processor; `why` then has the reasons for the others.
    """
    if name != "auto":
        return usable(probe(name))
    tried = []
    for other in PREFERENCE:
        found = probe(other)
        if found.devices:
            return found
        tried.append(f"{other}: {found.why.splitlines()[0]}")
    return probe("cpu")._replace(why="\n".join(tried))


def usable(found: ProviderInfo) -> ProviderInfo:
    """Return the provider if it can be used, otherwise raise DeviceUnavailable."""
    if found.devices:
        return found
    how = ""
    if found.install:
        how = (
            f"\nInstall it with 'pip uninstall -y onnxruntime && pip install {found.install}': all flavours of onnxruntime own "
            "the same package, so there can be one of them"
        )
    raise DeviceUnavailable(f"provider {found.name!r} cannot be used:\n  {found.why}{how}")


def check_devices(found: ProviderInfo, ids: Iterable[int]) -> None:
    """Raise DeviceUnavailable for an id for which the provider has no device."""
    strange = sorted(id for id in set(ids) if id >= len(found.devices))
    if strange:
        have = f"{len(found.devices)} devices, 0 to {len(found.devices) - 1}" if len(found.devices) > 1 else "one device, 0"
        raise DeviceUnavailable(f"{found.provider} has {have}, and {', '.join(map(str, strange))} was asked for")


def provider_options_of(found: ProviderInfo, options: dict[str, str], fallback: str) -> dict[str, str]:
    """Return session options with the provider. Options that ONNX Runtime does not know become the provider's."""
    if found.name == "cpu":
        return options
    mine = {name if _native.is_ort_option(name) else f"provider:{name}": value for name, value in options.items()}
    library = {"provider_library": found.library} if found.library else {}
    return {**mine, "provider": found.provider, "fallback": fallback, **library}
