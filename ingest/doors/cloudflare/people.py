"""Who one is, and in which accounts: what wrangler asks before it does anything, unless it is told an account.

There are no people here, only tokens, so a token is its own user: it has an identity and no e-mail address, and is a member of
the accounts that it was granted. Whoever has a valid token may ask, and learns nothing beyond that token's grant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from ingest.doors.cloudflare.context import ACCOUNT, grant_at_door, number_in, operations
from ingest.doors.cloudflare.envelope import answer, said, success
from ingest.doors.cloudflare.models import timestamp
from upwell.catalog.tokens import ANY, Grant

#: The account of those who never chose one; it need not hold an index yet.
DEFAULT_ACCOUNT = "default"
PER_PAGE_DEFAULT = 20
PER_PAGE_MAX = 1_000
PAGE_MAX = 1_000_000_000
TOKEN_IS_VALID = 10000


async def accounts(request: web.Request) -> web.Response:
    """``GET /accounts[?page=N][&per_page=N][&name=NAME]``: those that the token is for, by name."""
    return await _page(request, "name", lambda _grant, account: _account(account))


async def memberships(request: web.Request) -> web.Response:
    """``GET /memberships[?page=N][&per_page=N][&account.name=NAME]``: the same, and what the token may do there."""
    return await _page(request, "account.name", _membership)


async def user(request: web.Request) -> web.Response:
    """``GET /user``: the token, as if it were a person."""
    grant = await grant_at_door(request)
    result: dict[str, Any] = {"id": grant.id, "email": None, "username": grant.name or None}
    if grant.created_at is not None:
        result["created_on"] = timestamp(grant.created_at)
    return success(result)


async def verify_token(request: web.Request) -> web.Response:
    """``GET /user/tokens/verify``: a success if the token may be used now; else a 401, as everywhere."""
    grant = await grant_at_door(request)
    result = {"id": grant.id, "status": "active"}
    if grant.expires_at is not None:
        result["expires_on"] = timestamp(grant.expires_at)
    return success(result, [said(TOKEN_IS_VALID, "This API Token is valid and active")])


async def _page(
    request: web.Request, name_key: str, describe: Callable[[Grant, str], dict[str, Any]]
) -> web.Response:
    grant = await grant_at_door(request)
    page = number_in(request, "page", 1, PAGE_MAX)
    per_page = number_in(request, "per_page", PER_PAGE_DEFAULT, PER_PAGE_MAX)
    found = await _accounts_of(request, grant)
    wanted = request.query.get(name_key)
    if wanted is not None:
        found = [account for account in found if account == wanted]
    shown = found[(page - 1) * per_page : page * per_page]
    envelope = {
        "result": [describe(grant, account) for account in shown],
        "result_info": {
            "page": page,
            "per_page": per_page,
            "count": len(shown),
            "total_count": len(found),
            "total_pages": -(-len(found) // per_page),
        },
        "success": True,
        "errors": [],
        "messages": [],
    }
    return answer(orjson.dumps(envelope))


async def _accounts_of(request: web.Request, grant: Grant) -> list[str]:
    """The accounts that a grant covers, ascending: those which this door can name, and no other."""
    if grant.account == ANY:
        ops = operations(request)
        found = {DEFAULT_ACCOUNT, *await ops.look(lambda: list(ops.engine.catalog.accounts()))}
    else:
        found = {grant.account}
    return sorted(account for account in found if ACCOUNT.fullmatch(account))


def _account(account: str) -> dict[str, Any]:
    return {"id": account, "name": account, "type": "standard"}


def _membership(grant: Grant, account: str) -> dict[str, Any]:
    """A membership needs an identity that stays: it is made of the token's and the account's."""
    identity = hashlib.blake2b(f"{grant.id}/{account}".encode(), digest_size=16).hexdigest()
    role = str(grant.access) if grant.index == ANY else f"{grant.access} on index {grant.index}"
    return {"id": identity, "status": "accepted", "account": _account(account), "roles": [role]}
