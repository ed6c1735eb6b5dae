"""The figures of a benchmark run: computing time, copy times, throughput. They are printed and written to a JSON file."""

from __future__ import annotations

import json
import numbers
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ais_bench.errors import file_error
from ais_bench.options import as_bool, as_list, as_path, as_text, wrong_type

__all__ = ["ListInfo", "Summary", "figures_of", "summary"]

PERCENTILE = 99


@dataclass
class ListInfo:
    """Statistics of a list of times, in milliseconds. For an empty list all are zero."""

    min: float = 0.0
    max: float = 0.0
    mean: float = 0.0
    median: float = 0.0
    percentile: float = 0.0

    @classmethod
    def of(cls, times: Sequence[Any]) -> ListInfo:
        """Return the statistics of a list. An entry is a number, or a pair (start, end) that counts as its difference."""
        values = np.asarray([_milliseconds(entry) for entry in times], np.float64)
        if values.size == 0:
            return cls()
        low, high, mean = float(values.min()), float(values.max()), float(values.mean())
        return cls(low, high, mean, float(np.median(values)), float(np.percentile(values, PERCENTILE)))

    def __str__(self) -> str:
        return (
            f"min = {self.min}, max = {self.max}, mean = {self.mean}, median = {self.median}, "
            f"percentile({PERCENTILE}%) = {self.percentile}"
        )


class Summary:
    """Collects the times of a run. The three lists may be assigned. It can be pickled.

    Attributes:
        npu_compute_time_list: milliseconds, or (start, end) pairs in milliseconds, of every execution.
        h2d_latency_list, d2h_latency_list: milliseconds of every copy to and from the device.
        infodict: the content of the JSON file, with `add_args` and the file lists.
    """

    def __init__(self) -> None:
        self.reset()
        self.infodict: dict[str, Any] = {"filesinfo": {}}

    def reset(self) -> None:
        """Empty the lists."""
        self.npu_compute_time_list: list[Any] = []
        self.h2d_latency_list: list[float] = []
        self.d2h_latency_list: list[float] = []
        self._batchsizes: list[int] = []

    def add_args(self, args: Any) -> None:
        """Keep the command line in the JSON file."""
        self.infodict["args"] = args

    def add_batchsize(self, batchsize: int) -> None:
        """Record the batch size of one run, if it varies."""
        self._batchsizes.append(batchsize)

    @property
    def batchsizes(self) -> list[int]:
        """The recorded batch sizes."""
        return list(self._batchsizes)

    def add_sample_id_infiles(self, sample_id: int, infiles: Any) -> None:
        """Record the input files of one run, a list. Only the first call for a run counts."""
        noted = self.infodict["filesinfo"].setdefault(sample_id, {"infiles": [], "outfiles": []})
        noted["infiles"] = noted["infiles"] or list(infiles)

    def append_sample_id_outfile(self, sample_id: int, outfile: Any) -> None:
        """Record an output file of one run."""
        self.infodict["filesinfo"].setdefault(sample_id, {"infiles": [], "outfiles": []})["outfiles"].append(outfile)

    def report(
        self,
        batchsize: float,
        output_prefix: str | None = None,
        display_all_summary: bool = False,
        multi_threads: bool = False,
        more: Sequence[str] = (),
    ) -> None:
        """Print the figures, and write them to `<output_prefix>_summary.json` unless the prefix is None.

        The throughput counts `batchsize` samples for each run, or the mean of the recorded batch sizes, if there are any. With
        `multi_threads` executions may overlap, and the throughput uses the time during which at least one execution ran. The
        lines of `more` come before the line of the throughput. Raises FileError.
        """
        if not self._batchsizes and not isinstance(batchsize, numbers.Real):
            raise wrong_type("batchsize", "a number", batchsize)
        lines = [as_text("an entry of more", line) for line in as_list("more", more, "lines")]
        display_all_summary = as_bool("display_all_summary", display_all_summary)
        multi_threads = as_bool("multi_threads", multi_threads)
        target = None if output_prefix is None else f"{as_path('output_prefix', output_prefix)}_summary.json"
        compute = ListInfo.of(self.npu_compute_time_list)
        h2d, d2h = ListInfo.of(self.h2d_latency_list), ListInfo.of(self.d2h_latency_list)
        batch = sum(self._batchsizes) / len(self._batchsizes) if self._batchsizes else batchsize
        mean = self._busy_mean(compute.mean) if multi_threads else compute.mean
        throughput = 1000 * batch / mean if mean > 0 else 0.0
        both = display_all_summary
        said = (lambda info: f"mean = {info.mean}") if multi_threads else str
        _say("-----------------Performance Summary------------------")
        if both:
            _say(f"H2D_latency (ms): {said(h2d)}")
        if multi_threads:
            _say(f"NPU_compute_time (ms): mean = {mean}")
        else:
            _say(f"NPU_compute_time (ms): {compute}")
        if both:
            _say(f"D2H_latency (ms): {said(d2h)}")
        for line in lines:
            _say(line)
        _say(f"throughput 1000*batchsize.mean({_plain(batch)})/NPU_compute_time.mean({mean}): {throughput}")
        _say("------------------------------------------------------")
        figures = _mean_alone if multi_threads else _figures
        compute.mean = mean
        self.infodict.update(
            NPU_compute_time=figures(compute, self.npu_compute_time_list),
            H2D_latency=figures(h2d, self.h2d_latency_list),
            D2H_latency=figures(d2h, self.d2h_latency_list),
            npu_compute_time_list=_entries(self.npu_compute_time_list, multi_threads),
            throughput=throughput,
            pid=os.getpid(),
        )
        if target is not None:
            self.write(target)

    def write(self, path: str) -> None:
        """Write the JSON file: one line, readable by the group, completely or not at all. Raises FileError."""
        temporary = f"{path}.tmp"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(self.infodict, file, default=str)
            os.replace(temporary, path)
        except OSError as error:
            raise file_error(error, "write the summary") from None

    def _busy_mean(self, plain_mean: float) -> float:
        """Return the time during which at least one execution ran, per execution.

        If the entries are not (start, end) pairs, return their mean.
        """
        pairs = sorted(pair for pair in map(_pair, self.npu_compute_time_list) if pair is not None)
        if not pairs or len(pairs) != len(self.npu_compute_time_list):
            return plain_mean
        busy, (start, end) = 0.0, pairs[0]
        for next_start, next_end in pairs[1:]:
            if next_start > end:
                busy, start = busy + end - start, next_start
            end = max(end, next_end)
        return (busy + end - start) / len(pairs)


def _figures(info: ListInfo, times: Sequence[Any]) -> dict[str, float]:
    """Return the statistics of `times` under the names in the JSON file."""
    figures = asdict(info)
    figures[f"percentile({PERCENTILE}%)"] = figures.pop("percentile")
    return figures | {"count": len(times)}


def figures_of(times: Sequence[Any]) -> dict[str, float]:
    """Return the statistics of `times` in the form of the JSON file."""
    return _figures(ListInfo.of(times), times)


def _mean_alone(info: ListInfo, times: Sequence[Any]) -> dict[str, float]:
    """Return the only statistics that are known for overlapping executions."""
    return {"mean": info.mean, "count": len(times)}


def _entries(times: Sequence[Any], as_pairs: bool) -> list[Any]:
    """Return the times in the form of the JSON file: as recorded, or [start, end] if executions overlap."""
    if not as_pairs:
        return list(times)
    pairs = [_pair(entry) for entry in times]
    return [entry if pair is None else list(pair) for entry, pair in zip(times, pairs, strict=True)]


def _plain(number: float) -> str:
    return str(int(number)) if isinstance(number, int | np.integer) else str(float(number))


def _say(line: str) -> None:
    print(f"[INFO] {line}", flush=True)


def _pair(entry: Any) -> tuple[float, float] | None:
    try:
        start, end = entry
    except TypeError:
        return None
    return float(start), float(end)


def _milliseconds(entry: Any) -> float:
    pair = _pair(entry)
    return float(entry) if pair is None else pair[1] - pair[0]


summary = Summary()
