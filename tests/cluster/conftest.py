"""The cluster for a file of tests, and a model for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ais_bench.emulator import pack
from support.cluster import Host


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Start two nodes, each with NPUS emulated NPUs (a constant of the file); a run takes 20 ms."""
    host = Host(2, request.module.NPUS, 20)
    yield host
    host.close()


@pytest.fixture(scope="module")
def model_on_npus(multi_device_models: Callable[[str], dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(pack(multi_device_models("ort")["add"], tmp_path_factory.mktemp("ray") / "add.om"))
