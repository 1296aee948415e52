"""The stores that are libraries: Milvus Lite, LanceDB, zvec, and SQLite's FTS5. Words are runs of letters and digits in lower case to all of them."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib
import os
import platform
import sqlite3
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any, ClassVar

from tests.bench.full_text.base import Answer, Ask, TextTask
from tests.bench.full_text.data import K1, TOP_K, B
from tests.bench.peers.base import Quiet, batches
from tests.bench.peers.milvus import SEGMENT_BYTES


class MilvusTexts(Quiet):
    """A collection with a BM25 function in this process. One segment, since each has its own idea of how rare a word is."""

    BATCH = 10_000
    SETTINGS: ClassVar[Mapping[str, Any]] = {
        "analyzer": "standard",
        "k1": K1,
        "b": B,
        "index": "SPARSE_INVERTED_INDEX",
        "batch": BATCH,
    }

    def __init__(self, task: TextTask) -> None:
        self._task = task
        self._rows: list[list[dict[str, Any]]] = []
        self._client: Any = None
        self.acknowledged_s = 0.0

    def prepare(self) -> None:
        """Also make the collection."""
        os.environ["MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES"] = str(SEGMENT_BYTES)
        os.environ["MILVUS_LITE_WAL_SIZE_LIMIT_BYTES"] = str(SEGMENT_BYTES)
        pymilvus: Any = importlib.import_module("pymilvus")
        types = pymilvus.DataType
        self._client = pymilvus.MilvusClient(str(self._task.folder / "peers.db"))
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field(
            "text",
            types.VARCHAR,
            max_length=65_535,
            enable_analyzer=True,
            analyzer_params={"tokenizer": "standard"},
        )
        schema.add_field("sparse", types.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            pymilvus.Function(
                name="bm25",
                function_type=pymilvus.FunctionType.BM25,
                input_field_names=["text"],
                output_field_names=["sparse"],
            )
        )
        self._client.create_collection("items", schema=schema)
        texts = self._task.texts
        self._rows = [
            [{"id": row, "text": texts[row]} for row in rows] for rows in batches(self._task.rows, self.BATCH)
        ]

    def load(self) -> None:
        """Insert, flush, index, load, and one search, which makes what is left to be made."""
        began = time.perf_counter()
        for rows in self._rows:
            self._client.insert("items", rows)
        self._client.flush("items")
        self.acknowledged_s = time.perf_counter() - began
        index = self._client.prepare_index_params()
        # One deep, pymilvus 3.0 sends them where Milvus Lite 3.2 does not look, which then takes 1.5 for k1.
        params = {"params": {"bm25_k1": K1, "bm25_b": B}}
        index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=params)
        self._client.create_index("items", index)
        self._client.load_collection("items")
        self.client()("nothing")
        counted = self._client.get_collection_stats("items")["row_count"]
        if int(counted) != self._task.rows:
            raise RuntimeError(f"{counted} texts are there")

    def release(self) -> None:
        """Drop the rows."""
        self._rows.clear()

    def client(self) -> Ask:
        """Clients share the library's own."""

        def ask(query: str) -> Answer:
            found = self._client.search(
                "items", data=[query], anns_field="sparse", limit=TOP_K, output_fields=["id"]
            )
            # The less, the better, to Milvus Lite.
            return [(hit["id"], -hit["distance"]) for hit in found[0]]

        return ask

    def version(self) -> str:
        """The version measured."""
        return metadata.version("milvus-lite")

    def close(self) -> None:
        """Stop it."""
        if self._client is not None:
            self._client.close()


class LanceTexts(Quiet):
    """One table with an inverted index. What it counts as k1 and b cannot be told, and is what it is for the others."""

    WORDS: ClassVar[Mapping[str, Any]] = {
        "base_tokenizer": "simple",
        "lower_case": True,
        "stem": False,
        "remove_stop_words": False,
        "ascii_folding": False,
        "with_position": False,
    }
    SETTINGS: ClassVar[Mapping[str, Any]] = {"k1": K1, "b": B, **WORDS}

    def __init__(self, task: TextTask) -> None:
        self._task = task
        self._database: Any = None
        self._data: Any = None
        self._table: Any = None
        self.acknowledged_s = 0.0

    def prepare(self) -> None:
        """Make one Arrow table."""
        arrow: Any = importlib.import_module("pyarrow")
        self._database = importlib.import_module("lancedb").connect(str(self._task.folder))
        ids = arrow.array(range(self._task.rows), arrow.int64())
        self._data = arrow.table({"id": ids, "text": arrow.array(self._task.texts, arrow.string())})

    def load(self) -> None:
        """The table, and then its index."""
        config = importlib.import_module("lancedb.index").FTS(num_workers=self._task.threads, **self.WORDS)
        began = time.perf_counter()
        self._table = self._database.create_table("items", self._data)
        self.acknowledged_s = time.perf_counter() - began
        self._table.create_index("text", config=config, name="by_text")
        self._table.wait_for_index(["by_text"], dt.timedelta(minutes=30))
        left_out = self._table.index_stats("by_text").num_unindexed_rows
        if left_out or self._table.count_rows() != self._task.rows:
            raise RuntimeError(f"{left_out} rows are not indexed")

    def release(self) -> None:
        """Drop the table."""
        self._data = None

    def client(self) -> Ask:
        """Clients share the table."""

        def ask(query: str) -> Answer:
            asked = self._table.search(query, query_type="fts", fts_columns="text")
            found = asked.select(["id", "_score"]).limit(TOP_K).to_arrow()
            return list(zip(found["id"].to_pylist(), found["_score"].to_pylist(), strict=True))

        return ask

    def version(self) -> str:
        """The version measured."""
        return metadata.version("lancedb")

    def close(self) -> None:
        """Let go of it."""
        self._table = self._database = None


class ZvecTexts(Quiet):
    """One collection whose text field has an index of words. By the scores that it gives, its k1 and b are the others'; they cannot be told."""

    BATCH = 1_000
    SETTINGS: ClassVar[Mapping[str, Any]] = {
        "tokenizer": "standard",
        "filters": "lowercase",
        "k1": f"{K1}, built in",
        "b": f"{B}, built in",
        "batch": BATCH,
    }

    def __init__(self, task: TextTask) -> None:
        self._task = task
        self._zvec: Any = importlib.import_module("zvec")
        self._docs: list[list[Any]] = []
        self._collection: Any = None
        self.acknowledged_s = 0.0

    def prepare(self) -> None:
        """Also make the collection."""
        zvec, threads = self._zvec, self._task.threads
        zvec.init(query_threads=threads, optimize_threads=threads, log_level=zvec.LogLevel.ERROR)
        index = zvec.FtsIndexParam(tokenizer_name="standard", filters=["lowercase"])
        field = zvec.FieldSchema("text", zvec.DataType.STRING, index_param=index)
        schema = zvec.CollectionSchema(name="items", fields=[field])
        self._collection = zvec.create_and_open(str(self._task.folder / "items"), schema)
        texts = self._task.texts
        self._docs = [
            [zvec.Doc(id=str(row), fields={"text": texts[row]}) for row in rows]
            for rows in batches(self._task.rows, self.BATCH)
        ]

    def load(self) -> None:
        """Insert and flush, then merge."""
        began = time.perf_counter()
        for docs in self._docs:
            for status in self._collection.insert(docs):
                if not status.ok():
                    raise RuntimeError(str(status))
        self._collection.flush()
        self.acknowledged_s = time.perf_counter() - began
        self._collection.optimize(self._zvec.OptimizeOption(concurrency=self._task.threads))
        self._collection.flush()
        if self._collection.stats.doc_count != self._task.rows:
            raise RuntimeError(f"{self._collection.stats.doc_count} texts are there")

    def release(self) -> None:
        """Drop the documents."""
        self._docs.clear()

    def client(self) -> Ask:
        """Clients share the collection."""

        def ask(query: str) -> Answer:
            asked = self._zvec.Query(field_name="text", fts=self._zvec.Fts(match_string=query))
            found = self._collection.query(asked, topk=TOP_K, output_fields=[])
            return [(int(doc.id), doc.score) for doc in found]

        return ask

    def version(self) -> str:
        """The version measured."""
        return metadata.version("zvec")

    def close(self) -> None:
        """Close it."""
        if self._collection is not None:
            self._collection.close()


class SqliteTexts(Quiet):
    """A table of FTS5. Its k1 and b are the others'; but a word that half of the rows have counts as nothing to it."""

    BATCH = 10_000
    SETTINGS: ClassVar[Mapping[str, Any]] = {
        "tokenize": "unicode61 remove_diacritics 0",
        "k1": K1,
        "b": B,
        "journal_mode": "WAL",
        "synchronous": "FULL",
        "batch": BATCH,
    }
    ASKED = f"SELECT rowid, -rank FROM items WHERE items MATCH ? ORDER BY rank LIMIT {TOP_K}"

    def __init__(self, task: TextTask) -> None:
        self._task = task
        self._path = task.folder / "items.db"
        self._opened: list[sqlite3.Connection] = []
        self._rows: list[list[tuple[int, str]]] = []
        self.acknowledged_s = 0.0

    def prepare(self) -> None:
        """Also make the table."""
        connection = self._connect()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        words = self.SETTINGS["tokenize"]
        connection.execute(f"CREATE VIRTUAL TABLE items USING fts5(text, tokenize = '{words}')")
        texts = self._task.texts
        self._rows = [[(row, texts[row]) for row in rows] for rows in batches(self._task.rows, self.BATCH)]

    def load(self) -> None:
        """Insert, then merge into one tree."""
        connection, began = self._opened[0], time.perf_counter()
        for rows in self._rows:
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO items (rowid, text) VALUES (?, ?)", rows)
            connection.execute("COMMIT")
        self.acknowledged_s = time.perf_counter() - began
        connection.execute("INSERT INTO items (items) VALUES ('optimize')")

    def release(self) -> None:
        """Drop the rows."""
        self._rows.clear()

    def client(self) -> Ask:
        """A connection of its own."""
        connection = self._connect()

        def ask(query: str) -> Answer:
            return connection.execute(self.ASKED, (query.replace(" ", " OR "),)).fetchall()

        return ask

    def version(self) -> str:
        """The version of the library that Python has."""
        return sqlite3.sqlite_version

    def notes(self) -> dict[str, Any]:
        """Which Python has it."""
        return {"python": platform.python_version()}

    def close(self) -> None:
        """Close all connections."""
        for connection in self._opened:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        # Closed by the main thread, and otherwise used in the one that asked for it.
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._opened.append(connection)
        return connection
