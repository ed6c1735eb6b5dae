"""A rule that two modules need is in one of them, and the other one calls it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import ais_bench.shm
import ais_bench.wire
from ais_bench import _native
from ais_bench.emulator.pack import _DTYPES
from ais_bench.errors import ConfigError
from ais_bench.one_device.descriptors import dtype
from ais_bench.providers import ProviderInfo, provider_options_of
from ais_bench.session import InferSession

GPU = ProviderInfo("cuda", "CUDAExecutionProvider", devices=("a GPU",))


def own_options(model: str) -> set[str]:
    """Return the options that a session lists in the error for an unknown option."""
    with pytest.raises(ConfigError, match="use ") as refused:
        InferSession(0, model, provider_options={"xyzzy_of_nobody": "1"})
    return set(str(refused.value).split("; use ")[1].replace("'", "").replace(" or ", ", ").replace(",,", ",").split(", "))


def test_options_of_sessions_stay_and_all_others_go_to_the_provider(
    onnx_model: Callable[[str], str],
) -> None:
    own = own_options(onnx_model("add"))
    assert {"threads", "weight_dir", "session.dynamic_block_base"} <= own
    options = {name: "1" for name in [*own, "gpu_mem_limit", "provider", "", ".", "session"]}
    made = provider_options_of(GPU, options, "refuse")
    assert own <= set(made)
    assert {name for name in made if name.startswith("provider:")} == {
        "provider:gpu_mem_limit",
        "provider:provider",
        "provider:",
        "provider:.",
        "provider:session",
    }
    assert (made["provider"], made["fallback"]) == ("CUDAExecutionProvider", "refuse")


def test_an_entry_that_a_session_has_no_use_for_is_not_the_providers() -> None:
    for name in ("session.of_nobody", "optimization.of_nobody", "mlas.of_nobody"):
        assert _native.is_ort_option(name)
        assert name in provider_options_of(GPU, {name: "1"}, "cpu")


def test_the_two_paths_of_the_handlers_names_have_the_same() -> None:
    assert ais_bench.shm.__all__ == ais_bench.wire.__all__
    for name in ais_bench.wire.__all__:
        assert getattr(ais_bench.shm, name) is getattr(ais_bench.wire, name)


def test_packed_models_have_the_numbers_of_the_descriptors() -> None:
    """The emulator's package imports neither session, so it has a table of its own, by ONNX Runtime's names of the types."""
    other_names = {"float": "float32", "double": "float64", "float8e5m2": "float8_e5m2", "float8e4m3fn": "float8_e4m3fn"}
    assert len(_DTYPES) > 15
    assert {other_names.get(name, name): number for name, number in _DTYPES.items()}.items() <= {
        (one.name, one.value) for one in dtype
    }
