"""What a run did and found, for people."""

from __future__ import annotations

from collections import Counter

from tests.crash.milvus_load import ROWS
from tests.crash.run import Report
from upwell.failpoint import Step

WRONG_SHOWN = 20


def table(report: Report) -> str:
    """The summary of a run."""
    killer, history = report.killer, report.history
    acknowledged = [one for one in history.writes if one.receipts]
    logged = {(one.index, one.generation) for one in history.logged}
    unknown = [one for one in history.writes if not one.receipts]
    landed = sum((one.index, one.generation) in logged for one in unknown)
    attempts = sum(len(one.attempts) for one in history.writes)
    by_kind = ", ".join(f"{count} {kind}" for kind, count in sorted(killer.by_kind.items()))
    reads = Counter(one.kind for one in history.reads)
    at_steps = sum(killer.by_step.values())
    lines = [
        f"seed {report.plan.seed}, {report.seconds:.0f} s",
        "",
        f"kills              {killer.kills}: {by_kind}",
        f"  at named steps   {at_steps}, at {len(killer.by_step)} of {len(Step)} steps",
        f"  from outside     {killer.kills - at_steps}",
        f"pauses             {killer.pauses_made}",
        f"Valkey             {killer.redis_kills} times killed, {killer.wipes} times wiped",
        f"mutations          {len(acknowledged)} acknowledged, {len(unknown)} not, of which {landed} are in the log;",
        f"                   {attempts} requests for them, {sum(one.duplicate for one in history.applied)} copies left out",
        f"applied            {len(history.applied)}, in {_commits(report)} commits",
        f"reads              {len(history.reads)}: "
        + ", ".join(f"{n} {kind}" for kind, n in reads.most_common()),
        f"statuses           {len(history.statuses)}",
        f"Upstash door       {_door(report)}",
        f"Milvus door        {_milvus(report)}",
        f"webhook messages   {sum(map(len, history.told.values()))}, gaps: {sum(history.gaps.values())}",
        "",
        "kills by step",
        *_columns([f"{killer.by_step[step]:5} {step}" for step in Step]),
        "",
        f"{'checks':52} looked at   wrong",
        *(
            f"  {name.replace('_', ' '):50} {one.looked_at:9} {len(one.wrong):7}"
            for name, one in report.verdicts.items()
        ),
    ]
    if report.wrong:
        lines += ["", *report.wrong[:WRONG_SHOWN]]
        lines += [f"… and {len(report.wrong) - WRONG_SHOWN} more"] if len(report.wrong) > WRONG_SHOWN else []
    return "\n".join(lines)


def _door(report: Report) -> str:
    door = report.history.door
    acknowledged = sum(one.receipt is not None for one in door.writes)
    counted = sum(one.counted is not None for one in door.writes)
    kinds = Counter(one.mutation.operation.value for one in door.logged)
    said = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    return (
        f"{acknowledged} acknowledged, {counted} of them with counts, {len(door.reads)} reads; logged {said}"
    )


def _milvus(report: Report) -> str:
    milvus, door = report.history.milvus, report.history.door
    rows = sum(one.index == ROWS.name and one.receipt is not None for one in door.writes)
    reads = [one for one in door.reads if one.index == ROWS.name]
    by_words = sum(bool(one.words) for one in reads)
    again = sum(len(one.answers) > 1 for one in milvus.inserts)
    changes = Counter(one.command for one in milvus.kept)
    said = ", ".join(f"{n} {command}" for command, n in changes.most_common())
    return (
        f"{rows} acknowledged, {len(reads)} reads, {by_words} of them by words; {sum(map(bool, (one.answers for one in milvus.inserts)))} inserts with a key, "
        f"{again} answered twice, {len(milvus.reads)} reads; {said}"
    )


def _commits(report: Report) -> int:
    return len({(one.index, one.version) for one in report.history.applied})


def _columns(cells: list[str], across: int = 3) -> list[str]:
    down = -(-len(cells) // across)
    return ["".join(f"{cell:34}" for cell in cells[row::down]).rstrip() for row in range(down)]
