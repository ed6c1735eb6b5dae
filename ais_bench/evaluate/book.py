"""The writer of a run: records, scores, counts and run.json."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from ais_bench.errors import ConfigError
from ais_bench.evaluate.batches import SampleOutcome
from ais_bench.evaluate.folder import RunFolder
from ais_bench.evaluate.periodically import periodically
from ais_bench.evaluate.plan import versions
from ais_bench.evaluate.result import Records, Result
from ais_bench.evaluate.scoring import Scorer
from ais_bench.evaluate.tally import Clock, Tally, done_at, stages_of
from ais_bench.evaluate.text import json_ready
from ais_bench.evaluate.values import Unstorable, encode_value
from ais_bench.tuning import MOST_RESTARTS, RESTARTS_LOOK_S

__all__ = ["Book", "write_pictures"]


class Done:
    """The set of samples that have a record: one byte for each sample."""

    def __init__(self) -> None:
        self._marks = bytearray()
        self._count = 0

    def add(self, index: int) -> None:
        """Count one sample."""
        if index >= len(self._marks):
            self._marks.extend(bytes(index + 1 - len(self._marks)))
        self._count += not self._marks[index]
        self._marks[index] = 1

    def __contains__(self, index: int) -> bool:
        return index < len(self._marks) and self._marks[index] == 1

    def __len__(self) -> int:
        return self._count


class Book:
    """The writer of a run: records, scores, counts, and run.json.

    `done` has the samples with a record of an earlier turn. `add` must be called in the order of the data set. Records of an
    earlier turn are scored at their position in that order.
    """

    def __init__(self, scorer: Scorer, keep: bool, again: bool) -> None:
        self._scorer, self._keep, self._again = scorer, keep, again
        self.done = Done()
        self._folder: RunFolder | None = None
        self._spare: Any = None  # the file of records if there is no folder
        self._tally = Tally()
        self._earlier: Iterator[dict[str, Any]] = iter(())
        self._next: dict[str, Any] | None = None
        self._old: Records | None = None
        self._began = 0.0
        self._clock = Clock()
        self._restarts: list[dict[str, Any]] = []
        self._wall_s = 0.0
        self._status = "started"

    # ---- the folder ----

    def open(
        self, path: str, resume: bool, settings: dict[str, Any], model: dict[str, Any], count: int | None, notes: Any
    ) -> None:
        """Make the run folder, or open the existing one to resume. Raises ConfigError, OSError."""
        if resume and os.path.exists(os.path.join(path, "run.json")):
            self._folder = RunFolder.resume(path)
            self._check(settings, model, count)
        else:
            run = {
                "kind": "evaluate",
                "status": "started",
                "started": _now(),
                "model": model,
                "samples": count,
                "settings": settings,
                "metrics": self._scorer.names,
                "keeps_outputs": self._keep,
                "versions": versions(),
                "notes": notes or {},
                "turns": [],
            }
            self._folder = RunFolder.create(path, run)
        self._keep = bool(self._folder.run["keeps_outputs"])

    def _check(self, settings: dict[str, Any], model: dict[str, Any], count: int | None) -> None:
        assert self._folder is not None
        run, path = self._folder.run, self._folder.path
        digests = run["model"].get("sha256"), model.get("sha256")
        for what, before, now in (
            *((("model's SHA-256", *digests),) if None not in digests else ()),  # not every session provides it
            ("number of samples", run["samples"], count),
            *((name, run["settings"].get(name), value) for name, value in settings.items() if name != "dataset"),
        ):
            if before != now:
                raise ConfigError(f"{path} cannot be resumed: the {what} was {before!r} and is {now!r}")
        if self._scorer.wanted and not run["keeps_outputs"]:
            raise ConfigError(
                f"{path} keeps no outputs, so the samples that are there cannot be scored; resume it without metrics, or start "
                "a new run with keep_outputs=True"
            )

    def begin(self, devices: list[int]) -> None:
        """Start the clock of this turn."""
        if self._folder is None:
            self._spare = tempfile.TemporaryFile(prefix="ais_bench-records-")  # noqa: SIM115  # the result reads it
        else:
            self._take_up()
            self._clock = Clock()
            turn = {"started": _now(), "devices": devices, "samples_before": len(self.done), "restarts": self._restarts}
            self._folder.run["turns"].append(turn)
            self._folder.run["status"] = "started"
            self._folder.save()
        self._began = time.monotonic()

    def _take_up(self) -> None:
        """Count the records of earlier turns. They are scored later, in order."""
        assert self._folder is not None
        turns = self._folder.run["turns"]
        self._old = Records.of_folder(self._folder.path)
        ended = 0.0
        for record in self._old:
            ended = max(ended, done_at(record))
            if record["error"] is None or not self._again:
                self.done.add(record["index"])
                self._tally.add(record)
        if turns and "wall_s" not in turns[-1]:  # it was killed
            since = datetime.fromisoformat(turns[-1]["started"]).timestamp()
            turns[-1].update(wall_s=max(0.0, ended - since), status="killed")
        self._wall_s = sum(turn["wall_s"] for turn in turns)
        if self._scorer.wanted and self.done:
            self._earlier = iter(self._old)
            self._next = next(self._earlier, None)

    @contextlib.contextmanager
    def ends_well(self) -> Iterator[None]:
        """Record how the block ended."""
        try:
            yield
            self._score_earlier(None)
            if self._folder is not None:
                self._folder.sync()
            self._status = "success"
        except BaseException as error:
            self._status = "interrupted" if isinstance(error, KeyboardInterrupt) else "error"
            with contextlib.suppress(Exception):  # the first error is the one to raise
                self._end(f"{type(error).__name__}: {error}" if self._status == "error" else None)
            raise
        self._end(None)

    def _end(self, error: str | None) -> None:
        turn_s = time.monotonic() - self._began if self._began else 0.0
        self._wall_s += turn_s
        if self._folder is None:
            return
        run = self._folder.run
        try:
            self._folder.sync()
        finally:
            if self._began:
                run["turns"][-1].update(ended=_now(), wall_s=turn_s, status=self._status)
            run["status"] = self._status
            run["error"] = error
            self._folder.save()

    # ---- samples ----

    def add(self, index: int, name: str, outcome: SampleOutcome, item: Any, first: bool, padded: int) -> None:
        """Write the record of one sample, and score it."""
        record: dict[str, Any] = {"index": index, "id": name, **stages_of(item, self._clock), "error": outcome.failure}
        if not first:
            record["first"] = False
        elif padded:
            record["padded"] = padded
        if outcome.failure is None:
            self._score_earlier(index)
            if self._scorer.wanted:
                self._scorer.update(index, outcome.result, outcome.target)
            if self._keep:
                self._keep_values(record, outcome)
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if self._folder is None:
            self._spare.write(line)
        else:
            self._folder.add(line)
        self._tally.add(record)

    def _keep_values(self, record: dict[str, Any], outcome: SampleOutcome) -> None:
        ends = [0]

        def put(data: memoryview) -> int:
            assert self._folder is not None
            offset = self._folder.put_bytes(data)
            ends.append(offset + data.nbytes)
            return offset

        try:
            record["target"] = encode_value(outcome.target, put)
            record["output"] = encode_value(outcome.result, put)
        except Unstorable as error:
            record.pop("target", None)
            record["not_kept"] = str(error)
        if ends[-1]:
            record["bytes_end"] = ends[-1]

    def _score_earlier(self, before: int | None) -> None:
        """Score the records of earlier turns that come before a sample; None: all of them."""
        while self._next is not None and (before is None or self._next["index"] < before):
            record = self._next
            self._next = next(self._earlier, None)
            if record["error"] is None:
                assert self._old is not None
                self._scorer.update(record["index"], *self._old.value_of(record))

    @contextlib.contextmanager
    def notes_restarts(self, session: Any) -> Iterator[None]:
        """Record the restarts of workers while the block runs. A thread checks the session's counts."""
        if not hasattr(session, "report"):
            yield
            return
        seen = {device: counts.restarts for device, counts in session.report().devices.items()}

        def look() -> None:
            for device, counts in session.report().devices.items():
                more = counts.restarts - seen.get(device, 0)
                if more > 0 and len(self._restarts) < MOST_RESTARTS:
                    self._restarts.append({"device": device, "count": more, "at_s": round(time.time(), 3)})
                seen[device] = counts.restarts

        try:
            with periodically(look, RESTARTS_LOOK_S, "ais_bench-restarts"):
                yield
        finally:
            look()

    # ---- the end ----

    def result(self, session: Any) -> Result:
        """Return the result of a successful run."""
        metrics = self._scorer.compute()
        report: dict[str, Any] = {
            "status": self._status,
            "scored": self._scorer.scored,
            **self._tally.to_dict(self._wall_s),
            "restarts": sum(one["count"] for one in self._all_restarts()),
            "metrics": metrics,
            "metric_errors": self._scorer.errors,
        }
        if hasattr(session, "report"):
            report["session"] = session.report().to_dict()
        if self._folder is None:
            self._spare.flush()
            records, self._spare = Records(self._spare), None  # the result reads and closes it
            return Result(metrics, records, report, None, {})
        self._folder.write_report(json_ready(report))
        found = Result(metrics, Records.of_folder(self._folder.path), report, self._folder.path, self._folder.run)
        write_pictures(found)
        return found

    def _all_restarts(self) -> list[dict[str, Any]]:
        turns = [] if self._folder is None else self._folder.run["turns"][:-1]
        return [one for turn in turns for one in turn.get("restarts", ())] + self._restarts

    def close(self) -> None:
        """Close the files."""
        if self._old is not None:
            self._old.close()
        if self._folder is not None:
            self._folder.close()
        if self._spare is not None:
            self._spare.close()


def write_pictures(result: Result) -> None:
    """Write report.html and trace.json.gz into the run folder. If one cannot be made, the run is not affected."""
    from ais_bench.evaluate.page.page import write_page
    from ais_bench.evaluate.page.trace import write_trace

    assert result.path is not None
    for name, write in (
        ("report.html", lambda path: write_page([result], path)),
        ("trace.json.gz", lambda path: write_trace(result, path)),
    ):
        try:
            write(os.path.join(result.path, name))
        except Exception as error:
            warnings.warn(f"{name} was not written: {type(error).__name__}: {error}", stacklevel=2)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
