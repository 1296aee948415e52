"""Manifests: one winner a version, invariants, late winners disbelieved. The catalog: names, identities, tokens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from tests.making import Client, HandClock, delete, drain, make_engine, make_index, upsert
from upwell.catalog.names import NewIndex
from upwell.catalog.tokens import Access, Grant
from upwell.changeset import KeyScope
from upwell.engine import Engine, Index
from upwell.errors import Corrupt, Exists, Fenced, Forbidden, Gone, Invalid, NotFound, Unauthenticated
from upwell.manifest import DeletionRef, Failure, Manifest, SegmentRef, ShardState
from upwell.manifest.state import INVARIANTS
from upwell.outcome import State
from upwell.shard.metric import Metric


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def engine(tmp_path: Path, clock: HandClock) -> Engine:
    return make_engine(tmp_path, clock=clock, grace_s=100)


@pytest.fixture
def index(engine: Engine) -> Index:
    return make_index(engine)


def following(before: Manifest, **changes: object) -> Manifest:
    return before.model_copy(update={"version": before.version + 1, **changes})


ONE = SegmentRef(id="one", rows=4, nbytes=1)
DELETED = ONE.model_copy(update={"deletions": DeletionRef(object="d", section="one", count=2)})
FAILED = Failure(position=1, place=0, reason="damaged")


@pytest.mark.parametrize(
    ("broken", "change"),
    [
        ("version_is_the_next", lambda m: following(m, version=m.version + 2)),
        ("index_stays_itself", lambda m: following(m, index_id="another")),
        ("index_stays_itself", lambda m: following(m, shards=m.shards[:1])),
        ("applied_never_goes_back", lambda m: following(m, applied_through=4)),
        (
            "every_segment_is_listed_once",
            lambda m: following(m, shards=(ShardState(segments=(DELETED,)),) * 2),
        ),
        ("deletions_only_grow", lambda m: following(m, shards=(ShardState(segments=(ONE,)), ShardState()))),
        ("failures_are_kept", lambda m: following(m, failures=())),
        ("key_scope_stays", lambda m: following(m, applied_through=6, key_scope=KeyScope.INDEX)),
        ("key_scope_stays", lambda m: following(m, applied_through=6, key_scope=None)),
        ("only_the_log_changes_what_there_is", lambda m: following(m, shards=(ShardState(),) * 2)),
        ("only_the_log_changes_what_there_is", lambda m: following(m, namespaces="another")),
    ],
)
def test_a_commit_that_would_break_an_invariant_is_not_made(
    index: Index, clock: HandClock, broken: str, change: Callable[[Manifest], Manifest]
) -> None:
    first = index.head.refresh()
    shards = (ShardState(segments=(DELETED,)), ShardState())
    sound = following(
        first, applied_through=5, shards=shards, failures=(FAILED,), key_scope=KeyScope.NAMESPACE
    )
    index.head.chain.commit(first, sound, (), clock.monotonic())
    with pytest.raises(AssertionError, match=broken):
        index.head.chain.commit(sound, change(sound), (), clock.monotonic())
    assert index.head.refresh() == sound
    assert sound.vectors == 2
    assert len(INVARIANTS) == 8


def test_of_two_commits_of_one_version_one_is_fenced(index: Index, clock: HandClock) -> None:
    before = index.head.refresh()

    def commit(writer: int) -> bool:
        try:
            index.head.chain.commit(before, following(before, writer=str(writer)), (), clock.monotonic())
        except Fenced:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(commit, range(6)))
    assert won.count(True) == 1
    assert index.head.refresh().writer == str(won.index(True))


def test_a_commit_that_slept_is_not_made_and_one_that_won_a_swept_version_is_not_believed(
    index: Index, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, looked_at = index.head.refresh(), clock.monotonic()
    clock.pass_s(51)
    with pytest.raises(Fenced, match="longer than its objects are kept"):
        index.head.chain.commit(before, following(before), (), looked_at)
    assert index.head.refresh() == before
    chain, create, looked_at = index.head.chain, index.log._store.create, clock.monotonic()

    def sleep_in_the_last_moment(key: str, *parts: bytes) -> None:
        monkeypatch.undo()
        manifest = before
        for _ in range(3):
            chain.commit(manifest, manifest := following(manifest), (), clock.monotonic())
        index.log._store.delete(key)
        clock.pass_s(200)
        create(key, *parts)

    monkeypatch.setattr(index.log._store, "create", sleep_in_the_last_moment)
    with pytest.raises(Fenced, match="too late to be believed"):
        chain.commit(before, following(before, writer="late"), (), looked_at)
    assert index.head.refresh().version == before.version + 3


def test_a_reader_that_slept_lists_instead_of_asking_for_the_next(index: Index, clock: HandClock) -> None:
    manifest = index.head.refresh()
    for _ in range(4):
        index.head.chain.commit(manifest, manifest := following(manifest), (), clock.monotonic())
    for version in (1, 2, 3):
        index.log._store.delete(f"{index.record.folder}/manifest/{version:020d}")
    clock.pass_s(51)
    assert index.head.refresh().version == 5


@pytest.mark.parametrize("swept", [0, 1, 4, 7])
def test_the_version_that_applied_a_position_is_found_or_known_to_be_gone(
    engine: Engine, index: Index, swept: int
) -> None:
    client = Client(index)
    applied_by: dict[int, int] = {}
    newest = index.head.refresh()
    for batch in (1, 3, 1, 0, 2, 5, 1):
        first = newest
        for number in range(batch):
            client.append(upsert((f"v{number}", (1, 1))))
        if batch:
            drain(engine, index)
        else:
            # A commit that applies nothing, as a compaction will be.
            index.head.chain.commit(first, following(first), (), engine.clock.monotonic())
        newest = index.head.refresh()
        applied_by |= dict.fromkeys(
            range(first.applied_through + 1, newest.applied_through + 1), newest.version
        )
    for version in range(1, swept + 1):
        index.log._store.delete(f"{index.record.folder}/manifest/{version:020d}")
    found = {p: index.head.chain.version_that_applied(p, newest) for p in applied_by}
    assert found == {p: version if version > swept else None for p, version in applied_by.items()}


def test_an_index_without_any_manifest_is_known_to_be_damaged(index: Index) -> None:
    index.log._store.delete(f"{index.record.folder}/manifest/{1:020d}")
    with pytest.raises(NotFound, match="no manifest"):
        index.head.refresh()


def test_a_manifest_under_another_versions_name_is_corrupt(index: Index) -> None:
    store = index.log._store
    store.create(
        f"{index.record.folder}/manifest/{2:020d}", store.read(f"{index.record.folder}/manifest/{1:020d}")
    )
    with pytest.raises(Corrupt, match="another version"):
        index.head.refresh()


def test_status_of_everything_on_its_way(engine: Engine, index: Index) -> None:
    client = Client(index)
    first, second = client.append(upsert(("a", (1, 1))), delete("a", "b"))
    (waiting,) = [*client.append(upsert(("b", (2, 2))))]
    queued = index.outcomes.of(second)
    assert (queued.state, queued.visible_through, queued.visible_at) == (State.QUEUED, 0, None)
    assert queued.result is not None and queued.result.received == 2
    assert index.outcomes.last_applied(index.head.refresh()) is None
    drain(engine, index)
    done = index.outcomes.of(second)
    assert done.state is State.VISIBLE and done.result is not None and done.result.deleted == 1
    assert done.visible_at == engine.clock.now()
    assert index.outcomes.last_applied(index.head.refresh()) == waiting
    assert [one.mutation_id for one in index.outcomes.recent(10)] == [waiting, second, first]
    assert [one.mutation_id for one in index.outcomes.recent(2)] == [waiting, second]


# The catalog.


def new(name: str) -> NewIndex:
    return NewIndex(name=name, description=None, dimensions=2, metric=Metric.COSINE, shards=1)


def test_a_name_made_again_is_another_index(engine: Engine, index: Index) -> None:
    (mutation,) = Client(index).append(upsert(("a", (1, 1))))
    with pytest.raises(Exists):
        engine.catalog.create("default", new("index"))
    engine.catalog.delete("default", "index")
    for gone in (engine.find, engine.catalog.delete):
        with pytest.raises(Gone):
            gone("default", "index")
    assert list(engine.backlogged()) == []
    with pytest.raises(NotFound):
        engine.index(index.record.id)
    assert engine.apply_batch(index.record.id, lambda: True) is None
    again = make_index(engine)
    assert again.record.id != index.record.id
    with pytest.raises(NotFound):
        again.outcomes.of(mutation)
    assert engine.forget_dead() in ({index.record.id}, set())


@pytest.mark.parametrize("damaged", ["record", f"manifest/{1:020d}"])
def test_one_damaged_index_does_not_hold_up_the_others(tmp_path: Path, damaged: str) -> None:
    engine = make_engine(tmp_path)
    indexes = [make_index(engine, name) for name in ("first", "second", "third")]
    for index in indexes:
        Client(index).append(upsert(("a", (1, 1))))
    path = tmp_path / "store" / indexes[1].record.folder / damaged
    path.write_bytes(path.read_bytes()[:70])
    fresh = make_engine(tmp_path)
    assert list(fresh.backlogged()) == [indexes[0].record.id, indexes[2].record.id]


def test_of_many_who_create_a_name_one_does(tmp_path: Path) -> None:
    engines = [make_engine(tmp_path) for _ in range(6)]

    def create(one: Engine) -> str | None:
        try:
            return one.catalog.create("default", new("wanted")).id
        except Exists:
            return None

    with ThreadPoolExecutor(6) as pool:
        ids = [made for made in pool.map(create, engines) if made is not None]
    assert len(ids) == 1
    assert {one.find("default", "wanted").record.id for one in engines} == set(ids)


def test_accounts_do_not_see_one_another(engine: Engine) -> None:
    for account, name in (("acme", "b"), ("acme", "a"), ("other", "c")):
        make_index(engine, name, account=account)
    assert [record.name for record in engine.catalog.list("acme")] == ["a", "b"]
    assert list(engine.catalog.list("nobody")) == list(engine.catalog.list("../acme")) == []
    assert len(engine.live_indexes()) == 3
    with pytest.raises(NotFound):
        engine.find("other", "a")


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", ".a", "a" * 256, "é", "a\n"])
def test_names_that_are_no_names(engine: Engine, name: str) -> None:
    with pytest.raises(Invalid):
        engine.catalog.create("default", new(name))
    with pytest.raises(Invalid):
        engine.catalog.create(name, new("fine"))
    with pytest.raises(NotFound):
        engine.find(name, name)


def test_one_account_is_not_another_where_a_file_system_takes_them_for_the_same(engine: Engine) -> None:
    engine.catalog.create("acme", new("docs"))
    catalog = engine.settings.data / "store" / "catalog"
    # What a file system shows that does not tell A from a.
    shutil.copytree(catalog / "acme", catalog / "ACME")
    shutil.copytree(catalog / "acme" / "docs", catalog / "acme" / "DOCS")
    for account, name in (("ACME", "docs"), ("acme", "DOCS")):
        with pytest.raises(NotFound):
            engine.find(account, name)
        with pytest.raises(NotFound):
            engine.catalog.delete(account, name)
        with pytest.raises(Exists):
            engine.catalog.create(account, new(name))
    assert engine.find("acme", "docs").record.account == "acme"


def test_tokens_are_hashed_scoped_and_mortal(engine: Engine, clock: HandClock) -> None:
    tokens = engine.tokens
    token, grant = tokens.issue(
        name="reader", account="acme", index="*", access=Access.READ, lasts=timedelta(hours=1)
    )
    assert tokens.grant_of(token) == grant
    assert token.encode() not in b"".join(
        path.read_bytes() for path in engine.settings.data.rglob("*") if path.is_file()
    )
    assert all(token not in str(path) for path in engine.settings.data.rglob("*"))
    clock.pass_s(3601)
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.grant_of(token)
    lasting, _ = tokens.issue(name="", account="*", index="*", access=Access.ADMIN, lasts=None)
    tokens.revoke(lasting)
    tokens.revoke(lasting)
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.grant_of(lasting)
    for unknown in ("", "upw_x", "é\ud800", token[:-1]):
        with pytest.raises(Unauthenticated):
            tokens.grant_of(unknown)
        with pytest.raises(NotFound):
            tokens.revoke(unknown)


@pytest.mark.parametrize(
    ("grant", "access", "account", "index", "allowed"),
    [
        (Grant(id="x"), Access.ADMIN, "any", None, True),
        (Grant(id="x", account="acme", access=Access.WRITE), Access.READ, "acme", "i", True),
        (Grant(id="x", account="acme", access=Access.WRITE), Access.ADMIN, "acme", None, False),
        (Grant(id="x", account="acme", access=Access.ADMIN), Access.READ, "other", "i", False),
        (Grant(id="x", account="acme", index="i", access=Access.ADMIN), Access.WRITE, "acme", "i", True),
        (Grant(id="x", account="acme", index="i", access=Access.ADMIN), Access.WRITE, "acme", "j", False),
        (Grant(id="x", account="acme", index="i", access=Access.ADMIN), Access.ADMIN, "acme", None, False),
    ],
)
def test_a_grant_covers_what_it_says(
    grant: Grant, access: Access, account: str, index: str | None, allowed: bool
) -> None:
    if allowed:
        grant.check(access, account, index)
        return
    with pytest.raises(Forbidden):
        grant.check(access, account, index)


def test_the_bootstrap_token_is_known_without_a_look(tmp_path: Path) -> None:
    tokens = make_engine(tmp_path, token="operators-own").tokens
    assert tokens.is_admin_token("operators-own")
    assert not tokens.is_admin_token("operators-owN")
    assert tokens.grant_of("operators-own").account == "*"
    assert not make_engine(tmp_path).tokens.is_admin_token("")
