"""The route table of this door."""

from __future__ import annotations

from aiohttp import web

from ingest.doors import Door
from ingest.doors.cloudflare import (
    changesets,
    export,
    indexes,
    metadata_indexes,
    mutations,
    people,
    queries,
    vectors,
    webhooks,
)
from ingest.doors.cloudflare.errors import errors_in_envelopes
from ingest.keys import DOOR
from ingest.unread import read_when_wanted

INDEXES = "/accounts/{account}/vectorize/v2/indexes"
INDEX = INDEXES + "/{index}"


def cloudflare_door() -> web.Application:
    """An application to be mounted at ``/client/v4``."""
    door = web.Application(middlewares=[errors_in_envelopes])
    door[DOOR] = Door.CLOUDFLARE
    routes = read_when_wanted(
        [
            web.get("/accounts", people.accounts),
            web.get("/memberships", people.memberships),
            web.get("/user", people.user),
            web.get("/user/tokens/verify", people.verify_token),
            web.post(INDEXES, indexes.create),
            web.get(INDEXES, indexes.list_all),
            web.get(INDEX, indexes.get),
            web.delete(INDEX, indexes.delete),
            web.get(INDEX + "/info", indexes.info),
            web.post(INDEX + "/insert", vectors.insert),
            web.post(INDEX + "/upsert", vectors.upsert),
            web.post(INDEX + "/delete_by_ids", vectors.delete_by_ids),
            web.post(INDEX + "/get_by_ids", vectors.get_by_ids),
            web.get(INDEX + "/list", vectors.list_ids),
            web.get(INDEX + "/export", export.export),
            web.post(INDEX + "/query", queries.query),
            web.post(INDEX + "/metadata_index/create", metadata_indexes.create),
            web.get(INDEX + "/metadata_index/list", metadata_indexes.list_all),
            web.post(INDEX + "/metadata_index/delete", metadata_indexes.delete),
            web.get(INDEX + "/mutations", mutations.recent),
            web.get(INDEX + "/mutations/events", mutations.events, allow_head=False),
            web.get(INDEX + "/mutations/{mutation}", mutations.status),
            web.get(INDEX + "/mutations/{mutation}/changeset", changesets.changeset),
            web.post(INDEX + "/mutations/{mutation}/retry", changesets.retry),
            web.post(INDEX + "/webhooks", webhooks.create),
            web.get(INDEX + "/webhooks", webhooks.list_all),
            web.delete(INDEX + "/webhooks/{webhook}", webhooks.delete),
        ]
    )
    door.add_routes(routes)
    return door
