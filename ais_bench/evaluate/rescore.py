"""Score a finished run from the data in its folder, without inference."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

from ais_bench.errors import ConfigError
from ais_bench.evaluate.folder import REPORT, write_json
from ais_bench.evaluate.result import Result, load
from ais_bench.evaluate.scoring import Scorer
from ais_bench.evaluate.text import json_ready
from ais_bench.options import unknown_argument

__all__ = ["score"]


def score(
    run: str | os.PathLike[str] | Result,
    metrics: Any = (),
    *,
    final: Callable[[list[Any], list[Any]], Any] | None = None,
    write: bool = False,
    **unknown: NoReturn,
) -> Result:
    """Score a run folder again, with the same or other metrics, and return its Result with these scores.

    Metrics and their order are as for `evaluate`. `write`: write the scores into report.json. Raises ConfigError if a sample's
    output was not kept.
    """
    if unknown:
        raise unknown_argument(unknown, score)
    found = run if isinstance(run, Result) else load(run)
    scorer = Scorer(metrics, final)
    if not scorer.wanted:
        raise ConfigError("score needs metrics= or final=")
    for record in found.records:
        if record["error"] is None:
            scorer.update(record["index"], *found.records.value_of(record))
    scores = scorer.compute()
    report = {**found.report, "scored": scorer.scored, "metrics": scores, "metric_errors": scorer.errors}
    if write:
        if found.path is None:
            raise ConfigError("write=True needs a result with a run folder")
        write_json(os.path.join(found.path, REPORT), json_ready(report))
    return Result(scores, found.records, report, found.path, found.run)
