"""``common/run_analyzer``: which terms texts have, by an analyzer that is told, or by that of a field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final
from zlib import crc32

from aiohttp import web
from pydantic import Field

from ingest.doors.milvus.answers import answer
from ingest.doors.milvus.context import Call, ListOf, Params
from ingest.doors.milvus.errors import Code, MilvusError, invalid, missing
from ingest.doors.milvus.fields import VARCHAR_BYTES_MAX, analyzer_told
from ingest.large import encode_rows
from upwell.catalog.tokens import Access
from upwell.text.analyzer import Analyzer, Token, analyzer_of

#: Of all texts with what is around them: each of the words in them becomes an object. One has as many as the longest VarChar.
REQUEST_BYTES_MAX: Final = 256 << 10
#: What Milvus calls the analyzer of a field that has only one.
DEFAULT_NAMES: Final = ("", "default")
#: Of a term, in Milvus: CRC-32 of so many bytes of it, below this.
_HASHED_BYTES: Final = 100
_HASH_END: Final = 0xFFFF_FFFF


class Analyzing(Params):
    """The body of ``common/run_analyzer``."""

    text: ListOf[str] = Field(default_factory=list)
    analyzer_params: Annotated[
        dict[str, Any] | str, Field(description="JSON, or its text. Blank: words in lower case.")
    ] = ""
    collection_name: str = ""
    field_name: str = ""
    analyzer_names: ListOf[str] = Field(default_factory=list)
    with_detail: bool = False
    with_hash: bool = False


async def run_analyzer(call: Call) -> web.Response:
    """``common/run_analyzer``: the terms of each text, where they stand, and how Milvus hashes them."""
    asked = await call.params(Analyzing, REQUEST_BYTES_MAX)
    if asked.collection_name:
        told = await _of_field(call, asked)
    else:
        told = analyzer_told(asked.analyzer_params)

    def results() -> bytes:
        return encode_rows(_analyzed(asked, analyzer_of(told)))

    return answer(call, b'{"results":%b}' % await call.ops.parse(results))


async def _of_field(call: Call, asked: Analyzing) -> dict[str, Any]:
    """What is said of the analyzer of a field. Raises Forbidden or MilvusError."""
    collection = await call.collection_called(
        call.named_database(asked.db_name), asked.collection_name, Access.READ
    )
    if not asked.field_name:
        raise missing("fieldName")
    if asked.analyzer_params:
        raise invalid("analyzerParams cannot be given for a field, which has an analyzer of its own")
    if any(name not in DEFAULT_NAMES for name in asked.analyzer_names):
        raise invalid("multi_analyzer_params are not supported here, so a field's analyzer has no name")
    field = collection.schema.field(asked.field_name)
    if field is None:
        raise MilvusError(Code.FIELD_NOT_FOUND, f"field not found[field={asked.field_name}]")
    if field.analyzer is None:
        raise invalid(f"field {field.name} has no analyzer, since it does not enable_analyzer")
    return field.analyzer


def _analyzed(asked: Analyzing, analyzer: Analyzer) -> Iterator[dict[str, Any]]:
    for text in asked.text:
        if len(text.encode()) > VARCHAR_BYTES_MAX:
            raise invalid(f"a text has more than {VARCHAR_BYTES_MAX} bytes")
        yield {"tokens": [_shown(token, asked) for token in analyzer.tokens(text)]}


def _shown(token: Token, asked: Analyzing) -> dict[str, Any]:
    shown: dict[str, Any] = {"token": token.term}
    if asked.with_detail:
        shown |= {
            "startOffset": token.start,
            "endOffset": token.end,
            "position": token.position,
            "positionLength": 1,
        }
    if asked.with_hash:
        shown["hash"] = crc32(token.term.encode()[:_HASHED_BYTES]) % _HASH_END
    return shown
