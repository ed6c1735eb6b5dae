"""InferSession: one model on one device, arrays in, arrays out. Most programs use this class."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn, overload

import numpy as np
from numpy.typing import NDArray

from ais_bench import _native
from ais_bench.errors import AisBenchError, ConfigError, name_task, no_copies
from ais_bench.one_device.descriptors import ModelMetadata, metadata_of, tensor_desc
from ais_bench.one_device.feeds import sets_of
from ais_bench.one_device.inference_session import InferenceSession, session_options
from ais_bench.one_device.picking import picker
from ais_bench.one_device.tensor import Tensor
from ais_bench.one_device.times import sumary
from ais_bench.options import (
    OnError,
    as_bool,
    as_chain,
    as_device_id,
    as_fallback,
    as_int,
    as_iterable,
    as_list,
    as_model,
    as_path,
    as_provider,
    as_runtime,
    check_custom_sizes,
    check_names,
    check_on_error,
    host_register_option,
    known_options,
    runtime_of,
    runtime_options,
    unknown_argument,
    wrong_type,
)
from ais_bench.providers import check_devices, choose, provider_options_of

__all__ = ["InferSession"]

_package_logger = logging.getLogger("ais_bench")
_logger = logging.getLogger("ais_bench.session")


class InferSession:
    """One model, loaded on one device of this process.

    Feeds: any iterable with one entry for each input, a mapping by input name, or an array whose first axis runs over the
        inputs. An entry is a numpy array or scalar, a torch CPU tensor, an `aclruntime.Tensor` or an object with DLPack. Its
        bytes are read as the model's element type; nothing is cast. If the shape is fixed, only the number of bytes is
        compared. If the model leaves dimensions open, the array's own shape counts. A guess, or a type that is not the model's,
        gives a FeedWarning (docs/feeds.md has the rules as a table). An optional input may be None, or missing from a mapping;
        a mapping may also have entries for `get_overridable_initializers`. Feeds may be overwritten as soon as a call returns.

    Outputs: a list of new arrays with the model's element types and their actual shapes, independent of the session and of
        each other.

    Errors are those of `ais_bench.errors`, all of them RuntimeErrors. After an error of a run the session is still usable.
    Threads may share a session, and the GIL is released while the device works. A session does not work in a forked child
    of the process that made it. Dropping the last reference frees the device.

    Args:
        device_id: the device, an int or its text, from 0. There is a CPU device for each processor that the process may use.
        model_path: a path, or the model's content as bytes. The content decides the model's kind, not the suffix.
        acl_json_path: a file with AscendCL's profiling and dump settings, one per process; no effect on a CPU device.
        debug: log the model's description and more at DEBUG, to the logger "ais_bench.session". Sets the level of the logger
            "ais_bench" unless the program has set one; the program adds handlers (`logging.basicConfig()`).
        loop: executions of each call, at least 1; the outputs are those of the last execution.
        threads: threads that compute one run on a CPU device; default: one for each processor that the process may use.
        graph_optimization_level: "disable", "basic", "extended", "layout" or "all" (the default), for ONNX models.
        provider_options: further options of the runtime by name; an unknown name raises ConfigError with the known ones.
        weight_dir: the folder of the weights that are in separate files, if it is not the default: `weight` beside a compiled
            model (ATC's --external_weight), or the folder of the ONNX file. On an NPU such weights are loaded once for all
            sessions of the process on a device.
        share_workspace: on an NPU, share one work memory with all sessions of this process on the device that set this option.
            Their runs take turns. For chains of models that never run at the same time; open the largest model first.
        profile: path prefix of a profile by ONNX Runtime, a JSON file for chrome://tracing that is written when the session is
            freed; ONNX Runtime adds the time to the name. Not on an NPU, which has acl_json_path.
        custom_ops: libraries of custom operators, a path or a list of paths; each exports ONNX Runtime's RegisterCustomOps. Not
            on an NPU.
        runtime: "ort" or "acl", if the content must not decide.
        provider: the execution provider of ONNX Runtime that runs the model: "cuda", "tensorrt", "migraphx", "cann", "qnn",
            "openvino", ONNX Runtime's name of another one, "auto" (the best one that has a device here, otherwise the
            processor), or "cpu". Device ids are then the provider's. It gets the `provider_options` that ONNX Runtime's
            sessions do not know. If it cannot be used, the error says what was tried (docs/devices.md).
        fallback: "cpu": nodes that the provider does not support run on the processor, and `placement` lists them; "error": a
            model with such nodes does not load.
        host_register: for an NPU, whether host memory that many copies use is registered with it: "auto" if the product and
            the kernel support it, "off", or "on" if you know that it works. The workers of a MultiDeviceSession use it; a
            session of one device copies through page-locked memory.

    Raises ConfigError before anything is opened, DeviceUnavailable, ModelLoadError, UnsupportedError, DeviceMemoryError.
    """

    def __init__(
        self,
        device_id: Any,
        model_path: Any,
        acl_json_path: str | None = None,
        debug: bool = False,
        loop: int = 1,
        *,
        threads: int | None = None,
        graph_optimization_level: str | None = None,
        provider_options: Mapping[str, Any] | None = None,
        weight_dir: str | os.PathLike[str] | None = None,
        share_workspace: bool = False,
        profile: str | os.PathLike[str] | None = None,
        custom_ops: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        runtime: str | None = None,
        provider: str | None = None,
        fallback: str = "cpu",
        host_register: str = "auto",
        **unknown: NoReturn,
    ) -> None:
        check_names(unknown, known_options(InferSession))
        device, model = as_device_id(device_id), as_model(model_path)
        options = runtime_options(threads, graph_optimization_level, provider_options, weight_dir, profile, custom_ops)
        nodes_elsewhere = as_fallback(fallback)
        if (named := as_provider(provider)) is not None:
            if runtime_of(model, runtime) != "ort":
                raise ConfigError(f"provider is about ONNX models, and this model is for an NPU; got {named!r}")
            found = choose(named)
            check_devices(found, [device])
            options = provider_options_of(found, options, nodes_elsewhere)
        session = InferenceSession(
            model,
            device,
            _options(acl_json_path, debug, as_int("loop", loop, 1)),
            _runtime_options=options
            | host_register_option(host_register, "")
            | ({"share_workspace": "1"} if as_bool("share_workspace", share_workspace) else {}),
            _runtime=as_runtime(runtime) or "",
        )
        self._take(session, model, acl_json_path, debug)

    @classmethod
    def _over(cls, native: _native.Session, model_path: str | bytes, acl_json_path: str | None, debug: bool) -> InferSession:
        """Make a session for an open model."""
        self = cls.__new__(cls)
        options = _options(acl_json_path, debug, native.loop)
        self._take(InferenceSession._over(native, options), model_path, acl_json_path, debug)
        return self

    def _take(self, session: InferenceSession, model_path: str | bytes, acl_json_path: str | None, debug: bool) -> None:
        self.session, self.options = session, session.options()
        self._native = session._native
        self._naming = _Naming(self._native.device_id)
        self._expected: list[int] = []
        self.device_id, self.loop = self._native.device_id, self._native.loop
        self.model_path, self.acl_json_path, self.debug = model_path, acl_json_path, debug
        self.intensors_desc, self.outtensors_desc = self.session.get_inputs(), self.session.get_outputs()
        self.outputs_names = [desc.name for desc in self.outtensors_desc]
        if debug and _package_logger.level == logging.NOTSET:
            _package_logger.setLevel(logging.DEBUG)
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug("loaded %s", str(self.session))  # as text: a log handler that keeps records must not keep the device
        if acl_json_path and self._native.runtime != "acl":
            _logger.warning("acl_json_path has no effect: %s runs on a CPU device", self.model_path)

    # What the model looks like

    def get_inputs(self) -> list[tensor_desc]:
        """Return a description of the inputs, in the model's order."""
        self.intensors_desc = self.session.get_inputs()
        return self.intensors_desc

    def get_outputs(self) -> list[tensor_desc]:
        """Return a description of the outputs, in the model's order."""
        self.outtensors_desc = self.session.get_outputs()
        return self.outtensors_desc

    def get_overridable_initializers(self) -> list[tensor_desc]:
        """Return a description of the constants that a run may override by name.

        These are the initializers of an ONNX model that are also inputs of its graph; `infer({"x": x, "scale": s})` feeds one.
        """
        return self.session.get_overridable_initializers()

    @property
    def metadata(self) -> ModelMetadata:
        """The model's metadata. Empty on an NPU, because AscendCL does not provide it."""
        return metadata_of(self._native.metadata())

    @property
    def placement(self) -> tuple[int, list[str]] | None:
        """The number of nodes of the optimised model, and the nodes that run on the processor, as "MatMul 'name'".

        None without a provider, and with ONNX Runtime before 1.24, which does not report it.
        """
        return self._native.placement()

    # Running

    @overload
    def infer(
        self,
        feeds: Any,
        mode: str = ...,
        custom_sizes: Any = ...,
        out_array: Literal[True] = ...,
        *,
        outputs: Sequence[str] | None = ...,
    ) -> list[NDArray[Any]]: ...

    @overload
    def infer(
        self,
        feeds: Any,
        mode: str = ...,
        custom_sizes: Any = ...,
        *,
        out_array: Literal[False],
        outputs: Sequence[str] | None = ...,
    ) -> list[Tensor]: ...

    @overload
    def infer(
        self, feeds: Any, mode: str, custom_sizes: Any, out_array: bool, *, outputs: Sequence[str] | None = ...
    ) -> list[Any]: ...

    def infer(
        self,
        feeds: Any,
        mode: str = "static",
        custom_sizes: Any = 100000,
        out_array: bool = True,
        *,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> list[Any]:
        """Run one set of feeds.

        Args:
            feeds: see the class.
            mode: "static", "dymbatch", "dymhw", "dymdims" or "dymshape". In the three modes in the middle, a model with gears
                accepts only its gears.
            custom_sizes: bytes of each output, or a list of them, for "dymshape": a hint that never limits a result. On an NPU
                it is the memory that the first run provides for outputs of unknown size, up to 64 MiB each.
            out_array: True for numpy arrays on the host, False for `aclruntime.Tensor`s on the device.
            outputs: names of the outputs to return, in that order; None: all. The model computes all outputs in both cases.

        Returns a list with one entry for each output. Raises FeedError, ConfigError, InferenceError, InferenceCancelled,
        DeviceMemoryError, DeviceLost, SessionClosed.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.infer)
        self._expect_in(mode, custom_sizes)
        out_array = as_bool("out_array", out_array)
        pick = picker(outputs, self.outputs_names)
        try:  # the hot path: no objects are made for rare cases
            found = pick(self._native.infer(feeds, mode, out_array))
        except AisBenchError as error:
            name_task(error, device_id=self.device_id)
            raise
        return found if out_array else [Tensor(tensor) for tensor in found]

    def infer_pipeline(
        self,
        feeds_list: Iterable[Any],
        mode: str = "static",
        custom_sizes: Any = 100000,
        *,
        on_error: OnError = "raise",
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> list[Any]:
        """Run many sets of feeds and return their outputs in order. Shapes may differ from set to set.

        For a model of one input an element may be the input itself instead of a list. If an element is a list of sets, each set
        is run. On an NPU several sets run at once: the copies of one overlap with the execution of another. `feeds_list` may be
        a generator. You may overwrite a set as soon as the generator is asked for the next one.

        `on_error`: "raise" the error of a set, or "return" it in place of the set's outputs. The error has `index`, the set's
        position, and `device_id`. `outputs` as for `infer`. Raises the errors of `infer`, and any error of `feeds_list`.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.infer_pipeline)
        self._expect_in(mode, custom_sizes)
        returns = check_on_error(on_error) == "return"
        sets = (feeds for element in as_iterable("feeds_list", feeds_list, "feeds") for feeds in sets_of(element))
        pick = picker(outputs, self.outputs_names)
        return list(map(pick, self._native.infer_many(sets, mode, returns)))

    def infer_iteration(
        self,
        feeds: Any,
        in_out_list: Sequence[int] | None = None,
        iteration_times: int = 1,
        mode: str = "static",
        custom_sizes: Any = 100000,
        mem_copy: bool = True,
        *,
        outputs: Sequence[str] | None = None,
        **unknown: NoReturn,
    ) -> list[NDArray[Any]]:
        """Run the model `iteration_times` times, with inputs from the previous run's outputs, and return the last outputs.

        `in_out_list[i]` is the number of the output that becomes input i from the second run on; -1 keeps the fed input. These
        outputs never leave the device. Results are the same for both values of `mem_copy`. `outputs` as for `infer`; the
        numbers in `in_out_list` count all outputs of the model. Raises the errors of `infer`.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.infer_iteration)
        times = as_int("iteration_times", iteration_times, 1)
        if times == 1:
            return self.infer(feeds, mode, custom_sizes, outputs=outputs)
        pick = picker(outputs, self.outputs_names)
        if in_out_list is None:
            raise ConfigError(f"{times} iterations need in_out_list, which says which output feeds which input")
        self._expect_in(mode, custom_sizes)
        chain = as_chain(in_out_list)
        with self._naming:
            found: list[NDArray[Any]] = pick(self._native.iterate(feeds, mode, chain, times))
        return found

    def _expect_in(self, mode: Any, custom_sizes: Any) -> None:
        """Pass on the hint of the outputs' sizes, in the only mode that uses it."""
        if isinstance(mode, str) and mode == "dymshape":
            self._expect(custom_sizes)

    def _expect(self, custom_sizes: Any) -> None:
        """Pass on a hint of the outputs' sizes, if it has changed."""
        sizes = check_custom_sizes(custom_sizes, len(self.outputs_names))
        if sizes != self._expected:
            self._native.expect_outputs(sizes)
            self._expected = sizes

    def run(self, feeds: Any, out_array: bool = False, **unknown: NoReturn) -> list[Any]:
        """Run with the shapes that the last `set_*` call fixed. Return tensors on the device, or arrays with `out_array`.

        Raises the errors of `infer`.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.run)
        out_array = as_bool("out_array", out_array)
        with self._naming:
            outputs = self.session._run(self.outputs_names, feeds)
        return self._to_arrays(outputs) if out_array else outputs

    run_from_tensors = run

    def run_pipeline(
        self,
        infilelist: Sequence[Sequence[str]],
        output: str,
        auto_shape: bool = False,
        auto_dims: bool = False,
        outfmt: str = "BIN",
        pure_infer_mode: bool = False,
        extra_session: Sequence[Any] | None = None,
        **unknown: NoReturn,
    ) -> None:
        """Run lists of files, one file for each input, and write the results into the folder `output` ("": write nothing).

        Raises the errors of `infer`, FileError, and ConfigError if two results would have the same name.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.run_pipeline)
        from ais_bench.one_device.file_pipeline import infer_options

        options = infer_options()
        options.output_dir, options.out_format = "" if output is None else output, outfmt
        options.auto_dym_shape, options.auto_dym_dims, options.pure_infer_mode = auto_shape, auto_dims, pure_infer_mode
        with self._naming:
            self.session.run_pipeline(infilelist, options, extra_session)

    def first_inner_run(
        self, feeds: Any, mode: str = "static", custom_sizes: Any = 100000, **unknown: NoReturn
    ) -> list[Tensor]:
        """Run once and keep inputs and outputs on the device for `inner_run`. Return an empty list.

        Raises the errors of `infer`.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.first_inner_run)
        self._expect_in(mode, custom_sizes)
        with self._naming:
            return self.session._first_inner_run(self.outputs_names, feeds, mode)

    def inner_run(
        self, in_out_list: Sequence[int], get_outputs: bool = False, mem_copy: bool = True, **unknown: NoReturn
    ) -> list[Tensor] | None:
        """Run again, with inputs from the previous run's outputs.

        Return tensors on the device with `get_outputs`, otherwise None. Raises the errors of `infer`, and ConfigError if
        `first_inner_run` was not called before.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.inner_run)
        get_outputs = as_bool("get_outputs", get_outputs)
        with self._naming:
            outputs = self.session.inner_run(in_out_list, self.outputs_names, get_outputs, mem_copy)
        return outputs if get_outputs else None

    def cancel(self) -> None:
        """Cancel the calls that are in progress in other threads, also between two of their runs. Each of them raises
        InferenceCancelled.

        Some NPUs cannot stop a run. In this case a warning is logged, and the run raises after it has ended by itself.
        """
        why_not = self._native.cancel()
        if why_not:
            _logger.warning("the runs under way end by themselves and raise InferenceCancelled then: %s", why_not)

    # Shapes for run()

    def set_staticbatch(self) -> None:
        """Return to the model's own shapes. Raises SessionClosed."""
        self.session.set_staticbatch()

    def set_dynamic_batchsize(self, dymBatch: Any) -> None:
        """Fix the batch size of `run`. Raises FeedError if it is not a gear, ConfigError, SessionClosed."""
        self.session.set_dynamic_batchsize(dymBatch)

    def set_dynamic_hw(self, w: Any, h: Any) -> None:
        """Fix the image size of `run`, in the order of the model's dynamic dimensions.

        In spite of its name, the first argument is the first of these dimensions: the height of an NCHW model. Raises FeedError
        if the size is not a gear, ConfigError, SessionClosed.
        """
        self.session.set_dynamic_hw(w, h)

    def set_dynamic_dims(self, dym_dims: str) -> None:
        """Fix the shapes of `run` to a gear: "name:d0,d1;name2:d0". Raises FeedError, ConfigError, SessionClosed."""
        self.session.set_dynamic_dims(dym_dims)

    def set_dynamic_shape(self, dym_shape: str) -> None:
        """Fix the shapes of `run`: "name:d0,d1;name2:d0". Raises FeedError, ConfigError, SessionClosed."""
        self.session.set_dynamic_shape(dym_shape)

    def set_custom_outsize(self, custom_sizes: Any) -> None:
        """Set a hint about output sizes in bytes. It never limits a result. Raises ConfigError."""
        self._expect(custom_sizes)

    def set_loop_count(self, loop: Any) -> None:
        """Set the number of executions of each call, at least 1. Raises ConfigError."""
        self.loop = as_int("loop", loop, 1)
        self._native.loop = self.loop

    def load_aipp_config_file(
        self,
        config_file: str | os.PathLike[str],
        batchsize: int,
        input: int | str | None = None,
        **unknown: NoReturn,
    ) -> None:
        """Set how the NPU preprocesses pictures (dynamic AIPP), from an INI file with one section [aipp_op].

        `batchsize` is the model's batch, or its largest batch gear. `input`: name or number of the picture, if the model has
        several; otherwise the file's related_input_rank decides. Raises ConfigError, UnsupportedError.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.load_aipp_config_file)
        self.session.load_aipp_config_file(config_file, batchsize, input)

    def get_dym_aipp_input_exist(self) -> int:
        """Return how many inputs have dynamic AIPP."""
        return self.session.get_dym_aipp_input_exist()

    def check_dym_aipp_input_exist(self) -> None:
        """Raise UnsupportedError unless exactly one input has dynamic AIPP."""
        self.session.check_dym_aipp_input_exist()

    def get_max_dym_batchsize(self) -> int:
        """Return the largest batch gear; 0 if the model has none."""
        return self.session.get_max_dym_batchsize()

    # Tensors

    def create_tensor_from_arrays_to_device(self, arrays: Any) -> Any:
        """Copy an array to the device and return the tensor. For a list of arrays return a list of tensors.

        Raises FeedTypeError, DeviceMemoryError, SessionClosed.
        """
        if isinstance(arrays, (list, tuple)):
            return [self.create_tensor_from_arrays_to_device(array) for array in arrays]
        tensor = Tensor(arrays)
        self._native.to_device(tensor)
        return tensor

    def create_tensor_from_fileslist(self, desc: tensor_desc, files: Sequence[str]) -> Tensor:
        """Return a tensor on the device with the bytes of raw files, one after the other. They must fill it exactly.

        Raises FeedError, FileError, DeviceMemoryError, SessionClosed.
        """
        return self.session.create_tensor_from_fileslist(desc, files)

    @staticmethod
    def convert_tensors_to_host(tensors: Iterable[Tensor]) -> None:
        """Move tensors to the host in place. Raises ConfigTypeError for another object, DeviceMemoryError, SessionClosed."""
        for tensor in _tensors(tensors):
            tensor.to_host()

    @staticmethod
    def convert_tensors_to_arrays(tensors: Iterable[Tensor]) -> list[NDArray[Any]]:
        """Return new arrays with the values of host tensors. Raises ConfigTypeError for another object, and ConfigError for a
        tensor on a device."""
        return [np.array(tensor) for tensor in _tensors(tensors)]

    # Times

    def summary(self) -> sumary:
        """Return the times of all executions since the session was made or reset, in milliseconds, oldest first.

        The result is a list of floats, and its `exec_time_list` is the same list. An entry can also be unpacked into (start,
        end). The host's clock measures single calls; runs of infer_pipeline on an NPU are measured by the NPU's events. Raises
        SessionClosed in a forked child.
        """
        return self.session.sumary()

    sumary = summary

    def reset_summaryinfo(self) -> None:
        """Delete the recorded times. Raises SessionClosed in a forked child."""
        self.session.reset_sumaryinfo()

    reset_sumaryinfo = reset_summaryinfo

    # Life

    def set_context(self) -> None:
        """Do nothing: every call selects its device itself, in any thread."""

    def free_resource(self) -> None:
        """Free the model. Idempotent; a later run raises SessionClosed."""
        session = getattr(self, "session", None)  # absent when __init__ failed and a subclass's __del__ calls this
        if session is not None:
            session.free_resource()

    @staticmethod
    def finalize() -> None:
        """Free every session of this process and all other resources of the runtimes.

        Idempotent; new sessions may be made afterwards.
        """
        InferenceSession.finalize()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise no_copies("an InferSession", "make one where it is needed, or use a MultiDeviceSession")

    def __enter__(self) -> InferSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.free_resource()

    def _to_arrays(self, tensors: list[Tensor]) -> list[NDArray[Any]]:
        self.convert_tensors_to_host(tensors)
        return self.convert_tensors_to_arrays(tensors)


class _Naming:
    """A context whose errors name the device."""

    def __init__(self, device_id: int) -> None:
        self._device_id = device_id

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, AisBenchError) and not isinstance(error, ConfigError):
            name_task(error, device_id=self._device_id)


def _tensors(tensors: Iterable[Tensor]) -> list[Tensor]:
    given = as_list("tensors", tensors, "aclruntime.Tensors")
    for tensor in given:
        if not isinstance(tensor, _native.Tensor):
            raise wrong_type("an entry of tensors", "an aclruntime.Tensor", tensor)
    return given


def _options(acl_json_path: str | None, debug: bool, loop: int) -> session_options:
    options = session_options()
    options.loop = loop
    options.log_level = 1 if as_bool("debug", debug) else 2
    options.acl_json_path = "" if acl_json_path is None else as_path("acl_json_path", acl_json_path)
    return options
