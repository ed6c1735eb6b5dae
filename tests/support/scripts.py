"""Python scripts as processes of their own, for what cannot be seen from inside one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

from support import TESTS


def run_script(code: str, *arguments: str, seconds: float = 60, **environment: str) -> str:
    """Run `code` with the tests' modules at hand, and return what it printed; it must end with exit code 0 in time."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error::DeprecationWarning", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]), **environment},
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr  # exceptions that were only printed, in __del__ and atexit
    return done.stdout


def in_child(function: Any) -> str:
    """Fork, run `function` in the child, and return what it returned; the child then ends as the interpreter ends."""
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
