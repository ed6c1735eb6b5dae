"""Lines on stdout, in the form that scripts look for."""

from __future__ import annotations

import sys

__all__ = ["CliError", "debug", "error", "info", "set_debug", "warning"]

_debug = False


class CliError(Exception):
    """The command cannot do what was asked: exit code 1, and the message is the last line."""


def set_debug(on: bool) -> None:
    """Let `debug` print."""
    global _debug
    _debug = on


def info(text: str) -> None:
    """Say what is."""
    print(f"[INFO] {text}", flush=True)


def warning(text: str) -> None:
    """Say what may be a mistake."""
    print(f"[WARNING] {text}", flush=True)


def debug(text: str) -> None:
    """Say more, with --debug."""
    if _debug:
        print(f"[DEBUG] {text}", flush=True)


def error(text: str) -> None:
    """Say what went wrong, on stderr."""
    sys.stdout.flush()
    print(f"[ERROR] {text}", file=sys.stderr, flush=True)
