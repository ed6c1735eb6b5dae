"""Run the benchmark on several devices, with a process for each. All processes begin at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from ais_bench.cli.inputs import BadInput, NoShare
from ais_bench.cli.log import CliError, error, info
from ais_bench.cli.one_device import DeviceOutcome, prefix_of, run_device
from ais_bench.infer.summary import Summary, figures_of
from ais_bench.tuning import DEVICE_END_S

__all__ = ["main", "run_devices"]

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ais_bench.cli.several_devices import main; main(int(sys.argv[2]))"
)


class _Process:
    """The process of one device, and the connection to it."""

    def __init__(self, place: int, device: int, task: Mapping[str, Any]) -> None:
        self.place, self.device = place, device
        mine, theirs = socket.socketpair()
        with theirs:
            path = [os.getcwd() if entry == "" else entry for entry in sys.path]
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, json.dumps(path), str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self._socket, self._lines = mine, mine.makefile("rw", encoding="utf-8")
        self.send(task)

    def send(self, message: Any) -> None:
        """Send a message; do nothing if the process has exited."""
        with contextlib.suppress(OSError):
            self._lines.write(json.dumps(message) + "\n")
            self._lines.flush()

    def receive(self) -> dict[str, Any]:
        """Return the next message; if the process has exited, a message that says so."""
        with contextlib.suppress(OSError, ValueError):
            line = self._lines.readline()
            if line.endswith("\n"):
                message: dict[str, Any] = json.loads(line)
                return message
        return {"failed": f"its process exited with {self._process.wait()}", "input": False}

    def end(self) -> None:
        """Wait until the process exits, and kill it if it does not."""
        with contextlib.suppress(OSError):
            self._lines.close()
        self._socket.close()
        try:
            self._process.wait(DEVICE_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run_devices(options: Any, acl_json: str | None, stamp: str) -> tuple[int, float]:
    """Run on all devices. Return the exit code (1 if a device failed) and the sum of the throughputs. Raises CliError."""
    devices: list[int] = options.device
    info(f"multidevice:{devices} run begin")
    divided = options.divide_input and options.input is not None
    with contextlib.ExitStack() as stack:
        processes = []
        for place, device in enumerate(devices):
            task = {
                "options": vars(options),
                "device": device,
                "prefix": prefix_of(options, stamp, f"device{device}_{place}"),
                "acl_json": acl_json,
                "npu": options.npu_id[place] if isinstance(options.npu_id, list) else options.npu_id,
                "share": [place, len(devices)] if divided else None,
            }
            processes.append(_Process(place, device, task))
            stack.callback(processes[-1].end)
        outcomes, failed = _all_together(processes)
    _say(outcomes, devices, failed)
    if options.output is not None and outcomes:
        _write_whole(options, devices, outcomes, f"{prefix_of(options, stamp)}_summary.json")
    return (1 if failed else 0), sum(outcome.figures["throughput"] for outcome in outcomes.values())


def _all_together(processes: list[_Process]) -> tuple[dict[int, DeviceOutcome], bool]:
    """Wait until all processes are ready, start the runs, and collect the results. Raises BadInput."""
    failed, ready = False, []
    for process in processes:
        message = process.receive()
        if message.get("input"):
            raise BadInput(message["failed"])
        if "idle" in message:
            info(f"{message['idle']}: device {process.device} idles")
        elif "failed" in message:
            error(f"device {process.device}: {message['failed']}")
            failed = True
        else:
            ready.append(process)
    for process in ready:
        process.send("go")
    outcomes: dict[int, DeviceOutcome] = {}
    for process in ready:
        message = process.receive()
        if "failed" in message:
            error(f"device {process.device}: {message['failed']}")
            failed = True
        else:
            outcomes[process.place] = DeviceOutcome(*message["outcome"])
    return outcomes, failed


def _say(outcomes: dict[int, DeviceOutcome], devices: list[int], failed: bool) -> None:
    info(f"multidevice run end qsize:{2 * len(outcomes)} result:{int(failed)}")
    for place, one in outcomes.items():
        rate = one.figures["throughput"]
        info(f"i:{place} device_{devices[place]} throughput:{rate} {' ' * 16}start_time:{one.start_s} end_time:{one.end_s}")
    info(f"summary throughput:{sum(one.figures['throughput'] for one in outcomes.values())}")


def _write_whole(options: Any, devices: list[int], outcomes: dict[int, DeviceOutcome], path: str) -> None:
    """Write one JSON file for all devices: the usual keys, the devices, and the time from the first start to the last end."""
    every = list(outcomes.values())
    whole = Summary()
    samples: dict[str, Any] = {}
    for one in every:
        for entry in one.figures["filesinfo"].values():
            samples[str(len(samples))] = entry
    wall_s = max(one.end_s for one in every) - min(one.start_s for one in every)
    summed = {name: sum(one.figures[name] for one in every) for name in ("throughput", "samples", "padded")}
    counted = summed["samples"] * options.loop
    compute = [time for one in every for time in one.figures["npu_compute_time_list"]]
    overlap = options.threads > 1 and options.pipeline
    times = {
        "NPU_compute_time": _mean_of(every) if overlap else figures_of(compute),
        "H2D_latency": figures_of([time for one in every for time in one.copies[0]]),
        "D2H_latency": figures_of([time for one in every for time in one.copies[1]]),
    }
    whole.infodict = {
        "filesinfo": samples,
        "args": options.argv,
        **times,
        "npu_compute_time_list": compute,
        "throughput": summed["throughput"],
        "pid": os.getpid(),
        "throughput_wall": counted / wall_s if wall_s > 0 else 0.0,
        "samples": summed["samples"],
        "padded": summed["padded"],
        "wall_s": wall_s,
        "devices": {
            f"device{devices[place]}_{place}": {
                "throughput": one.figures["throughput"],
                "throughput_wall": one.figures["throughput_wall"],
                "samples": one.figures["samples"],
                "start_time": one.start_s,
                "end_time": one.end_s,
            }
            for place, one in outcomes.items()
        },
    }
    whole.write(path)


def _mean_of(every: list[DeviceOutcome]) -> dict[str, float]:
    """Return the mean times. Executions of several devices overlap, so other statistics have no meaning."""
    parts = [one.figures["NPU_compute_time"] for one in every]
    count = sum(part["count"] for part in parts)
    return {"mean": sum(part["mean"] * part["count"] for part in parts) / count if count else 0.0, "count": count}


# ---- in the process of a device ----


class _InferOptions:
    """The options of the command line, as received from the parent."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def main(fd: int) -> None:
    """Run one device as the parent says."""
    from ais_bench.cli.log import set_debug

    line = socket.socket(fileno=fd)
    lines = line.makefile("rw", encoding="utf-8")

    def send(message: Any) -> None:
        lines.write(json.dumps(message, default=str) + "\n")
        lines.flush()

    task = json.loads(lines.readline())
    options = _InferOptions(task["options"])
    set_debug(options.debug)

    def ready() -> None:
        send({"ready": True})
        if not lines.readline():  # another device's input was bad, or the parent has exited
            os._exit(1)
        threading.Thread(target=_end_with_the_other_end, args=(line,), daemon=True).start()

    try:
        share = tuple(task["share"]) if task["share"] else None
        outcome = run_device(
            options, task["device"], task["prefix"], task["acl_json"], share=share, npu=task["npu"], ready=ready
        )
        send({"outcome": list(outcome)})
    except KeyboardInterrupt:
        sys.exit(130)
    except NoShare as idle:
        send({"idle": str(idle)})
    except Exception as failed:
        text = str(failed) if isinstance(failed, CliError) else f"{type(failed).__name__}: {failed}"
        with contextlib.suppress(ConnectionError):  # another device failed first, and the parent no longer listens
            send({"failed": text, "input": isinstance(failed, BadInput)})
        sys.exit(1)


def _end_with_the_other_end(line: socket.socket) -> None:
    if not line.recv(1):
        os._exit(1)
