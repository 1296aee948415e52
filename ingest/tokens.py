"""Upwell's own routes for tokens, in the same envelope as the Cloudflare door: ``POST /upwell/v1/tokens`` and ``…/revoke``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from ingest.doors.cloudflare.context import json_body, operations
from ingest.doors.cloudflare.envelope import success
from ingest.doors.cloudflare.errors import errors_in_envelopes
from ingest.requests import bearer_token
from ingest.unread import read_when_wanted
from upwell.catalog.tokens import ANY, Access, Grant
from upwell.errors import Forbidden, Invalid
from upwell.rate import RateText

#: What the catalog lets an account and an index be called, or * for all. A door may allow less.
PIECE = r"^(\*|[A-Za-z0-9_][A-Za-z0-9_-]{0,254})$"


class NewToken(BaseModel):
    """Body of ``POST /upwell/v1/tokens``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=128)] = ""
    account: Annotated[str, Field(pattern=PIECE)] = ANY
    index: Annotated[str, Field(pattern=PIECE)] = ANY
    access: Access = Access.WRITE
    expires_in_s: Annotated[float, Field(gt=0, le=10 * 365 * 86_400)] | None = None
    #: How often it may be used, such as 1200/5minutes, in place of the server's setting.
    rate: Annotated[RateText | None, Field(examples=["1200/5minutes"])] = None


class IssuedToken(Grant):
    """Its result: what the token allows, and the token itself."""

    token: str


async def create_token(request: web.Request) -> web.Response:
    """Make a token no stronger than the caller's own; it is shown in this answer and never again."""
    ops = operations(request)
    _check_may_administer(await ops.grant_of(bearer_token(request)))
    asked = await json_body(request, NewToken)
    lasts = None if asked.expires_in_s is None else timedelta(seconds=asked.expires_in_s)
    token, issued = await ops.look(
        lambda: ops.engine.tokens.issue(
            name=asked.name,
            account=asked.account,
            index=asked.index,
            access=asked.access,
            lasts=lasts,
            rate=asked.rate,
        )
    )
    return success(IssuedToken(token=token, **issued.model_dump()).model_dump(mode="json"))


class RevokedToken(BaseModel):
    """Body of ``POST /upwell/v1/tokens/revoke``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=512)]


async def revoke_token(request: web.Request) -> web.Response:
    """Make a token useless, on every front end and from its next request on."""
    ops = operations(request)
    _check_may_administer(await ops.grant_of(bearer_token(request)))
    asked = await json_body(request, RevokedToken)
    if ops.engine.tokens.is_admin_token(asked.token):
        raise Invalid(
            "token: the bootstrap admin token is a setting; change UPWELL_TOKEN or data/admin-token"
        )
    await ops.look(ops.engine.tokens.revoke, asked.token)
    return success(None)


def _check_may_administer(grant: Grant) -> None:
    if grant.account != ANY or grant.index != ANY or grant.access is not Access.ADMIN:
        raise Forbidden("only a token that may administer every account can make and revoke tokens")


def upwell_door() -> web.Application:
    """An application to be mounted at ``/upwell/v1``."""
    door = web.Application(middlewares=[errors_in_envelopes])
    door.add_routes(
        read_when_wanted([web.post("/tokens", create_token), web.post("/tokens/revoke", revoke_token)])
    )
    return door
