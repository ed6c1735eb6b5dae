"""The result of an evaluation, from a run or from a run folder."""

from __future__ import annotations

import io
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, overload

from ais_bench.errors import ConfigError
from ais_bench.evaluate.folder import OUTPUTS, RECORDS, REPORT, RUN, read_json
from ais_bench.evaluate.values import decode_value

__all__ = ["Records", "Result", "load"]


class Records(Sequence[dict[str, Any]]):
    """The records of a run, one dict for each sample, in the order of the data set. Each access reads them from their file.

    A record has `target` and `output` as JSON; `value_of(record)` returns them with their types.
    """

    def __init__(self, file: BinaryIO, outputs: str | None = None) -> None:
        self._file = file
        self._outputs = outputs
        self._starts = array("Q")
        indexes = array("q")
        start, ordered, newest = 0, True, -1
        file.seek(0)
        for line in file:
            if not line.endswith(b"\n"):
                break
            index = json.loads(line)["index"]
            ordered, newest = ordered and index > newest, index
            indexes.append(index)
            self._starts.append(start)
            start += len(line)
        if not ordered:  # some samples ran again: the newest record of each counts
            newest_of = dict(zip(indexes, self._starts, strict=True))
            self._starts = array("Q", (newest_of[index] for index in sorted(newest_of)))

    @classmethod
    def of_folder(cls, path: str) -> Records:
        """Open the records of a run folder. Raises OSError."""
        file = open(os.path.join(path, RECORDS), "rb")  # noqa: SIM115  # it stays open
        return cls(file, os.path.join(path, OUTPUTS))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        self._file.seek(self._starts[index])
        record: dict[str, Any] = json.loads(self._file.readline())
        return record

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def value_of(self, record: dict[str, Any]) -> tuple[Any, Any]:
        """Return (output, target) of a record, with their types. Raises ConfigError if the run did not keep them."""
        if "output" not in record:
            reason = record.get("not_kept", "the run was asked not to keep outputs, or nothing needed them")
            raise ConfigError(f"sample {record['id']!r} has no output in its record: {reason}")
        return decode_value(record["output"], self._bytes), decode_value(record["target"], self._bytes)

    def _bytes(self, offset: int, number: int) -> bytes:
        if self._outputs is None:
            raise ConfigError("these records have no file of outputs")
        with open(self._outputs, "rb") as file:
            file.seek(offset)
            return file.read(number)

    def to_parquet(self, path: str | os.PathLike[str]) -> int:
        """Write the records to a Parquet file and return their number. Results are columns of JSON.

        Raises UnsupportedError if pyarrow is not installed (the extra `parquet`), and OSError.
        """
        from ais_bench.evaluate.parquet import write_parquet

        return write_parquet(self, os.path.abspath(os.fspath(path)))

    def close(self) -> None:
        """Close the file. Dropping the last reference closes it, too."""
        self._file.close()

    __del__ = close


class Result:
    """The outcome of an evaluation.

    Attributes:
        metrics: scores by the names of the metrics.
        metric_errors: the errors of metrics that raised, by name; such a metric has no score.
        records: one dict for each sample, see Records.
        failures: the records of samples that failed.
        report: counts, times and rates, ready for JSON.
        path: the run folder, or None.
    """

    def __init__(
        self, metrics: dict[str, Any], records: Records, report: dict[str, Any], path: str | None, run: dict[str, Any]
    ) -> None:
        self.metrics = metrics
        self.metric_errors: dict[str, str] = report.get("metric_errors", {})
        self.records = records
        self.report = report
        self.path = path
        self.run = run

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The records of samples that failed."""
        if not self.report.get("failed"):
            return []
        return [record for record in self.records if record["error"] is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the records, ready for JSON."""
        return {"path": self.path, "run": self.run, "report": self.report}

    def __repr__(self) -> str:
        scores = ", ".join(f"{name}={value!r}" for name, value in self.metrics.items() if not isinstance(value, (list, dict)))
        return f"<Result of {self.report['samples']} samples, {self.report['failed']} failed{': ' + scores if scores else ''}>"

    def __str__(self) -> str:
        from ais_bench.evaluate.text import report_text

        return report_text(self.report)


def load(path: str | os.PathLike[str]) -> Result:
    """Open a run folder. If the run did not end, its report has only counts. Raises ConfigError."""
    folder = os.path.abspath(os.fspath(path))
    run = read_json(os.path.join(folder, RUN))
    try:
        records = Records.of_folder(folder) if run.get("kind") == "evaluate" else Records(io.BytesIO())
    except OSError as error:
        raise ConfigError(f"{folder} must be a run folder, but {RECORDS} cannot be read: {error.strerror}") from None
    report_file = os.path.join(folder, REPORT)
    if os.path.exists(report_file):
        report = read_json(report_file)
    elif run.get("kind") != "evaluate":
        report = {}
    else:
        failed = sum(record["error"] is not None for record in records)
        report = {"status": run.get("status"), "samples": len(records), "failed": failed, "metrics": {}}
    return Result(report.get("metrics", {}), records, report, folder, run)
