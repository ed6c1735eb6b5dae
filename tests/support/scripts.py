"""Run Python scripts as separate processes, for behaviour that a test cannot see in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from support import TESTS
from support.default_provider import PROVIDER


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a process that finds `support`, the tests, and ais_bench as this process does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]), **variables}


def run_python(
    *arguments: str, stdin: str | None = None, seconds: float = 100, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` and return its output and its exit code. It must end in time."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=cwd,
        env=environment(**variables),
        check=False,
    )


def run_script(code: str, *arguments: str, seconds: float = 100, **variables: str) -> str:
    """Run `code` and return its output. It must end with exit code 0 in time."""
    strict = ("-X", "faulthandler", "-W", "error::DeprecationWarning")
    code = textwrap.dedent(code)
    if PROVIDER:
        code = f"from support.default_provider import install; install()\n{code}"
    done = run_python(*strict, "-c", code, *arguments, seconds=seconds, **variables)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr  # exceptions that were only printed, in __del__ and atexit
    return done.stdout


def in_child(function: Any) -> str:
    """Fork, run `function` in the child, and return its result. The child then exits like an interpreter."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        text = "it did not return"
        try:
            text = str(function())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, text.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"
    return text
