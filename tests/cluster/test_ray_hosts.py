"""A cluster of two hosts: network namespaces of this machine. The test cuts and restores their connection.

Skipped without Ray, without the command `ip`, and if namespaces are not allowed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ais_bench.emulator import pack
from ais_bench.emulator.binary import library_path
from ais_bench.emulator.machine import find_onnxruntime
from support.cluster import BEGIN, own_lines
from support.scripts import environment
from support.waiting import wait_until

HOSTS = {"aisb-a": "10.77.31.1", "aisb-b": "10.77.31.2"}
PORT = 6399


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def why_not() -> str:
    """Return why hosts cannot be made here; empty if they can."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed"
    if shutil.which("ip") is None:
        return "the command ip (iproute2) is not installed"
    try:
        ip("netns", "add", "aisb-probe")
        ip("netns", "del", "aisb-probe")
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not allowed: {error.stderr.decode().strip()}"
    return ""


NO_HOSTS = why_not()
pytestmark = [pytest.mark.skipif(bool(NO_HOSTS), reason=NO_HOSTS), pytest.mark.xdist_group("ray")]


def ray_start(host: str, folder: str, *arguments: str) -> subprocess.Popen[bytes]:
    variables = {
        **environment(),
        "AIS_BENCH_ACL_LIBRARY": str(library_path()),
        "AIS_BENCH_ORT_LIBRARY": str(find_onnxruntime()),
        "AIS_EMULATOR_DEVICES": "2",
        "AIS_EMULATOR_EXEC_MS": "20",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    common = ["--node-ip-address", HOSTS[host], "--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
    command = [str(Path(sys.executable).parent / "ray"), "start", *arguments, *common, "--block"]
    command += ["--resources", json.dumps({"NPU": 2})]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(["ip", "netns", "exec", host, *command], env=variables, cwd=folder, **quiet)  # type: ignore[call-overload]


@pytest.fixture
def hosts() -> Iterator[str]:
    """Return the address of the cluster."""
    started: list[subprocess.Popen[bytes]] = []
    first, second = HOSTS
    folder = tempfile.mkdtemp(prefix="ais-ray-")  # a short path, because it contains sockets
    try:
        for host in HOSTS:
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
        ip("link", "add", "aisb0", "netns", first, "type", "veth", "peer", "name", "aisb1", "netns", second)
        for host, cable in zip(HOSTS, ("aisb0", "aisb1"), strict=True):
            ip("-n", host, "addr", "add", f"{HOSTS[host]}/24", "dev", cable)
            ip("-n", host, "link", "set", cable, "up")
        started.append(
            ray_start(first, folder, "--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={folder}")
        )
        wait_until(lambda: reachable(first, HOSTS[first]), 60)
        started.append(ray_start(second, folder, f"--address={HOSTS[first]}:{PORT}"))
        yield f"{HOSTS[first]}:{PORT}"
    finally:
        for host in HOSTS:
            found = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True).stdout.split()
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
        for process in started:
            process.wait(20)
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def reachable(host: str, address: str) -> bool:
    probe = f"import socket; socket.create_connection(({address!r}, {PORT}), 1)"
    return subprocess.run(["ip", "netns", "exec", host, sys.executable, "-c", probe], capture_output=True).returncode == 0


PROGRAM = """
import logging, pathlib, ray
here = pathlib.Path(marks)

class Mark(logging.Handler):
    def emit(self, record):
        if "is suspected" in record.getMessage(): (here / "suspected").touch()

logging.getLogger("ais_bench.ray").addHandler(Mark())
ray.init(address=address, _node_ip_address=address.split(":")[0], log_to_driver=False)
deadline = time.monotonic() + 60
while sum(node["Alive"] for node in ray.nodes()) < 2:
    assert time.monotonic() < deadline, "the second host did not join"
    time.sleep(0.2)
with ClusterSession(model) as session:
    session.start()
    both = {node for node, _ in session.devices}
    assert len(both) == 2, session.devices
    (here / "ready").touch()
    n, newest, gap, late = 0, time.monotonic(), 0.0, set()
    def until_mended():
        number = 0
        while not (here / "mended").exists() or number < 200:
            yield feeds(number)
            number += 1
        for number in range(number, number + 600):
            yield feeds(number)
    for outputs, item in session.map(until_mended(), details=True):
        assert (outputs[0] == n).all() and item.index == n, (n, item)
        now = time.monotonic()
        gap, newest, n = max(gap, now - newest), now, n + 1
        if n == 100: (here / "begun").touch()
        if (here / "mended").exists(): late.add(item.device_id[0])
    assert late == both, ("the host was not used again", late)
said(f"{n > 300} {gap < 8}")
"""


@pytest.mark.long
def test_a_cable_that_is_cut_and_mended_costs_no_item(
    hosts: str, multi_device_models: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    model = str(pack(multi_device_models("ort")["add"], tmp_path / "add.om"))
    command = ["ip", "netns", "exec", "aisb-a", sys.executable, "-c", BEGIN + PROGRAM, model, hosts, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        wait_until(lambda: (tmp_path / "begun").exists() or process.poll() is not None, 120)
        ip("-n", "aisb-b", "link", "set", "aisb1", "down")
        wait_until(lambda: (tmp_path / "suspected").exists() or process.poll() is not None, 60)
        ip("-n", "aisb-b", "link", "set", "aisb1", "up")
        (tmp_path / "mended").touch()
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, own_lines(out)) == (0, "True True\n"), out + err
