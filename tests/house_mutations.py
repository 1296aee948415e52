"""What the processes of ``tests/house.py`` write: any operation there is, now and then a text; and what all of it comes to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.plain_index import FILTERED, PlainIndex, PlainMutation, PlainRow, plain_of
from upwell.changeset import Changeset, KeyScope, Matrix, Operation
from upwell.errors import ModelAway
from upwell.log.receipt import Receipt

IDS = [f"id{number}" for number in range(6)]
NAMESPACES = ("a", "b", "c")
MODEL = "FAKE"


def vector_of(text: str) -> tuple[float, float]:
    """What the model makes of a text."""
    return float(len(text)), float(sum(text.encode()) % 100)


@dataclass
class FakeModel:
    """A model, and all models of a process."""

    #: Is it away just now?
    away: Callable[[], bool] = lambda: False
    name: str = MODEL
    dimensions: int = 2
    texts_at_once: int = 8

    def dense(self, _name: str) -> FakeModel:
        """Itself."""
        return self

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Vectors of texts."""
        if self.away():
            raise ModelAway("the model is away")
        return np.array([vector_of(text) for text in texts], np.float32).reshape(-1, 2)

    def close(self) -> None:
        """There is nothing to let go of."""


def any_mutation(rng: random.Random, number: int) -> Changeset:
    """A mutation of any kind. What it writes has ``number`` in it, so that no two are alike; so has the id of one of its rows."""
    names = rng.sample(IDS, rng.randrange(1, 3))
    namespace = rng.choice([None, None, *NAMESPACES])
    scope = KeyScope.NAMESPACE

    def rows(*ids: str, values: bool = True, data: bool = False) -> tuple[PlainRow, ...]:
        metadata = {FILTERED: rng.randrange(2), "n": number}
        vector = (float(number), 0.0) if values else None
        text = f"text {number}" if data else None
        return tuple(PlainRow(one, namespace, vector, None, text, metadata) for one in ids)

    def plain(operation: Operation, *given: PlainRow, **more: Any) -> Changeset:
        return PlainMutation(operation, given, scope, **more).changeset()

    mark = f"m{number}"
    match rng.randrange(14):
        case 0:
            return plain(Operation.INSERT, *rows(mark, *names))
        case 1:
            return plain(Operation.DELETE, *rows(mark, *names, values=False))
        case 2 | 3:
            patch, values = rng.random() < 0.5, rng.random() < 0.5
            given, adds = rows(*names, values=values), values and rng.random() < 0.5
            shallow, inside = patch and rng.random() < 0.5, rng.random() < 0.3
            return plain(Operation.UPDATE, *given, patch=patch, shallow=shallow, adds=adds, inside=inside)
        case 4:
            ways: list[dict[str, Any]] = [{"prefix": "id1"}, {"prefix": "m"}, {"equal": 1.0}]
            how = rng.choice(ways)
            return plain(Operation.DELETE_MATCHING, namespace=namespace or "", **how)
        case 5:
            return plain(Operation.RESET, namespace=namespace)
        case 6:
            return plain(Operation.DELETE_NAMESPACE, namespace=namespace or "a")
        case 7 | 8:
            old, new = rng.sample(NAMESPACES, 2)
            more = {"namespace": old, "new_namespace": new, "delete_existing": rng.random() < 0.5}
            return plain(Operation.RENAME_NAMESPACE, **more)
        case 9 | 10:
            return as_texts(plain(Operation.UPSERT, *rows(mark, *names, data=True)))
        case _:
            return plain(Operation.UPSERT, *rows(mark, *names))


def as_texts(changeset: Changeset) -> Changeset:
    """The same, with vectors that are yet to be made of its data."""
    return replace(changeset, vectors=None, details=changeset.details.model_copy(update={"embed": True}))


@dataclass(frozen=True)
class Replayed:
    """What mutations come to: rows by name of namespace and id, the namespaces, and which mutations failed."""

    rows: dict[tuple[str, str], list[float]]
    namespaces: set[str]
    failed: set[tuple[int, int]]


def replay(scope: KeyScope, applied: Sequence[tuple[Receipt, Changeset]]) -> Replayed:
    """Apply mutations to a dict, in order."""
    plain = PlainIndex(scope)
    failed = set()
    for receipt, changeset in applied:
        mutation = plain_of(changeset)
        if changeset.details.embed:
            rows = tuple(replace(row, values=vector_of(row.data or "")) for row in mutation.rows)
            mutation = replace(mutation, rows=rows)
        if isinstance(plain.apply(mutation, (receipt.position, receipt.place)), str):
            failed.add((receipt.position, receipt.place))
    held = {(row.namespace, row.id): list(row.values) for row in plain.rows.values()}
    return Replayed(held, plain.namespaces, failed)
