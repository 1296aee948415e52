"""Which fields of a row an answer shows: what ``outputFields`` says of a collection.

``*`` is all that a row has, vectors too, but for those that a function makes, which are never shown; ``$meta`` all that it has beside its declared fields; ``$meta["name"]`` and, where a collection
has dynamic fields, any other name, one of those. The id is always shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ingest.doors.milvus.errors import MilvusError, refused
from ingest.doors.milvus.names import META
from upwell.kinds import IndexKind
from upwell.schema import RowSchema, ScalarField

EVERYTHING: Final = "*"
COUNT: Final = "count(*)"
_OF_META: Final = re.compile(r"""\$meta\[(?:"([^"\\]+)"|'([^'\\]+)')\]""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is shown of each row beside its id."""

    #: What the id is called.
    id_name: str
    #: What the vectors are called, those that are shown.
    vector: str | None = None
    sparse: str | None = None
    #: Fields of the metadata whose types are known.
    fields: tuple[ScalarField, ...] = ()
    #: Other members of the metadata, if a row has them.
    others: frozenset[str] = frozenset()
    #: All other members: but for those that have a declared field's name, which only another door can have written.
    all_others: bool = False
    taken: frozenset[str] = frozenset()

    @property
    def needs_metadata(self) -> bool:
        """Does it show anything of the metadata?"""
        return bool(self.fields or self.others or self.all_others)


def is_count(names: Sequence[str]) -> bool:
    """Are rows to be counted, and not shown?"""
    return len(names) == 1 and names[0].strip().lower() == COUNT


def shown_of(schema: RowSchema, kind: IndexKind, names: Iterable[str], id_name: str | None = None) -> Shown:
    """What ``names`` ask for. Raises MilvusError for a field that there is not."""
    vector = schema.vector_field if kind.has_dense else None
    sparse = schema.sparse_field if kind.has_sparse else None
    unseen = sparse if schema.full_text is not None else None
    declared = {one.name: one for one in schema.fields}
    vectors, fields, others, all_others = set(), dict[str, ScalarField](), set(), False
    for name in map(str.strip, names):
        if name == EVERYTHING:
            vectors |= {vector, sparse} - {unseen}
            fields |= declared
            all_others = schema.dynamic
        elif name == schema.id_field:
            continue
        elif name == unseen:
            raise refused(f"not allowed to retrieve raw data of field {name}")
        elif name in (vector, sparse):
            vectors.add(name)
        elif name in declared:
            fields[name] = declared[name]
        elif not schema.dynamic:
            raise _unknown(name)
        elif name == META:
            all_others = True
        else:
            others.add(dynamic_name(name))
    called = id_name or schema.id_field
    taken = frozenset(one for one in (called, schema.id_field, vector, sparse, *declared) if one is not None)
    return Shown(
        id_name=called,
        vector=vector if vector in vectors else None,
        sparse=sparse if sparse in vectors else None,
        # Where v1 calls the id what a field is called, it is the id.
        fields=tuple(one for one in fields.values() if one.name != called),
        others=frozenset(others - {called}),
        all_others=all_others,
        taken=taken,
    )


def dynamic_name(name: str) -> str:
    """The member of the metadata that is meant. Raises MilvusError."""
    if matched := _OF_META.fullmatch(name):
        return matched[1] or matched[2]
    if not name or "[" in name or "(" in name or name.startswith("$"):
        raise refused(f"parse output field name failed: {name}")
    return name


def _unknown(name: str) -> MilvusError:
    return refused(f"field {name} not exist")
