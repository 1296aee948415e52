"""``databases/…``: a database is an account."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from zlib import crc32

from aiohttp import web

from ingest.doors.milvus.answers import success
from ingest.doors.milvus.context import DEFAULT_DATABASE, Body, Call, Name
from ingest.doors.milvus.errors import invalid, no_database, refused
from ingest.doors.milvus.names import check_database
from ingest.doors.milvus.schema_bodies import PropertiesAsked, PropertyKeysAsked, param_texts
from ingest.doors.milvus.shown_schema import pairs
from upwell.catalog.tokens import ANY, Access
from upwell.errors import Exists, Invalid, NotFound

#: Of the default database, in Milvus as well.
DEFAULT_NUMBER: Final = 1


class OfDatabase(Body):
    """The body of a request about a database."""

    db_name: Name


class DatabaseProperties(OfDatabase, PropertiesAsked):
    """The body of ``databases/create`` and ``databases/alter``."""


class DatabasePropertyKeys(OfDatabase, PropertyKeysAsked):
    """The body of ``databases/drop_properties``."""


async def list_(call: Call) -> web.Response:
    """``databases/list``: those that the token may see."""
    await call.params(Body)
    names = await call.ops.look(call.ops.engine.databases.list)
    return success(call, [name for name in names if call.grant.account in (ANY, name)])


async def describe(call: Call) -> web.Response:
    """``databases/describe``."""
    asked = await call.params(OfDatabase)
    call.grant.check(Access.READ, asked.db_name, None)
    try:
        properties = await call.ops.look(call.ops.engine.databases.properties, asked.db_name)
    except NotFound:
        raise no_database(asked.db_name) from None
    number = DEFAULT_NUMBER if asked.db_name == DEFAULT_DATABASE else crc32(asked.db_name.encode())
    return success(call, {"dbName": asked.db_name, "dbID": number, "properties": pairs(properties)})


async def create(call: Call) -> web.Response:
    """``databases/create``."""
    asked = await call.params(DatabaseProperties)
    call.grant.check(Access.ADMIN, asked.db_name, None)
    name, databases = check_database(asked.db_name), call.ops.engine.databases
    try:
        await call.ops.look(lambda: databases.create(name, param_texts(asked.properties)))
    except Exists:
        raise refused(f"database already exist: {name}") from None
    return success(call, {})


async def drop(call: Call) -> web.Response:
    """``databases/drop``: one without collections; of one that is not there it is no error."""
    asked = await call.params(OfDatabase)
    call.grant.check(Access.ADMIN, asked.db_name, None)
    if asked.db_name == DEFAULT_DATABASE:
        raise invalid("can not drop default database")
    try:
        await call.ops.look(call.ops.engine.databases.drop, asked.db_name)
    except NotFound:
        return success(call, {})
    except Invalid:
        raise refused(
            f"database:{asked.db_name} not empty, must drop all collections before drop database"
        ) from None
    return success(call, {})


async def alter(call: Call) -> web.Response:
    """``databases/alter``, ``databases/alter_properties``: they are remembered, and change nothing."""
    asked = await call.params(DatabaseProperties)
    return await _altered(call, asked, asked.added_to)


async def drop_properties(call: Call) -> web.Response:
    """``databases/drop_properties``."""
    asked = await call.params(DatabasePropertyKeys)
    return await _altered(call, asked, asked.taken_from)


async def _altered(
    call: Call, asked: OfDatabase, make: Callable[[dict[str, Any]], dict[str, Any]]
) -> web.Response:
    call.grant.check(Access.ADMIN, asked.db_name, None)
    try:
        await call.ops.look(call.ops.engine.databases.alter, asked.db_name, make)
    except NotFound:
        raise no_database(asked.db_name) from None
    return success(call, {})
