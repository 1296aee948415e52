"""``fetch``, ``range`` and ``random``: rows as they are, which see every write that was acknowledged before."""

from __future__ import annotations

import secrets
from typing import Final

from aiohttp import web

from ingest.doors.upstash.answers import answer
from ingest.doors.upstash.context import Asked
from ingest.doors.upstash.errors import IDS_OR_PREFIX
from ingest.doors.upstash.fields import Fields
from ingest.doors.upstash.queries import waited_for
from ingest.doors.upstash.shown import EVERYTHING, Include, row
from ingest.large import encode, encode_rows
from upwell.errors import Invalid
from upwell.query.lookup import lookup
from upwell.query.ordered import random_row, range_rows, with_prefix
from upwell.shard.view import View

#: Of a page of ``range``; Upstash does not document its own.
RANGE_DEFAULT: Final = 10
CURSOR_CHARACTERS_MAX: Final = 64


async def fetch(asked: Asked) -> web.Response:
    """``fetch``: rows by their ids, in that order, null for what is not there; or those whose ids begin with a prefix."""
    fields = await asked.fields()
    include, prefix, most = Include.of(fields), fields.text("prefix"), asked.settings.upstash_fetch_max
    if fields.has("ids") == bool(prefix):
        raise Invalid(IDS_OR_PREFIX)
    ids = fields.ids("ids", asked.settings.upstash_id_bytes_max, most) if fields.has("ids") else []
    await _settled(asked)

    def fetched(view: View) -> bytes:
        if prefix:
            found = with_prefix(view, asked.namespace, prefix, most)
            return encode_rows(row(one, include) for one in found)
        rows = {one.id: one for one in lookup(view, ids, asked.namespace, within_namespace=True)}
        return encode_rows(row(rows[id], include) if id in rows else None for id in ids)

    return answer(await asked.ops.read(asked.index, fetched))


async def range_(asked: Asked) -> web.Response:
    """``range``: rows in the order of writing, page by page. The cursor of the last page is empty."""
    fields = await asked.fields()
    include, prefix = Include.of(fields), fields.text("prefix")
    limit = fields.number("limit", RANGE_DEFAULT, 1, asked.settings.upstash_fetch_max)
    cursor = _cursor(fields)
    await _settled(asked)

    def page(view: View) -> bytes:
        found, following = range_rows(view, asked.namespace, cursor, limit, prefix or None)
        vectors = encode_rows(row(one, include) for one in found)
        return b'{"nextCursor":' + encode(following) + b',"vectors":' + vectors + b"}"

    return answer(await asked.ops.read(asked.index, page))


async def random(asked: Asked) -> web.Response:
    """``random``: any row, with all that it has; null if there is none."""
    await _settled(asked)

    def any_row(view: View) -> bytes:
        found = random_row(view, asked.namespace, secrets.SystemRandom())
        return encode(None if found is None else row(found, EVERYTHING))

    return answer(await asked.ops.read(asked.index, any_row))


async def _settled(asked: Asked) -> None:
    await waited_for(asked)
    await asked.settled()


def _cursor(fields: Fields) -> str:
    given = fields.get("cursor")
    if given is None:
        return ""
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or len(given) > CURSOR_CHARACTERS_MAX:
        raise Invalid("cursor: expected one that a page ended with, or 0 to begin")
    return given
