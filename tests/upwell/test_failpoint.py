"""Failpoints: nothing unless armed; armed, changed and disarmed while a process runs; and every step is somewhere on the way."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.service import ROOT, until
from upwell import failpoint
from upwell.failpoint import BugError, Step, arm, reached


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that this process looks into, as if it had been started so."""
    path = tmp_path / "plan"
    monkeypatch.setattr(failpoint, "_plan", failpoint._Plan(path))
    return path


def taken(plan: Path) -> list[str]:
    """What was done so far."""
    record = Path(f"{plan}.taken")
    return record.read_text().splitlines() if record.exists() else []


def test_without_a_plan_a_step_does_nothing(tmp_path: Path) -> None:
    if "UPWELL_FAILPOINTS" in os.environ:
        pytest.skip("this very process is armed")
    assert failpoint._plan is None
    reached(Step.APPLY_ROWS)


def test_a_plan_that_is_not_there_or_empty_arms_nothing(plan: Path) -> None:
    reached(Step.APPLY_ROWS)
    arm(plan)
    reached(Step.APPLY_ROWS)
    assert taken(plan) == []


def test_only_the_armed_step_fails_and_it_is_written_down(plan: Path) -> None:
    arm(plan, "disk.sync error:ENOSPC")
    reached(Step.DISK_SYNCED)
    with pytest.raises(OSError, match="No space left") as failed:
        reached(Step.DISK_SYNC)
    assert failed.value.errno == errno.ENOSPC
    assert taken(plan) == [f"disk.sync error {os.getpid()}"]


def test_the_plan_may_change_while_a_process_runs(plan: Path) -> None:
    arm(plan, "apply.rows bug")
    with pytest.raises(BugError, match=r"apply\.rows"):
        reached(Step.APPLY_ROWS)
    arm(plan, "drain.told bug")
    reached(Step.APPLY_ROWS)
    with pytest.raises(BugError):
        reached(Step.DRAIN_TOLD)
    plan.unlink()
    reached(Step.DRAIN_TOLD)
    arm(plan, "drain.told bug", "apply.rows bug")
    with pytest.raises(BugError):
        reached(Step.DRAIN_TOLD)
    with pytest.raises(BugError):
        reached(Step.APPLY_ROWS)


def test_a_chance_is_taken_as_often_as_it_says(plan: Path) -> None:
    arm(plan, "apply.rows pause:0 0.3", "batch.read pause:0 0", "drain.told pause:0")
    for _ in range(400):
        for step in (Step.APPLY_ROWS, Step.BATCH_READ, Step.DRAIN_TOLD):
            reached(step)
    times = Counter(line.split()[0] for line in taken(plan))
    # 120 are expected; to see fewer than 60 or more than 200 is less likely than one in 10^12.
    assert 60 < times["apply.rows"] < 200
    assert times["batch.read"] == 0
    assert times["drain.told"] == 400


def test_what_is_no_step_or_action_is_refused(plan: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.such\.step"):
        arm(plan, "no.such.step kill")
    arm(plan, "apply.rows vanish")
    with pytest.raises(ValueError, match="vanish"):
        reached(Step.APPLY_ROWS)


def test_a_process_is_held_up_and_killed_from_outside(tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    code = (
        "from upwell.failpoint import Step, reached\n"
        "print('up', flush=True)\n"
        "while True: reached(Step.DRAIN_LEASED)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"UPWELL_FAILPOINTS": str(plan)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == b"up\n"
        arm(plan, "drain.leased pause:0.01")
        for _ in until(60):
            if len(taken(plan)) > 2:
                break
        arm(plan, "drain.leased kill")
        assert process.wait(20) == -signal.SIGKILL
    assert taken(plan)[-1] == f"drain.leased kill {process.pid}"
    assert set(taken(plan)[:-1]) == {f"drain.leased pause {process.pid}"}


def test_every_step_is_on_the_way_and_only_there() -> None:
    named: Counter[str] = Counter()
    for package in ("upwell", "ingest", "workers"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "failpoint.py":
                named.update(re.findall(r"\bStep\.([A-Z_]+)", path.read_text()))
    assert set(named) == {step.name for step in Step}
    # Where an object of one kind can go in two ways, or a body come in two.
    twice = {step for step, times in named.items() if times > 1}
    assert twice <= {"BODY_RECEIVED", "GARBAGE_PAYLOAD_BEFORE", "GARBAGE_PAYLOAD_AFTER"}


def test_steps_are_named_for_their_constants() -> None:
    assert all(step.value == step.name.lower().replace("_", ".") for step in Step)
