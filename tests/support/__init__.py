"""Shared code of tests. Tests and the processes that they start import it by name, because tests/ is on their path."""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
MORE = int(os.environ.get("AIS_BENCH_EXAMPLES", "1"))  # times as many random cases
