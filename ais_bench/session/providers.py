"""Providers for this process: another process loads their drivers and reports what is available."""

from __future__ import annotations

import json
from typing import Any

from ais_bench.errors import DeviceUnavailable
from ais_bench.pool.interpreter import ImportEnvironment, run
from ais_bench.providers import PREFERENCE, ProviderInfo, provider_name

__all__ = ["ask_for_provider", "list_providers"]

PROBE = "ais_bench.worker.probe"


def ask_for_provider(name: str) -> ProviderInfo:
    """Like ais_bench.providers.choose, but load nothing in this process. Raises ConfigError, DeviceUnavailable."""
    if name != "auto":
        provider_name(name)
    answer = _ask("choose", name)
    if isinstance(answer, dict):
        raise DeviceUnavailable(answer["error"])
    return _info(answer)


def list_providers() -> list[ProviderInfo]:
    """Return every known provider, in the order in which "auto" prefers them, and whether it can be used. Raises
    DeviceUnavailable if the process that asks them ends or does not answer."""
    answer = _ask("list", *PREFERENCE)
    if isinstance(answer, dict):
        raise DeviceUnavailable(answer["error"])
    return [_info(one) for one in answer]


def _info(fields: list[Any]) -> ProviderInfo:
    found = ProviderInfo(*fields)
    return found._replace(devices=tuple(found.devices))


def _ask(*question: str) -> Any:
    try:
        code, out, err = run("call", json.dumps(ImportEnvironment.here().path), PROBE, *question)
    except TimeoutError as late:
        raise DeviceUnavailable(f"the process that asks for providers failed: {late}") from None
    answers = [line.partition(" ")[2] for line in out.splitlines() if line.startswith("answer ")]
    if not answers:
        last = (err.strip().splitlines() or ["it said nothing"])[-1]
        raise DeviceUnavailable(f"the process that asks for providers ended with exit code {code}: {last}")
    return json.loads(answers[-1])
