"""The run folder: the files that a run writes as it goes. They are valid after an interruption at any byte.

    run.json       settings, versions, the model's digest, status: replaced as a whole, never written in place
    records.jsonl  one line for each sample, appended
    outputs.bin    bytes of large results, appended before the line that refers to them
    report.json    the results, written at the end

A record is valid if its line ends with a newline and the bytes to which it refers exist. Everything after the last valid record
is removed when the folder is opened again, and its samples run again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from ais_bench.errors import ConfigError, file_error
from ais_bench.tuning import BUFFER_BYTES, FLUSH_S, SYNC_S

__all__ = ["RunFolder", "read_json", "write_json"]

FORMAT = 1
RUN, RECORDS, OUTPUTS, REPORT = "run.json", "records.jsonl", "outputs.bin", "report.json"
REPLACED = (RUN, REPORT, "report.html", "trace.json.gz")  # written as NAME.PID.tmp, then renamed


def write_json(path: str, content: Any) -> None:
    """Write a file as a whole or not at all. Raises OSError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read_json(path: str) -> Any:
    """Read a file of a run folder. Raises ConfigError."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise ConfigError(f"{path} must be a file of a run folder, but it cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from None


class _Log:
    """A file to which whole entries are appended. If an entry does not fit the disk, nothing of it is kept."""

    def __init__(self, path: str, end: int | None = None) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.path = path
        self.end = os.fstat(self._fd).st_size if end is None else end  # end of the written data
        os.ftruncate(self._fd, self.end)
        self._dirty = False

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`. If this raises OSError, nothing of it is in the file."""
        view, at = memoryview(data), self.end
        try:
            while view:
                done = os.pwrite(self._fd, view, at)
                view, at = view[done:], at + done
        except OSError as error:
            os.ftruncate(self._fd, self.end)
            error.filename = self.path
            raise
        self.end = at
        self._dirty = True

    def sync(self) -> None:
        if self._dirty:
            os.fsync(self._fd)
            self._dirty = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RunFolder:
    """A run folder that is open for writing, by one process at a time.

    Use `create` or `resume`. `run` is the content of run.json; `save()` writes it.
    """

    def __init__(self, path: str, run: dict[str, Any]) -> None:
        self.path = path
        self.run = run
        self._lock = self._take(path)
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._flushed = self._synced = time.monotonic()
        self._records: _Log | None = None
        self._outputs: _Log | None = None

    @staticmethod
    def _take(path: str) -> int:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise ConfigError(f"another process is writing to the run folder {path}") from None
        return lock

    @classmethod
    def create(cls, path: str, run: dict[str, Any]) -> RunFolder:
        """Make a folder for a new run. Raises ConfigError if it already has a run, and FileError."""
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise file_error(error, "make the run folder") from error
        self = cls(path, {"format": FORMAT, **run})
        try:
            if os.path.exists(os.path.join(path, RUN)) or os.path.exists(os.path.join(path, RECORDS)):
                raise ConfigError(f"{path} holds a run already; pass resume=True to go on with it, or another folder")
            self.save()
            self._open(0, 0)
        except BaseException:
            self.close()
            raise
        return self

    @classmethod
    def resume(cls, path: str) -> RunFolder:
        """Open the folder of an interrupted run. Raises ConfigError."""
        run = read_json(os.path.join(path, RUN))
        if run.get("format") != FORMAT:
            raise ConfigError(f"{path} was written in format {run.get('format')!r}; this version reads {FORMAT}")
        self = cls(path, run)
        try:
            _sweep(path)
            outputs = os.path.join(path, OUTPUTS)
            there = os.path.getsize(outputs) if os.path.exists(outputs) else 0
            end, used = _sound_part(os.path.join(path, RECORDS), there)
            self._open(end, used)
        except BaseException:
            self.close()
            raise
        return self

    def _open(self, records_end: int, outputs_end: int) -> None:
        self._records = _Log(os.path.join(self.path, RECORDS), records_end)
        if outputs_end or os.path.exists(os.path.join(self.path, OUTPUTS)):
            self._outputs = _Log(os.path.join(self.path, OUTPUTS), outputs_end)

    def save(self) -> None:
        """Write run.json. Raises OSError."""
        write_json(os.path.join(self.path, RUN), self.run)

    def put_bytes(self, data: memoryview) -> int:
        """Append to outputs.bin and return the offset. Raises OSError."""
        if self._outputs is None:
            self._outputs = _Log(os.path.join(self.path, OUTPUTS), 0)
        offset = self._outputs.end
        self._outputs.write(data)
        return offset

    def add(self, line: bytes) -> None:
        """Append one record, a line with its newline. Raises OSError; earlier records stay."""
        self._buffer.append(line)
        self._buffered += len(line)
        now = time.monotonic()
        if self._buffered >= BUFFER_BYTES or now - self._flushed >= FLUSH_S:
            self.flush()
            self._flushed = now
            if now - self._synced >= SYNC_S:
                self.sync()
                self._synced = time.monotonic()

    def flush(self) -> None:
        """Hand buffered records to the operating system. If the disk is full, keep the records that fit and raise OSError."""
        assert self._records is not None
        lines, self._buffer, self._buffered = self._buffer, [], 0
        if not lines:
            return
        try:
            self._records.write(b"".join(lines))
        except OSError:
            with contextlib.suppress(OSError):  # the same error again
                for line in lines:
                    self._records.write(line)
            raise

    def sync(self) -> None:
        """Wait until everything is on the disk, outputs before the records that refer to them."""
        self.flush()
        for log in (self._outputs, self._records):
            if log is not None:
                log.sync()

    def write_report(self, report: dict[str, Any]) -> None:
        """Write report.json. Raises OSError."""
        write_json(os.path.join(self.path, REPORT), report)

    def close(self) -> None:
        """Close the folder's files and release its lock. Idempotent."""
        for log in (self._outputs, self._records):
            if log is not None:
                log.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _sweep(path: str) -> None:
    """Remove temporary files of a process that was killed while it replaced a file. The caller holds the folder's lock."""
    for name in os.listdir(path):
        if name.endswith(".tmp") and name.split(".tmp")[0].rpartition(".")[0] in REPLACED:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(path, name))


def _sound_part(path: str, outputs_there: int) -> tuple[int, int]:
    """Return how many bytes of the records, and of the outputs, are valid."""
    end = used = 0
    if not os.path.exists(path):
        return 0, 0
    for line in _lines(path):
        try:
            record = json.loads(line)
            needed = record.get("bytes_end", used)
            if not isinstance(record["index"], int) or needed > outputs_there:
                break
        except (ValueError, KeyError, AttributeError, TypeError):
            break
        end += len(line)
        used = max(used, needed)
    return end, used


def _lines(path: str) -> Iterator[bytes]:
    """Yield the lines that end with a newline."""
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line
