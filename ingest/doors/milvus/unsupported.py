"""Commands of Milvus's that mean nothing here: each is refused with the reason, so that nobody takes them for forgotten.

Users and roles can be listed and described, since Milvus's tools do so before anything else: there is one user, whoever holds a token.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from ingest.doors.milvus.answers import success
from ingest.doors.milvus.context import Body, Call, Name
from ingest.doors.milvus.errors import MilvusError, invalid

TOKENS: Final = "users, roles and privileges are tokens here; make and revoke them with `upwell token` or at /upwell/v1/tokens"
IMPORTS: Final = "there are no import jobs here; send rows with entities/insert or entities/upsert, which become visible by themselves"
MACHINES: Final = "there are no resource groups, segments or quotas of this kind here"
FUNCTIONS: Final = "functions are declared with a collection (collections/create, schema.functions) and stay as they are; make another collection"
FIELDS: Final = "a field stays once it is declared; where it is nullable, rows may leave it out"

#: The reason of each command.
REASONS: Final = {
    f"{family}/{command}": reason
    for family, commands, reason in (
        ("users", "create drop update_password grant_role revoke_role", TOKENS),
        (
            "roles",
            "create drop grant_privilege revoke_privilege grant_privilege_v2 revoke_privilege_v2",
            TOKENS,
        ),
        (
            "privilege_groups",
            "create drop list add_privileges_to_group remove_privileges_from_group",
            TOKENS,
        ),
        ("resource_groups", "create drop alter describe list transfer_replica", MACHINES),
        ("jobs/import", "list create get_progress describe", IMPORTS),
        ("segments", "describe", MACHINES),
        ("quotacenter", "describe", MACHINES),
        (
            "collections",
            "add_function alter_function drop_function add_function_field drop_function_field",
            FUNCTIONS,
        ),
        ("collections/fields", "drop", FIELDS),
    )
    for command in commands.split()
}
#: Who there is, as far as Milvus's clients ask: whoever holds a token.
USER: Final = "root"
ROLES: Final = ("admin", "public")


class OfUser(Body):
    """The body of ``users/describe``."""

    user_name: Name


class OfRole(Body):
    """The body of ``roles/describe``."""

    role_name: Name


async def refuse(call: Call) -> web.Response:
    """Say why not."""
    raise invalid(REASONS[call.command])


async def list_users(call: Call) -> web.Response:
    """``users/list``."""
    return success(call, [USER])


async def describe_user(call: Call) -> web.Response:
    """``users/describe``: roles."""
    name = (await call.params(OfUser)).user_name
    if name != USER:
        raise _unknown("user", name)
    return success(call, [ROLES[0]])


async def list_roles(call: Call) -> web.Response:
    """``roles/list``."""
    return success(call, list(ROLES))


async def describe_role(call: Call) -> web.Response:
    """``roles/describe``: privileges, which are those of tokens."""
    name = (await call.params(OfRole)).role_name
    if name not in ROLES:
        raise _unknown("role", name)
    return success(call, [])


def _unknown(what: str, name: str) -> MilvusError:
    return invalid(f"there is no {what} {name[:64]}; {TOKENS}")
