"""Tokens: random, shown once, stored hashed, and scoped.

A token's object is named by its SHA-256, so that looking one up is one read and nothing stored can be used to call us;
comparing is left to the hash, which gives timing nothing to tell. Revoking adds an object; nothing is ever changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from upwell.clock import Clock
from upwell.errors import AlreadyExists, Forbidden, NotFound, Unauthenticated
from upwell.format import Kind, pack, unpack
from upwell.ids import new_identity
from upwell.rate import RateText
from upwell.store import Store

ANY = "*"
TOKEN_PREFIX = "upw_"  # noqa: S105  how our tokens begin, so that leaked ones can be searched for


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


class Tokens:
    """The tokens of a store, and the bootstrap admin token beside them. Blocking; safe to share between threads."""

    def __init__(self, store: Store, clock: Clock, admin_token: str | None) -> None:
        self._store = store
        self._clock = clock
        self._admin_hash = _hash(admin_token) if admin_token else None
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
    ) -> tuple[str, Grant]:
        """Make a token: (the token, to be shown once; what it allows)."""
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        now = self._clock.now()
        grant = Grant(
            id=new_identity(),
            name=name,
            account=account,
            index=index,
            access=access,
            created_at=now,
            expires_at=now + lasts if lasts is not None else None,
            rate=rate,
        )
        # What is not said is left out, so that an older Upwell reads all tokens that ask nothing new of it.
        meta = grant.model_dump(mode="json", exclude_none=True)
        self._store.create(f"token/{_hash(token)}", *pack(Kind.TOKEN, meta))
        return token, grant

    def revoke(self, token: str) -> None:
        """Make a token useless from now on. Raises NotFound."""
        digest = _hash(token)
        if not self._store.exists(f"token/{digest}"):
            raise NotFound("there is no such token")
        with contextlib.suppress(AlreadyExists):
            self._store.create(f"revoked/{digest}", *pack(Kind.TOKEN, {"at": self._clock.now().isoformat()}))

    def grant_of(self, token: str) -> Grant:
        """What a token allows. Raises Unauthenticated for one that is unknown, revoked or expired."""
        digest = _hash(token)
        if self._admin_hash is not None and hmac.compare_digest(digest, self._admin_hash):
            return self._admin
        try:
            grant = Grant.model_validate(unpack(self._store.read(f"token/{digest}"), Kind.TOKEN).meta)
        except NotFound:
            raise Unauthenticated from None
        if self._store.exists(f"revoked/{digest}"):
            raise Unauthenticated("the token was revoked")
        if grant.expires_at is not None and grant.expires_at <= self._clock.now():
            raise Unauthenticated("the token has expired")
        return grant

    def is_admin_token(self, token: str) -> bool:
        """Is this the bootstrap admin token? Touches no disk, so it may be called from an event loop."""
        return self._admin_hash is not None and hmac.compare_digest(_hash(token), self._admin_hash)

    @property
    def admin(self) -> Grant:
        """What the bootstrap admin token allows: everything."""
        return self._admin


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
