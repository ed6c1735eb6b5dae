"""The import path for handlers of a DevicePool. It has only names of `ais_bench.wire`."""

from ais_bench.wire import *  # noqa: F403
from ais_bench.wire import __all__ as __all__
