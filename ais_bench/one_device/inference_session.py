"""The low-level session of the module `aclruntime`: tensors in, tensors out, with shapes that are set before a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any, NoReturn

import numpy as np

from ais_bench import _native
from ais_bench.errors import ConfigError, ConfigTypeError, FeedTypeError, no_copies
from ais_bench.one_device import file_pipeline, times
from ais_bench.one_device.aipp import AippMethods
from ais_bench.one_device.descriptors import tensor_desc
from ais_bench.one_device.picking import indexes_of, picked
from ais_bench.one_device.tensor import Tensor
from ais_bench.one_device.times import ExecTimes
from ais_bench.options import (
    absolute_path,
    as_bool,
    as_chain,
    as_device_id,
    as_folder,
    as_int,
    as_list,
    as_model,
    as_text,
    wrong_type,
)

__all__ = ["InferenceSession", "infer_options", "model", "session_options"]


class session_options:
    """Options of a session: `loop` (runs per call, at least 1), `log_level` (1 debug to 4 error), and texts that may be "":

    `acl_json_path` and `weight_dir`, both as for InferSession. The switch `share_workspace` is also as for InferSession.
    """

    def __init__(self) -> None:
        self.loop = 1
        self.log_level = 2
        self.acl_json_path = ""
        self.weight_dir = ""
        self.share_workspace = False


class _LiveOptions(session_options):
    """The options of an open session: assigning `loop` takes effect on its next run."""

    def __init__(self, native: _native.Session, given: session_options) -> None:
        self._native = native
        self.log_level = given.log_level
        self.acl_json_path = given.acl_json_path
        self.weight_dir = given.weight_dir
        self.share_workspace = given.share_workspace

    @property
    def loop(self) -> int:
        """Runs per call."""
        return self._native.loop

    @loop.setter
    def loop(self, value: int) -> None:
        self._native.loop = as_int("loop", value, 1)


infer_options = file_pipeline.infer_options


class InferenceSession(AippMethods):
    """One model on one device.

    `run` executes with the shapes that the last `set_*` call fixed, or with the model's own shapes. An input's bytes are read
    in that shape, and only their number is checked. Errors are those of `ais_bench.errors`, all RuntimeErrors. Threads may
    share a session. After `free_resource`, and in a forked child, every method that uses the device raises SessionClosed.

    Raises ConfigError before anything is opened, DeviceUnavailable, ModelLoadError, UnsupportedError, DeviceMemoryError.
    """

    def __init__(
        self,
        model_path: Any,
        device_id: Any,
        options: session_options,
        *,
        _runtime_options: Mapping[str, str] | None = None,
        _runtime: str = "",
    ) -> None:
        if not isinstance(options, session_options):
            raise wrong_type("options", "a session_options()", options)
        runtime_options = dict(_runtime_options or {})
        if (json := absolute_path("acl_json_path", options.acl_json_path)) is not None:  # absolute: one file has one name
            runtime_options["acl_json_path"] = json
        if options.weight_dir:
            runtime_options["weight_dir"] = as_folder("weight_dir", options.weight_dir)
        if options.share_workspace:
            runtime_options["share_workspace"] = "1"
        native = _native.Session(
            as_model(model_path),
            as_device_id(device_id),
            as_int("loop", options.loop, 1),
            runtime_options,
            _runtime,
        )
        self._take(native, options)

    def _take(self, native: _native.Session, options: session_options) -> None:
        self._native = native
        self._options = _LiveOptions(native, options)
        self._times = ExecTimes(self._native)
        self._iteration: _native.Iteration | None = None
        self._set_inputs: Any = None
        self._last_outputs: list[Any] = []
        self._output_names = [name for name, *_ in self._native.outputs()]

    @classmethod
    def _over(cls, native: _native.Session, options: session_options) -> InferenceSession:
        """Make a session for an open model."""
        self = cls.__new__(cls)
        self._take(native, options)
        return self

    def options(self) -> session_options:
        """The live options: assigning `loop` takes effect on the next run."""
        return self._options

    def get_inputs(self) -> list[tensor_desc]:
        """Return a description of the inputs. `realsize` reflects the last `set_*` call."""
        sizes = self._native.real_sizes()
        return [tensor_desc._from_native(native, size) for native, size in zip(self._native.inputs(), sizes, strict=True)]

    def get_outputs(self) -> list[tensor_desc]:
        """Return a description of the outputs."""
        return [tensor_desc._from_native(native) for native in self._native.outputs()]

    def get_overridable_initializers(self) -> list[tensor_desc]:
        """Return a description of the constants that a run may override by name."""
        return [tensor_desc._from_native(native) for native in self._native.overridable()]

    def run(self, output_names: Sequence[str], feeds: Sequence[Any] | Mapping[str, Any]) -> list[Tensor]:
        """Run once (`loop` times) and return one tensor on the device for each name.

        `feeds` is a list in the model's order or a mapping by input name, of `Tensor` or `BaseTensor`. Tensors on the host are
        used without a copy. Raises TypeError for an array (`Tensor(array)` copies it), and the errors of `InferSession.infer`.
        """
        given = feeds.values() if isinstance(feeds, Mapping) else feeds
        if isinstance(given, np.ndarray) or (isinstance(given, Sized) and any(isinstance(feed, np.ndarray) for feed in given)):
            raise FeedTypeError("an input is an array; make it an aclruntime.Tensor, or use InferSession, which takes arrays")
        return self._run(output_names, feeds)

    def _run(self, output_names: Sequence[str], feeds: Any) -> list[Tensor]:
        indexes = self._indexes(output_names)
        outputs = self._native.run(feeds)
        return [Tensor(output) for output in picked(outputs, indexes)]

    def run_from_tensors(self, output_names: Sequence[str], feeds: Sequence[Any] | Mapping[str, Any]) -> list[Tensor]:
        """Do the same as `run`. Programs use this name if their tensors stay on the device. Raises the
        errors of `run`."""
        return self.run(output_names, feeds)

    def run_setinputs(self, feeds: Sequence[Any] | Mapping[str, Any]) -> None:
        """Keep the feeds for `run_execute`. This method and the next two are the steps of `run`. Raises nothing:
        `run_execute` checks the feeds."""
        self._set_inputs = feeds

    def run_execute(self, loop: Any = 1) -> None:
        """Run the kept feeds `loop` times. Raises ConfigError without feeds, and the errors of `run`."""
        if self._set_inputs is None:
            raise ConfigError("run_execute runs what was given before; call run_setinputs before it")
        for _ in range(as_int("loop", loop, 1)):
            self._last_outputs = self._native.run(self._set_inputs)

    def run_getoutputs(self, output_names: Sequence[str]) -> list[Tensor]:
        """Return the outputs of `run_execute`: one tensor on the device for each name. Raises ConfigError without outputs,
        FeedError for an unknown name, DeviceMemoryError."""
        if not self._last_outputs:
            raise ConfigError("run_getoutputs returns what a run computed; call run_execute before it")
        return [Tensor(self._last_outputs[index]._copied()) for index in self._indexes(output_names)]

    def first_inner_run(self, output_names: Sequence[str], feeds: Sequence[Any]) -> list[Tensor]:
        """Run once and keep inputs and outputs on the device for `inner_run`. Return an empty list. Raises the errors of
        `run`."""
        return self._first_inner_run(output_names, feeds, None)

    def _first_inner_run(self, output_names: Sequence[str], feeds: Any, mode: str | None) -> list[Tensor]:
        self._indexes(output_names)
        iteration = _native.Iteration(self._native)
        iteration.first(self._native, feeds, mode)
        self._iteration = iteration
        return []

    def inner_run(
        self, in_out_list: Sequence[int], output_names: Sequence[str], get_outputs: bool, mem_copy: bool
    ) -> list[Tensor]:
        """Run again with inputs from the previous run's outputs.

        `in_out_list[i]` is the number of the output that becomes input i; -1 keeps the input. With `get_outputs` the outputs
        are returned in separate memory. Nothing leaves the device between the runs, and no input shares memory with an output
        of the same run, for both values of `mem_copy`. Raises ConfigError without a first run or for a wrong `in_out_list`,
        FeedError if an output does not fit its input, and the errors of `run`.
        """
        if self._iteration is None:
            raise ConfigError("inner_run goes on from a first run; call first_inner_run before it")
        indexes, get_outputs = self._indexes(output_names), as_bool("get_outputs", get_outputs)
        self._iteration.step(as_chain(in_out_list))
        if not get_outputs:
            return []
        outputs = self._iteration.outputs()
        return [Tensor(output) for output in picked(outputs, indexes)]

    def run_pipeline(self, *arguments: Any) -> list[list[Tensor]] | None:
        """Run many items, in one of these forms.

        `(infiles, infer_options, extra_sessions)`: each item is a list of files, one for each input; results are written to
        files.
        `(infiles, output_dir, auto_shape, auto_dims, out_format="BIN")`: the same, without infer_options.
        `(names, inputs_list, shapes_list, auto_shape, auto_dims)`: each item is a list of inputs; returns the host tensors of
        each item.
        Raises ConfigTypeError for other arguments, FileError, and the errors of `run`.
        """
        if len(arguments) == 3:
            infiles, options, extra_sessions = arguments
            file_pipeline.run(self, infiles, options, extra_sessions)
            return None
        if len(arguments) in (4, 5) and isinstance(arguments[1], str):
            options = infer_options()
            options.output_dir, options.auto_dym_shape, options.auto_dym_dims = arguments[1:4]
            options.out_format = "BIN" if len(arguments) == 4 else arguments[4]
            file_pipeline.run(self, arguments[0], options)
            return None
        if len(arguments) == 5:
            return file_pipeline.run_in_memory(self, *arguments)
        raise ConfigTypeError(
            "run_pipeline takes (infiles, infer_options, extra_sessions), (infiles, output_dir, auto_shape, auto_dims, format) "
            "or (names, inputs_list, shapes_list, auto_shape, auto_dims)"
        )

    def set_staticbatch(self) -> int:
        """Return to the model's own shapes. Raises SessionClosed."""
        self._native.set_static()
        return 0

    def set_dynamic_batchsize(self, batch: Any) -> int:
        """Fix the batch: the first dynamic dimension of every input. Raises ConfigError, FeedError for an unknown gear."""
        self._native.set_batch(as_int("batch size", batch, 1))
        return 0

    def set_dynamic_hw(self, height: Any, width: Any) -> int:
        """Fix the image size, in the order of the model's two dynamic dimensions: height, then width. Raises
        ConfigError, FeedError for an unknown gear."""
        self._native.set_image(as_int("height", height, 1), as_int("width", width, 1))
        return 0

    def set_dynamic_dims(self, dims: str) -> int:
        """Fix all shapes to one of the model's gears: "name:d0,d1;name2:d0", every input once. Raises ConfigError
        for a wrong text or name, FeedError for an unknown gear."""
        self._native.set_dims(as_text("dims", dims))
        return 0

    def set_dynamic_shape(self, shapes: str) -> int:
        """Fix all shapes: "name:d0,d1;name2:d0", every input once. Raises ConfigError for a wrong text or name, FeedError for a
        shape that does not fit."""
        self._native.set_shape(as_text("shapes", shapes))
        return 0

    def set_custom_outsize(self, sizes: Iterable[int]) -> int:
        """Set a hint about output sizes in bytes, one for each output. It never limits a result. Raises ConfigError."""
        sizes = as_list("sizes", sizes, "numbers of bytes, one for each output")
        self._native.expect_outputs([as_int("output size", size, 0, 2**62) for size in sizes])
        return 0

    def get_max_dym_batchsize(self) -> int:
        """Return the largest batch gear; 0 if the model has none."""
        kind, gears = self._native.gears()
        return max((gear[0] for gear in gears), default=0) if kind == "dymbatch" else 0

    def sumary(self) -> times.sumary:
        """Return the times of all executions, in milliseconds. Raises SessionClosed in a forked child."""
        return self._times.read()

    def reset_sumaryinfo(self) -> int:
        """Delete the recorded times. Raises SessionClosed in a forked child."""
        self._times.clear()
        return 0

    summary, reset_summaryinfo = sumary, reset_sumaryinfo

    def set_context(self) -> int:
        """Do nothing: every call makes the device current itself. Programs call this before they share a session."""
        return 0

    def create_tensor_from_fileslist(self, desc: tensor_desc, files: Sequence[str]) -> Tensor:
        """Return a tensor on the device with the bytes of raw files, one after the other; they must fill it exactly.
        Raises FeedError, FileError, DeviceMemoryError."""
        tensor = file_pipeline.tensor_from_files(desc, files)
        self._native.to_device(tensor)
        return tensor

    def free_resource(self) -> int:
        """Free the model. Idempotent; a later run raises SessionClosed."""
        self._iteration = self._set_inputs = None
        self._last_outputs = []
        self._native.close()
        return 0

    @staticmethod
    def finalize() -> int:
        """Free every session of this process and all other resources of the runtimes. Idempotent."""
        _native.finalize()
        return 0

    def _indexes(self, output_names: Sequence[str]) -> list[int]:
        return indexes_of(output_names, self._output_names)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise no_copies("an InferenceSession", "make one where it is needed")

    def __repr__(self) -> str:
        lines = ["<Model>", f"device:\t{self._native.device_id}"]
        for title, side in (("input", self.get_inputs()), ("output", self.get_outputs())):
            lines.append(f"{title}:")
            for index, desc in enumerate(side):
                shape = ", ".join(map(str, desc.shape)) + ("," if len(desc.shape) == 1 else "")
                lines.append(f"  #{index}    {desc.name}  ({shape})  {desc.datatype.name}  {desc.size}  {desc.realsize}")
        return "\n".join(lines) + "\n"

    __str__ = __repr__


def model(modelPath: Any, deviceId: Any = 0, options: session_options | None = None) -> InferenceSession:
    """Open a session, like `InferenceSession` with default options."""
    return InferenceSession(modelPath, deviceId, options if options is not None else session_options())
