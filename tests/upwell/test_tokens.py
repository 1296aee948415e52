"""Tokens over time: they end, are exchanged and revoked, and nothing that is not understood allows anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread

import pytest

from tests.making import HandClock, make_engine
from upwell.catalog.tokens import Access, Grant, Tokens, TokenState
from upwell.errors import Forbidden, Invalid, NotFound, Unauthenticated
from upwell.format import VERSION, Kind, pack, unpack
from upwell.store import DirectoryStore

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def tokens(store: DirectoryStore, clock: HandClock) -> Tokens:
    return Tokens(store, clock, "the-bootstrap-token", None)


def issue(tokens: Tokens, lasts: timedelta | None = None, door: str = "*") -> tuple[str, Grant]:
    return tokens.issue(
        name="n", account="acme", index="docs", access=Access.WRITE, lasts=lasts, rate="10/second", door=door
    )


def digest(store: DirectoryStore) -> str:
    (only,) = store.list("token")
    return only


def test_a_rotated_token_is_useless_at_once_and_its_successor_is_what_it_was(tokens: Tokens) -> None:
    token, grant = issue(tokens, HOUR)
    successor, again = tokens.rotate(token, timedelta())
    assert successor != token and again == grant == tokens.grant_of(successor)
    with pytest.raises(Unauthenticated, match="rotated"):
        tokens.grant_of(token)


def test_a_rotated_token_is_good_for_its_overlap_and_says_so(tokens: Tokens, clock: HandClock) -> None:
    token, grant = issue(tokens)
    clock.pass_s(5)
    successor, again = tokens.rotate(token, HOUR)
    assert again.expires_at is None and again.created_at == clock.now() and again.id == grant.id
    assert tokens.grant_of(token).expires_at == clock.now() + HOUR
    clock.pass_s(3_599.9)
    assert tokens.grant_of(token).id == tokens.grant_of(successor).id
    clock.pass_s(0.1)
    with pytest.raises(Unauthenticated, match="rotated"):
        tokens.grant_of(token)
    assert tokens.grant_of(successor) == again


def test_rotating_lengthens_no_life(tokens: Tokens, clock: HandClock) -> None:
    token, grant = issue(tokens, HOUR)
    clock.pass_s(1_800)
    successor, again = tokens.rotate(token, 10 * HOUR)
    assert again.expires_at == grant.expires_at == tokens.grant_of(token).expires_at
    clock.pass_s(1_800)
    for ended in (token, successor):
        with pytest.raises(Unauthenticated, match="expired"):
            tokens.grant_of(ended)
        with pytest.raises(Invalid):
            tokens.rotate(ended, timedelta())


def test_a_token_is_rotated_once_however_many_try_at_a_time(tokens: Tokens, store: DirectoryStore) -> None:
    token, _ = issue(tokens)
    ready, made, refused = Barrier(4), [], []

    def rotate() -> None:
        ready.wait()
        try:
            made.append(tokens.rotate(token, HOUR)[0])
        except Invalid as error:
            refused.append(str(error))

    threads = [Thread(target=rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(refused) == 3 and all("rotated already" in says for says in refused)
    active = [one for one in tokens.everything() if one.state is TokenState.ACTIVE]
    assert sorted(one.rotated for one in active) == [False, True], "what nobody was shown is revoked"


def test_what_cannot_be_used_cannot_be_rotated(tokens: Tokens) -> None:
    with pytest.raises(NotFound):
        tokens.rotate("upw_never-was", timedelta())
    token, _ = issue(tokens)
    tokens.revoke(token)
    with pytest.raises(Invalid, match="revoked"):
        tokens.rotate(token, timedelta())


def test_a_token_can_be_revoked_in_its_overlap(tokens: Tokens) -> None:
    token, _ = issue(tokens)
    successor, _ = tokens.rotate(token, HOUR)
    tokens.revoke(token)
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.grant_of(token)
    assert tokens.grant_of(successor).id


def test_an_identity_is_revoked_with_all_its_tokens(tokens: Tokens) -> None:
    token, grant = issue(tokens)
    second, _ = tokens.rotate(token, HOUR)
    third, _ = tokens.rotate(second, HOUR)
    other, _ = issue(tokens)
    tokens.revoke_identity(grant.id)
    for revoked in (token, second, third):
        with pytest.raises(Unauthenticated, match="revoked"):
            tokens.grant_of(revoked)
    assert tokens.grant_of(other).id
    with pytest.raises(NotFound):
        tokens.revoke_identity("no-such-identity")


def test_a_list_tells_what_tokens_are_and_not_the_tokens(
    tokens: Tokens, store: DirectoryStore, clock: HandClock
) -> None:
    mortal, mortal_grant = issue(tokens, HOUR)
    clock.pass_s(1)
    token, grant = issue(tokens, door="binding")
    clock.pass_s(1)
    successor, _ = tokens.rotate(token, timedelta(days=1))
    listed = tokens.everything()
    assert [(one.grant.id, one.state, one.rotated) for one in listed] == [
        (mortal_grant.id, TokenState.ACTIVE, False),
        (grant.id, TokenState.ACTIVE, True),
        (grant.id, TokenState.ACTIVE, False),
    ]
    assert not any(secret in repr(listed) for secret in (mortal, token, successor, *store.list("token")))
    clock.pass_s(86_400)
    assert [one.state for one in tokens.everything()] == [
        TokenState.EXPIRED,
        TokenState.ROTATED,
        TokenState.ACTIVE,
    ]


def test_setting_the_clock_back_brings_no_token_back(
    tokens: Tokens, store: DirectoryStore, clock: HandClock
) -> None:
    token, _ = issue(tokens, HOUR)
    rotated, _ = issue(tokens)
    tokens.rotate(rotated, HOUR)
    clock.pass_s(3_600)
    clock.wall -= timedelta(days=1)
    for ended in (token, rotated):
        with pytest.raises(Unauthenticated):
            tokens.grant_of(ended)
    # Who starts now has no other time to go by: then a token lasts as much longer.
    assert Tokens(store, clock).grant_of(token).id


def test_a_clock_that_jumps_ahead_ends_tokens_and_harms_none_that_are_left(
    tokens: Tokens, clock: HandClock
) -> None:
    token, _ = issue(tokens, HOUR)
    clock.wall += timedelta(hours=2)
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.grant_of(token)
    clock.wall -= timedelta(hours=2)
    assert tokens.grant_of(token).id, "the mistake of a clock is not kept"


def test_rotated_at_once_means_on_every_machine(store: DirectoryStore, clock: HandClock) -> None:
    behind = HandClock()
    behind.wall -= timedelta(days=300)
    here, there = Tokens(store, clock), Tokens(store, behind)
    token, _ = issue(here)
    assert there.grant_of(token).id
    here.rotate(token, timedelta())
    with pytest.raises(Unauthenticated, match="rotated"):
        there.grant_of(token)


@pytest.mark.parametrize(
    "unknown", [{"only_on_tuesdays": True}, {"access": "audit"}, {"rate": "as the moon wanes"}]
)
def test_what_a_newer_upwell_grants_is_refused_and_not_guessed(
    tokens: Tokens, store: DirectoryStore, unknown: dict[str, object]
) -> None:
    token, grant = issue(tokens)
    known, _ = issue(tokens)
    (name,) = [
        one
        for one in store.list("token")
        if unpack(store.read(f"token/{one}"), Kind.TOKEN).meta["id"] == grant.id
    ]
    meta = unpack(store.read(f"token/{name}"), Kind.TOKEN).meta
    store.delete(f"token/{name}")
    store.create(f"token/{name}", *pack(Kind.TOKEN, meta | unknown))
    with pytest.raises(Unauthenticated, match="newer Upwell"):
        tokens.grant_of(token)
    with pytest.raises(Invalid, match="newer Upwell"):
        tokens.rotate(token, timedelta())
    assert [one.grant.id for one in tokens.everything()] == [tokens.grant_of(known).id]
    tokens.revoke(token)


def test_a_newer_format_is_refused_as_well(
    tokens: Tokens, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setitem(VERSION, Kind.TOKEN, 99)
        token, _ = issue(tokens)
    with pytest.raises(Unauthenticated, match="newer Upwell"):
        tokens.grant_of(token)


def test_a_token_without_a_door_is_good_at_all_and_older_ones_have_none(
    tokens: Tokens, store: DirectoryStore
) -> None:
    token, grant = issue(tokens)
    assert "door" not in unpack(store.read(f"token/{digest(store)}"), Kind.TOKEN).meta
    assert grant.door == "*" == tokens.grant_of(token).door
    for door in ("cloudflare", "binding", "upwell", "one-of-tomorrow"):
        grant.check_door(door)


def test_a_token_for_one_door_is_good_at_that_one(tokens: Tokens) -> None:
    token, _ = issue(tokens, door="binding")
    grant = tokens.grant_of(tokens.rotate(token, timedelta())[0])
    grant.check_door("binding")
    for door in ("cloudflare", "upwell", "", "bindin", "BINDING"):
        with pytest.raises(Forbidden, match="another door"):
            grant.check_door(door)


def test_two_bootstrap_tokens_while_one_replaces_the_other(tmp_path: Path) -> None:
    tokens = make_engine(tmp_path, token="the-new-one", token_previous="the-old-one").tokens
    for token in ("the-new-one", "the-old-one"):
        assert tokens.is_admin_token(token) and tokens.grant_of(token) == tokens.admin
    with pytest.raises(Unauthenticated):
        tokens.grant_of("the-old-on")
    assert not Tokens(DirectoryStore(tmp_path / "other"), HandClock(), None, None).is_admin_token("")


def test_times_are_of_utc(tokens: Tokens) -> None:
    token, grant = issue(tokens, HOUR)
    assert grant.created_at == datetime(2026, 1, 2, 3, 4, 5, 6789, tzinfo=UTC)
    assert tokens.grant_of(token).expires_at == grant.created_at + HOUR
