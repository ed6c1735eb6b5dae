"""Run a session over files, and over lists of inputs, for `InferenceSession.run_pipeline`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ais_bench import _native
from ais_bench.errors import ConfigError, FeedError, file_error
from ais_bench.one_device.descriptors import tensor_desc
from ais_bench.one_device.tensor import Tensor
from ais_bench.options import as_bool, as_choice, as_list, as_path, wrong_type

if TYPE_CHECKING:
    from ais_bench.one_device.inference_session import InferenceSession

__all__ = ["infer_options", "run", "run_in_memory", "tensor_from_files", "times_in_one"]

_NEWEST = 2**63  # larger than the number of any execution: reads only the number of entries
PURE_ZERO = "pure_infer_data_zero"
PURE_RANDOM = "pure_infer_data_random"


class infer_options:
    """Options of `run_pipeline` over files.

    `output_dir` ("": save nothing), `out_format` ("BIN", "NPY" or "TXT"), `auto_dym_shape` and `auto_dym_dims` (set the shapes
    from each item's arrays), `pure_infer_mode` (generated data; the file names select the kind). `output_names` and
    `shapes_list` exist for callers that set them, and have no effect.
    """

    def __init__(self) -> None:
        self.output_dir = ""
        self.out_format = "BIN"
        self.auto_dym_shape = False
        self.auto_dym_dims = False
        self.pure_infer_mode = False
        self.output_names: list[str] = []
        self.shapes_list: list[list[list[int]]] = []


def run(
    session: InferenceSession,
    infiles: Sequence[Sequence[str]],
    options: infer_options,
    extra_sessions: Sequence[InferenceSession] = (),
) -> None:
    """Run every item; session k of n takes items k, k+n, ... in its own thread.

    The executions of the extra sessions are added to the times of the first one. Raises the error of the first failed item.
    """
    if not isinstance(options, infer_options):
        raise wrong_type("options", "an infer_options()", options)
    as_choice("out_format", options.out_format, tuple(_SAVERS))
    as_path("output_dir", options.output_dir)
    infiles = [_file_names(files) for files in as_list("infiles", infiles, "lists of file names")]
    sessions = [session, *_low_level(extra_sessions)]
    if options.output_dir and not options.pure_infer_mode:
        _check_stems(infiles)

    def share(index: int) -> None:
        for files in infiles[index :: len(sessions)]:
            _run_item(sessions[index], files, options)

    with times_in_one(session, sessions[1:]), ThreadPoolExecutor(len(sessions), "ais_bench-pipeline") as threads:
        for future in [threads.submit(share, index) for index in range(len(sessions))]:
            future.result()


@contextlib.contextmanager
def times_in_one(session: InferenceSession, extra_sessions: Sequence[InferenceSession]) -> Iterator[None]:
    """Add the executions of the extra sessions in this block to the times of the first one, on its clock."""
    done_before = [extra._native.exec_times(_NEWEST)[1] for extra in extra_sessions]
    yield
    for extra, since in zip(extra_sessions, done_before, strict=True):
        session._native.append_times(extra._native, since)


def _file_names(files: Any) -> list[str]:
    return [as_path("a file name", file) for file in as_list("an item of infiles", files, "file names, one for each input")]


def _low_level(sessions: Any) -> list[InferenceSession]:
    """Return the low-level sessions for a list of sessions of either kind; None: no sessions."""
    given = [] if sessions is None else as_list("extra_sessions", sessions, "sessions")
    found = [getattr(one, "session", one) for one in given]
    for one in found:
        if not isinstance(getattr(one, "_native", None), _native.Session):
            raise wrong_type("an entry of extra_sessions", "a session", one)
    return found


def _check_stems(infiles: Sequence[Sequence[str]]) -> None:
    """Raise ConfigError if the results of two items would be written to files with the same name."""
    items: dict[str, list[str]] = {}
    for files in infiles:
        if not files:
            continue  # the error of its item is raised later
        stem = Path(files[0]).stem
        other = items.setdefault(stem, list(files))
        if other != list(files):  # a repeated item has the same results
            one, two = (other[0], files[0]) if other[0] != files[0] else (other, list(files))
            raise ConfigError(
                f"the results of {one!r} and of {two!r} would both be written to files named {stem!r} and a number; "
                "give the files different names, or run them into different folders"
            )


def run_in_memory(
    session: InferenceSession,
    names: Sequence[str],
    inputs_list: Sequence[Sequence[Any]],
    shapes_list: Sequence[Sequence[Sequence[int]]],
    auto_shape: bool,
    auto_dims: bool,
) -> list[list[Tensor]]:
    """Run every item of `inputs_list`, with the shapes of `shapes_list` if they must be set.

    Returns the host tensors of each item. Raises ConfigError for a wrong list, and the errors of `InferenceSession.run`.
    """
    results = []
    auto_shape, auto_dims = as_bool("auto_shape", auto_shape), as_bool("auto_dims", auto_dims)
    every = as_list("inputs_list", inputs_list, "lists of inputs")
    shapes = as_list("shapes_list", shapes_list, "lists of shapes, one for each item") if auto_shape or auto_dims else []
    if (auto_shape or auto_dims) and len(shapes) != len(every):
        raise ConfigError(f"shapes_list must have {len(every)} entries, one for each item, got {len(shapes)}")
    for position, inputs in enumerate(every):
        if auto_shape or auto_dims:
            _set_shapes(session, shapes[position], auto_shape)
        outputs = session._run(names, inputs)
        for tensor in outputs:
            tensor.to_host()
        results.append(outputs)
    return results


def tensor_from_files(desc: tensor_desc, files: Sequence[str]) -> Tensor:
    """Return a host tensor of `desc` with the joined bytes of raw files, which must fill it exactly. Raises
    ConfigTypeError, FileError, FeedError."""
    if not isinstance(desc, tensor_desc):
        raise wrong_type("desc", "a tensor_desc", desc)
    files = _file_names(files)
    try:
        data = b"".join(Path(file).read_bytes() for file in files)
    except OSError as error:
        raise file_error(error, f"read input '{desc.name}'") from None
    kind = desc.dtype
    if any(dim < 0 for dim in desc.shape):
        raise FeedError(f"input '{desc.name}' has the open shape {tuple(desc.shape)}; a tensor from files needs a fixed one")
    wanted = int(np.prod(desc.shape, dtype=np.int64)) * kind.itemsize
    if len(data) != wanted:
        raise FeedError(
            f"input '{desc.name}' takes {wanted} bytes, shape {tuple(desc.shape)} of {kind}; "
            f"the files {list(files)} have {len(data)}"
        )
    return Tensor(np.frombuffer(data, kind).reshape(desc.shape))


def _run_item(session: InferenceSession, files: Sequence[str], options: infer_options) -> None:
    descs = session.get_inputs()
    if len(files) != len(descs):
        raise FeedError(f"an item has {len(files)} files {list(files)}; the model takes {len(descs)} inputs")
    arrays = [_made_up(file, desc) if options.pure_infer_mode else _read(file) for file, desc in zip(files, descs, strict=True)]
    if options.auto_dym_shape or options.auto_dym_dims:
        _set_shapes(session, [array.shape for array in arrays], options.auto_dym_shape)
    outputs = session._run([desc.name for desc in session.get_outputs()], arrays)
    if not options.output_dir:
        return
    for index, tensor in enumerate(outputs):
        tensor.to_host()
        stem = Path(options.output_dir, f"{Path(files[0]).stem}_{index}")
        try:
            _SAVERS[options.out_format](f"{stem}.{options.out_format.lower()}", np.asarray(tensor))
        except OSError as error:
            raise file_error(error, "write an output") from None


def _set_shapes(session: InferenceSession, shapes: Sequence[Sequence[int]], as_shape: bool) -> None:
    names = [desc.name for desc in session.get_inputs()]
    shapes = [as_list("a shape", shape, "dimensions") for shape in as_list("shapes", shapes, "shapes, one for each input")]
    if len(shapes) != len(names):
        raise ConfigError(f"shapes must have {len(names)} entries, one for each input, got {len(shapes)}")
    text = ";".join(f"{name}:{','.join(map(str, shape))}" for name, shape in zip(names, shapes, strict=True))
    (session.set_dynamic_shape if as_shape else session.set_dynamic_dims)(text)


def _read(file: str) -> NDArray[Any]:
    try:
        if file.endswith(".npy"):
            return np.asarray(np.load(file, allow_pickle=False))
        return np.fromfile(file, np.uint8)
    except OSError as error:
        raise file_error(error, "read an input") from None
    except (EOFError, ValueError) as error:  # not an npy file, or one with Python objects
        raise FeedError(f"cannot read the input {file!r}: {error}") from error


def _made_up(file: str, desc: tensor_desc) -> NDArray[Any]:
    if desc.realsize == 0:
        raise FeedError(
            f"input '{desc.name}' has the open shape {tuple(desc.shape)}; set the shapes before you run generated data"
        )
    if file == PURE_ZERO:
        return np.zeros(desc.realsize, np.uint8)
    if file == PURE_RANDOM:
        return np.random.default_rng().integers(0, 255, desc.realsize, np.uint8)
    raise ConfigError(f"the name of generated data must be {PURE_ZERO!r} or {PURE_RANDOM!r}, got {file!r}")


def _save_text(path: str, array: NDArray[Any]) -> None:
    rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(" ".join(str(value) for value in row.tolist()) + "\n" for row in rows)


def _save_raw(path: str, array: NDArray[Any]) -> None:
    array.tofile(path)


_SAVERS: dict[str, Callable[[str, NDArray[Any]], None]] = {"BIN": _save_raw, "NPY": np.save, "TXT": _save_text}
