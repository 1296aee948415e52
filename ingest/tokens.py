"""Upwell's own routes for tokens, in the same envelope as the Cloudflare door: make, list, rotate and revoke.

    POST /upwell/v1/tokens              GET  /upwell/v1/tokens
    POST /upwell/v1/tokens/rotate       POST /upwell/v1/tokens/revoke

A door of their own, for which no token is made: whoever administers tokens may do everything everywhere.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from ingest.doors import Door
from ingest.doors.cloudflare.context import grant_at_door, json_body, operations
from ingest.doors.cloudflare.envelope import success
from ingest.doors.cloudflare.errors import errors_in_envelopes
from ingest.keys import DOOR
from ingest.operations import Operations
from ingest.unread import read_when_wanted
from upwell.catalog.tokens import ANY, Access, Grant, TokenState
from upwell.errors import Forbidden, Invalid
from upwell.rate import RateText

#: What the catalog lets an account and an index be called, or * for all. A door may allow less.
PIECE = r"^(\*|[A-Za-z0-9_][A-Za-z0-9_-]{0,254})$"
LASTS_S_MAX = 10 * 365 * 86_400
OVERLAP_S_MAX = 365 * 86_400
#: A token as it is sent to us.
Sent = Annotated[str, Field(min_length=1, max_length=512)]


class NewToken(BaseModel):
    """Body of ``POST /upwell/v1/tokens``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=128)] = ""
    account: Annotated[str, Field(pattern=PIECE)] = ANY
    index: Annotated[str, Field(pattern=PIECE)] = ANY
    door: Door = Door.ANY
    access: Access = Access.WRITE
    expires_in_s: Annotated[float, Field(gt=0, le=LASTS_S_MAX)] | None = None
    #: How often it may be used, such as 1200/5minutes, in place of the server's setting.
    rate: Annotated[RateText | None, Field(examples=["1200/5minutes"])] = None


class IssuedToken(Grant):
    """Its result: what the token allows, and the token itself."""

    token: str


async def create_token(request: web.Request) -> web.Response:
    """Make a token no stronger than the caller's own; it is shown in this answer and never again."""
    ops = await _administered(request)
    asked = await json_body(request, NewToken)
    lasts = None if asked.expires_in_s is None else timedelta(seconds=asked.expires_in_s)
    token, issued = await ops.look(
        lambda: ops.engine.tokens.issue(
            name=asked.name,
            account=asked.account,
            index=asked.index,
            door=asked.door,
            access=asked.access,
            lasts=lasts,
            rate=asked.rate,
        )
    )
    return success(IssuedToken(token=token, **issued.model_dump()).model_dump(mode="json"))


class ListedToken(Grant):
    """A token in a list: what it allows, and neither it nor anything it could be told from."""

    state: TokenState
    #: Another took its place; until it expires it may be used beside that one.
    rotated: bool


async def list_tokens(request: web.Request) -> web.Response:
    """Every token that was ever made, oldest first."""
    ops = await _administered(request)
    found = await ops.look(ops.engine.tokens.everything)
    listed = [
        ListedToken(**one.grant.model_dump(), state=one.state, rotated=one.rotated).model_dump(mode="json")
        for one in found
    ]
    return success(listed)


class RotatedToken(BaseModel):
    """Body of ``POST /upwell/v1/tokens/rotate``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: Sent
    #: How long it may still be used beside the one that takes its place.
    overlap_s: Annotated[float, Field(ge=0, le=OVERLAP_S_MAX)] = 0


async def rotate_token(request: web.Request) -> web.Response:
    """Exchange a token for one with the same identity, which allows the same and for no longer."""
    ops = await _administered(request)
    asked = await json_body(request, RotatedToken)
    _check_not_bootstrap(ops, asked.token)
    token, issued = await ops.look(ops.engine.tokens.rotate, asked.token, timedelta(seconds=asked.overlap_s))
    return success(IssuedToken(token=token, **issued.model_dump()).model_dump(mode="json"))


class RevokedToken(BaseModel):
    """Body of ``POST /upwell/v1/tokens/revoke``: a token, or an identity with all tokens that it has had."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["token"]}, {"required": ["id"]}]},
    )

    token: Sent | SkipJsonSchema[None] = None
    id: Sent | SkipJsonSchema[None] = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.token is None) == (self.id is None):
            raise ValueError("expected either token or id")
        return self


async def revoke_token(request: web.Request) -> web.Response:
    """Make a token useless, on every front end and from its next request on."""
    ops = await _administered(request)
    asked = await json_body(request, RevokedToken)
    if asked.token is None:
        await ops.look(ops.engine.tokens.revoke_identity, asked.id)
    else:
        _check_not_bootstrap(ops, asked.token)
        await ops.look(ops.engine.tokens.revoke, asked.token)
    return success(None)


async def _administered(request: web.Request) -> Operations:
    """The operations, once the token is known to allow administering tokens. Raises Unauthenticated or Forbidden."""
    grant = await grant_at_door(request)
    if grant.account != ANY or grant.index != ANY or grant.access is not Access.ADMIN:
        raise Forbidden("only a token that may administer every account can make and revoke tokens")
    return operations(request)


def _check_not_bootstrap(ops: Operations, token: str) -> None:
    if ops.engine.tokens.is_admin_token(token):
        raise Invalid(
            "token: the bootstrap admin token is a setting; change UPWELL_TOKEN or data/admin-token"
        )


def upwell_door() -> web.Application:
    """An application to be mounted at ``/upwell/v1``."""
    door = web.Application(middlewares=[errors_in_envelopes])
    door[DOOR] = "upwell"
    door.add_routes(
        read_when_wanted(
            [
                web.post("/tokens", create_token),
                web.get("/tokens", list_tokens),
                web.post("/tokens/rotate", rotate_token),
                web.post("/tokens/revoke", revoke_token),
            ]
        )
    )
    return door
