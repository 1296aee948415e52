"""The route table of this door."""

from __future__ import annotations

from aiohttp import web

from ingest.doors.cloudflare import indexes, mutations, vectors
from ingest.doors.cloudflare.errors import errors_in_envelopes

INDEXES = "/accounts/{account}/vectorize/v2/indexes"
INDEX = INDEXES + "/{index}"


def cloudflare_door() -> web.Application:
    """An application to be mounted at ``/client/v4``."""
    door = web.Application(middlewares=[errors_in_envelopes])
    door.add_routes(
        [
            web.post(INDEXES, indexes.create),
            web.get(INDEXES, indexes.list_all),
            web.get(INDEX, indexes.get),
            web.delete(INDEX, indexes.delete),
            web.get(INDEX + "/info", indexes.info),
            web.post(INDEX + "/insert", vectors.insert),
            web.post(INDEX + "/upsert", vectors.upsert),
            web.post(INDEX + "/delete_by_ids", vectors.delete_by_ids),
            web.post(INDEX + "/get_by_ids", vectors.get_by_ids),
            web.post(INDEX + "/query", vectors.query),
            web.get(INDEX + "/mutations", mutations.recent),
            web.get(INDEX + "/mutations/events", mutations.events),
            web.get(INDEX + "/mutations/{mutation}", mutations.status),
        ]
    )
    return door
