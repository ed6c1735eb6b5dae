"""What becomes of a task that failed for its device, and of the device.

A failure of the device is none of the task: another device may well do it. So the task runs once more elsewhere, where that is
allowed; if it fails there, too, the error is its own. A device that fails again and again while others work is given up like
one whose worker dies.
"""

from __future__ import annotations

from collections.abc import Callable

from ais_bench.pool.account import Account
from ais_bench.pool.crew import Crew
from ais_bench.pool.ready_worker import FAULTS_IN_A_ROW
from ais_bench.pool.task import Task


def after_fault(
    task: Task,
    crew: Crew,
    account: Account,
    max_attempts: int,
    again: Callable[[Task], None],
    finish: Callable[[Task, BaseException], None],
) -> None:
    """Calls `again` or `finish`. Twice is fine. Needs the dispatcher's lock."""
    device, error = task.ran_on, task.error
    if task.done or error is None or device is None:
        return
    if crew.others_work(device):
        for worker in crew.workers:
            if worker.device == device and worker.faults >= FAULTS_IN_A_ROW:
                worker.condemn(error)
    if task.device is None and crew.others_than(device) and task.faults + 1 < max_attempts:
        task.avoid = device
        again(task)
        task.faults, task.error = task.faults + 1, None
        account.retries[device] = account.retries.get(device, 0) + 1
    else:
        account.lost[device] = account.lost.get(device, 0) + 1
        finish(task, error)
