"""What pydantic found wrong, in words for whoever sent it: JSON's names for things, none of ours, and no regular expressions."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from ingest.doors.cloudflare.models import INDEX_NAME_PATTERN, PROPERTY_PATTERN

PATTERNS: Final = {
    INDEX_NAME_PATTERN: "expected lower-case letters, digits, - and _, with a letter first and no - or _ last",
    PROPERTY_PATTERN: 'expected keys joined by dots, none of them empty, with " or | in it, or beginning with $',
}
TYPES: Final = {
    "model_type": "expected an object",
    "dict_type": "expected an object",
    "list_type": "expected an array",
    "tuple_type": "expected an array",
    "string_type": "expected a string",
    "bool_type": "expected true or false",
    "missing": "expected a value, got nothing",
    "extra_forbidden": "there is no such key",
}


def first_in_words(error: ValidationError) -> str:
    """The first mistake: its field, and what was expected."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(piece) for piece in first["loc"])
    says = _in_words(first["type"], first["msg"], first.get("ctx", {}))
    return f"{field}: {says}" if field else says


def _in_words(kind: str, message: str, facts: dict[str, Any]) -> str:
    if kind in TYPES:
        return TYPES[kind]
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(facts["pattern"], f"expected text of the form {facts['pattern']}")
    if kind == "too_short":
        return f"expected at least {facts['min_length']}, got {facts['actual_length']}"
    says = message.removeprefix("Value error, ")
    return says.replace("Input should be", "expected").replace("String should have", "expected")
