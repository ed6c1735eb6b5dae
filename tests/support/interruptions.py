"""Interrupt evaluations repeatedly at random moments, and resume them. Each must end with every sample once.

    PYTHONPATH=tests python -m support.interruptions [interruptions] [seed]

A life is a process that goes on with a run folder until it is done or interrupted: by SIGKILL, by Ctrl-C (to it alone, or to
its group, as a terminal does), or by an error of a sample. Most lives use an InferSession, some a pool of one or two workers.
When a run is done, its records and its score are compared with what they must be, and another folder begins.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import psutil

from ais_bench.evaluate import evaluate, values
from ais_bench.session import InferSession
from support.evaluate import Order, Rows
from support.session import negative_model

SAMPLES = 1500
DONE, INTERRUPTED, RAISED, BROKEN = 0, 130, 3, 1
POOL_SHARE = 0.15  # of the lives
LIFE_S, POOL_LIFE_S = 0.3, 1.5  # an interruption occurs within this time


class Torn(Rows):
    """Rows, one of which raises an error."""

    def __init__(self, count: int, at: int) -> None:
        super().__init__(count)
        self.at = at

    def __getitem__(self, index: int) -> Any:
        if index == self.at:
            raise ConnectionResetError("torn")
        return super().__getitem__(index)


def expected() -> int:
    """Return the score of all samples in order, without the library."""
    order, rows = Order(), Rows(SAMPLES)
    for index in range(SAMPLES):
        feeds, target = rows[index]
        order.update([-feeds], target)
    return order.compute()


def live(model: str, folder: Path, devices: list[int] | None, torn_at: int | None) -> int:
    """Continue the run. Return the exit code."""
    order = Order()
    data = Rows(SAMPLES) if torn_at is None else Torn(SAMPLES, torn_at)
    options: dict[str, Any] = {"metrics": order, "output": folder, "resume": True, "progress": False, "on_error": "raise"}
    if devices is not None:
        result = evaluate(model, data, devices=devices, **options)
    else:
        session = InferSession(0, model)
        result = evaluate(session, data, **options)
    (folder / "score").write_text(str(result.metrics["order"]))
    return DONE


def start(model: str, folder: Path, devices: list[int] | None, torn_at: int | None) -> int:
    """Fork a life, and return its pid. It gets signals only after it can handle them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return pid
    code = BROKEN
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        code = live(model, folder, devices, torn_at)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except ConnectionResetError:
        code = RAISED
    except BaseException as error:
        code = INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else BROKEN  # Python wraps it in a class body
        if code == BROKEN:
            traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def one_life(model: str, folder: Path, rng: random.Random) -> int:
    """Start a life, interrupt it, and return its exit code, or the negative number of a signal."""
    pool = rng.random() < POOL_SHARE
    several = pool and len(os.sched_getaffinity(0)) > 1 and rng.random() < 0.5
    devices = [0, 1] if several else [0] if pool else None
    how = rng.choice(["SIGKILL", "SIGINT", "group", "error"])
    torn_at = rng.randrange(SAMPLES) if how == "error" else None
    wait_s = rng.uniform(0, POOL_LIFE_S if pool else LIFE_S)
    pid = start(model, folder, devices, torn_at)
    if how != "error":
        time.sleep(wait_s)
        its_own_group = _session_of(pid) == pid  # false if it has not made its group yet
        send = os.killpg if how == "group" and its_own_group else os.kill
        send(pid, signal.SIGKILL if how == "SIGKILL" else signal.SIGINT)
    _, status = os.waitpid(pid, 0)
    none_left(pid)
    return os.waitstatus_to_exitcode(status)


def none_left(session: int) -> None:
    """Raise if a process of that life still exists after 20 s."""
    deadline = time.monotonic() + 20
    while left := [p for p in psutil.pids() if _session_of(p) == session]:
        if time.monotonic() > deadline:
            raise AssertionError(f"processes {left} were left by the life {session}")
        time.sleep(0.01)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def check(folder: Path, score: int) -> int:
    """Raise if a finished run has not every sample once, in order, and the right score. Return its turns."""
    with (folder / "records.jsonl").open() as file:
        records = [json.loads(line) for line in file]
    assert [record["index"] for record in records] == list(range(SAMPLES))
    assert all(record["error"] is None for record in records)
    about = json.loads((folder / "run.json").read_text())
    report = json.loads((folder / "report.json").read_text())
    assert (about["status"], report["samples"], report["scored"]) == ("success", SAMPLES, SAMPLES)
    assert int((folder / "score").read_text()) == score == report["metrics"]["order"]
    assert (folder / "report.html").exists()
    assert not list(folder.glob("*.tmp"))
    return len(about["turns"])


def main(wanted: int, seed: int = 0) -> None:
    """Interrupt `wanted` times, then let the run end."""
    rng, score = random.Random(seed), expected()
    ends: dict[int, int] = {}
    interruptions = runs = turns = 0
    base = Path(tempfile.mkdtemp(prefix="interruptions-"))
    try:
        model = negative_model(base / "negative.onnx", 2)
        while True:
            folder = base / f"run{runs}"
            values.INLINE_BYTES = 8 if runs % 2 else 1024  # results in outputs.bin, or in the records
            last = interruptions >= wanted
            code = os.waitstatus_to_exitcode(os.waitpid(start(model, folder, None, None), 0)[1]) if last else None
            code = one_life(model, folder, rng) if code is None else code
            assert code in (DONE, INTERRUPTED, RAISED, -signal.SIGKILL), f"a life ended with {code}"
            ends[code] = ends.get(code, 0) + 1
            interruptions += code != DONE
            if code == DONE:
                turns += check(folder, score)
                shutil.rmtree(folder)
                runs += 1
                if interruptions >= wanted:
                    break
            if sum(ends.values()) % 100 == 0:
                print(f"{interruptions} interruptions, {runs} runs", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    assert turns >= runs > 0
    killed, pressed, raised = ends.get(-signal.SIGKILL, 0), ends.get(INTERRUPTED, 0), ends.get(RAISED, 0)
    kinds = f"{killed} SIGKILL, {pressed} Ctrl-C, {raised} errors"
    print(f"{interruptions} interruptions ({kinds}) in {runs} runs of {SAMPLES} samples: each sample once, each score right")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
