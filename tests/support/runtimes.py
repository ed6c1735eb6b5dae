"""One contract, several runtimes: the models of each, and the tables of their limits.

A test that uses the fixture `model` (or `runtime`) runs once on `ort`, with the ONNX file, and once on `acl`, with the same
graph packed for the emulator. Where a row of CANNOT with a refusal names it, it must end with that exception, in those
words; passing, or ending in another way, fails. docs/ascend.md has the same table, and
tests/project/test_runtimes.py compares them.

`make openvino` runs these tests with one runtime only, a provider of ONNX Runtime (support/default_provider.py). The
table PROVIDER_CANNOT has its limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import onnx
import onnxruntime  # noqa: F401  # it starts a thread and opens files; here, so that no test does
import pytest

from ais_bench.emulator import pack
from ais_bench.errors import ConfigError, FeedError, ModelLoadError, SessionClosed
from support import models
from support.default_provider import PROVIDER

RUNTIMES = (PROVIDER,) if PROVIDER else ("ort", "acl")
_GEARS = {f"ais_bench.dynamic_{key}": f"dynamic_{key}" for key in ("batch_size", "image_size", "dims")}


def pack_like(proto: onnx.ModelProto, onnx_file: Path, target: Path) -> str:
    """Pack the ONNX file like ATC would compile it, with the gears in its metadata."""
    gears = {_GEARS[entry.key]: entry.value for entry in proto.metadata_props if entry.key in _GEARS}
    return str(pack(onnx_file, target, **gears))  # type: ignore[arg-type]


def model_file(folder: Path, name: str, runtime: str) -> str:
    """Return the named model of tests/support/models.py as a file for `runtime`; made at the first use."""
    onnx_file, compiled = folder / f"{name}.onnx", folder / f"{name}.om"
    if not onnx_file.exists():
        onnx_file.write_bytes(models.build(name).SerializeToString())
    if runtime == "ort":
        return str(onnx_file)
    if not compiled.exists():
        pack_like(models.build(name), onnx_file, compiled)
    return str(compiled)


@dataclass(frozen=True)
class Limit:
    """A limit of one runtime: a row of the table in docs/ascend.md, and the tests that it affects."""

    what: str
    ort: str
    acl: str
    why: str
    tests: tuple[str, ...]  # patterns of "function[parameters]", without the runtime
    runtime: str = "acl"  # the runtime with this limit
    refusal: type[Exception] | None = None  # None: the tests check the result for each runtime themselves
    words: str = ""  # of the refusal, a regular expression


_NO_OPTION = r"unknown option '\w+' for a model on an NPU; use 'acl_json_path'"
_FORKED = "AscendCL was initialised in the process that this one was forked from"

CANNOT = (
    Limit(
        "stop a run (`cancel`)",
        "yes",
        "within 100 ms, with `aclrtStreamAbort`; else, and for a run whose outputs the library allocates, when it ends",
        "`aclmdlExecute` cannot be stopped; a worker of a pool that hangs is ended at its deadline",
        (
            "test_the_gil_is_released_while_the_device_works_and_cancel_ends_it",
            "test_cancel_ends_a_hang",
            "test_without_an_abort_a_cancel_is_answered_at_the_end",
        ),
    ),
    Limit(
        "threads share a session concurrently",
        "yes",
        "in turns",
        "one execution per model id",
        ("test_every_thread_may_use_a_session",),
    ),
    Limit(
        "overlap copies and execution",
        "nothing to copy",
        "all, but runs of unknown output size before a size is known, and models of fixed inputs whose results AscendCL does "
        "not describe",
        "AscendCL allocates outputs in synchronous runs only; these run one after the other",
        ("test_infer_pipeline", "test_a_pipeline_grows_and_keeps_the_order"),
    ),
    Limit(
        "`loop` > 1, or feeds on the device, in a pipeline",
        "-",
        "one after the other",
        "a pipeline's feeds come from the host",
        ("test_loop_runs_that_often", "test_tensors_and_arrays_mix_in_one_feed"),
    ),
    Limit(
        "shapes outside the gears",
        "any shape",
        "refused, the gears are named",
        "the model was compiled for them",
        ("test_without_gears_any_shape_runs",),
        refusal=FeedError,
        words="the model has only gears",
    ),
    Limit(
        "`threads`, `graph_optimization_level`, `provider_options`",
        "yes",
        "refused, by both sessions, before anything is started",
        "decided when the model is compiled",
        (
            "test_dropping_the_last_reference_frees_the_device",
            "test_options_that_are_right",
            "test_outputs_that_no_memory_can_hold",
        ),
        refusal=ConfigError,
        words=_NO_OPTION,
    ),
    Limit(
        "`acl_json_path`",
        "ignored, with a warning",
        "yes, one file per process",
        "AscendCL reads it at initialisation",
        (
            "test_a_process_has_one_configuration",
            "test_a_cpu_device_says_that_it_reads_none",
        ),
        runtime="ort",
    ),
    Limit(
        "dynamic AIPP",
        "refused",
        "yes",
        "the CPU has none",
        ("test_a_model_without_aipp_says_so", "test_each_picture_has_settings_of_its_own"),
        runtime="ort",
    ),
    Limit(
        "resize in AIPP (`scf`)",
        "-",
        "where the SoC can; not on the emulator",
        "some SoCs only",
        ("test_what_is_refused", "test_a_resize_reaches_the_device"),
    ),
    Limit(
        'float8 of the "fnuz" kinds, uint4',
        "yes",
        "refused when the model is compiled",
        "AscendCL has no such types",
        (
            "test_every_element_type_goes_in_and_comes_out[FLOAT8E4M3FNUZ]",
            "test_every_element_type_goes_in_and_comes_out[FLOAT8E5M2FNUZ]",
            "test_every_pair_of_types_on_an_open_dimension[FLOAT8E4M3FNUZ]",
            "test_every_pair_of_types_on_an_open_dimension[FLOAT8E5M2FNUZ]",
            "test_every_element_type_goes_in_and_comes_out[UINT4]",
            "test_element_types_numpy_lacks_equal_one_device[uint4]",
        ),
        refusal=ValueError,
        words=r"tensor\((float8e\dm\dfnuz|uint4)\), which an NPU model cannot have",
    ),
    Limit(
        "other values for constants, inputs left out",
        "by name; `None`",
        "refused as unknown inputs; refused when the model is compiled",
        "ATC folds constants, and a compiled model needs every input",
        ("test_an_npu_has_neither",),
    ),
    Limit("`session.metadata`", "yes", "empty", "AscendCL does not tell", ("test_a_compiled_model_tells_none",)),
    Limit(
        "inputs of any rank",
        "yes",
        "refused when the model is compiled",
        "a compiled model knows the rank of its inputs",
        ("test_outputs_are_the_callers_own_arrays[unranked]", "test_open_shapes_are_taken_from_the_feeds[unranked-*]"),
        refusal=ValueError,
        words="declares no shape of input 'x'",
    ),
    Limit(
        "inputs without elements",
        "yes",
        "refused",
        "a dimension of a compiled model is at least 1",
        ("test_arrays_without_elements*",),
        refusal=FeedError,
        words=r"with dimension 0 of at least 1, for which the model was compiled",
    ),
    Limit(
        'processors of their own for a pool\'s workers (`affinity="auto"`)',
        "yes",
        "none",
        "the processors only feed the NPUs",
        ("test_workers_are_pinned_to_their_share_of_the_processors",),
    ),
    Limit(
        "tensors on the device after `finalize`",
        "readable",
        "gone: SessionClosed",
        "`finalize` gives the NPU back",
        ("test_outputs_on_the_device_outlive_finalize",),
        refusal=SessionClosed,
        words="finalize",
    ),
    Limit(
        "a new session in a forked child of a process that has one",
        "yes",
        "refused",
        "AscendCL does not survive a fork",
        ("test_a_session_made_in_a_forked_child_works", "test_multiprocessing_children_of_a_parent_that_holds_a_session[fork]"),
        refusal=AssertionError,
        words=_FORKED,  # as the text of another process's error
    ),
)


@dataclass(frozen=True)
class ProviderLimit:
    """A limit of a provider, or of one device with two workers. Its tests must be refused, or are skipped."""

    why: str
    tests: tuple[str, ...]
    refusal: type[Exception] | None = None  # None: the test is skipped
    words: str = ""


PROVIDER_CANNOT = {
    "openvino": (
        ProviderLimit(
            "OpenVINO 2025.4 does not load the operator Loop without outputs of each step",
            (
                "test_the_gil_is_released_while_the_device_works_and_cancel_ends_it",
                "test_free_during_a_run_lets_the_run_end",
                "test_exec_times_are_floats_in_milliseconds_and_pairs",
            ),
            ModelLoadError,
            "OpenVINO does not support the following ONNX operations",
        ),
        ProviderLimit(
            "the same, in another process",
            ("test_interpreter_exit_while_daemon_threads_run", "test_an_interrupt_ends_a_long_iteration"),
            AssertionError,
            "OpenVINO does not support the following ONNX operations",
        ),
        ProviderLimit(
            "the provider does not load a model that hands an input through as an output",
            (
                "test_an_open_input_that_the_model_hands_through_is_not_shared",
                "test_an_output_that_is_an_input_has_the_inputs_values",
            ),
            ModelLoadError,
            "Duplicate definition of name",
        ),
        ProviderLimit(
            "a forked child has none of the threads that OpenVINO uses, and may wait for them forever",
            (
                "test_a_session_made_in_a_forked_child_works",
                "test_multiprocessing_children_of_a_parent_that_holds_a_session[fork]",
            ),
        ),
        ProviderLimit(
            "there is one device",
            (
                "test_many_sessions_on_several_devices",
                "test_sessions_made_and_freed_in_threads_at_once",
                "test_a_device_that_is_not_there_is_named",
                "test_a_model_that_does_not_load_is_named_whatever_the_reason",
                "test_the_report_agrees_with_a_recount_whatever_happens_in_between",
            ),
        ),
        ProviderLimit(
            "an index outside of a tensor is no error on OpenVINO",
            (
                "test_a_run_that_fails_on_the_device",
                "test_a_step_that_fails_leaves_the_iteration_as_it_was",
                "test_a_first_run_that_fails_leaves_the_one_before",
                "test_a_native_iteration_after_a_first_run_that_failed",
                "test_a_pipeline_returns_errors_in_their_places",
            ),
        ),
        ProviderLimit(
            "OpenVINO computes int64 as int32, so bits of float64 do not come back",
            ("test_every_pair_of_types_on_an_open_dimension[INT64]",),
            AssertionError,
        ),
        ProviderLimit(
            "the test counts threads, and OpenVINO keeps its own",
            (
                "test_dropping_the_last_reference_frees_the_device",
                "test_infer_session",
                "test_a_worker_without_callables_has_no_further_threads",
            ),
        ),
        ProviderLimit(
            "the test counts the workers of a device, and here it has two",
            (
                "test_with_one_thread_a_callable_always_meets_the_same_one",
                "test_a_callable_that_leaves_the_interpreter_ends_its_worker",
                "test_retry_on_goes_to_another_device",
                "test_a_worker_imports_numpy_when_python_is_needed_there",
                "test_repr_says_what_it_is_about",
                "test_the_counts_of_details_agree_with_the_report",
                "test_the_report_agrees_with_a_recount_from_the_details",
                "test_the_report_counts_and_goes_through_json",
            ),
        ),
    ),
}


def limit_of(item: pytest.Item) -> Limit | ProviderLimit | None:
    """Return the row by which this run of a test must be refused, or skipped (of a provider's rows)."""
    runtime = getattr(getattr(item, "callspec", None), "params", {}).get("runtime")
    if runtime is None:
        return None
    name, _, ids = item.name.partition("[")
    others = "-".join(part for part in ids.rstrip("]").split("-") if part != runtime)
    labels = (name, f"{name}[{others}]")
    rows: tuple[Limit | ProviderLimit, ...] = PROVIDER_CANNOT.get(runtime, ())
    if not rows:
        rows = tuple(row for row in CANNOT if row.refusal is not None and row.runtime == runtime)
    patterns = [(row, pattern.replace("[", "[[]")) for row in rows for pattern in row.tests]
    found = [row for row, pattern in patterns if any(fnmatchcase(label, pattern) for label in labels)]
    assert len(found) < 2, f"{item.name} meets {len(found)} rows"
    return found[0] if found else None
