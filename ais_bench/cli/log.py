"""Print lines in the form that scripts search for."""

from __future__ import annotations

import sys

__all__ = ["CliError", "debug", "error", "info", "set_debug", "warning"]

_debug = False


class CliError(Exception):
    """The command failed. It exits with code 1, and the message is its last line."""


def set_debug(on: bool) -> None:
    """Switch the lines of `debug` on or off."""
    global _debug
    _debug = on


def info(text: str) -> None:
    """Print an [INFO] line."""
    print(f"[INFO] {text}", flush=True)


def warning(text: str) -> None:
    """Print a [WARNING] line about a possible mistake."""
    print(f"[WARNING] {text}", flush=True)


def debug(text: str) -> None:
    """Print a [DEBUG] line, if --debug is given."""
    if _debug:
        print(f"[DEBUG] {text}", flush=True)


def error(text: str) -> None:
    """Print an [ERROR] line on stderr."""
    sys.stdout.flush()
    print(f"[ERROR] {text}", file=sys.stderr, flush=True)
