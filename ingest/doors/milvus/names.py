"""How databases, collections, aliases, partitions, fields and indexes may be called: Milvus's rules, in its words."""

from __future__ import annotations

import re
from typing import Final

from ingest.doors.milvus.errors import Code, MilvusError, invalid

NAME_BYTES_MAX: Final = 255
FIRST: Final = re.compile(r"[A-Za-z_]")
REST: Final = re.compile(r"[A-Za-z0-9_]*")
PARTITION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
#: The field that holds all dynamic ones; none can be made of this name.
META: Final = "$meta"
#: Words of the language of filters, in which such a field could not be named.
KEYWORDS: Final = frozenset(
    {
        *(META, "like", "exists", "and", "or", "not", "in", "true", "false"),
        *("json_contains", "json_contains_all", "json_contains_any"),
        *("array_contains", "array_contains_all", "array_contains_any", "array_length"),
        *("text_match", "phrase_match", "random_sample"),
    }
)
SHOWN_CHARACTERS_MAX: Final = 300


def _problem(name: str, what: str, contains: str = "numbers, letters and underscores") -> str | None:
    """What is wrong with a name, as a sentence; None if nothing is."""
    if not name:
        return f"{what} should not be empty"
    if len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        return f"the length of a {what} must be less than {NAME_BYTES_MAX} characters"
    if not FIRST.match(name):
        return f"the first character of a {what} must be an underscore or letter"
    return None if REST.fullmatch(name) else f"{what} can only contain {contains}"


def check_collection(name: str, entity: str = "name") -> str:
    """A collection's name, or an alias, if it may be one: without spaces around it. Raises MilvusError."""
    name = name.strip()
    if not name:
        raise invalid(f"collection {entity} should not be empty")
    problem = _problem(name, f"collection {entity}")
    if problem is not None:
        raise invalid(f"Invalid collection {entity}: {name[:SHOWN_CHARACTERS_MAX]}. {problem}")
    return name


def check_database(name: str) -> str:
    """A database's name, if it may be one. Raises MilvusError."""
    problem = _problem(name, "database name")
    if problem is not None:
        raise MilvusError(
            Code.DATABASE_INVALID, f"{problem}: invalid database name[database={name[:SHOWN_CHARACTERS_MAX]}]"
        )
    return name


def check_partition(name: str) -> str:
    """A partition's name, if it may be one: without spaces around it. Raises MilvusError."""
    name = name.strip()
    begins = f"Invalid partition name: {name[:SHOWN_CHARACTERS_MAX]}. "
    if not name:
        raise invalid(begins + "Partition name should not be empty.")
    if len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        raise invalid(
            begins + f"The length of a partition name must be less than {NAME_BYTES_MAX} characters."
        )
    if not PARTITION.fullmatch(name):
        raise invalid(begins + "Partition name can only contain numbers, letters and underscores.")
    return name


def check_field(name: str) -> str:
    """A field's name, if it may be one. Raises MilvusError."""
    problem = _problem(name, "field name", "numbers, letters, and underscores")
    if problem is None and name.lower() in KEYWORDS:
        problem = f"{name} is keyword in milvus"
    if problem is not None:
        shown = name[:SHOWN_CHARACTERS_MAX]
        raise MilvusError(
            Code.FIELD_NAME_INVALID,
            f"Invalid field name: {shown}. {problem}: field name invalid[field={shown}]",
        )
    return name


def check_index(name: str) -> str:
    """The name of an index on a field, if it may be one. Raises MilvusError."""
    problem = _problem(name, "index name")
    if problem is not None:
        raise invalid(f"Invalid index name: {name[:SHOWN_CHARACTERS_MAX]}. {problem}")
    return name
