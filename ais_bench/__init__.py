"""One model on every accelerator of a machine.

`InferSession`, `MultiDeviceSession`, `MemorySummary` and `__version__` are imported on first use. Nothing else in the package
needs this file, because another distribution has an empty `ais_bench/__init__.py` that may overwrite it. In that case
`ais_bench.session` and `ais_bench.infer.interface` still have the classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ais_bench.session import InferSession, MemorySummary, MultiDeviceSession

    __version__: str

__all__ = ["InferSession", "MemorySummary", "MultiDeviceSession", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: Any
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value = version("ais_bench")
        except PackageNotFoundError:  # imported from source files that are not installed
            value = "unknown"
    else:
        try:
            import ais_bench.session
        except AttributeError as error:  # a file of the program replaces a module; Python would hide an AttributeError
            raise ImportError(f"cannot import {name!r} from {__name__!r}: {error}", name=__name__) from error

        value = getattr(ais_bench.session, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
