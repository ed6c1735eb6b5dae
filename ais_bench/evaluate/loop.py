"""`evaluate()`: every sample of a data set through a model, in order, with its record and its scores."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, Literal

from ais_bench.errors import ConfigError, PoolBroken, PoolClosed, SessionClosed, TaskTimeout, WorkerDied, WorkerStartError
from ais_bench.evaluate.batches import Batch, Finisher, Inputs, Outcome, Reader, SamplesFailed, failure_of
from ais_bench.evaluate.folder import RunFolder
from ais_bench.evaluate.lanes import Lane, in_the_workers, in_this_process, inputs_of
from ais_bench.evaluate.plan import batch_size_for, check_number, model_facts, versions
from ais_bench.evaluate.progress import Progress
from ais_bench.evaluate.result import Records, Result
from ais_bench.evaluate.scoring import Scorer
from ais_bench.evaluate.sources import Source, source_of
from ais_bench.evaluate.tally import Tally, stages_of
from ais_bench.evaluate.values import Unstorable, encode_value

__all__ = ["evaluate"]

# A sample whose workers died runs so many times more, by itself, before it counts as the culprit: workers may also be killed by
# somebody else, again and again.
MORE_ROUNDS = 2
_NOT_THE_SAMPLES = (PoolBroken, PoolClosed, SessionClosed, WorkerStartError)


def evaluate(
    model_or_session: Any,
    dataset: Any,
    *,
    target: Callable[[Any], Any] | None = None,
    preprocess: Callable[[Any], Any] | None = None,
    postprocess: Callable[[Any], Any] | None = None,
    metrics: Any = (),
    final: Callable[[list[Any], list[Any]], Any] | None = None,
    batch_size: int | None = None,
    devices: Any = None,
    limit: int | None = None,
    seed: int | None = None,
    progress: Any = True,
    output: str | os.PathLike[str] | None = None,
    resume: bool | Literal["failed"] = False,
    on_error: Literal["record", "raise"] = "record",
    mode: str = "static",
    keep_outputs: bool | None = None,
    notes: dict[str, Any] | None = None,
    watch: Callable[[Any], contextlib.AbstractContextManager[Any]] | None = None,
    **session_options: Any,
) -> Result:
    """Run a data set through a model on all devices, and score it.

    Args:
        model_or_session: a path or bytes, for which a MultiDeviceSession is made and closed; or a session of yours, which stays
            open: then samples are read, prepared and finished in this process. It must have no callables of its own.
        dataset: anything with `__len__` and `__getitem__`, whose samples are read in the workers; or with `__iter__`, whose
            samples travel there; or a folder, or a list, of `.npy`, `.bin` and image files.
        target: of a sample, its true answer. None: the second of a sample that is a tuple (feeds, target), what a sample that
            is a mapping has as "label" or "target", or None.
        preprocess: of a sample, the feeds of that sample: an array, a list with one for each input, or a mapping by input
            name, with or without a batch axis of 1. None: the sample without its target.
        postprocess: of the outputs of one sample, a list of arrays with the batch axis kept, what the metrics see. It should be
            small: it comes back to this process.
        metrics: one, several, or a mapping by name, of objects with `update(outputs, target)` and `compute()`, objects with
            `add_batch(predictions=, references=)` and `compute()`, and functions of (outputs, target), whose numbers are
            averaged. They are updated here, in the order of the data set.
        final: a function of all outputs and all targets; it returns a number, or numbers by name.
        batch_size: samples of one run. None: what the model was built for, or 1. A short last batch is filled with copies,
            whose results are dropped.
        devices: as for MultiDeviceSession.
        limit: so many samples: the first, or, with `seed`, some drawn at random.
        seed: see `limit`; besides, `random` and numpy's generator start anew for each sample, from the seed and its index.
        progress: show on stderr how far it is; or a class like tqdm.
        output: the run folder, see docs/evaluate.md. None: nothing is written.
        resume: go on with the run of that folder, if there is one; devices and metrics may be others than before. "failed":
            samples that failed run again, too.
        on_error: "record" a sample that fails, and go on, or "raise" its error.
        mode: of the runs, as for `infer`.
        keep_outputs: keep what postprocess returned, and the targets, in the run folder. None: if anything is scored. Without
            them a run can neither be resumed with metrics nor scored again.
        notes: anything for run.json.
        watch: a function of the session that returns a context, in which the run takes place.
        session_options: as for MultiDeviceSession.

    Returns a Result. Raises ConfigError before anything runs; what a sample raises with on_error="raise"; PoolBroken and
    WorkerStartError; OSError of the run folder. Whatever was written stays, and `resume` goes on with it.
    """
    if on_error not in ("record", "raise"):
        raise ConfigError(f'on_error is "record" or "raise", not {on_error!r}')
    for name, function in (("target", target), ("preprocess", preprocess), ("postprocess", postprocess)):
        if function is not None and not callable(function):
            raise ConfigError(f"{name} is {function!r}; it is a function of one argument")
    batch_size, limit = check_number("batch_size", batch_size, 1), check_number("limit", limit, 0)
    seed = check_number("seed", seed, 0)
    if resume and output is None:
        raise ConfigError("resume=True needs output=, the run folder to go on with")
    scorer = Scorer(metrics, final)
    source = source_of(dataset)
    source.choose(limit, seed)
    keep = output is not None and (scorer.wanted if keep_outputs is None else bool(keep_outputs))
    alone = on_error == "record"
    reader = Reader(source.data, target, preprocess, seed, alone)
    finisher = Finisher(postprocess, scorer.wanted or keep, alone)
    settings = {"batch_size": batch_size, "limit": limit, "seed": seed, "mode": mode, "dataset": source.kind}
    with contextlib.ExitStack() as stack:
        book = _Book(scorer, keep, again=resume == "failed")
        stack.callback(book.close)
        if output is not None:
            facts = {} if hasattr(model_or_session, "infer") else model_facts(model_or_session)
            book.open(os.path.abspath(os.fspath(output)), bool(resume), settings, facts, source.count, notes)
        with book.ends_well():
            session, own = _session(model_or_session, devices, reader, finisher, session_options)
            if own:
                stack.enter_context(session)
                session.start()
            inputs, outputs = session.get_inputs(), session.get_outputs()
            lane = in_the_workers(session, mode) if own else in_this_process(session, mode, reader, finisher)
            run = _Run(lane, source, batch_size_for(batch_size, inputs, outputs), inputs_of(inputs), book, alone)
            if watch is not None:
                stack.enter_context(watch(session))
            with Progress(source.count, _title(model_or_session), progress) as bar:
                run.all(bar, _devices(session))
        return book.result(session)


def _title(model: Any) -> str:
    return os.path.basename(os.fspath(model)) if isinstance(model, (str, os.PathLike)) else "evaluate"


def _devices(session: Any) -> list[int]:
    devices = getattr(session, "devices", None)
    return list(devices) if devices is not None else [session.device_id]


def _session(model: Any, devices: Any, reader: Reader, finisher: Finisher, options: dict[str, Any]) -> tuple[Any, bool]:
    """The session to run on, and whether it was made here. Raises ConfigError."""
    if hasattr(model, "map") or hasattr(model, "infer"):
        given = [*(["devices"] if devices is not None else []), *options]
        if given:
            raise ConfigError(f"a session was given, so {', '.join(given)} cannot be; they belong to the one who makes it")
        return model, False
    from ais_bench.session import MultiDeviceSession

    made = MultiDeviceSession(model, devices=devices, preprocess=reader, postprocess=finisher, on_error="return", **options)
    return made, True


class _Run:
    """Batches out, outcomes in, in order."""

    def __init__(self, lane: Lane, source: Source, size: int, inputs: Inputs, book: _Book, alone: bool) -> None:
        self._lane, self._source, self._size, self._inputs = lane, source, size, inputs
        self._book, self._alone = book, alone

    def all(self, bar: Progress, devices: list[int]) -> None:
        """Run what has no record yet."""
        self._book.begin(devices, self._source)
        bar.count = len(self._book.done)
        for batch, answer, item in self._lane(self._batches()):
            padded = batch.size - len(batch.entries)
            for first, (index, outcome, where) in enumerate(self._settle(batch, answer, item)):
                self._book.add(index, self._source.name(index), outcome, where, first == 0, padded)
                bar.count += 1
                bar.failed += outcome.failure is not None

    def _batches(self) -> Iterator[Batch]:
        """The samples of a batch depend on the data set alone, also when some of them are there already."""
        entries: list[tuple[int, int, Any]] = []
        for place, (index, sample) in enumerate(self._source.items()):
            if index not in self._book.done:
                entries.append((place % self._size, index, sample))
            if (place + 1) % self._size == 0 and entries:
                yield Batch(self._size, tuple(entries), self._inputs)
                entries = []
        if entries:
            yield Batch(self._size, tuple(entries), self._inputs)

    def _settle(self, batch: Batch, answer: Any, item: Any) -> Iterator[tuple[int, Outcome, Any]]:
        """(index, outcome, item) of every sample of a batch. Raises what is no sample's failure."""
        if isinstance(answer, SamplesFailed):
            outcomes = answer.outcomes
        elif not isinstance(answer, BaseException):
            outcomes = answer
        elif isinstance(answer, _NOT_THE_SAMPLES) or not isinstance(answer, Exception):
            raise answer
        else:
            yield from self._again(batch, answer, item)
            return
        indexes = {place: index for place, index, _ in batch.entries}
        for place, outcome in outcomes:
            yield indexes[place], outcome, item

    def _again(self, batch: Batch, error: Exception, item: Any) -> Iterator[tuple[int, Outcome, Any]]:
        """A batch failed as a whole: its samples by themselves, each in its place, so that results keep their bits."""
        deadly = (WorkerDied, TaskTimeout)
        rounds = MORE_ROUNDS if isinstance(error, WorkerDied) else 0
        if len(batch.entries) > 1:
            rounds = max(rounds, 1)
        for entry in batch.entries:
            single = Batch(batch.size, (entry,), batch.inputs)
            answer: Any = error
            where = item
            for _ in range(rounds):
                ((_, answer, where),) = self._lane([single])
                if not isinstance(answer, deadly):
                    break
            if isinstance(answer, SamplesFailed):
                answer = answer.outcomes
            if not isinstance(answer, BaseException):
                yield entry[1], answer[0][1], where
            elif not self._alone or isinstance(answer, _NOT_THE_SAMPLES) or not isinstance(answer, Exception):
                raise answer
            else:
                yield entry[1], Outcome(failure=failure_of(answer)), where


class _Book:
    """The one who writes: records, scores, counts, and run.json.

    `done` holds the indexes with a record. `add` is called in the order of the data set; records of an earlier turn are scored
    when their place in that order comes.
    """

    def __init__(self, scorer: Scorer, keep: bool, again: bool) -> None:
        self._scorer, self._keep, self._again = scorer, keep, again
        self.done: set[int] = set()
        self._folder: RunFolder | None = None
        self._spare: Any = None  # where records go without a folder
        self._tally = Tally()
        self._earlier: Iterator[dict[str, Any]] = iter(())
        self._next: dict[str, Any] | None = None
        self._old: Records | None = None
        self._began = 0.0
        self._wall_s = 0.0
        self._status = "started"

    # ---- the folder ----

    def open(
        self, path: str, resume: bool, settings: dict[str, Any], model: dict[str, Any], count: int | None, notes: Any
    ) -> None:
        """Make the folder, or take up the one that is there. Raises ConfigError, OSError."""
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
        for what, before, now in (
            ("model's SHA-256", run["model"].get("sha256"), model.get("sha256")),
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

    def begin(self, devices: list[int], source: Source) -> None:
        """The clock starts."""
        if self._folder is None:
            self._spare = tempfile.TemporaryFile(prefix="ais_bench-records-")  # noqa: SIM115  # the result reads it
        else:
            self._take_up()
            self._folder.run["turns"].append({"started": _now(), "devices": devices, "samples_before": len(self.done)})
            self._folder.run["status"] = "started"
            self._folder.save()
        self._began = time.monotonic()

    def _take_up(self) -> None:
        """Count the records of earlier turns; their scores follow in order."""
        assert self._folder is not None
        turns = self._folder.run["turns"]
        self._old = Records.of_folder(self._folder.path)
        ended = 0.0
        for record in self._old:
            ended = max(ended, record.get("started_s", 0.0) + record.get("end_to_end_ms", 0.0) / 1e3)
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
        """Write down how the block ended."""
        try:
            yield
            self._score_earlier(None)
            if self._folder is not None:
                self._folder.sync()
            self._status = "success"
        except BaseException as error:
            self._status = "interrupted" if isinstance(error, KeyboardInterrupt) else "error"
            with contextlib.suppress(Exception):  # the first error is the one to tell
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

    def add(self, index: int, name: str, outcome: Outcome, item: Any, first: bool, padded: int) -> None:
        """Write one sample down, and score it."""
        record: dict[str, Any] = {"index": index, "id": name, **stages_of(item), "error": outcome.failure}
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
        self.done.add(index)
        self._tally.add(record)

    def _keep_values(self, record: dict[str, Any], outcome: Outcome) -> None:
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
        """Score the records of earlier turns that come before a sample; all of them for None."""
        while self._next is not None and (before is None or self._next["index"] < before):
            record = self._next
            self._next = next(self._earlier, None)
            if record["error"] is None:
                assert self._old is not None
                self._scorer.update(record["index"], *self._old.value_of(record))

    # ---- the end ----

    def result(self, session: Any) -> Result:
        """The result of a run that ended well."""
        metrics = self._scorer.compute()
        report: dict[str, Any] = {
            "status": self._status,
            "scored": self._scorer.scored,
            **self._tally.to_dict(self._wall_s),
            "metrics": metrics,
            "metric_errors": self._scorer.errors,
        }
        if hasattr(session, "report"):
            report["session"] = session.report().to_dict()
        if self._folder is None:
            self._spare.flush()
            return Result(metrics, Records(self._spare), report, None, {})
        self._folder.write_report(json_ready(report))
        found = Result(metrics, Records.of_folder(self._folder.path), report, self._folder.path, self._folder.run)
        write_pictures(found)
        return found

    def close(self) -> None:
        """Let the files go."""
        if self._old is not None:
            self._old.close()
        if self._folder is not None:
            self._folder.close()


def write_pictures(result: Result) -> None:
    """Write report.html and trace.json.gz into the run folder. A picture that cannot be made costs nothing but itself."""
    import warnings

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


def json_ready(value: Any) -> Any:
    """The same with texts in place of what JSON does not have: NaN as null, arrays as lists of numbers, the rest by repr."""
    if isinstance(value, dict):
        return {str(key): json_ready(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(entry) for entry in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "tolist"):
        return json_ready(value.tolist())
    return repr(value)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
