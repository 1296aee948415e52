"""Operations that tell who one is, and in which accounts."""

from __future__ import annotations

from ingest.doors.cloudflare.people import PAGE_MAX, PER_PAGE_DEFAULT, PER_PAGE_MAX
from ingest.doors.cloudflare.shapes import (
    AccountResult,
    MembershipResult,
    PageInfo,
    TokenStatusResult,
    UserResult,
)
from ingest.openapi.cloudflare.envelope import TO_ANYTHING, answers, success
from ingest.openapi.operation import Answer, Operation, Parameter, Schema

_PAGE = Parameter(
    name="page",
    place="query",
    description="Which page, from 1.",
    schema={"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": 1},
)
_PER_PAGE = Parameter(
    name="per_page",
    place="query",
    description="How many at most.",
    schema={"type": "integer", "minimum": 1, "maximum": PER_PAGE_MAX, "default": PER_PAGE_DEFAULT},
)
_PATHS = "/client/v4"


def _named(name: str) -> Parameter:
    return Parameter(
        name=name, place="query", description="Only the account of this name.", schema={"type": "string"}
    )


def _page(items: Schema, description: str) -> Answer:
    return success({"type": "array", "items": items}, description, info=PageInfo)


OPERATIONS = (
    Operation(
        method="get",
        path=_PATHS + "/accounts",
        id="listAccounts",
        tag="people",
        summary="List the accounts that the token is for",
        parameters=(_PAGE, _PER_PAGE, _named("name")),
        answers=answers(_page(AccountResult, "By name."), 400, *TO_ANYTHING),
    ),
    Operation(
        method="get",
        path=_PATHS + "/memberships",
        id="listMemberships",
        tag="people",
        summary="List those accounts, and what the token may do there",
        parameters=(_PAGE, _PER_PAGE, _named("account.name")),
        answers=answers(_page(MembershipResult, "By the account's name."), 400, *TO_ANYTHING),
    ),
    Operation(
        method="get",
        path=_PATHS + "/user",
        id="user",
        tag="people",
        summary="Tell who one is: the token, as if it were a person",
        answers=answers(success(UserResult, "The token."), *TO_ANYTHING),
    ),
    Operation(
        method="get",
        path=_PATHS + "/user/tokens/verify",
        id="verifyToken",
        tag="people",
        summary="Tell whether the token may be used now",
        answers=answers(success(TokenStatusResult, "It may."), *TO_ANYTHING),
    ),
)
