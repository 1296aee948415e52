"""A small store that holds every kind of object which a running service leaves behind, and every question that can be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from tests.dict_store import DictStore
from tests.making import Client, HandClock, delete, drain, insert, make_index, prepared, upsert
from upwell.catalog.tokens import Access
from upwell.changeset import Changeset, Operation, about_property
from upwell.engine import Engine, Index
from upwell.log import writer as writer_module
from upwell.log.entry import PreparedMutation, request_of
from upwell.log.receipt import Receipt, mint
from upwell.properties import MetadataIndex, PropertyType
from upwell.query.lookup import lookup
from upwell.query.scan import Scan
from upwell.query.search import search
from upwell.schema import RowSchema
from upwell.settings import Settings
from upwell.shard.filter import Covered, OneOf
from upwell.webhook import Event

DIMENSIONS = 64
#: Enough for codes.
MANY = 2_100
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class House:
    """What a store holds, and what was said when it came to be."""

    objects: dict[str, bytes]
    token: str
    #: The receipts of the mutations that wait in the log.
    waiting: tuple[str, ...]
    #: One that was applied.
    applied: str
    webhook: str
    request: str

    @property
    def folder(self) -> str:
        """Of its index."""
        return next(key for key in self.objects if key.endswith("/record")).removesuffix("/record")


def engine_on(objects: dict[str, bytes]) -> Engine:
    """An engine on a copy of these objects, which merges whatever it can."""
    settings = Settings.model_validate({"compaction_fanout": 2, "compaction_settle_s": 0.0, "grace_s": 60.0})
    return Engine(DictStore(objects), settings, HandClock())


def vectors(count: int, seed: int) -> Changeset:
    """Vectors v0, v1 … with namespaces and metadata here and there."""
    values = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)
    metadata = [orjson.dumps({"colour": COLOURS[n % 3], "n": n}) if n % 7 else None for n in range(count)]
    return Changeset(
        operation=Operation.UPSERT,
        ids=pa.array([f"v{n}" for n in range(count)]),
        vectors=values,
        namespaces=pa.array(["even" if n % 2 == 0 else None for n in range(count)], pa.utf8()),
        metadata=pa.array(metadata, pa.binary()),
        received=count,
    )


def one(id: str, seed: int) -> Changeset:
    """A vector by itself."""
    values = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return upsert((id, values.tolist(), None, {"colour": "red"}), dimensions=DIMENSIONS)


def keyed(changeset: Changeset, key: str) -> PreparedMutation:
    """The same, by a request that may be sent again."""
    plain = prepared(changeset)
    return replace(plain, mutation=replace(plain.mutation, by="t", request=request_of(plain, "t", key)))


def build() -> House:
    """Make it: a coded and a flat segment with deletions, a metadata index, versions, a failure, a webhook, tokens, requests; and in the
    log an entry, an entry with a payload of its own, and one by a request with a key."""
    engine = engine_on({})
    store = engine.store
    assert isinstance(store, DictStore)
    token, _ = engine.tokens.issue(name="t", account="default", index="*", access=Access.READ, lasts=None)
    engine.catalog.delete("default", make_index(engine, "house").record.name)
    make_index(engine, "hut", dimensions=DIMENSIONS, shards=1, row_schema=RowSchema(id_field="key"))
    engine.rename("default", "hut", "house")
    index = engine.find("default", "house")
    for colour in COLOURS:
        index.notes.change(lambda notes, colour=colour: notes | {colour: len(notes)})  # type: ignore[misc]
    engine.databases.set_alias("default", "home", "house", new=True)
    engine.databases.create("empty", {"of": "everything"})
    client = Client(index)
    client.append(
        about_property(
            Operation.CREATE_METADATA_INDEX, MetadataIndex(property="colour", type=PropertyType.STRING)
        )
    )
    client.append(vectors(MANY, 1))
    drain(engine, index)
    client.append(delete("v3", "v5", "v8"))
    client.append(one("w1", 2))
    drain(engine, index)
    # Of other dimensions: it cannot be applied.
    (failed,) = client.append(insert(("bad", [1.0, 2.0])))
    client.append(one("w2", 3))
    drain(engine, index)
    webhook = index.webhooks.create("http://127.0.0.1:1/", [Event.VISIBLE], None)
    for key in [key for key in store.objects if f"{index.record.folder}/log/" in key]:
        store.delete(key)
    (first,) = client.append(one("x1", 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "INLINE_BYTES_MAX", 0)
        (second,) = client.append(vectors(20, 5))
    request = keyed(one("x2", 6), "again")
    receipt = Receipt(index.log_writer().append([request]), 0)
    assert request.mutation.request is not None
    index.requests.settle(request.mutation.request, receipt)
    third = mint(index.record.receipt_key, receipt)
    # The index that had the name before is collected.
    kept = {
        key: data
        for key, data in store.objects.items()
        if not key.startswith("index/") or key.startswith(index.record.folder)
    }
    return House(kept, token, (first, second, third), failed, webhook.id, request.mutation.request.name)


def holds(index: Index) -> list[tuple[Any, ...]]:
    """Everything alive, in order of ids and namespaces: id, values, namespace, metadata, data, sparse indices and values."""
    found = []
    for some in Scan(index.newest.get()).some(1_000):
        values = [row.tobytes() for row in some.vectors]
        sparse = [
            () if some.sparse is None else tuple(part.tolist() for part in some.sparse.row(place))
            for place in range(len(some))
        ]
        found += list(zip(some.ids, values, some.namespaces, some.metadata, some.data, sparse, strict=True))
    return sorted(found, key=lambda row: (row[0], row[2] or ""))


Question = Callable[[Engine, Index, House], object]


def questions() -> dict[str, Question]:
    """Everything that reads, by name. Answers can be compared."""
    asked = np.random.default_rng(9).standard_normal(DIMENSIONS).astype(np.float32)

    def near(index: Index, **how: object) -> object:
        found = search(index.newest.get(), asked, 10, **how)  # type: ignore[arg-type]
        return [
            (match.found.id, match.closeness, match.found.namespace, match.found.metadata) for match in found
        ]

    def red(index: Index) -> object:
        view = index.newest.get()
        return near(
            index, within=Covered(OneOf("colour", ("red",)), view.manifest.metadata_indexes, backfill=True)
        )

    def fetched(index: Index) -> object:
        found = lookup(index.newest.get(), ["v1", "v3", "v2000", "w1", "nobody"])
        return [(each.id, each.values.tobytes(), each.namespace, each.metadata) for each in found]

    def listed(index: Index) -> object:
        return index.pinned.page(index.pinned.begin(), 3_000).ids

    return {
        "token": lambda engine, _, house: engine.tokens.grant_of(house.token),
        "search by codes": lambda _e, index, _h: near(index),
        "search exactly": lambda _e, index, _h: near(index, recall=1),
        "search a namespace": lambda _e, index, _h: near(index, namespace="even"),
        "search with a filter": lambda _e, index, _h: red(index),
        "get by ids": lambda _e, index, _h: fetched(index),
        "list": lambda _e, index, _h: listed(index),
        "contents": lambda _e, index, _h: holds(index),
        "status of a failure": lambda _e, index, house: index.outcomes.of(house.applied),
        "status of what waits": lambda _e, index, house: [index.outcomes.of(each) for each in house.waiting],
        "recent": lambda _e, index, _h: index.outcomes.recent(50),
        "told": lambda _e, index, _h: index.outcomes.applied_after(Receipt(0, 0), 50),
        "request": lambda _e, index, house: index.requests.find(house.request),
        "webhook": lambda _e, index, house: index.webhooks.delivery(house.webhook) is not None,
        "notes": lambda _e, index, _h: index.notes.read(),
        "aliases": lambda engine, _i, _h: engine.databases.aliases("default"),
        "databases": lambda engine, _i, _h: [
            (one, engine.databases.properties(one)) for one in engine.databases.list()
        ],
        "by identity": lambda engine, index, _h: engine.index(index.record.id).record,
        "compaction": lambda engine, index, _h: compacted(engine, index),
    }


def compacted(engine: Engine, index: Index) -> object:
    """The contents after everything that is due was merged."""
    while engine.compact(index.record.id, 0) is not None:
        pass
    return holds(index)


def drained(engine: Engine, index: Index, house: House) -> object:
    """The contents after all that waits was applied, and what became of each mutation."""
    drain(engine, index)
    outcomes = [index.outcomes.of(each) for each in house.waiting]
    return holds(index), [(each.state, each.error) for each in outcomes]
