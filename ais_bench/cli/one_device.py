"""Run the benchmark on one device: open a session, run, and write the figures."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ais_bench.cli.energy import power_of
from ais_bench.cli.inputs import PURE, InputPlan, Run, file_lists, made_up, plan_of, read_group, share_of
from ais_bench.cli.log import CliError, debug, info
from ais_bench.cli.outputs import Saver, check_names, make_folder
from ais_bench.evaluate.progress import Progress
from ais_bench.infer.summary import Summary
from ais_bench.one_device.file_pipeline import times_in_one
from ais_bench.session import InferSession, MemorySummary

__all__ = ["DeviceOutcome", "run_device"]


class DeviceOutcome(NamedTuple):
    """The result of one device: the figures of its JSON file, the time span, and the times of its copies."""

    figures: dict[str, Any]
    start_s: float
    end_s: float
    copies: tuple[list[float], list[float]]


def run_device(
    options: Any,
    device: int,
    prefix: str | None,
    acl_json: str | None,
    *,
    share: tuple[int, int] | None = None,
    npu: int = 0,
    ready: Callable[[], None] = lambda: None,
) -> DeviceOutcome:
    """Run everything on one device.

    Args:
        options: the options of the command line.
        prefix: the folder for results, and the beginning of the JSON file's name; None: nothing is written.
        acl_json: AscendCL's settings.
        share: (part, parts) of the input for this device; None: all of it.
        npu: the NPU whose energy is measured, by npu-smi's number.
        ready: called after the session is open and the files are checked, before anything is written.

    Raises CliError and the errors of a session.
    """
    with contextlib.ExitStack() as stack:
        sessions = [_open(options, device, acl_json) for _ in range(options.threads if options.pipeline else 1)]
        for session in sessions:
            stack.callback(session.free_resource)
        session = sessions[0]
        batch = _batch_size(session, options)
        descs = session.get_inputs()
        plan = _plan(options, descs, share)
        ready()
        if prefix is not None:
            make_folder(prefix, options.output)
            info(f"output path:{prefix}")
        work = _Work(options, sessions, plan, prefix)
        work.warm_up()
        before = power_of(npu) if options.energy_consumption else 0.0
        start_s = time.time()
        work.run()
        end_s = time.time()
        after = power_of(npu) if options.energy_consumption else 0.0
        figures = work.report(batch, end_s - start_s)
        if options.energy_consumption:
            info(f"NPU ID:{npu} energy consumption(J):{(before + after) / 2.0 * (end_s - start_s)}")
        return DeviceOutcome(figures, start_s, end_s, work.copies())


def _open(options: Any, device: int, acl_json: str | None) -> InferSession:
    session = InferSession(device, options.model, acl_json, options.debug, options.loop)
    try:
        info(f"load model {options.model} success")
        info("create model description success")
        _set_shapes(session, options)
    except BaseException:
        session.free_resource()
        raise
    debug(f"session info:{session.session}")
    return session


def _set_shapes(session: InferSession, options: Any) -> None:
    aipp_batch = -1
    if options.dym_batch:
        session.set_dynamic_batchsize(options.dym_batch)
        aipp_batch = session.get_max_dym_batchsize()
    elif options.dym_hw is not None:
        sides = options.dym_hw.split(",")
        if len(sides) != 2 or not all(side.isdigit() for side in sides):
            raise CliError(f"--dymHW must be two numbers such as 300,500, got {options.dym_hw!r}")
        session.set_dynamic_hw(*map(int, sides))
    elif options.dym_dims is not None:
        session.set_dynamic_dims(options.dym_dims)
    elif options.dym_shape is not None:
        session.set_dynamic_shape(options.dym_shape)
    else:
        session.set_staticbatch()
    by_shape = options.dym_shape is not None or options.auto_set_dymshape_mode
    pictures = 0 if by_shape else session.get_dym_aipp_input_exist()
    if pictures and options.aipp_config is None:
        raise CliError("the model has an input with dynamic AIPP; give its settings with --aipp_config")
    if pictures:
        batch = aipp_batch if aipp_batch > 0 else options.batchsize or session.get_inputs()[0].shape[0]
        session.load_aipp_config_file(options.aipp_config, batch)
    if options.output_size:
        session.set_custom_outsize([int(size) for size in options.output_size.replace(";", ",").split(",")])


def _batch_size(session: InferSession, options: Any) -> int:
    """Return the batch size for the throughput: --batchsize, or the first dimension of the first input."""
    if options.batchsize is not None:
        return int(options.batchsize)
    first = session.get_inputs()[0]
    batch = first.shape[0] if first.shape else 1
    if options.dym_batch:
        batch = options.dym_batch
    for text in (options.dym_dims or options.dym_shape or "").split(";"):
        name, _, shape = text.rpartition(":")
        if name == first.name:
            batch = int(shape.split(",")[0])
    info(f"try get model batchsize:{batch}")
    by_shape = options.auto_set_dymshape_mode or options.auto_set_dymdims_mode
    if batch < 0 and not by_shape and not (options.dym_dims or options.dym_shape):
        raise CliError("the model's batch is open; set it with --dymBatch, --dymDims or --dymShape")
    return int(batch)


def _plan(options: Any, descs: Sequence[Any], share: tuple[int, int] | None) -> InputPlan:
    """Return the checked runs. Raises BadInput, NoShare."""
    if options.input is None:
        if options.run_mode == "files" and not options.pipeline:
            raise CliError("--run_mode files needs --input with .bin files")
        return InputPlan([[[PURE] for _ in descs]], 1, 1)
    lists = file_lists(options.input, len(descs))
    plan = plan_of(lists if share is None else share_of(lists, *share), descs, options)
    if options.output is not None:
        check_names(plan, options)
    return plan


class _Work:
    """The runs of one device."""

    def __init__(self, options: Any, sessions: list[InferSession], plan: InputPlan, prefix: str | None) -> None:
        self._options, self._sessions, self._plan, self._prefix = options, sessions, plan, prefix
        self._session = sessions[0]
        self._descs = self._session.get_inputs()
        self._summary = Summary()
        self._by_shape = options.auto_set_dymshape_mode or options.auto_set_dymdims_mode
        self._saver = (
            None
            if prefix is None
            else Saver(prefix, options, self._summary.add_sample_id_infiles, self._summary.append_sample_id_outfile)
        )

    def warm_up(self) -> None:
        """Run the first inputs, and drop their times."""
        for session in self._sessions:
            feeds = self._feeds(self._plan.runs[0])
            if self._options.run_mode == "tensor":
                feeds = session.create_tensor_from_arrays_to_device(feeds)
            session.set_loop_count(1)
            for _ in range(self._options.warmup_count):
                session.convert_tensors_to_host(self._execute(session, feeds))
            session.set_loop_count(self._options.loop)
            session.reset_summaryinfo()
            info(f"warm up {self._options.warmup_count} done")
        self._summary.reset()
        MemorySummary.reset()

    def run(self) -> None:
        """Run everything."""
        way = "pipeline" if self._options.pipeline else self._options.run_mode
        with Progress(len(self._plan.runs), f"Inference {way} Processing", True, "runs") as bar:
            for _ in _WAYS[way](self):
                bar.count += 1

    # ---- ways to run ----

    def _array(self) -> Iterator[None]:
        for number, run in enumerate(self._plan.runs):
            self._save(number, run, self._execute(self._session, self._feeds(run)))
            yield

    def _tensor(self) -> Iterator[None]:
        for number, run in enumerate(self._plan.runs):
            tensors = self._session.create_tensor_from_arrays_to_device(self._feeds(run))
            self._save(number, run, self._execute(self._session, tensors))
            yield

    def _files(self) -> Iterator[None]:
        for number, run in enumerate(self._plan.runs):
            tensors = [
                self._session.create_tensor_from_fileslist(desc, [file or str(files[0]) for file in files])
                for desc, files in zip(self._descs, run, strict=True)
            ]
            self._save(number, run, self._execute(self._session, tensors))
            yield

    def _full(self) -> Iterator[None]:
        tensors = [self._session.create_tensor_from_arrays_to_device(self._feeds(run)) for run in self._plan.runs]
        outputs = []
        for one in tensors:
            outputs.append(self._execute(self._session, one))
            yield
        for number, run in enumerate(self._plan.runs):
            self._save(number, run, outputs[number])

    def _pipeline(self) -> Iterator[None]:
        """Run in a pipeline: session k of n executes runs k, k+n, ... in its own thread; two more threads read and write."""
        info(f"run in pipeline mode with computing threadsnumber:{self._options.threads}")
        count = len(self._sessions)
        extras = [extra.session for extra in self._sessions[1:]]
        with times_in_one(self._session.session, extras), ThreadPoolExecutor(count, "ais_bench-run") as threads:
            shares = [threads.submit(self._share, session, index) for index, session in enumerate(self._sessions)]
            for share in shares:
                for _ in share.result():
                    yield

    def _share(self, session: InferSession, first: int) -> list[None]:
        numbers = range(first, len(self._plan.runs), len(self._sessions))
        with ThreadPoolExecutor(1, "ais_bench-read") as reading, ThreadPoolExecutor(1, "ais_bench-write") as writing:
            ahead = reading.submit(self._feeds, self._plan.runs[numbers[0]]) if numbers else None
            written = None
            for number in numbers:
                assert ahead is not None
                feeds, run = ahead.result(), self._plan.runs[number]
                following = number + len(self._sessions)
                if following < len(self._plan.runs):
                    ahead = reading.submit(self._feeds, self._plan.runs[following])
                outputs = self._execute(session, feeds)
                if written is not None:
                    written.result()
                written = writing.submit(self._save, number, run, outputs)
            if written is not None:
                written.result()
        return [None] * len(numbers)

    # ---- one run ----

    def _feeds(self, run: Run) -> list[Any]:
        if self._options.input is None:
            return [made_up(desc, self._options.pure_data_type) for desc in self._descs]
        return [read_group(files) for files in run]

    def _execute(self, session: InferSession, feeds: list[Any]) -> list[Any]:
        if self._by_shape:
            text = ";".join(
                f"{desc.name}:{','.join(map(str, feed.shape))}" for desc, feed in zip(self._descs, feeds, strict=True)
            )
            set_them = session.set_dynamic_shape if self._options.auto_set_dymshape_mode else session.set_dynamic_dims
            set_them(text)
            self._summary.add_batchsize(feeds[0].shape[0])
        return list(session.run(feeds))

    def _save(self, number: int, run: Run, outputs: list[Any]) -> None:
        self._session.convert_tensors_to_host(outputs)
        if self._saver is not None:
            self._saver.save(number, self._named(run), outputs)

    def _named(self, run: Run) -> Run:
        if self._options.input is None and self._options.pipeline:
            return [[f"{PURE}_{self._options.pure_data_type}"] for _ in run]
        return run

    def report(self, batch: int, wall_s: float) -> dict[str, Any]:
        """Print the figures, write the JSON file, and return its content."""
        summary, options = self._summary, self._options
        summary.add_args(getattr(options, "argv", sys.argv))
        summary.npu_compute_time_list = self._session.summary().exec_time_list
        summary.h2d_latency_list = MemorySummary.get_h2d_time_list()
        summary.d2h_latency_list = MemorySummary.get_d2h_time_list()
        samples, padded = self._samples(batch)
        rate = samples * options.loop / wall_s if wall_s > 0 else 0.0
        line = f"wall clock: {samples} samples, {padded} padded, in {wall_s:.6f} s: {rate:.6f} samples/s"
        summary.report(batch, None, options.display_all_summary, options.threads > 1 and options.pipeline, [line])
        summary.infodict.update(throughput_wall=rate, samples=samples, padded=padded)
        if self._prefix is not None:
            summary.write(f"{self._prefix}_summary.json")
        return summary.infodict

    def copies(self) -> tuple[list[float], list[float]]:
        """Return the times of copies to and from the device."""
        return self._summary.h2d_latency_list, self._summary.d2h_latency_list

    def _samples(self, batch: int) -> tuple[int, int]:
        """Return the number of samples, and of copies that filled a run. A file is one sample, or its run's part of a batch."""
        plan, sizes = self._plan, self._summary.batchsizes
        if sizes:
            return sum(sizes), 0
        each = batch // plan.per_run if batch > 0 and batch % plan.per_run == 0 else 1
        return plan.samples * each, plan.padded * each


_WAYS: dict[str, Callable[[_Work], Iterator[None]]] = {
    "array": _Work._array,
    "tensor": _Work._tensor,
    "files": _Work._files,
    "full": _Work._full,
    "pipeline": _Work._pipeline,
}


def prefix_of(options: Any, stamp: str, part: str | None = None) -> str | None:
    """Return the folder for results: --output / given name or time / the device's part. None without --output."""
    if options.output is None:
        return None
    folder = os.path.join(options.output, stamp if options.output_dirname is None else options.output_dirname)
    return folder if part is None else os.path.join(folder, part)
