"""An upload's body as a changeset: all of it, or the first thing that is wrong with it.

Lines, and the pieces of a document, go straight into one float32 matrix; a line that the fast path does not vouch for is read precisely. With ``discard``, lines that cannot be accepted are left out and named.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Final

import numpy as np
import pyarrow as pa

from ingest.body.arrow import parse_arrow
from ingest.body.documents import Pieces
from ingest.body.fast import FastReader
from ingest.body.forms import Lines, form_of
from ingest.body.inflate import Bytes, inflate
from ingest.body.precise import Row, read_line
from ingest.body.rules import Rules
from upwell.changeset import DISCARDED_NAMED_MAX, Changeset, Operation
from upwell.errors import Invalid, InvalidLine, LineProblem, Reason, TooLarge

#: The one content type that decides; of all others, the bytes do (forms.py).
ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"


def parse_upload(
    body: Bytes, *, content_type: str | None, content_encoding: str | None, operation: Operation, rules: Rules
) -> Changeset:
    """Read an insert's or upsert's body. Raises InvalidLine, TooLarge or Invalid; then nothing of it counts."""
    inflated = inflate(body, content_encoding, rules.bytes_max)
    if (content_type or "").partition(";")[0].strip().lower() == ARROW_STREAM:
        return parse_arrow(inflated, operation, rules)
    form = form_of(inflated, content_type, rules)
    received = _count(form, rules)
    rows = _Rows(received, rules)
    for place, problem in rows.read(form):
        if isinstance(form, Pieces) and problem.reason is Reason.UNPARSABLE:
            form.refuse(place, problem)
        if not rules.discard:
            raise InvalidLine(problem)
        rows.discard(problem)
    return rows.changeset(operation, received)


def _count(form: Lines | Pieces, rules: Rules) -> int:
    """How many vectors there are. Raises Invalid for none and TooLarge for too many."""
    received = form.count(rules.vectors_counted_max)
    if received == 0:
        raise Invalid("the request body contains no vectors")
    if received > rules.vectors_max:
        known = received <= rules.vectors_counted_max
        got = str(received) if known else f"more than {rules.vectors_counted_max}"
        raise TooLarge(f"too many vectors in payload; max is {rules.vectors_max}, got {got}")
    return received


class _Rows:
    """The columns, as they fill."""

    def __init__(self, capacity: int, rules: Rules) -> None:
        self._rules = rules
        self._vectors = np.empty((capacity, rules.dimensions), np.float32)
        self._ids: list[str] = []
        self._namespaces: list[str | None] = []
        self._metadata: list[bytes | None] = []
        self._discarded: list[LineProblem] = []
        self._discarded_count = 0

    def read(self, form: Lines | Pieces) -> Iterator[tuple[int, LineProblem]]:
        """Add the rows of all texts; hands out those that cannot be added, in order, by number and what is wrong."""
        reader, bytes_max = FastReader(self._rules), self._rules.line_bytes_max
        with np.errstate(over="ignore", invalid="ignore"):
            for number, text in form:
                if len(text) > bytes_max:
                    detail = f"expected at most {bytes_max} bytes, got {len(text)}"
                    yield number, LineProblem(line=number, reason=Reason.UNPARSABLE, field="", detail=detail)
                    continue
                row = len(self._ids)
                read = reader.read(text, self._vectors, row)
                # The squared length is finite only if each number is, and cheap; one that overflows is read precisely.
                if read is not None and isfinite(self._vectors[row] @ self._vectors[row]):
                    self._add(*read)
                    continue
                try:
                    self._add_row(read_line(text, number, self._rules))
                except InvalidLine as error:
                    yield number, error.problem

    def discard(self, problem: LineProblem) -> None:
        """Note that a line was left out."""
        self._discarded_count += 1
        if len(self._discarded) < DISCARDED_NAMED_MAX:
            self._discarded.append(problem)

    def changeset(self, operation: Operation, received: int) -> Changeset:
        """What was added."""
        rows = len(self._ids)
        has_namespace = any(name is not None for name in self._namespaces)
        has_metadata = any(metadata is not None for metadata in self._metadata)
        return Changeset(
            operation=operation,
            ids=pa.array(self._ids, pa.utf8()),
            vectors=self._vectors[:rows],
            namespaces=pa.array(self._namespaces, pa.utf8()) if has_namespace else None,
            metadata=pa.array(self._metadata, pa.binary()) if has_metadata else None,
            received=received,
            discarded=tuple(self._discarded),
            discarded_count=self._discarded_count,
        )

    def _add_row(self, row: Row) -> None:
        self._vectors[len(self._ids)] = row.values
        self._add(row.id, row.namespace, row.metadata)

    def _add(self, id: str, namespace: str | None, metadata: bytes | None) -> None:
        self._ids.append(id)
        self._namespaces.append(namespace)
        self._metadata.append(metadata)
