"""A house of processes on one store that may fail: they write, apply, merge, collect, create, delete, and remember what was promised.

Processes take turns inside each other: at any call of the disk another one may act, between a link and the fsync of its folder, say; and
one that is inside may be killed there. What was acknowledged is kept as promises, each with the time (the disk's journal) at which it was
made, so that ``check`` can be asked about any moment: of what is left of the store after a power failure, say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from tests.house_mutations import IDS, MODEL, FakeModel, Replayed, any_mutation, replay
from tests.making import HandClock, contents, drain, make_index, prepared, upsert
from tests.simulated_disk import SimulatedDisk
from upwell.catalog.names import NewIndex
from upwell.catalog.tokens import Access
from upwell.changeset import Changeset, KeyScope
from upwell.engine import Engine, Index
from upwell.errors import Exists, Fenced, NotFound, Unauthenticated, Unavailable
from upwell.kinds import IndexKind
from upwell.log.entry import PreparedMutation, decode_entry, request_of
from upwell.log.receipt import Receipt, mint
from upwell.log.writer import LogWriter
from upwell.outcome import State
from upwell.settings import Settings
from upwell.shard.embedding import NoClaims
from upwell.shard.metric import Metric
from upwell.store import DirectoryStore, Store
from upwell.webhook.model import Event

ROOT = Path("/store")
GRACE_S = 100.0
SETTINGS = Settings(
    data=Path("/nowhere"),
    grace_s=GRACE_S,
    results_s=2 * GRACE_S,
    compaction_fanout=2,
    compaction_settle_s=0,
    batch_mutations_max=3,
    token="admin-token",
)


class KilledError(BaseException):
    """This process was killed here. Nothing of ours catches it."""


@dataclass(frozen=True)
class Promise:
    """What a client was told at one time, until somebody asked for it to be undone."""

    says: str
    made_at: int
    holds: Callable[[Engine], bool]
    ends_at: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Sent:
    """A mutation as its client sent it. The row called ``mark`` is its own."""

    number: int
    changeset: Changeset
    key: str | None = None

    @property
    def mark(self) -> str:
        return f"m{self.number}"


class Process:
    """One process: an engine of its own on the common store."""

    def __init__(self, store: Store, clock: HandClock, model: FakeModel | None = None) -> None:
        self.engine = Engine(store, SETTINGS, clock)
        self.engine.__dict__["models"] = model or FakeModel()
        self.writers: dict[str, LogWriter] = {}
        self.busy = False

    def index(self, name: str = "main") -> Index:
        return self.engine.find("default", name)


class House:
    """The processes, and what they promised."""

    def __init__(
        self, disk: SimulatedDisk, rng: random.Random, *, processes: int = 3, nested: float = 0.03, killed: float = 0.1,
        store: Callable[[SimulatedDisk], Store] | None = None,
    ) -> None:  # fmt: skip
        self.disk, self.rng, self.clock = disk, rng, HandClock()
        self.nested, self.killed = nested, killed
        self._store = store or (lambda disk: DirectoryStore(ROOT, disk))
        self.promises: list[Promise] = []
        self.webhooks_deleted: set[str] = set()
        #: By number: what was sent, and when it was acknowledged with which receipt.
        self.sent: list[Sent] = []
        self.acknowledged: dict[int, tuple[int, Receipt]] = {}
        self.depth = 0
        self.count = 0
        self.refused = 0
        # As long as anybody interrupts: afterwards it is there.
        self.model = FakeModel(lambda: disk.hook is not None and rng.random() < 0.1)
        new = NewIndex(
            name="main", description=None, dimensions=2, metric=Metric.EUCLIDEAN, shards=2,
            kind=IndexKind.DENSE, key_scope=KeyScope.OPEN, embedding_model=MODEL,
        )  # fmt: skip
        Process(self._store(disk), self.clock).engine.catalog.create("default", new)
        self.processes = [Process(self._store(disk), self.clock, self.model) for _ in range(processes)]
        self.promise("the index is there", lambda engine: bool(engine.find("default", "main")))
        self.main = self.processes[0].index().record
        disk.hook = self._interrupted

    @property
    def now(self) -> int:
        return len(self.disk.journal)

    def promise(self, says: str, holds: Callable[[Engine], bool]) -> Promise:
        promise = Promise(says, self.now, holds)
        self.promises.append(promise)
        return promise

    def number(self) -> int:
        self.count += 1
        return self.count

    # What happens.

    def live(self, actions: int) -> None:
        """Do so many things."""
        for _ in range(actions):
            self.act(self.rng.choice(self.processes))

    def act(self, process: Process, action: Callable[[House, Process], None] | None = None) -> None:
        """One thing, by one process, which may be killed meanwhile."""
        action = action or self.rng.choices([*self.ACTIONS], [*self.ACTIONS.values()])[0]
        process.busy = True
        try:
            action(self, process)
        except (Unavailable, Fenced, NotFound, Exists):
            self.refused += 1
        except KilledError:
            # Its files are closed by the system; others go on.
            if process in self.processes:
                where = self.processes.index(process)
                with self.quiet():
                    self.processes[where] = Process(self._store(self.disk), self.clock, self.model)
        finally:
            process.busy = False

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Nobody interrupts, and the disk is well."""
        hook, self.disk.hook = self.disk.hook, None
        fault, self.disk.fault = self.disk.fault, None
        try:
            yield
        finally:
            self.disk.hook, self.disk.fault = hook, fault

    def _interrupted(self, _call: str, _about: object) -> None:
        """At a call of the disk: perhaps another process acts first, and perhaps the one that called does not live to see it."""
        if self.depth >= 2 or self.rng.random() >= self.nested:
            return
        idle = [process for process in self.processes if not process.busy]
        if not idle:
            return
        self.depth += 1
        try:
            for _ in range(self.rng.randrange(1, 4)):
                self.act(self.rng.choice(idle))
                idle = [process for process in self.processes if not process.busy]
        finally:
            self.depth -= 1
        if self.rng.random() < self.killed:
            raise KilledError

    # What processes do.

    def append(self, process: Process, key: str | None = None) -> None:
        """One entry with one or two mutations; or one that may be sent again, as a front end does it."""
        index = process.index()
        entry: list[PreparedMutation] = []
        numbers = []
        for _ in range(1 if key else self.rng.randrange(1, 3)):
            number = self.number()
            mutation = Sent(number, upsert((key, (1, 1))) if key else any_mutation(self.rng, number), key)
            self.sent.append(mutation)
            numbers.append(number)
            one = prepared(mutation.changeset)
            request = request_of(one, "sender", key) if key else None
            entry.append(
                PreparedMutation(
                    mutation=replace(one.mutation, by=mutation.mark, request=request), columns=one.columns
                )
            )
        request = entry[0].mutation.request
        if request is not None and (settled := index.requests.answer(request.name)) is not None:
            return self._answered(request.name, settled.receipt)
        writer = process.writers.get(index.record.id)
        if writer is None:
            writer = process.writers[index.record.id] = index.log_writer()
        position = writer.append(entry)
        if request is not None:
            return self._answered(request.name, index.requests.settle(request, Receipt(position, 0)).receipt)
        for place, number in enumerate(numbers):
            self.acknowledged[number] = self.now, Receipt(position, place)
        return None

    def _answered(self, name: str, receipt: Receipt) -> None:
        def holds(engine: Engine) -> bool:
            found = engine.find("default", "main").requests.find(name)
            return found is not None and found.receipt == receipt

        self.promise(f"a request became {receipt}", holds)

    def send(self, process: Process, changeset: Changeset) -> Receipt:
        """One mutation, acknowledged."""
        sent = Sent(self.number(), changeset)
        self.sent.append(sent)
        one = prepared(changeset)
        one = PreparedMutation(mutation=replace(one.mutation, by=sent.mark), columns=one.columns)
        receipt = Receipt(process.index().log_writer().append([one]), 0)
        self.acknowledged[sent.number] = self.now, receipt
        return receipt

    def append_again(self, process: Process) -> None:
        """One of a few requests that are sent again and again."""
        self.append(process, f"key{self.rng.randrange(3)}")

    def apply(self, process: Process) -> None:
        process.engine.apply_batch(self.main.id, lambda: True)

    def embed(self, process: Process) -> None:
        """Make and keep vectors of texts that nobody needs yet."""
        process.engine.embed_ahead(self.main.id, NoClaims())

    def ask(self, process: Process) -> None:
        """Ask for the status of something acknowledged."""
        known = [receipt for _, receipt in self.acknowledged.values()]
        if not known:
            return
        receipt = self.rng.choice(known[-6:])
        outcome = process.index().outcomes.of(mint(self.main.receipt_key, receipt))
        if outcome.state is not State.QUEUED:
            through = outcome.visible_through
            self.promise(
                f"visible through {through}",
                lambda engine: engine.find("default", "main").head.refresh().applied_through >= through,
            )

    def compact(self, process: Process) -> None:
        process.engine.compact(self.main.id, self.rng.randrange(2))

    def collect(self, process: Process) -> None:
        process.engine.collect_garbage(self.main.id)
        if self.rng.random() < 0.3:
            process.engine.collect_dead_indexes()

    def time_passes(self, process: Process) -> None:
        """As collectors see it, who are all there to look."""
        for _ in range(4):
            self.clock.pass_s(GRACE_S / 3)
            self.collect(process)

    def create(self, process: Process) -> None:
        self.create_named(process, f"other{self.rng.randrange(2)}")

    def create_named(self, process: Process, name: str) -> None:
        began = self.now
        self._undone(f"{name} is deleted")
        make_index(process.engine, name, shards=1)
        if any(one.says == f"{name} is deleted" and one.made_at >= began for one in self.promises):
            # Another process may have seen it, and deleted it, before its maker was told.
            return
        self.promise(f"{name} is created", lambda engine: bool(engine.find("default", name).head.refresh()))

    def remove(self, process: Process) -> None:
        name = f"other{self.rng.randrange(2)}"
        says, began = f"{name} is created", self.now
        self._undone(says)
        try:
            process.engine.catalog.delete("default", name)
        finally:
            # One that was made meanwhile may be the one that we deleted.
            for promise in self.promises:
                if promise.says == says and promise.made_at >= began:
                    promise.ends_at.append(promise.made_at)
        self.promise(f"{name} is deleted", lambda engine: _is_gone(engine, name))

    def token(self, process: Process) -> None:
        tokens = process.engine.tokens
        token, _ = tokens.issue(
            name="t", account="*", index="*", access=Access.READ, lasts=timedelta(days=365)
        )
        issued = self.promise("a token is good", lambda engine: bool(engine.tokens.grant_of(token)))
        if self.rng.random() < 0.5:
            issued.ends_at.append(self.now)
            tokens.revoke(token)
            self.promise("a token is revoked", lambda engine: _is_refused(engine, token))

    def webhook(self, process: Process) -> None:
        webhooks = process.index().webhooks
        known = [webhook.id for webhook, _ in webhooks.everything()]
        if len(known) < 3:
            made = webhooks.create("https://example.com/hook", [Event.VISIBLE], None).id
            # Another process may have seen it, and deleted it, before its maker was told.
            if made not in self.webhooks_deleted:
                self.promise(f"webhook {made}", lambda engine: made in _webhooks(engine))
        else:
            gone = self.rng.choice(known)
            self.webhooks_deleted.add(gone)
            self._undone(f"webhook {gone}")
            webhooks.delete(gone)
            self.promise(f"no webhook {gone}", lambda engine: gone not in _webhooks(engine))

    def courier(self, process: Process) -> None:
        """Write a step of a webhook's progress."""
        for webhook_id in process.engine.webhooks_due(self.main.id)[:1]:
            delivery = process.engine.webhook_delivery(self.main.id, webhook_id)
            if delivery is not None and (due := delivery.due()) is not None:
                delivery.passed(due)
                delivery.save()

    def _undone(self, says: str) -> None:
        for promise in self.promises:
            if promise.says == says:
                promise.ends_at.append(self.now)

    ACTIONS: ClassVar[dict[Callable[[House, Process], None], float]] = {
        append: 8, append_again: 2, apply: 5, embed: 1, ask: 4, compact: 2, collect: 1, time_passes: 1, create: 1, remove: 1, token: 0.5,
        webhook: 0.7, courier: 0.7,
    }  # fmt: skip

    # What must hold.

    def check(self, disk: SimulatedDisk, at: int, *, lives_on: bool) -> None:
        """Processes that start on ``disk``, which was left over at time ``at``, find all that was promised by then."""
        after = Aftermath(self, disk, at)
        after.check_promises()
        after.check_contents()
        drain(after.engine, after.index)
        after.check_acknowledged()
        after.check_contents()
        after.write_and_check("new")
        if lives_on:
            after.live_on()


class Aftermath:
    """What is found when everything starts anew."""

    def __init__(self, house: House, disk: SimulatedDisk, at: int) -> None:
        self.house, self.at = house, at
        self.clock = HandClock()
        self.clock.pass_s(10_000)
        self.store = DirectoryStore(ROOT, disk)
        self.engine = Process(self.store, self.clock).engine
        #: What lies, or lay, in the log, as far as we know: by position, which mutations.
        self.landed = dict(landed(house.disk, at, house.main.folder))
        self.by_number = {sent.number: sent for sent in house.sent}

    @property
    def index(self) -> Index:
        return self.engine.find("default", "main")

    def check_promises(self) -> None:
        for promise in self.house.promises:
            if promise.made_at <= self.at and not any(end <= self.at for end in promise.ends_at):
                assert promise.holds(self.engine), f"{promise.says}, and it does not hold"

    def check_acknowledged(self) -> None:
        """Every acknowledged mutation is where its receipt says, once, and visible."""
        through = self.index.head.refresh().applied_through
        assert through == self.index.log.tail(through)
        failed = self.replayed().failed
        for number, (when, receipt) in self.house.acknowledged.items():
            if when <= self.at:
                assert receipt.position <= through, f"{number} is lost"
                assert self.landed[receipt.position][receipt.place] == number
                outcome = self.index.outcomes.of(mint(self.house.main.receipt_key, receipt))
                fails = (receipt.position, receipt.place) in failed
                assert outcome.state is (State.FAILED if fails else State.VISIBLE), outcome

    def check_contents(self) -> None:
        """What there is now is what all that is applied comes to, in the log's order, each of it once."""
        replayed, manifest = self.replayed(), self.index.head.refresh()
        namespaces = self.index.newest.get().namespaces
        found = {
            (namespaces.name(space or ""), name): values
            for (space, name), (values, _) in contents(self.index).items()
        }
        assert found == replayed.rows
        assert {*namespaces.identities} == replayed.namespaces
        assert {(one.position, one.place) for one in manifest.failures} == replayed.failed

    def replayed(self) -> Replayed:
        """What all that is applied comes to."""
        applied = [
            (Receipt(position, place), self.by_number[number])
            for position in range(1, self.index.head.refresh().applied_through + 1)
            for place, number in enumerate(self.landed[position])
        ]
        numbers = [sent.number for _, sent in applied]
        assert len(set(numbers)) == len(numbers), "one mutation is there twice"
        counting = [(at, sent.changeset) for at, sent in applied if not self._is_duplicate(sent, at)]
        return replay(self.house.main.key_scope, counting)

    def _is_duplicate(self, sent: Sent, receipt: Receipt) -> bool:
        if sent.key is None:
            return False
        request = request_of(prepared(sent.changeset), "sender", sent.key)
        settled = self.index.requests.find(request.name)
        assert settled is not None, "a request was applied, and is not decided"
        return settled.receipt != receipt

    def write_and_check(self, name: str) -> None:
        """The store takes what is new."""
        number = 1_000_000 + len(self.by_number)
        sent = Sent(number, upsert((name, (7, 7)), (IDS[0], (8, 8))))
        self.by_number[number] = sent
        position = self.index.log_writer().append([prepared(sent.changeset)])
        self.landed[position] = (number,)
        drain(self.engine, self.index)
        self.check_contents()

    def live_on(self) -> None:
        """Merge and collect for some time, and lose nothing by it."""
        for round_number in range(6):
            for shard in range(2):
                self.engine.compact(self.index.record.id, shard)
            self.clock.pass_s(GRACE_S / 2)
            self.engine.collect_garbage(self.index.record.id)
            self.engine.collect_dead_indexes()
            self.write_and_check(f"later{round_number}")
        self.index.outcomes.recent(20)
        assert self.index.head.chain.oldest_version() <= self.index.head.refresh().version
        self.check_promises()


def landed(disk: SimulatedDisk, at: int, folder: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Every entry that was ever linked into the log by time ``at``, and the numbers of its mutations.

    The first at a position is the one that counts: another that came much later, when the first was applied and swept, lies in the dead zone.
    """
    contents_of: dict[int, bytes] = {}
    taken: set[int] = set()
    for name, *about in disk.journal[:at]:
        if name == "write":
            contents_of[about[0]] = contents_of.get(about[0], b"") + about[1]
        elif name == "link" and about[1].parent == ROOT / folder / "log":
            position = int(about[1].name)
            if position in taken:
                continue
            taken.add(position)
            entry = decode_entry(memoryview(contents_of[about[0]]), position)
            yield position, tuple(int(one.by[1:]) if one.by else 0 for one in entry.mutations)


def _is_refused(engine: Engine, token: str) -> bool:
    try:
        engine.tokens.grant_of(token)
    except Unauthenticated:
        return True
    return False


def _is_gone(engine: Engine, name: str) -> bool:
    try:
        engine.find("default", name)
    except NotFound:
        return True
    return False


def _webhooks(engine: Engine) -> set[str]:
    return {webhook.id for webhook, _ in engine.find("default", "main").webhooks.everything()}
