"""Programs that are more than a script of `python`: frozen ones, zipped ones, ones that Python is embedded in."""

from __future__ import annotations

import os
import sys

import pytest
from pool_support import run_script

from ais_bench.errors import ConfigError, UnsupportedError
from ais_bench.pool import interpreter

# Tells all processes that were started from it.
USE = """
import os, sys
from pool_handlers import Obedient, order
from ais_bench.pool import DevicePool, Task, Waiter
with DevicePool(Obedient, [0]) as pool:
    print(pool.run(Task(order(Obedient.ECHO, 7), Waiter())).result()[0][1])
"""


def test_a_frozen_program_without_support_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from ais_bench.pool import DevicePool
    from ais_bench.session import MultiDeviceSession

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ConfigError, match="this program is frozen.*freeze_support"):
        DevicePool(print, [0])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="this program is frozen.*freeze_support"):
        MultiDeviceSession("model.onnx", runtime="acl").start()


def test_python_embedded_in_another_program_uses_the_python_of_its_installation() -> None:
    done = run_script("-c", "import sys; sys.executable = '/usr/sbin/uwsgi'\n" + USE)
    assert done.stdout == "7\n", done.stderr
    done = run_script("-c", "import sys; sys.executable = ''\n" + USE)
    assert done.stdout == "7\n", done.stderr


def test_a_program_that_is_no_python_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for root in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, root, "/nowhere")
    with pytest.raises(ConfigError, match="'/bin/false', which is no Python.*set_executable"):
        interpreter.command("worker")
    import multiprocessing.spawn

    before = multiprocessing.spawn.get_executable()
    try:
        multiprocessing.set_executable("/opt/launcher")  # whoever says so knows
        assert interpreter.command("worker")[0] == "/opt/launcher"
    finally:
        multiprocessing.set_executable(before)


@pytest.mark.parametrize("name", ["python", "python3", "python3.13", "python3.13t", "python3.11d", "pypy3", "python3-intel64"])
def test_names_of_pythons(name: str) -> None:
    assert interpreter._is_python(os.path.join("/nowhere", name))


@pytest.mark.parametrize("name", ["uwsgi", "app", "mypython", "python-launcher.sh", "blender"])
def test_names_of_others(name: str) -> None:
    assert not interpreter._is_python(os.path.join("/nowhere", name))


@pytest.mark.parametrize("release", ["2.6.32-754.el6.x86_64", "3.9.1"])
def test_a_kernel_that_is_too_old_is_named(release: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"Linux {release}.*Linux 3.10 or newer"):
        interpreter.check_kernel(release)


@pytest.mark.parametrize("release", ["3.10.0-1160.el7.x86_64", "4.19.90-2003.4.0.0036.oe1", "4.4.0", "6.1", "unknown"])
def test_kernels_that_will_do(release: str) -> None:
    interpreter.check_kernel(release)
