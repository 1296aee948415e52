"""One run: a world under load is broken until it was often enough; then all is quiet, everything is read once more, and judged."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.brief import Brief
from tests.crash.check import CHECKS, Verdict
from tests.crash.door_check import DOOR_CHECKS
from tests.crash.door_load import CREATED, SPACES, TEXTS, DoorLoad, Moods
from tests.crash.history import History
from tests.crash.killer import Killer
from tests.crash.load import Load
from tests.crash.milvus_check import MILVUS_CHECKS
from tests.crash.milvus_keeper import CHANGES, Keeper
from tests.crash.milvus_load import MilvusLoad
from tests.crash.processes import Kind, Slot
from tests.crash.world import SPECS, Spec, World, now
from tests.receiver import Received, receiving
from upwell.log.receipt import parse
from upwell.webhook.messages import GAP

VISIBLE_S = 90.0
#: How long it may take to finish once all is quiet. Who hangs then is told by the traceback.
QUIET_S = 180.0
#: What Python says on behalf of a process that was killed, or a child whose parent was. And arq: of a job that was wiped from under it, and
#: of one that it runs twice because Redis has forgotten that it runs (both do no harm, see workers/worker.py), and of one that was over while
#: there was no Redis to be told so. And redis-py: of a pipeline that was watching a key when Redis did not answer in time; it closes the
#: connection then.
EXPECTED_TEXT = re.compile(
    r".*resource_tracker.*\n(  warnings\.warn.*\n)?"
    r"|Traceback \(most recent call last\):\n( .*\n)* .*spawn_main\n( .*\n)*EOFError: Ran out of input\n"
    r"|arq\.worker: job \S+ expired\n"
    r"|asyncio: Unclosed Pipeline client\n *client: <redis\.asyncio\.client\.Pipeline\(.*\n"
    r"|asyncio: Task exception was never retrieved\n.*coro=<Worker\.finish_job\(\) .* exception=ConnectionError\(.*\n( .*\n|\n)*(redis\.exceptions\.ConnectionError: .*\n?)?"
    r"|arq\.worker: .* failed, KeyError: .*\n *Traceback .*\n( .*\n)* *del self\.job_tasks\[job_id\]\n( .*\n)* *KeyError: .*\n"
)
#: What our own processes say of texts that are refused, and of an embedding server that is away.
EXPECTED_ERROR = re.compile(r"the text of item \d+ was refused: .*|.*embedding model LETTERS .*")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and how long: until so many were killed, or so long."""

    seed: int
    kills: int
    seconds: float
    writers: int = 12
    readers: int = 8
    door_writers: int = 10
    door_readers: int = 4
    milvus_writers: int = 4
    milvus_readers: int = 2
    apis: int = 3
    workers: int = 3
    keepers: int = 2
    #: Front ends, and as many workers, that are never killed.
    calm: int = 0
    #: Kills a second to aim at.
    pace: float = 3.0
    specs: tuple[Spec, ...] = SPECS
    #: Processes start as in real life, and not as forks.
    fresh: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Run beside it until the killer halts. With them disks may fail, and processes may print that they did.
    companions: tuple[Callable[[World, Killer], Coroutine[None, None, None]], ...] = ()


@dataclass(slots=True)
class Report:
    """What a run did and found."""

    plan: Plan
    seconds: float
    history: History
    killer: Killer
    outcomes: Counter[tuple[str, str]]
    verdicts: dict[str, Verdict]

    @property
    def wrong(self) -> list[str]:
        """Every violation."""
        return [f"{name}: {one}" for name, verdict in self.verdicts.items() for one in verdict.wrong]


async def run(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Do it."""
    folder = Path(tempfile.mkdtemp(prefix="upwell-crash-"))
    try:
        return await _run(plan, folder, tell)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _run(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Report:
    async with World(folder, plan.seed, fresh=plan.fresh, **plan.settings) as world:
        kinds: list[tuple[str, Kind, int]] = [
            ("api", "api", plan.apis),
            ("worker", "worker", plan.workers),
            ("keeper", "worker", plan.keepers),
        ]
        kinds += [("calm-api", "api", plan.calm), ("calm-worker", "worker", plan.calm)]
        await world.begin(
            {f"{name}-{n}": kind for name, kind, count in kinds for n in range(count)}, plan.specs
        )
        for name, created in CREATED.items():
            await world.begin_door(SPACES if name == SPACES.name else TEXTS, created)
        milvus = MilvusLoad(world)
        await milvus.begin()
        world.witness.start()
        began = now()
        killer = Killer(world, plan.pace)
        world.processes.on_death = killer.died
        load, brief = Load(world, plan.specs), Brief(world)
        door, moods = DoorLoad(world, load), Moods(world)
        with receiving() as receiver:
            receiver.answer = _forgetful(world)
            await _register(world, plan.specs, receiver.url)
            tasks = [asyncio.create_task(load.write()) for _ in range(plan.writers)]
            tasks += [asyncio.create_task(load.read()) for _ in range(plan.readers)]
            tasks += [asyncio.create_task(brief.come_and_go(number)) for number in range(2)]
            tasks += [asyncio.create_task(door.write()) for _ in range(plan.door_writers)]
            tasks += [asyncio.create_task(door.read()) for _ in range(plan.door_readers)]
            tasks += [asyncio.create_task(moods.change())]
            tasks += [asyncio.create_task(milvus.write()) for _ in range(plan.milvus_writers)]
            tasks += [asyncio.create_task(milvus.insert()) for _ in range(2)]
            tasks += [asyncio.create_task(milvus.read()) for _ in range(plan.milvus_readers)]
            for number, change in enumerate(CHANGES):
                tasks.append(asyncio.create_task(Keeper(milvus, number).keep(change)))
            breaking = [killer.arm(), killer.kill(), killer.pause(), killer.forget()]
            breaking += [companion(world, killer) for companion in plan.companions]
            breakers = [asyncio.create_task(one) for one in breaking]
            await _until_broken(plan, world, killer, [*tasks, *breakers], tell)
            killer.halt = load.halt = brief.halt = door.halt = moods.halt = milvus.halt = True
            killer.disarm()
            await asyncio.gather(*breakers)
            for slot in world.processes.slots:
                world.processes.signal(slot, signal.SIGCONT)
            tell("quiet: finishing what was begun")
            async with asyncio.timeout(QUIET_S):
                await asyncio.gather(*tasks)
                await load.finish()
                await _settle(world, load, plan.specs)
                await door.finish()
                await milvus.finish()
                receiver.answer = lambda _: 204
                await _told(world, plan.specs, receiver.received)
            stubborn = await world.processes.stop()
            _note_told(world, receiver.received)
        world.witness.stop()
        world.witness.look()
        return _report(plan, world, killer, stubborn, now() - began)


def _report(plan: Plan, world: World, killer: Killer, stubborn: list[str], seconds: float) -> Report:
    history = world.history
    history.logged, history.applied = world.witness.logged, world.witness.applied
    history.door.logged = world.witness.door_logged
    if world.witness.failure:
        history.printed.append(f"this run proves nothing: {world.witness.failure}")
    history.printed += [f"{name} did not end when asked to" for name in stubborn]
    history.printed += world.processes.failures
    for slot in world.processes.slots:
        lines = complaints(slot, errors_expected=bool(plan.companions))
        history.printed += [f"{slot.name}: {line}" for line in lines]
    verdicts = {check.__name__: check(history) for check in CHECKS + DOOR_CHECKS + MILVUS_CHECKS}
    return Report(plan, seconds, history, killer, world.outcomes, verdicts)


async def _until_broken(
    plan: Plan, world: World, killer: Killer, tasks: list[asyncio.Task[None]], tell: Callable[[str], None]
) -> None:
    began = told_at = now()
    while killer.kills < plan.kills and now() - began < plan.seconds:
        await asyncio.sleep(0.1)
        if world.witness.failure or world.processes.failures or any(task.done() for task in tasks):
            tell(f"broken off: {world.witness.failure or world.processes.failures or 'a task has ended'}")
            return
        if now() - told_at > 10:
            told_at = now()
            tell(
                f"{now() - began:4.0f} s: {killer.kills} kills, {len(world.history.writes)} mutations sent, "
                f"{len(world.witness.logged)} logged, {len(world.witness.applied)} applied, "
                f"{len(world.history.reads)} reads, {len(world.history.answers)} wrong answers"
            )


async def _register(world: World, specs: tuple[Spec, ...], url: str) -> None:
    for spec in specs:
        if spec.told:
            status, envelope = await world.call("webhook", "POST", f"/{spec.name}/webhooks", {"url": url})
            assert status == 200, envelope
            world.history.told[spec.name] = []


def _forgetful(world: World) -> Callable[[Received], int]:
    """A receiver that now and then does not take what it is told."""
    return lambda _: 204 if world.dice.random() < 0.97 else 500


async def _settle(world: World, load: Load, specs: tuple[Spec, ...]) -> None:
    """The last mutation of each index, visible on every front end; then everything is read there once more."""
    while any(
        slot.pid is None or (slot.kind == "api" and slot.url is None) for slot in world.processes.slots
    ):
        assert not world.processes.failures, f"this run proves nothing: {world.processes.failures}"
        await asyncio.sleep(0.01)
    for spec in specs:
        write = await load.mutate(spec, 0, "upsert", f"the last of {spec.name}")
        assert write.receipts, f"nobody takes a mutation for {spec.name}"
    deadline = now() + VISIBLE_S
    for spec in specs:
        last = max(
            min(one.receipts) for one in world.history.writes if one.index == spec.name and one.receipts
        )
        for slot in world.processes.of("api"):
            mutation = load.mutation_id(spec, last)
            while (state := await load.status(spec, slot, mutation, 5)) != "visible" and now() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            if state != "visible":
                world.wrong(
                    slot, f"the last status of {spec.name}", f"{state} after {VISIBLE_S:.0f} s of quiet"
                )
            await load.fetch(spec, slot, last=True)


async def _told(world: World, specs: tuple[Spec, ...], received: list[Received]) -> None:
    """Wait until webhooks have told of all there is."""
    for spec in specs:
        if spec.told:
            # The last mutation is acknowledged, and so is nothing after it.
            last = max(
                min(one.receipts) for one in world.history.writes if one.index == spec.name and one.receipts
            )
            deadline = now() + VISIBLE_S
            secret = world.indexes[spec.name].record.receipt_key
            while now() < deadline:
                ids = [one.json["data"].get("mutationId") for one in received[-50:]]
                if any(one and parse(secret, one).position >= last[0] for one in ids):
                    break
                await asyncio.sleep(0.1)


def _note_told(world: World, received: list[Received]) -> None:
    for one in received:
        data = one.json["data"]
        index = data["index"]
        if one.json["type"] == GAP:
            world.history.gaps[index] = world.history.gaps.get(index, 0) + 1
        else:
            found = parse(world.indexes[index].record.receipt_key, data["mutationId"])
            world.history.told[index].append((found.position, found.place))


def complaints(slot: Slot, *, errors_expected: bool = False) -> list[str]:
    """What processes printed that tells of more than of a process that died or a Redis that was away: lines of our own log, and
    whatever else came between two of them."""
    found, others = [], list[str]()
    # Who was killed amid a line has not ended it.
    printed = slot.output.read_text(errors="replace").replace('"}{"', '"}\n{"')
    for line in [*printed.splitlines(), "{}"]:
        try:
            said = json.loads(line)
        except ValueError:
            others.append(f"{line}\n")
            continue
        left = EXPECTED_TEXT.sub("", "".join(others)).strip()
        found += [left] if left else []
        others.clear()
        # A front end that was stopped for long does not know what became of what it was writing, and says so to all.
        is_error = said.get("level") in {"error", "critical"} and said.get("status") != 503
        is_error = is_error and not EXPECTED_ERROR.fullmatch(str(said.get("error")))
        if (
            (is_error and not errors_expected)
            or "exception" in said
            or "bytes are not" in line
            or "Corrupt" in line
        ):
            found.append(line)
    return found
