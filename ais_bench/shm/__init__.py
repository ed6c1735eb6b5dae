"""Arrays and objects between one process and its workers, under the path for handlers of a DevicePool: names only."""

from ais_bench.wire import *  # noqa: F403
from ais_bench.wire import __all__ as __all__
