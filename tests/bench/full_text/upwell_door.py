"""Upwell's Milvus door: ``upwell serve``, bodies of 5,000 rows over four connections, each client with a connection of its own."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson

from tests.bench.full_text.base import Answer, Ask, TextTask
from tests.bench.full_text.data import K1, TOP_K, B
from tests.bench.peers.upwell_service import CONNECTIONS, NAME, TOKEN, UpwellService

BODY_ROWS = 5_000
FIELDS = [
    {"fieldName": "id", "dataType": "Int64", "isPrimary": True},
    {"fieldName": "text", "dataType": "VarChar", "elementTypeParams": {"max_length": 65_535, "enable_analyzer": True}},
    {"fieldName": "sparse", "dataType": "SparseFloatVector"},
]  # fmt: skip
FUNCTION = {"name": "bm25", "type": "BM25", "inputFieldNames": ["text"], "outputFieldNames": ["sparse"]}
INDEX = {"fieldName": "sparse", "indexName": "by_text", "metricType": "BM25", "params": {"bm25_k1": K1, "bm25_b": B}}  # fmt: skip


class UpwellTexts(UpwellService):
    """A collection whose BM25 function makes sparse vectors of texts."""

    SETTINGS: ClassVar[Mapping[str, Any]] = {
        "analyzer": "standard",
        "k1": K1,
        "b": B,
        "body_rows": BODY_ROWS,
        "connections": CONNECTIONS,
        "workers": 1,
    }

    def __init__(self, task: TextTask) -> None:
        super().__init__(task)
        self._texts = task.texts
        self._clients: list[http.client.HTTPConnection] = []

    def _create(self) -> None:
        asked = {
            "collectionName": NAME,
            "schema": {"autoId": False, "fields": FIELDS, "functions": [FUNCTION]},
            "indexParams": [INDEX],
        }
        self._milvus(self._kept_connection(), "collections/create", orjson.dumps(asked))

    def _body_lines(self) -> int:
        return BODY_ROWS

    def _encode(self, rows: range) -> bytes:
        data = [{"id": row, "text": self._texts[row]} for row in rows]
        return orjson.dumps({"collectionName": NAME, "data": data})

    def _send(self, connection: http.client.HTTPConnection, body: bytes) -> str:
        _, mutation = self._milvus(connection, "entities/insert", body)
        return mutation

    def client(self) -> Ask:
        """Searches over a connection of its own."""
        connection = self._connect()
        self._clients.append(connection)

        def ask(query: str) -> Answer:
            asked = {"collectionName": NAME, "annsField": "sparse", "data": [query], "limit": TOP_K}
            hits, _ = self._milvus(connection, "entities/search", orjson.dumps(asked))
            return [(hit["id"], hit["distance"]) for hit in hits]

        return ask

    def close(self) -> None:
        """Also close the clients' connections."""
        for connection in self._clients:
            connection.close()
        super().close()

    @staticmethod
    def _milvus(connection: http.client.HTTPConnection, command: str, body: bytes) -> tuple[Any, str]:
        """What a command answers, and the mutation that it made, if any."""
        connection.request("POST", f"/v2/vectordb/{command}", body, {"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        said = orjson.loads(answer.read())
        if said["code"] != 0:
            raise RuntimeError(f"{command}: {said}")
        return said["data"], answer.headers.get("X-Mutation-Id", "")
