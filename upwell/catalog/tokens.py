"""Tokens: random, shown once, stored hashed, and scoped.

A token's object is named by its SHA-256, so that looking one up is one read and nothing stored can be used to call us;
comparing is left to the hash, which gives timing nothing to tell. Nothing is ever changed: revoking and rotating add objects.

    token/{sha256}     what it allows
    revoked/{sha256}   it is useless
    rotated/{sha256}   another took its place, and it is useless from a moment on that this says

Several tokens may have one identity: a rotated one and its successors. To whoever counts by token (rates, idempotency keys, what
was written last) they are one and the same, so that a client does not notice when its token is exchanged.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from upwell.clock import Clock
from upwell.errors import AlreadyExists, Corrupt, Forbidden, Invalid, NotFound, TooNew, Unauthenticated
from upwell.format import Kind, pack
from upwell.ids import new_identity
from upwell.rate import RateText
from upwell.store import Store, create_own, read_object

log = structlog.get_logger()

ANY = "*"
TOKEN_PREFIX = "upw_"  # noqa: S105  how our tokens begin, so that leaked ones can be searched for
ROTATED_ALREADY = "token: it was rotated already; rotate the one that took its place"
LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Access(StrEnum):
    """What a token may do; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    #: Create and delete indexes; with account ``*`` also make tokens.
    ADMIN = "admin"

    def includes(self, other: Access) -> bool:
        """May a holder of this do ``other``?"""
        order = list(Access)
        return order.index(self) >= order.index(other)


class Grant(BaseModel):
    """What one token allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: Annotated[str, Field(max_length=128)] = ""
    #: The account it is for, or ``*``.
    account: str = ANY
    #: The index it is for, or ``*``.
    index: str = ANY
    #: The door it may be used at, or ``*``. What doors there are is for the front end to know.
    door: str = ANY
    access: Access = Access.ADMIN
    created_at: datetime | None = None
    expires_at: datetime | None = None
    #: How often it may be used, on each front end; None: as the server's setting says.
    rate: RateText | None = None

    def check(self, access: Access, account: str, index: str | None) -> None:
        """Raise Forbidden unless this grant covers ``access`` to ``index`` (None: the account as a whole)."""
        if self.account not in (ANY, account):
            raise Forbidden("the token is for another account", account=account)
        if self.index not in (ANY, index):
            raise Forbidden("the token is for one index only", index=self.index)
        if not self.access.includes(access):
            raise Forbidden(f"the token allows {self.access}, and this needs {access}")

    def check_door(self, door: str) -> None:
        """Raise Forbidden unless this grant may be used at ``door``."""
        if self.door not in (ANY, door):
            raise Forbidden("the token is for another door", door=self.door)


class TokenState(StrEnum):
    """Whether a token may be used now."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
    #: Another took its place, and its time beside that one is over.
    ROTATED = "rotated"


@dataclass(frozen=True, slots=True)
class Issued:
    """A token as the store knows it. While it is used beside its successor, the grant ends when it does."""

    grant: Grant
    state: TokenState
    rotated: bool


class Tokens:
    """The tokens of a store, and the bootstrap admin tokens beside them. Blocking; safe to share between threads."""

    def __init__(self, store: Store, clock: Clock, *admin_tokens: str | None) -> None:
        self._store = store
        self._clock = clock
        self._began = clock.now(), clock.monotonic()
        self._admin_hashes = tuple(_hash(token) for token in admin_tokens if token)
        self._admin = Grant(id="bootstrap", name="bootstrap admin")

    def issue(
        self,
        *,
        name: str,
        account: str,
        index: str,
        access: Access,
        lasts: timedelta | None,
        rate: str | None = None,
        door: str = ANY,
    ) -> tuple[str, Grant]:
        """Make a token: (the token, to be shown once; what it allows)."""
        now = self._clock.now()
        grant = Grant(
            id=new_identity(),
            name=name,
            account=account,
            index=index,
            door=door,
            access=access,
            created_at=now,
            expires_at=now + lasts if lasts is not None else None,
            rate=rate,
        )
        return self._write(grant), grant

    def rotate(self, token: str, overlap: timedelta) -> tuple[str, Grant]:
        """Make a token that takes this one's place: its identity, what it allows, and until when. This one is useless after ``overlap``.

        Raises NotFound, or Invalid if it cannot be used any more or was rotated already.
        """
        digest = _hash(token)
        try:
            old = self._read(digest)
        except Unauthenticated as error:
            raise Invalid(f"token: {error.detail}") from None
        if old.rotated:
            raise Invalid(ROTATED_ALREADY)
        if old.state is not TokenState.ACTIVE:
            raise Invalid(f"token: it is {old.state}; make a new one")
        now = self._clock.now()
        grant = old.grant.model_copy(update={"created_at": now})
        # The new one first: a crash in between leaves one more that nobody has seen, and the old one as good as it was.
        successor = self._write(grant)
        try:
            # At once means at once, on machines too whose clocks are behind.
            until = self._now() + overlap if overlap else LONG_AGO
            meta = {"at": now.isoformat(), "until": until.isoformat(), "successor": _hash(successor)}
            self._store.create(f"rotated/{digest}", *pack(Kind.TOKEN, meta))
        except AlreadyExists:
            # A client library may have sent ours twice.
            found = read_object(self._store, f"rotated/{digest}", Kind.TOKEN).meta
            if found.get("successor") != _hash(successor):
                self._revoke(_hash(successor))
                raise Invalid(ROTATED_ALREADY) from None
        return successor, grant

    def revoke(self, token: str) -> None:
        """Make a token useless from now on. Raises NotFound."""
        digest = _hash(token)
        if not self._store.exists(f"token/{digest}"):
            raise NotFound("there is no such token")
        self._revoke(digest)

    def revoke_identity(self, identity: str) -> None:
        """Make every token of an identity useless from now on. Looks at all tokens; raises NotFound if none is of it."""
        found = [digest for digest, issued in self._all() if issued.grant.id == identity]
        if not found:
            raise NotFound("there is no such token", id=identity[:64])
        for digest in found:
            self._revoke(digest)

    def everything(self) -> list[Issued]:
        """All tokens that were ever made, oldest first. Four looks for each."""
        found = [issued for _, issued in self._all()]
        return sorted(found, key=lambda issued: (str(issued.grant.created_at), issued.grant.id))

    def grant_of(self, token: str) -> Grant:
        """What a token allows. Raises Unauthenticated for one that is unknown, revoked, rotated or expired."""
        if self.is_admin_token(token):
            return self._admin
        try:
            issued = self._read(_hash(token))
        except NotFound:
            raise Unauthenticated from None
        match issued.state:
            case TokenState.REVOKED:
                raise Unauthenticated("the token was revoked")
            case TokenState.ROTATED:
                raise Unauthenticated("the token was rotated; use the one that took its place")
            case TokenState.EXPIRED:
                raise Unauthenticated("the token has expired")
        return issued.grant

    def is_admin_token(self, token: str) -> bool:
        """Is this a bootstrap admin token? Touches no disk, so it may be called from an event loop."""
        digest = _hash(token)
        return any([hmac.compare_digest(digest, known) for known in self._admin_hashes])  # noqa: C419  always all

    @property
    def admin(self) -> Grant:
        """What a bootstrap admin token allows: everything."""
        return self._admin

    def _write(self, grant: Grant) -> str:
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        # What is not said is left out, so that an older Upwell reads all tokens that ask nothing new of it.
        meta = grant.model_dump(mode="json", exclude_none=True)
        if grant.door == ANY:
            del meta["door"]
        create_own(self._store, f"token/{_hash(token)}", *pack(Kind.TOKEN, meta))
        return token

    def _revoke(self, digest: str) -> None:
        with contextlib.suppress(AlreadyExists):
            self._store.create(f"revoked/{digest}", *pack(Kind.TOKEN, {"at": self._clock.now().isoformat()}))

    def _all(self) -> Iterator[tuple[str, Issued]]:
        for digest in self._store.list("token"):
            try:
                yield digest, self._read(digest)
            except (Unauthenticated, Corrupt) as error:
                log.error("token cannot be read", error=str(error))

    def _read(self, digest: str) -> Issued:
        """Raises NotFound, or Unauthenticated for one that a newer Upwell made and that asks what this one does not know."""
        try:
            grant = Grant.model_validate(read_object(self._store, f"token/{digest}", Kind.TOKEN).meta)
        except NotFound:
            raise NotFound("there is no such token") from None
        except (ValidationError, TooNew):
            # To ignore what is not understood could allow more than was granted.
            raise Unauthenticated(
                "the token was made by a newer Upwell than this one, which does not understand all of it"
            ) from None
        until = self._rotated_until(digest)
        if self._store.exists(f"revoked/{digest}"):
            return Issued(grant, TokenState.REVOKED, until is not None)
        now = self._now()
        if until is not None and until <= now:
            return Issued(grant, TokenState.ROTATED, rotated=True)
        if grant.expires_at is not None and grant.expires_at <= now:
            return Issued(grant, TokenState.EXPIRED, until is not None)
        if until is not None:
            grant = grant.model_copy(update={"expires_at": min(until, grant.expires_at or until)})
        return Issued(grant, TokenState.ACTIVE, until is not None)

    def _rotated_until(self, digest: str) -> datetime | None:
        """Until when a token is good beside the one that took its place; None if none did."""
        try:
            box = read_object(self._store, f"rotated/{digest}", Kind.TOKEN)
        except NotFound:
            return None
        with box.understood():
            return datetime.fromisoformat(box.meta["until"])

    def _now(self) -> datetime:
        """Wall time, which is all that survives a restart; set back while we run, it brings no token back."""
        wall, monotonic = self._began
        return max(self._clock.now(), wall + timedelta(seconds=self._clock.monotonic() - monotonic))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
