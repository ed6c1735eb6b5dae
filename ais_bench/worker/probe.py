"""Probe providers in a separate process, so that the process that asks never loads their drivers."""

from __future__ import annotations

import json

from ais_bench.errors import AisBenchError
from ais_bench.providers import choose, probe


def main(question: str, *names: str) -> None:
    """Print an answer as JSON: to "choose", one provider or {"error": text}; to "list", a provider for each name."""
    answer: object
    try:
        answer = [*choose(names[0])] if question == "choose" else [[*probe(name)] for name in names]
    except AisBenchError as error:
        answer = {"error": str(error)}
    print("answer", json.dumps(answer))
