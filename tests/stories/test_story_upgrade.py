"""A store that a newer Upwell has begun to write: what this one does not understand it says so of, leaves alone, and goes on with the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import make_engine
from tests.service import Index, Service, running
from upwell.format import VERSION, Kind
from upwell.ids import new_identity
from upwell.store import DirectoryStore


def files(service: Service) -> set[str]:
    store = service.data / "store"
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}


def commit_as_a_newer_upwell(data: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A version that changes nothing, in a format to come; returns the index's folder."""
    index = make_engine(data, store=DirectoryStore(data / "store")).find("default", name)
    before = index.head.refresh()
    after = before.model_copy(update={"version": before.version + 1, "writer": new_identity()})
    with monkeypatch.context() as newer:
        newer.setitem(VERSION, Kind.MANIFEST, VERSION[Kind.MANIFEST] + 1)
        index.head.chain.commit(before, after, (), 1000.0)
    return index.record.folder


def test_what_a_newer_upwell_wrote_is_refused_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(apis=1, workers=1, UPWELL_SWEEP_INTERVAL_S="0.2") as service:
        indexes: list[Index] = [service.apis[0].index(name) for name in ("newer", "same")]
        for index in indexes:
            index.create(2)
            index.visible(index.upsert([{"id": "a", "values": [1, 2]}]))
        newer, same = indexes
        folder = commit_as_a_newer_upwell(service.data, "newer", monkeypatch)
        there = files(service)
        assert any(name.startswith(folder) for name in there)
        for refused in (
            newer.post("query", {"vector": [1, 2]}),
            newer.get("/info"),
            newer.post("get_by_ids", {"ids": ["a"]}),
        ):
            assert refused.error[0] == 503 and "upgrade it" in refused.error[2], refused
            assert refused.headers["Retry-After"]
        # The other index is none the worse for it, and the worker neither falls over it nor tidies it up.
        same.visible(same.upsert([{"id": "b", "values": [3, 4]}]))
        assert set(same.fetch("a", "b")) == {"a", "b"}
        assert service.workers[0].poll() is None
        assert {name for name in there if name.startswith(folder)} <= files(service)
