"""For PyInstaller, which finds this folder by an entry point: what a frozen program needs of ais_bench."""

from __future__ import annotations

import os

__all__ = ["hook_dirs"]


def hook_dirs() -> list[str]:
    """Return the folders of hooks."""
    return [os.path.dirname(__file__)]
