"""Run MLPerf LoadGen with a session as the system under test. The clock, the rules, the verdict and the logs are LoadGen's."""

from __future__ import annotations

import os
import re
import threading
from typing import Any

from ais_bench.errors import ConfigError, UnsupportedError
from ais_bench.options import one_of, wrong

__all__ = ["SCENARIOS", "run_scenario"]

SCENARIOS = ("offline", "single-stream", "multi-stream", "server")
_NAMES = {"offline": "Offline", "single-stream": "SingleStream", "multi-stream": "MultiStream", "server": "Server"}
LIBRARY = 1024  # number of samples from which LoadGen draws; all have the same generated data


def _loadgen() -> Any:
    try:
        import mlperf_loadgen
    except ImportError:
        raise UnsupportedError(
            "scenarios are run by MLPerf LoadGen, which is not installed: pip install 'ais_bench[loadgen]'"
        ) from None
    return mlperf_loadgen


def run_scenario(
    session: Any,
    feeds: list[Any],
    scenario: str,
    folder: str,
    *,
    rate: float | None = None,
    latency_ms: float | None = None,
    seconds: float = 600.0,
    queries: int | None = None,
    find_peak: bool = False,
    mode: str = "static",
) -> dict[str, Any]:
    """Run a scenario, and return LoadGen's verdict and figures. The logs are in `folder`.

    Args:
        session: a MultiDeviceSession whose workers are ready.
        feeds: the feeds of one query sample.
        scenario: one of SCENARIOS.
        rate: queries per second: the load of a server, and the expected rate of an offline run.
        latency_ms: the limit of a server's 99th percentile.
        seconds: minimum duration; MLPerf requires 600.
        queries: minimum number of queries; None: LoadGen's own rule.
        find_peak: let LoadGen search the highest rate of a server within the limit.

    Raises ConfigError, UnsupportedError if LoadGen is not installed, and the first error of a run.
    """
    lg = _loadgen()
    settings = _settings(lg, scenario, rate, latency_ms, seconds, queries, find_peak)
    os.makedirs(folder, exist_ok=True)
    errors: list[BaseException] = []
    pending = _Pending()

    def issue(samples: list[Any]) -> None:
        for sample in samples:
            pending.add()
            session.submit(feeds, mode=mode).add_done_callback(lambda future, number=sample.id: answered(future, number))

    def answered(future: Any, number: int) -> None:
        error = future.exception()
        if error is not None:
            errors.append(error)
        lg.QuerySamplesComplete([lg.QuerySampleResponse(number, 0, 0)])
        pending.done()

    sut = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(LIBRARY, LIBRARY, lambda _: None, lambda _: None)
    try:
        lg.StartTestWithLogSettings(sut, library, settings, _log_settings(lg, folder))
        pending.wait()
    finally:
        lg.DestroyQSL(library)
        lg.DestroySUT(sut)
    if errors:
        raise errors[0]
    with open(os.path.join(folder, "mlperf_log_summary.txt"), encoding="utf-8") as file:
        found = {"scenario": scenario, "folder": os.path.abspath(folder), **_verdict(file.read())}
    if find_peak:  # the summary is that of the last step of the search
        found["figures"]["peak per second"] = found["figures"].get("Completed samples per second", 0.0)
    return found


def _log_settings(lg: Any, folder: str) -> Any:
    log = lg.LogSettings()
    log.enable_trace = False
    log.log_output.outdir, log.log_output.copy_summary_to_stdout = folder, False
    return log


class _Pending:
    """The queries that have no answer yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self) -> None:
        with self._changed:
            self._count += 1

    def done(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0)


def _settings(
    lg: Any,
    scenario: str,
    rate: float | None,
    latency_ms: float | None,
    seconds: float,
    queries: int | None,
    find_peak: bool,
) -> Any:
    if scenario not in SCENARIOS:
        raise wrong("scenario", one_of(SCENARIOS), scenario)
    if scenario == "server" and (latency_ms is None or rate is None):
        raise ConfigError("the server scenario needs a rate and a latency bound")
    if find_peak and scenario != "server":
        raise ConfigError("a search for the peak needs the server scenario")
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, _NAMES[scenario])
    settings.mode = lg.TestMode.FindPeakPerformance if find_peak else lg.TestMode.PerformanceOnly
    settings.min_duration_ms = int(seconds * 1000)
    if queries is not None:
        settings.min_query_count = queries
    if scenario == "server":
        settings.server_target_qps = float(rate or 0)
        settings.server_target_latency_ns = int((latency_ms or 0) * 1e6)
    elif scenario == "offline" and rate is not None:
        settings.offline_expected_qps = float(rate)
    return settings


def _verdict(summary: str) -> dict[str, Any]:
    """Return the contents of LoadGen's summary: valid or not, the reason, and its figures by name."""
    result = re.search(r"Result is\s*:\s*(\w+)", summary)
    figures: dict[str, Any] = {}
    measured, _, _ = summary.partition("Test Parameters Used")
    for name, value in re.findall(r"^\s*([^:\n=]+?)\s*:\s*(-?[\d.e+]+)\s*$", measured, re.MULTILINE):
        figures[name] = float(value)
    reasons = re.findall(r"^\s*\*\s*(.+)$", summary, re.MULTILINE)
    conditions = dict(re.findall(r"^\s*([A-Z][\w ]* satisfied)\s*:\s*(\w+)", summary, re.MULTILINE))
    return {"result": result[1] if result else "INVALID", "conditions": conditions, "reasons": reasons, "figures": figures}
