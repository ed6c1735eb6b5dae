"""InferSession: one model on one device, arrays in, arrays out. The class most programs use."""

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
from ais_bench.one_device.gather import picker
from ais_bench.one_device.inference_session import InferenceSession, session_options
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
        inputs. An entry is a numpy array or scalar, a torch CPU tensor, an `aclruntime.Tensor` or anything with DLPack. Its
        bytes are read as the model's element type; nothing is cast. Of a fixed shape only the byte size is compared; where the
        model leaves dimensions open they are the array's own. What had to be guessed, and a type that is not the model's, give
        a FeedWarning (docs/feeds.md has the rules as a table). An optional input may be None, or missing from a mapping; a
        mapping may also have entries for `get_overridable_initializers`. Feeds may be overwritten as soon as a call returns.

    Outputs: a list of new arrays of the model's element types and true shapes, independent of the session and of each other.

    Errors are those of `ais_bench.errors`, all of them RuntimeErrors; after one from a run the session is still usable.
    Threads may share a session, and the GIL is released while the device works. A session does not work in a forked child
    of the process that made it. Dropping the last reference frees the device.

    Args:
        device_id: the device, an int or its text. CPU devices are 0 to the number of processors the process may use, less 1.
        model_path: a path, or the model's content as bytes. The content decides what it is, not the suffix.
        acl_json_path: AscendCL's profiling and dump settings, one file per process; of no effect on a CPU device.
        debug: log the model's description and more at DEBUG, to the logger "ais_bench.session". Sets the level of the logger
            "ais_bench" unless the program has set one; handlers are the program's (`logging.basicConfig()`).
        loop: executions per call, at least 1; the outputs are the last one's.
        threads: threads that compute one run on a CPU device; default all processors the process may use.
        graph_optimization_level: "disable", "basic", "extended", "layout" or "all" (the default), for ONNX models.
        provider_options: further options of the runtime by name; an unknown name raises ConfigError with the known ones.
        weight_dir: the folder of the weights that the model keeps in files of their own, where that is not the one that the
            model was saved with: `weight` beside a compiled model (ATC's --external_weight), or the ONNX file's own. On an NPU
            such weights are loaded once for all sessions of the process on a device.
        share_workspace: work, on an NPU, in memory that all sessions of this process on the device have together which say so.
            Their runs take turns. For chains of models that never run at the same time; open the largest first.
        profile: the beginning of the path of a profile by ONNX Runtime, a JSON file for chrome://tracing that is written when
            the session is freed; ONNX Runtime adds the time to it. Not on an NPU, which has acl_json_path.
        custom_ops: libraries of custom operators, a path or a list of paths; each exports ONNX Runtime's RegisterCustomOps. Not
            on an NPU.
        runtime: "ort" or "acl", to override what the content says.
        provider: the execution provider of ONNX Runtime that runs the model: "cuda", "tensorrt", "migraphx", "cann", "qnn",
            "openvino", ONNX Runtime's name of another one, "auto" (the best that has a device here, else the processor), or
            "cpu". Device ids are then the provider's; what `provider_options` has and no session of ONNX Runtime knows is the
            provider's. One that cannot be used is an error that says what was tried (docs/devices.md).
        fallback: "cpu": nodes that the provider does not take run on the processor, and `placement` tells which; "error": a
            model with such nodes does not load.
        host_register: for an NPU, whether memory of the host that many copies use is registered with it: "auto" where product
            and kernel can, "off", or "on" for those who know. It matters to the workers of a MultiDeviceSession; a session of
            one device copies through page-locked memory.
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
        """Make a session of a model that is open already."""
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
            _logger.debug("loaded %s", str(self.session))  # as text: whoever keeps records must not keep the device
        if acl_json_path and self._native.runtime != "acl":
            _logger.warning("acl_json_path has no effect: %s runs on a CPU device", self.model_path)

    # What the model looks like

    def get_inputs(self) -> list[tensor_desc]:
        """Describe the inputs, in the model's order."""
        self.intensors_desc = self.session.get_inputs()
        return self.intensors_desc

    def get_outputs(self) -> list[tensor_desc]:
        """Describe the outputs, in the model's order."""
        self.outtensors_desc = self.session.get_outputs()
        return self.outtensors_desc

    def get_overridable_initializers(self) -> list[tensor_desc]:
        """Describe the constants of the model that a run may be given other values for, by their names.

        They are those of an ONNX model that are among its graph's inputs, too; `infer({"x": x, "scale": s})` feeds one.
        """
        return self.session.get_overridable_initializers()

    @property
    def metadata(self) -> ModelMetadata:
        """What the model says about itself; on an NPU nothing, as AscendCL does not tell."""
        return metadata_of(self._native.metadata())

    @property
    def placement(self) -> tuple[int, list[str]] | None:
        """How many nodes the model has as it runs, and those that a provider has left to the processor, "MatMul 'name'" each.

        None without a provider, and if ONNX Runtime does not tell: it does since 1.24.
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
            mode: "static", "dymbatch", "dymhw", "dymdims" or "dymshape". Models with gears hold the three in the middle to
                them.
            custom_sizes: bytes of each output, or a list of them, for "dymshape": a hint that never limits a result. On an NPU
                it is the memory that the first run brings for outputs of unknown size, up to 64 MiB each.
            out_array: True for numpy arrays on the host, False for `aclruntime.Tensor`s on the device.
            outputs: names of the outputs to return, in that order; None: all. The model computes all of them either way.

        Returns a list with one entry for each output. Raises FeedError, InferenceError and others.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.infer)
        self._expect_in(mode, custom_sizes)
        out_array = as_bool("out_array", out_array)
        pick = picker(outputs, self.outputs_names)
        try:  # the hot path: nothing is made for what rarely happens
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

        For a model of one input an element may be the bare input instead of a list; a list of sets counts as those sets. On an
        NPU several sets are under way at once: the copies of one overlap with the execution of another. `feeds_list` may be a
        generator; it is asked for the next set as there is room, and a set may be overwritten when it is asked.

        `on_error`: "raise" the error of a set, or "return" it in the place of the set's outputs. It has `index`, the set's
        place, and `device_id`. An error of `feeds_list` itself is always raised. `outputs` as for `infer`.
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
        """Run `iteration_times` times, each run taking inputs from the outputs of the one before; return the last outputs.

        `in_out_list[i]` is the output that input i takes from the second run on, -1 to keep what was fed. What is handed on
        never leaves the device. Results are the same for either value of `mem_copy`. `outputs` as for `infer`; the numbers in
        `in_out_list` count all outputs of the model.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.infer_iteration)
        times = as_int("iteration_times", iteration_times, 1)
        if times == 1:
            return self.infer(feeds, mode, custom_sizes, outputs=outputs)
        pick = picker(outputs, self.outputs_names)
        if in_out_list is None:
            raise ConfigError(f"in_out_list says which output feeds which input; {times} iterations need one")
        self._expect_in(mode, custom_sizes)
        chain = as_chain(in_out_list)
        with self._naming:
            found: list[NDArray[Any]] = pick(self._native.iterate(feeds, mode, chain, times))
        return found

    def _expect_in(self, mode: Any, custom_sizes: Any) -> None:
        """Take the hint of the outputs' sizes in the one mode that has it."""
        if isinstance(mode, str) and mode == "dymshape":
            self._expect(custom_sizes)

    def _expect(self, custom_sizes: Any) -> None:
        """Pass a hint of the outputs' sizes on, when it is another one than before."""
        sizes = check_custom_sizes(custom_sizes, len(self.outputs_names))
        if sizes != self._expected:
            self._native.expect_outputs(sizes)
            self._expected = sizes

    def run(self, feeds: Any, out_array: bool = False, **unknown: NoReturn) -> list[Any]:
        """Run with the shapes that the newest `set_*` call fixed. Returns tensors on the device, or arrays with `out_array`."""
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
        """Run lists of files, one file an input, and write the results to files in the folder `output` ("" writes none)."""
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
        """Run once and keep inputs and outputs on the device for `inner_run`. Returns an empty list."""
        if unknown:
            raise unknown_argument(unknown, InferSession.first_inner_run)
        self._expect_in(mode, custom_sizes)
        with self._naming:
            return self.session._first_inner_run(self.outputs_names, feeds, mode)

    def inner_run(
        self, in_out_list: Sequence[int], get_outputs: bool = False, mem_copy: bool = True, **unknown: NoReturn
    ) -> list[Tensor] | None:
        """Run again, inputs taken from the outputs of the run before.

        Returns tensors on the device with `get_outputs`, else None.
        """
        if unknown:
            raise unknown_argument(unknown, InferSession.inner_run)
        get_outputs = as_bool("get_outputs", get_outputs)
        with self._naming:
            outputs = self.session.inner_run(in_out_list, self.outputs_names, get_outputs, mem_copy)
        return outputs if get_outputs else None

    def cancel(self) -> None:
        """Ask the runs that are executing now, in other threads, to stop; each raises InferenceCancelled.

        Some NPUs cannot stop a run. There a warning is logged, and a run raises when it has ended by itself.
        """
        why_not = self._native.cancel()
        if why_not:
            _logger.warning("the runs under way end by themselves and raise InferenceCancelled then: %s", why_not)

    # Shapes for run()

    def set_staticbatch(self) -> None:
        """Go back to the model's own shapes."""
        self.session.set_staticbatch()

    def set_dynamic_batchsize(self, dymBatch: Any) -> None:
        """Fix the batch size of `run`."""
        self.session.set_dynamic_batchsize(dymBatch)

    def set_dynamic_hw(self, w: Any, h: Any) -> None:
        """Fix the image size of `run`, in the order of the model's dynamic dimensions.

        Whatever they are called, the first number is the first of these dimensions: the height of an NCHW model.
        """
        self.session.set_dynamic_hw(w, h)

    def set_dynamic_dims(self, dym_dims: str) -> None:
        """Fix the shapes of `run` to a gear: "name:d0,d1;name2:d0"."""
        self.session.set_dynamic_dims(dym_dims)

    def set_dynamic_shape(self, dym_shape: str) -> None:
        """Fix the shapes of `run`: "name:d0,d1;name2:d0"."""
        self.session.set_dynamic_shape(dym_shape)

    def set_custom_outsize(self, custom_sizes: Any) -> None:
        """Accept a hint about output sizes in bytes; results are never limited by it."""
        self._expect(custom_sizes)

    def set_loop_count(self, loop: Any) -> None:
        """Set the executions per call, at least 1."""
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

        `batchsize` is the model's batch; with batch gears, the largest. `input`: name or number of the picture, where the model
        has several; otherwise the file's related_input_rank says which. Raises ConfigError, UnsupportedError.
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
        """Return the largest batch gear, 0 where the model has none."""
        return self.session.get_max_dym_batchsize()

    # Tensors

    def create_tensor_from_arrays_to_device(self, arrays: Any) -> Any:
        """Copy an array to the device and return the tensor; a list of arrays gives a list of tensors."""
        if isinstance(arrays, (list, tuple)):
            return [self.create_tensor_from_arrays_to_device(array) for array in arrays]
        tensor = Tensor(arrays)
        self._native.to_device(tensor)
        return tensor

    def create_tensor_from_fileslist(self, desc: tensor_desc, files: Sequence[str]) -> Tensor:
        """Return a tensor on the device with the bytes of raw files, one after the other; they must fill it exactly."""
        return self.session.create_tensor_from_fileslist(desc, files)

    @staticmethod
    def convert_tensors_to_host(tensors: Iterable[Tensor]) -> None:
        """Move tensors to the host, in place."""
        for tensor in _tensors(tensors):
            tensor.to_host()

    @staticmethod
    def convert_tensors_to_arrays(tensors: Iterable[Tensor]) -> list[NDArray[Any]]:
        """Return new arrays with the values of host tensors."""
        return [np.array(tensor) for tensor in _tensors(tensors)]

    # Times

    def summary(self) -> sumary:
        """Return the times of all executions since the session was made or reset, in milliseconds, oldest first.

        It is a list of floats, and its `exec_time_list` is the same; an entry also unpacks into (start, end).
        """
        return self.session.sumary()

    sumary = summary

    def reset_summaryinfo(self) -> None:
        """Forget the times."""
        self.session.reset_sumaryinfo()

    reset_sumaryinfo = reset_summaryinfo

    # Life

    def set_context(self) -> None:
        """Do nothing: every call finds its device by itself, from any thread."""

    def free_resource(self) -> None:
        """Free the model. Idempotent; a later run raises SessionClosed."""
        session = getattr(self, "session", None)  # absent when __init__ failed and a subclass's __del__ calls this
        if session is not None:
            session.free_resource()

    @staticmethod
    def finalize() -> None:
        """Free every session of this process and what the runtimes hold besides.

        Idempotent; new sessions may be made after it.
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
    """A block whose errors name the device."""

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
