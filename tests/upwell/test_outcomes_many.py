"""Outcomes of very many: an entry is decoded once for all its mutations, and a failure is found among thousands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.making import Client, drain, make_engine, make_index, upsert
from upwell.changeset import Operation, about_property
from upwell.log.entry import decode_entry
from upwell.log.receipt import Receipt
from upwell.manifest import Failure
from upwell.outcome import State
from upwell.properties import MetadataIndex, PropertyType


def test_a_waiting_entry_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index(make_engine(tmp_path))
    Client(index).append(*(upsert((f"v{n}", (1, 2))) for n in range(200)))
    decoded: list[int] = []

    def counted(data: Any, position: int, key: str) -> Any:
        decoded.append(position)
        return decode_entry(data, position, key)

    monkeypatch.setattr("upwell.log.reader.decode_entry", counted)
    found = index.outcomes.recent(1_000)
    assert [one.receipt for one in found] == [Receipt(1, place) for place in reversed(range(200))]
    assert {one.state for one in found} == {State.QUEUED} and decoded == [1]


def test_of_the_first_entry_only_its_own_version_is_looked_at(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine)
    client = Client(index)
    for number in range(30):
        client.append(upsert((f"v{number}", (1, 2))), upsert(("same", (1, 2))))
        drain(engine, index)
    other = make_engine(tmp_path).find("default", "index")
    assert [one.receipt for one in other.outcomes.recent(9, Receipt(1, 1))] == [Receipt(1, 0)]
    assert len(other.outcomes._commits) <= 2


def test_each_failure_is_found_and_nothing_else_taken_for_one(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine)
    kinds = [PropertyType.STRING, PropertyType.NUMBER, PropertyType.STRING]
    for _ in range(4):
        Client(index).append(
            upsert(("v", (1, 2))),
            *(
                about_property(Operation.CREATE_METADATA_INDEX, MetadataIndex(property="p", type=kind))
                for kind in kinds
            ),
        )
    drain(engine, index)
    manifest = index.head.refresh()
    failed = [(one.position, one.place) for one in manifest.failures]
    assert failed == [(position, 2) for position in range(1, 5)]
    for position in range(6):
        for place in range(5):
            found = index.failures.at(manifest, position, place)
            assert (found is not None) == ((position, place) in failed)
            assert found is None or isinstance(found, Failure)
    assert [one.receipt for one in index.outcomes.recent(9, state=State.FAILED)] == [
        Receipt(*one) for one in reversed(failed)
    ]
