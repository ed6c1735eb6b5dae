"""Run sessions on an execution provider that they do not name: the third runtime of the shared tests.

`make openvino` sets the environment variable. Then a session of an ONNX model that names no provider runs on this one, and a
`MultiDeviceSession` has two workers on its one device.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

VARIABLE = "AIS_BENCH_TEST_PROVIDER"
PROVIDER = os.environ.get(VARIABLE, "")


def _with_defaults(make: Callable[..., None], **defaults: Any) -> Callable[..., None]:
    @functools.wraps(make)
    def wrapper(*arguments: Any, **options: Any) -> None:
        named = any(options.get(name) is not None for name in ("provider", "runtime"))
        named = named or any(str(argument).endswith(".om") for argument in (*arguments[1:3], options.get("model_path")))
        make(*arguments, **(options if named else {**defaults, **options}))

    return wrapper


def install() -> None:
    """Change the defaults in this process. The provider is looked for once. Workers import this module, and need none of it."""
    from ais_bench.providers import choose
    from ais_bench.session import InferSession, MultiDeviceSession, providers

    InferSession.__init__ = _with_defaults(InferSession.__init__, provider=PROVIDER)  # type: ignore[method-assign]
    many = _with_defaults(MultiDeviceSession.__init__, provider=PROVIDER, workers_per_device=2)
    MultiDeviceSession.__init__ = many  # type: ignore[method-assign]
    found = choose(PROVIDER)
    ask = providers.ask_for_provider
    providers.ask_for_provider = lambda name: found if name == PROVIDER else ask(name)
