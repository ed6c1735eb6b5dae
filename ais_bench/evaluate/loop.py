"""`evaluate()`: run every sample of a data set through a model, in order, and make records and scores."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from ais_bench.errors import ConfigError, PoolBroken, PoolClosed, SessionClosed, TaskTimeout, WorkerDied, WorkerStartError
from ais_bench.evaluate.batches import Batch, Finisher, Inputs, Reader, SampleOutcome, SamplesFailed, failure_of
from ais_bench.evaluate.book import Book
from ais_bench.evaluate.lanes import Lane, in_the_workers, in_this_process, inputs_of
from ais_bench.evaluate.plan import batch_size_for, check_number, model_facts
from ais_bench.evaluate.progress import Progress
from ais_bench.evaluate.result import Result
from ais_bench.evaluate.scoring import Scorer
from ais_bench.evaluate.sources import SampleSource, source_of
from ais_bench.options import check_names, known_options, wrong, wrong_type
from ais_bench.tuning import MORE_ROUNDS

__all__ = ["evaluate"]

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
    session: Callable[..., Any] | None = None,
    **session_options: Any,
) -> Result:
    """Run a data set through a model on all devices, score it, and return a Result. docs/evaluate.md explains each argument.

    Args:
        model_or_session: a path or bytes; or an open session without callables. The session stays open, and samples are read
            in this process.
        dataset: an object with `__len__` and `__getitem__`, or with `__iter__`; or a folder, or a list, of files.
        target, preprocess: functions of a sample that return its true answer, and its feeds. None: by the sample's kind.
        postprocess: function of the outputs of one sample, with a batch axis of 1; its result goes to the metrics. None: the
            outputs.
        metrics, final: one metric, several, or a mapping by name; a function of all outputs and all targets.
        batch_size: samples of one run. None: the model's own batch size, or 1. Copies fill a short last batch.
        devices, session_options: as for MultiDeviceSession, or for the class in `session`.
        limit, seed: run the first `limit` samples; with a seed, random samples. `random` is seeded again for each sample.
        progress: whether to show the progress on stderr; or a class like tqdm.
        output, resume: the run folder; whether to continue the run in it. "failed": also run its failed samples again.
        on_error, mode: "record" a failed sample and go on, or "raise" its error; the mode of the runs, as for `infer`.
        keep_outputs: whether to keep outputs and targets in the run folder. None: if there is a metric.
        notes, watch: anything for run.json; a function of the session that returns a context around the run.
        session: the class of the session. None: MultiDeviceSession; on several servers: ais_bench.ray.ClusterSession.

    Raises ConfigError before anything runs; a sample's error with on_error="raise"; PoolBroken, WorkerStartError, OSError.
    """
    _check_options(session_options, session)
    scorer = Scorer(metrics, final)
    asked = _checked(dataset, target, preprocess, postprocess, scorer, batch_size, limit, seed, on_error, output, keep_outputs)
    with contextlib.ExitStack() as stack:
        book = stack.enter_context(_book(asked, model_or_session, output, resume, mode, notes))
        with book.ends_well():
            opened, own = _session(model_or_session, devices, asked, session_options, session)
            if own:
                stack.enter_context(opened)
                opened.start()
            with Progress(asked.source.count, _title(model_or_session), progress) as bar:
                _run(asked, opened, own, mode, book, watch, bar)
        return book.result(opened)


@contextlib.contextmanager
def _book(asked: _Asked, model: Any, output: Any, resume: bool | str, mode: str, notes: Any) -> Iterator[Book]:
    """Open the records of the run, in its folder if it has one."""
    if resume and output is None:
        raise ConfigError("resume=True needs output=, the run folder to go on with")
    with contextlib.closing(Book(asked.scorer, asked.keep, again=resume == "failed")) as book:
        if output is not None:
            settings, path = {**asked.settings(), "mode": mode}, os.path.abspath(os.fspath(output))
            book.open(path, bool(resume), settings, _facts(model), asked.source.count, notes)
        yield book


def _run(
    asked: _Asked, opened: Any, own: bool, mode: str, book: Book, watch: Callable[[Any], Any] | None, bar: Progress
) -> None:
    inputs, outputs = opened.get_inputs(), opened.get_outputs()
    lane = in_the_workers(opened, mode) if own else in_this_process(opened, mode, asked.reader, asked.finisher)
    size = batch_size_for(asked.batch_size, inputs, outputs)
    run = _Run(lane, asked.source, size, inputs_of(inputs), book, asked.alone)
    with watch(opened) if watch is not None else contextlib.nullcontext(), book.notes_restarts(opened):
        run.all(bar, _devices(opened))


def _facts(model_or_session: Any) -> dict[str, Any]:
    """Return the run folder's facts about the model; empty if the session does not provide them, or the file is gone."""
    if not hasattr(model_or_session, "infer"):
        return model_facts(model_or_session)
    model = getattr(model_or_session, "model_path", None)
    if isinstance(model, (bytes, bytearray)) or (isinstance(model, (str, os.PathLike)) and os.path.isfile(model)):
        return model_facts(model)
    return {}


class _Asked(NamedTuple):
    """The checked arguments of `evaluate`."""

    source: SampleSource
    scorer: Scorer
    batch_size: int | None
    limit: int | None
    seed: int | None
    alone: bool  # whether a failed sample leaves the others running
    keep: bool  # whether outputs and targets are kept in the run folder
    reader: Reader
    finisher: Finisher

    def settings(self) -> dict[str, Any]:
        """The settings that decide which samples run together, in the form of run.json."""
        return {"batch_size": self.batch_size, "limit": self.limit, "seed": self.seed, "dataset": self.source.kind}


def _checked(
    dataset: Any,
    target: Any,
    preprocess: Any,
    postprocess: Any,
    scorer: Scorer,
    batch_size: Any,
    limit: Any,
    seed: Any,
    on_error: str,
    output: Any,
    keep_outputs: bool | None,
) -> _Asked:
    """Return the checked arguments. Raises ConfigError for an invalid data set, function or number."""
    if on_error not in ("record", "raise"):
        raise wrong("on_error", "'record' or 'raise'", on_error)
    for name, function in (("target", target), ("preprocess", preprocess), ("postprocess", postprocess)):
        if function is not None and not callable(function):
            raise wrong_type(name, "a function of one argument, or None", function)
    batch_size, limit = check_number("batch_size", batch_size, 1), check_number("limit", limit, 0)
    seed = check_number("seed", seed, 0)
    source = source_of(dataset)
    source.choose(limit, seed)
    alone = on_error == "record"
    keep = output is not None and (scorer.wanted if keep_outputs is None else bool(keep_outputs))
    reader = Reader(source.data, target, preprocess, seed, alone)
    return _Asked(
        source, scorer, batch_size, limit, seed, alone, keep, reader, Finisher(postprocess, scorer.wanted or keep, alone)
    )


def _check_options(options: dict[str, Any], make: Callable[..., Any] | None) -> None:
    """Raise ConfigTypeError for a name that is neither an argument of `evaluate` nor an option of the session. The options of a
    foreign function are not checked, because they are not known."""
    if options and (make is None or hasattr(make, "_option_names")):
        from ais_bench.session import MultiDeviceSession

        names = (MultiDeviceSession if make is None else make)._option_names()
        check_names(options, [*known_options(evaluate), *names], "option")


def _title(model: Any) -> str:
    return os.path.basename(os.fspath(model)) if isinstance(model, (str, os.PathLike)) else "evaluate"


def _devices(session: Any) -> list[int]:
    devices = getattr(session, "devices", None)
    return list(devices) if devices is not None else [session.device_id]


def _session(
    model: Any,
    devices: Any,
    asked: _Asked,
    options: dict[str, Any],
    make: Callable[..., Any] | None,
) -> tuple[Any, bool]:
    """Return the session to run on, and whether it was made here. Raises ConfigError."""
    if hasattr(model, "map") or hasattr(model, "infer"):
        given = [*(["devices"] if devices is not None else []), *(["session"] if make is not None else []), *options]
        if given:
            raise ConfigError(f"a given session has its own options; set {', '.join(given)} when you make it")
        return model, False
    if make is None:
        from ais_bench.session import MultiDeviceSession

        make = MultiDeviceSession
    made = make(model, devices=devices, preprocess=asked.reader, postprocess=asked.finisher, on_error="return", **options)
    return made, True


class _Run:
    """Sends batches to the session, and handles their outcomes in order."""

    def __init__(self, lane: Lane, source: SampleSource, size: int, inputs: Inputs, book: Book, alone: bool) -> None:
        self._lane, self._source, self._size, self._inputs = lane, source, size, inputs
        self._book, self._alone = book, alone

    def all(self, bar: Progress, devices: list[int]) -> None:
        """Run all samples that have no record yet."""
        self._book.begin(devices)
        bar.count = len(self._book.done)
        for batch, answer, item in self._lane(self._batches()):
            padded = batch.size - len(batch.entries)
            for first, (index, outcome, where) in enumerate(self._outcomes_of(batch, answer, item)):
                self._book.add(index, self._source.name(index), outcome, where, first == 0, padded)
                bar.count += 1
                bar.failed += outcome.failure is not None

    def _batches(self) -> Iterator[Batch]:
        """Yield batches. Their samples depend on the data set alone, even if some samples already have a record."""
        entries: list[tuple[int, int, Any]] = []
        for place, (index, sample) in enumerate(self._source.items()):
            if index not in self._book.done:
                entries.append((place % self._size, index, sample))
            if (place + 1) % self._size == 0 and entries:
                yield Batch(self._size, tuple(entries), self._inputs)
                entries = []
        if entries:
            yield Batch(self._size, tuple(entries), self._inputs)

    def _outcomes_of(self, batch: Batch, answer: Any, item: Any) -> Iterator[tuple[int, SampleOutcome, Any]]:
        """Yield (index, outcome, item) of every sample of a batch. Raises an error that is not a sample's failure."""
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

    def _again(self, batch: Batch, error: Exception, item: Any) -> Iterator[tuple[int, SampleOutcome, Any]]:
        """Run the samples of a failed batch one by one, each at its position in the batch, so that results keep their bits."""
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
                yield entry[1], SampleOutcome(failure=failure_of(answer)), where
