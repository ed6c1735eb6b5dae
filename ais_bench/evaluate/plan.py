"""Decisions before the first sample runs: check options, describe the model, choose the batch size."""

from __future__ import annotations

import hashlib
import numbers
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from ais_bench.errors import ConfigError
from ais_bench.options import as_path, wrong

__all__ = ["batch_size_for", "check_number", "model_facts", "versions"]


def check_number(name: str, value: Any, least: int) -> int | None:
    """Return an option that is an integer or None. Raises ConfigError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise wrong(name, f"an integer of at least {least}, or None", value)
    return int(value)


def batch_size_for(asked: int | None, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Return the number of samples of a run: `asked`, otherwise the model's batch size, otherwise 1. Raises ConfigError."""
    first = {desc.shape[0] if desc.shape else 0 for desc in inputs}
    fixed = first.pop() if len(first) == 1 else 0
    if asked is None:
        size = fixed if fixed > 0 else 1
    elif fixed > 0 and fixed % asked:
        raise wrong("batch_size", f"a divisor of {fixed}, the batch for which the model was built", asked)
    else:
        size = asked
    if size > 1:
        whole = [desc for desc in outputs if not desc.shape or (desc.shape[0] >= 0 and desc.shape[0] % size)]
        if whole and asked is None:
            return 1  # the first axis is not a batch axis
        if whole:
            raise ConfigError(
                f"output {whole[0].name!r} has shape {list(whole[0].shape)}: it cannot be split into {size} samples; "
                "use batch_size=1"
            )
    return size


def model_facts(model: Any) -> dict[str, Any]:
    """Return the run folder's facts about the model: path, size and SHA-256. Raises ConfigError."""
    digest = hashlib.sha256()
    if isinstance(model, (bytes, bytearray, memoryview)):
        digest.update(model)
        return {"path": None, "bytes": len(model), "sha256": digest.hexdigest()}
    path = os.path.abspath(as_path("model", model))
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
            return {"path": path, "bytes": file.tell(), "sha256": digest.hexdigest()}
    except OSError as error:
        raise ConfigError(f"the model {path!r} cannot be read: {error.strerror}") from None


def versions() -> dict[str, str]:
    """Return the versions on which a run depends."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    for name in ("ais_bench", "numpy", "onnxruntime"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in sys.modules:
                found[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
    return found
