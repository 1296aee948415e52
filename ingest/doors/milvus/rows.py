"""Rows as a client sends them, held to their collection's fields: columns, or a mistake named in Milvus's words.

Where sparse vectors are made of texts (``RowSchema.full_text``), a row with a text gets its vector here, whatever else it gives, and may bring
none. A dynamic field that is null is kept as null. But a partial update takes a field away that it gives as null, declared or not, and adds
none: in Milvus such a dynamic field would be null afterwards, which filters cannot tell from none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.body.floats import read_numbers
from ingest.doors.milvus.auto_ids import AutoIds
from ingest.doors.milvus.errors import MilvusError, bad_data, invalid
from ingest.doors.milvus.names import META
from ingest.doors.milvus.row_text import Digits, RowText
from ingest.doors.milvus.values import (
    check_length,
    decoded,
    encoded,
    read_int64,
    read_value,
    refuse,
    text_of,
)
from ingest.doors.milvus.vectors import DENSE, SPARSE, SparseRow, read_sparse
from upwell.changeset import Matrix
from upwell.clock import SystemClock
from upwell.errors import Invalid
from upwell.kinds import IndexKind
from upwell.query.patience import Patience
from upwell.schema import FieldType, IdType, RowSchema, ScalarField
from upwell.sparse import Sparse, concat_sparse
from upwell.text.analyzer import analyzer_of
from upwell.text.counts import term_counts

#: What is said of rows whose texts take too long.
TOO_LONG: Final = "the texts of the rows take more than {} s to be analyzed here; expected fewer rows at once, or a simpler analyzer"
#: Texts of a request are analyzed when there are so many characters of them: sooner it costs calls, later memory.
TEXTS_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the collection takes, and how much of it."""

    schema: RowSchema
    kind: IndexKind
    dimensions: int
    id_bytes_max: int
    metadata_bytes_max: int
    #: Are its rows new ones, which bring no ids where these are made for them?
    inserts: bool
    #: May a row leave out what is to stay as it is?
    partial: bool
    #: Are strings in JSON fields the JSON that they hold, as they are shown?
    json_as_text: bool = False
    #: How long its texts may take to be analyzed.
    analysis_s_max: float = inf

    @property
    def needed(self) -> Iterable[str]:
        """The fields, but for the id, that a whole row must be given with: for the others nothing is put in their place."""
        schema = self.schema
        if self.kind.has_dense:
            yield schema.vector_field
        made_of = None if schema.full_text is None else schema.full_text.field
        if self.kind.has_sparse:
            # Of a text that may be null, too: without it a row has no vector, and one that is there must keep its own.
            yield made_of or schema.sparse_field
        for one in schema.fields:
            if one.name != made_of and (one.default is not None or not one.nullable):
                yield one.name


def read_id(schema: RowSchema, given: Any, bytes_max: int, row: int) -> str:
    """The id of the row at this place as Upwell keeps it, which is a text. Raises MilvusError."""
    if schema.ids is IdType.INT64:
        return str(read_int64(given))
    # Milvus takes fractions by their digits. Nobody could name them in a get.
    if isinstance(given, bool | Digits) or not isinstance(given, str | int):
        raise refuse("VarChar", given, "unable to cast %s to string")
    text = text_of(given)
    if not text:
        raise refuse("VarChar", text, "the primary key must not be empty")
    if "\0" in text:
        raise refuse("VarChar", text, "the primary key must not have a NUL character in it")
    check_length(schema.id_field, text, bytes_max, row)
    return text


class _Counts:
    """The sparse vectors that are made of a field's texts, as these come."""

    def __init__(self, field: str, analyzer: dict[str, Any], go_on: Callable[[], None]) -> None:
        self.field = field
        self._go_on = go_on
        self._analyzer = analyzer_of(analyzer)
        self._made: list[Sparse] = []
        self._texts: list[str] = []
        self._characters = 0

    def add(self, text: str) -> None:
        """The next row's text."""
        self._texts.append(text)
        self._characters += len(text)
        if self._characters >= TEXTS_AT_ONCE:
            self._make()

    def vectors(self) -> Sparse | None:
        """One for each text; None without any."""
        if self._texts:
            self._make()
        return concat_sparse(self._made) if self._made else None

    def _make(self) -> None:
        self._made.append(term_counts(self._analyzer, self._texts, self._go_on))
        self._texts, self._characters = [], 0


class Rows:
    """The rows of a request, as they come."""

    def __init__(self, target: Target, count: int, auto_ids: AutoIds) -> None:
        self._target = target
        self._schema = schema = target.schema
        self._auto_ids = auto_ids
        #: Fields in which it matters how a number is written.
        self._exact = [schema.id_field, *(one.name for one in schema.fields if _is_exact(one))]
        self._documents = [one.name for one in schema.fields if one.type is FieldType.JSON]
        self.ids: list[str] = []
        self._matrix = np.empty((count, target.dimensions), np.float32)
        self._sparse: list[Any] = []
        self._counts = (
            None
            if schema.full_text is None
            else _Counts(
                schema.full_text.field,
                schema.text_analyzer,
                Patience(SystemClock(), target.analysis_s_max, TOO_LONG).check,
            )
        )
        self._metadata: list[bytes | None] = []
        #: How many rows gave each field.
        self._given: Counter[str] = Counter()

    def add(self, row: Any, text: bytes) -> None:
        """The next row, decoded, and its text; its vector may be a float64 array. Raises MilvusError."""
        place, schema = len(self.ids), self._schema
        if not isinstance(row, dict):
            raise _no_object(row)
        rest, written = dict(row), RowText(text)
        self._restore_digits(rest, written)
        self.ids.append(self._id(rest.pop(schema.id_field, None), place))
        if self._target.kind.has_dense and self._wanted(schema.vector_field, rest):
            self._matrix[place] = self._dense(rest.pop(schema.vector_field, None))
        if self._counts is not None:
            self._check_brings_none(rest.pop(schema.sparse_field, None))
        elif self._target.kind.has_sparse and self._wanted(schema.sparse_field, rest):
            self._sparse.append(self._read_sparse(rest.pop(schema.sparse_field, None)))
        members: dict[str, Any] = {}
        for field in schema.fields:
            if self._wanted(field.name, rest):
                self._scalar(field, rest.pop(field.name, None), members, place)
        self._count(members)
        self._dynamic(rest, members)
        documents = [name for name in self._documents if name in row]
        written.check_documents(row, [*documents, *rest] if rest else documents)
        self._metadata.append(self._compact(members))

    def finish(self) -> None:
        """Raise MilvusError for what only all rows together show."""
        if self._target.partial:
            for name, count in self._given.items():
                if count != len(self.ids):
                    raise bad_data(
                        f"column {name} has length {count}, expected {len(self.ids)}: invalid parameter"
                    )
        if not self._target.inserts and len(set(self.ids)) < len(self.ids):
            raise invalid("duplicate primary keys are not allowed in the same batch")

    @property
    def vectors(self) -> Matrix | None:
        """The dense vectors; None without any."""
        return (
            self._matrix if self._given[self._schema.vector_field] and self._target.kind.has_dense else None
        )

    @property
    def sparse(self) -> Sparse | None:
        """The sparse vectors; None without any."""
        if self._counts is not None:
            return self._counts.vectors()
        return Sparse.of(self._sparse) if self._sparse else None

    @property
    def metadata(self) -> pa.Array | None:
        """All other fields; None without any."""
        if all(one is None for one in self._metadata):
            return None
        return pa.array(self._metadata, pa.binary())

    @property
    def are_whole(self) -> bool:
        """Were they given with all that a row needs?"""
        return all(self._given[name] for name in self._target.needed)

    def _wanted(self, name: str, rest: dict[str, Any]) -> bool:
        """Is a field to be read, even if that shows that it is missing?"""
        if self._target.partial and name not in rest:
            return False
        self._given[name] += 1
        return True

    def _restore_digits(self, rest: dict[str, Any], written: RowText) -> None:
        """Where it matters how a number is written and it was made a float, put its digits in its place."""
        for name in self._exact:
            given = rest.get(name)
            if type(given) is float or (type(given) is list and any(type(one) is float for one in given)):
                rest[name] = written.member(name)

    def _id(self, given: Any, place: int) -> str:
        schema, target = self._schema, self._target
        if given is None or (schema.auto_id and given == ""):
            if target.partial:
                raise invalid(f"must assign pk when upsert, primary field: {schema.id_field}")
            if not schema.auto_id:
                raise _lacks(place, schema.id_field)
            return str(self._auto_ids.of(place))
        if schema.auto_id and target.inserts:
            raise bad_data(
                f"no need to pass pk field({schema.id_field}) when autoid==true in insert: invalid parameter"
            )
        return read_id(schema, given, target.id_bytes_max, place)

    def _dense(self, given: Any) -> npt.NDArray[np.float32]:
        name, dimensions = self._schema.vector_field, self._target.dimensions
        if given is None or (isinstance(given, str) and not given):
            raise refuse(DENSE, "", f"missing vector field: {name}")
        values = given
        if not isinstance(values, list | np.ndarray):
            raise refuse(DENSE, given, "json: cannot unmarshal %s: expected an array of numbers")
        try:
            numbers = read_numbers(values, name)
        except Invalid as error:
            shown = values.tolist() if isinstance(values, np.ndarray) else values
            raise refuse(DENSE, shown, error.detail) from None
        if len(numbers) != dimensions:
            raise bad_data(
                f"[]float32 size {len(numbers)} doesn't equal to vector dimension {dimensions} of {DENSE}: invalid parameter"
            )
        return numbers

    def _read_sparse(self, given: Any) -> SparseRow:
        if given is None or given == "":
            raise refuse(SPARSE, "", f"missing vector field: {self._schema.sparse_field}")
        return read_sparse(given)

    def _check_brings_none(self, given: Any) -> None:
        """Raise MilvusError for a vector of a field whose vectors are made here."""
        if given is not None and given != "":
            raise invalid(
                f"Attempt to insert an unexpected function output field `{self._schema.sparse_field}` to collection"
            )

    def _count(self, members: dict[str, Any]) -> None:
        """Make the vector of a row's text, if it gives one. ``members``: its declared fields."""
        counts = self._counts
        if counts is not None and (counts.field in members or not self._target.partial):
            counts.add(members.get(counts.field) or "")

    def _scalar(self, field: ScalarField, given: Any, members: dict[str, Any], place: int) -> None:
        if given is not None:
            if field.type is FieldType.JSON and self._target.json_as_text:
                given = decoded(given)
            members[field.name] = read_value(field, given, place)
        elif field.default is not None:
            members[field.name] = field.default
        elif not field.nullable:
            raise _lacks(place, field.name)
        elif self._target.partial:
            # Whoever applies it takes it away.
            members[field.name] = None

    def _dynamic(self, rest: dict[str, Any], members: dict[str, Any]) -> None:
        if rest and not self._schema.dynamic:
            raise bad_data("has pass more field without dynamic schema, please check it: invalid parameter")
        if META in rest:
            raise bad_data(f"use the invalid field name({META}) when enable dynamicField: invalid parameter")
        members |= rest

    def _compact(self, members: dict[str, Any]) -> bytes | None:
        if not members:
            return None
        compact, bytes_max = encoded(members), self._target.metadata_bytes_max
        if len(compact) > bytes_max:
            raise invalid(
                f"the length ({len(compact)}) of dynamic field exceeds max length ({bytes_max})",
                "valid length dynamic field",
                "length exceeds max length",
            )
        return compact


def _is_exact(field: ScalarField) -> bool:
    kind = field.element or field.type
    return kind is FieldType.VARCHAR or kind.is_integer


def _lacks(place: int, name: str) -> MilvusError:
    return bad_data(f"row {place} does not has field {name}: invalid parameter")


def _no_object(given: Any) -> MilvusError:
    match given:
        case None:
            kind = "Null"
        case bool():
            kind = str(given)
        case str():
            kind = "String"
        case list():
            kind = "Array"
        case _:
            kind = "Number"
    says = "NULL:0, FALSE:1, NUMBER:2, STRING:3, TRUE:4, JSON:5"
    return bad_data(f"{says}: invalid parameter[expected=JSON][actual={kind}]")
