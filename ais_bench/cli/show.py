"""Print results: one JSON object, or tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["figure", "lines", "print_json", "table"]

WIDE = 200  # columns of the output if it is not a terminal


def print_json(content: Any) -> None:
    """Print one JSON object."""
    from ais_bench.evaluate.text import json_ready  # here, because --help does not need numpy

    print(json.dumps(json_ready(content), indent=2))


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table. Its cells are plain text, not markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Control characters in names and messages must not move the cursor.
    shown = Table(header_style="bold", box=None, pad_edge=False)
    for index, head in enumerate(heads):
        shown.add_column(Text(head), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(_printable(figure(cell))) for cell in row))
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else WIDE)
    console.print(Text(title, style="bold"))  # a Table wraps its title to the table's width
    console.print(shown)
    print()


def lines(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one pair in each line."""
    several = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in several), default=0)
    for name, value in several:
        print(f"{name:<{width}}  {_printable(figure(value))}")


def figure(value: Any) -> str:
    """Return a value as text; numbers with four significant digits."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
