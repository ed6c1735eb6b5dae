"""Show a running session: a table on the terminal, or a port for Prometheus. Both read the counters of its report."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from ais_bench.errors import ConfigError, UnsupportedError
from ais_bench.evaluate.periodically import periodically
from ais_bench.tuning import LIVE_LOOK_S

__all__ = ["live", "metrics_port"]


@contextlib.contextmanager
def live(session: Any) -> Iterator[None]:
    """Draw a table of the devices on stderr while the block runs."""
    from rich.console import Console
    from rich.live import Live

    with (
        Live(console=Console(file=sys.stderr), auto_refresh=False, transient=True) as shown,
        periodically(lambda: shown.update(_table(session.report()), refresh=True), LIVE_LOOK_S, "ais_bench-live"),
    ):
        yield


def _table(report: Any) -> Any:
    from rich.table import Table

    table = Table("device", "state", "done", "failed", "restarts", "runs/s", "busy", "p50 ms", "execute ms", box=None)
    states: dict[int, set[str]] = {}
    for worker in report.workers:
        states.setdefault(worker.device, set()).add(worker.state)
    for device, counts in report.devices.items():
        table.add_row(
            str(device),
            ", ".join(sorted(states.get(device, ()))),
            str(counts.tasks),
            str(counts.failures),
            str(counts.restarts),
            f"{counts.throughput_per_s:.1f}",
            f"{counts.busy_share:.0%}",
            f"{counts.end_to_end_ms.p50:.2f}",
            f"{counts.execute_ms.mean:.2f}",
        )
    return table


@contextlib.contextmanager
def metrics_port(session: Any, port: int, address: str = "127.0.0.1") -> Iterator[int]:
    """Serve the counters for Prometheus while the block runs, and yield the port. Port 0 selects a free port.

    The port is reachable only from this machine, unless another address is given. Raises ConfigError if the port is not
    available, and UnsupportedError if prometheus-client is not installed.
    """
    try:
        import prometheus_client as prometheus
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    except ImportError:
        raise UnsupportedError("a port for Prometheus needs prometheus-client: pip install 'ais_bench[metrics]'") from None

    class Collector:
        """Reads the session's report at each request."""

        def collect(self) -> Iterable[Any]:
            devices = session.report().devices.items()
            for name, text, field in _COUNTERS:
                family = CounterMetricFamily(f"ais_bench_{name}", text, labels=["device"])
                for device, counts in devices:
                    family.add_metric([str(device)], getattr(counts, field))
                yield family
            for name, text, value in _GAUGES:
                gauge = GaugeMetricFamily(f"ais_bench_{name}", text, labels=["device"])
                for device, counts in devices:
                    gauge.add_metric([str(device)], value(counts))
                yield gauge

    registry = prometheus.CollectorRegistry()
    registry.register(Collector())
    try:
        server, thread = prometheus.start_http_server(port, address, registry)
    except OSError as error:
        raise ConfigError(f"--metrics-port {port} on {address} is not available: {error.strerror}") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_COUNTERS = (
    ("tasks", "runs that ended, failures included", "tasks"),
    ("failures", "runs that failed", "failures"),
    ("retries", "runs begun again", "retries"),
    ("restarts", "workers started again", "restarts"),
)
_GAUGES: tuple[tuple[str, str, Any], ...] = (
    ("busy_share", "the part of the wall time in which the workers were at a run", lambda counts: counts.busy_share),
    ("execute_seconds_mean", "of a run on the device", lambda counts: counts.execute_ms.mean / 1e3),
    ("end_to_end_seconds_p50", "of a run, waiting included", lambda counts: counts.end_to_end_ms.p50 / 1e3),
    ("end_to_end_seconds_p99", "of a run, waiting included", lambda counts: counts.end_to_end_ms.p99 / 1e3),
)
