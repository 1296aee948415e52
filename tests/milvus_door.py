"""The Milvus door as a client meets it: calls of either version, what they answered, and waiting until writes are visible."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.service import Answer, Api

#: The codes of a success.
SUCCESS = {1: 200, 2: 0}
PREFIXES = {1: "/v1/vector/", 2: "/v2/vectordb/"}
WAIT = {"Prefer": "wait=30"}


@dataclass(frozen=True)
class Milvus:
    """The door of one front end, in one version."""

    api: Api
    version: int
    #: Sent with every call.
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, command: str, body: Any = None, **headers: str) -> Answer:
        """POST a body to a command, a text as it is; an underscore in a header's name stands for a hyphen."""
        sent = body if isinstance(body, str | bytes) else json.dumps({} if body is None else body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.api.call("POST", PREFIXES[self.version] + command, sent, headers=self.headers | named)

    def look(self, command: str, **headers: str) -> Answer:
        """GET a command, its parameters behind it."""
        return self.api.call("GET", PREFIXES[self.version] + command, headers=self.headers | headers)

    def data(self, command: str, body: Any = None, **headers: str) -> Any:
        """What a command answers that must succeed."""
        return self.of(self.ask(command, body, **headers))

    def of(self, answer: Answer) -> Any:
        """The data of an answer that must be a success."""
        assert answer.status == 200 and answer.json["code"] == SUCCESS[self.version], answer
        return answer.json["data"]

    def refusal(self, command: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Code and message of what must be refused, with HTTP status 200 as Milvus does, and says nothing else."""
        answer = self.ask(command, body, **headers)
        assert answer.status == 200 and answer.json.keys() == {"code", "message"}, answer
        assert answer.json["code"] != SUCCESS[self.version], answer
        return answer.json["code"], answer.json["message"]

    def write(self, command: str, body: Any, **headers: str) -> Any:
        """A write that is visible when this returns what it answered."""
        answer = self.ask(command, body, **{"Prefer": "wait=30", **headers})
        data = self.of(answer)
        assert answer.headers["X-Mutation-State"] == "visible", answer
        return data

    def drop(self, collection: str) -> None:
        """Drop a collection."""
        self.data("collections/drop", {"collectionName": collection})


def strong(body: dict[str, Any]) -> dict[str, Any]:
    """A v2 read that sees all that was acknowledged before it."""
    return body | {"consistencyLevel": "Strong"}


def by_id(rows: list[dict[str, Any]], key: str = "id") -> dict[Any, dict[str, Any]]:
    """Rows by their keys, each of which must be there once."""
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows), rows
    return found
