"""The client's commands against a running service: index, upload, status, token, demo."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner, Result

from ingest.cli import app
from ingest.cli.client import Client
from ingest.cli.upload import batches_of
from tests.service import TOKEN, Service, running


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def upwell(service: Service) -> CliRunner:
    return CliRunner(env={"UPWELL_URL": service.apis[0].url, "UPWELL_TOKEN": TOKEN, "COLUMNS": "200"})


def ran(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def lines(count: int, *, start: int = 0) -> str:
    return "".join(json.dumps({"id": f"v{n}", "values": [n, 1]}) + "\n" for n in range(start, start + count))


def test_an_index_from_its_creation_to_its_end(upwell: CliRunner) -> None:
    options = ["--dimensions", "2", "--metric", "euclidean", "--shards", "3", "--description", "by hand"]
    assert "created shelf" in ran(upwell.invoke(app, ["index", "create", "shelf", *options]))
    listed = ran(upwell.invoke(app, ["index", "list"]))
    assert "shelf" in listed and "euclidean" in listed
    assert json.loads(ran(upwell.invoke(app, ["index", "info", "shelf"]))) == {
        "kind": "dense",
        "dimensions": 2,
        "vectorCount": 0,
        "compaction": {"pending": 0, "unindexed": 0, "segments": 0, "writeAmplification": None},
        "backlog": {"mutations": 0, "bytes": 0},
    }
    assert upwell.invoke(app, ["index", "delete", "shelf"], input="n\n").exit_code == 1
    assert "deleted shelf" in ran(upwell.invoke(app, ["index", "delete", "shelf"], input="y\n"))
    assert "shelf" not in ran(upwell.invoke(app, ["index", "list"]))


@pytest.mark.parametrize(
    ("options", "says", "listed", "told"),
    [
        (["--kind", "sparse"], "sparse", "sparse", {"kind": "sparse", "dimensions": 0}),
        (
            ["--kind", "hybrid", "--dimensions", "2", "--metric", "euclidean", "--ids-unique-in", "index"],
            "hybrid, 2 dimensions, euclidean",
            "hybrid │ 2          │ euclidean",
            {"kind": "hybrid", "dimensions": 2},
        ),
        (
            ["--embedding-model", "wordllama", "--ids", "int64"],
            "256 dimensions, cosine",
            "dense │ 256        │ cosine",
            {"kind": "dense", "dimensions": 256, "embeddingModel": "WORDLLAMA", "ids": "int64"},
        ),
        (
            ["--kind", "sparse", "--sparse-embedding-model", "bm25"],
            "sparse",
            "sparse │            │        │ 0",
            {"kind": "sparse", "sparseEmbeddingModel": "BM25", "idsUniqueIn": "namespace"},
        ),
        (
            ["--kind", "sparse", "--embedding-model", "bm25", "--metric", "dot-product", "--dimensions", "0"],
            "sparse",
            "sparse",
            {"kind": "sparse", "sparseEmbeddingModel": "BM25"},
        ),
        (
            ["--kind", "hybrid", "--embedding-model", "wordllama"],
            "hybrid, 256 dimensions, cosine",
            "hybrid │ 256        │ cosine",
            {"kind": "hybrid", "embeddingModel": "WORDLLAMA", "sparseEmbeddingModel": "BM25"},
        ),
    ],
)
def test_an_index_of_each_kind(
    upwell: CliRunner, options: list[str], says: str, listed: str, told: dict[str, Any]
) -> None:
    made = ran(upwell.invoke(app, ["index", "create", "kinds", *options]))
    assert made.strip() == f"created kinds: {says}"
    assert listed in ran(upwell.invoke(app, ["index", "list"]))
    info = json.loads(ran(upwell.invoke(app, ["index", "info", "kinds"])))
    assert told.items() <= info.items()
    ran(upwell.invoke(app, ["index", "delete", "kinds", "--yes"]))


def test_an_upload_in_batches_until_all_is_visible(
    service: Service, upwell: CliRunner, tmp_path: Path
) -> None:
    ran(upwell.invoke(app, ["index", "create", "batches", "--dimensions", "2"]))
    file = tmp_path / "vectors.ndjson"
    file.write_text(lines(25) + "\n\n" + lines(5, start=20))
    summary = json.loads(
        ran(upwell.invoke(app, ["upload", str(file), "--index", "batches", "--batch", "10", "--json"]))
    )
    assert (summary["vectors"], len(summary["mutations"]), summary["nbytes"]) == (30, 3, file.stat().st_size)
    assert 0 < summary["seconds_to_acknowledged"] <= summary["seconds_to_visible"]
    assert service.apis[0].index("batches").get("/info").result["vectorCount"] == 25
    status = ran(upwell.invoke(app, ["status", summary["mutations"][-1], "--index", "batches"]))
    assert status.startswith("visible") and "received 10" in status
    piped = ran(upwell.invoke(app, ["upload", "-", "--index", "batches", "--insert"], input=lines(30)))
    assert "30 vectors visible" in piped
    assert service.apis[0].index("batches").get("/info").result["vectorCount"] == 30


@pytest.fixture
def forgetful(service: Service) -> Iterator[tuple[str, list[bytes]]]:
    """The service behind a door that hangs up instead of passing on the first answer to the second of all uploads."""
    heard: list[bytes] = []

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kept = {
                name: value
                for name, value in self.headers.items()
                if name in ("Authorization", "Content-Type", "Idempotency-Key")
            }
            asked = Request(
                service.apis[0].url + self.path, data=body or None, headers=kept, method=self.command
            )
            with urlopen(asked, timeout=60) as reply:
                answer = reply.read()
            if self.path.endswith("/insert"):
                heard.append(body)
                if len(heard) == 2:
                    self.close_connection = True
                    return
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as door:
        serving = threading.Thread(target=door.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{door.server_port}", heard
        door.shutdown()
        serving.join()


@pytest.mark.parametrize(
    ("told", "waited"), [("7", 7.0), ("90000", 60.0), ("0", 0.2), ("soon", 0.2), ("-1", 0.2), ("", 0.2)]
)
async def test_who_is_told_when_to_come_back_comes_then(
    monkeypatch: pytest.MonkeyPatch, told: str, waited: float
) -> None:
    asked: list[str] = []
    pauses: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if len(asked) == 1:
            body = {"result": None, "success": False, "errors": [{"code": 40041, "message": "later"}]}
            return web.json_response(body, status=429, headers={"Retry-After": told})
        return web.json_response({"result": "done", "success": True, "errors": [], "messages": []})

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    app = web.Application()
    app.router.add_get("/x", answer)
    server = TestServer(app)
    await server.start_server()
    async with Client(str(server.make_url("/")), TOKEN, "default") as client:
        monkeypatch.setattr("ingest.cli.client.asyncio.sleep", pause)
        assert (await client.call("GET", "/x")).result == "done"
        monkeypatch.undo()
    await server.close()
    assert pauses == [waited]


def test_an_upload_whose_answer_is_lost_counts_once(
    service: Service, upwell: CliRunner, forgetful: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    index, (url, heard) = service.apis[0].index("once"), forgetful
    index.create(2)
    file = tmp_path / "vectors.ndjson"
    file.write_text(lines(20))
    options = ["--index", "once", "--insert", "--batch", "10", "--json", "--url", url]
    summary = json.loads(ran(upwell.invoke(app, ["upload", str(file), *options])))
    assert [one["mutationId"] for one in index.get("/mutations").result] == summary["mutations"][::-1]
    assert [one["counts"]["inserted"] for one in index.get("/mutations").result] == [10, 10]
    assert len(heard) == 3 and heard[1] == heard[2]


def test_a_refused_line_is_named_by_its_line_in_the_file(upwell: CliRunner, tmp_path: Path) -> None:
    ran(upwell.invoke(app, ["index", "create", "refusing", "--dimensions", "2"]))
    file = tmp_path / "vectors.ndjson"
    file.write_text(lines(14) + '{"id":"x","values":[1]}\n' + lines(3))
    failed = upwell.invoke(app, ["upload", str(file), "--index", "refusing", "--batch", "10", "--json"])
    assert failed.exit_code != 0
    said = str(failed.exception)
    assert "line 15, values" in said and "expected 2 dimensions, and got 1 dimensions" in said


def test_what_cannot_work_is_said_in_a_sentence(upwell: CliRunner, tmp_path: Path) -> None:
    missing = upwell.invoke(app, ["upload", str(tmp_path / "nowhere"), "--index", "x"])
    assert "cannot read" in str(missing.exception)
    unknown = upwell.invoke(app, ["status", "nonsense", "--index", "never-was"])
    assert "vectorize.index.not_found" in str(unknown.exception)
    sparse = upwell.invoke(app, ["index", "create", "ss", "--dimensions", "2", "--kind", "sparse"])
    assert "config: a sparse index has neither dimensions nor a metric" in str(sparse.exception)
    no_size = upwell.invoke(app, ["index", "create", "ss", "--kind", "hybrid"])
    assert "a hybrid index needs --dimensions, or an --embedding-model that has some" in str(
        no_size.exception
    )
    stranger = upwell.invoke(app, ["index", "create", "ss", "--embedding-model", "nobody"])
    assert "there is no embedding model 'nobody' here; known are WORDLLAMA" in str(stranger.exception)


def test_nobody_there_is_said_at_once() -> None:
    alone = CliRunner(env={"UPWELL_URL": "http://127.0.0.1:9", "UPWELL_TOKEN": TOKEN})
    assert "no service answers at http://127.0.0.1:9" in str(alone.invoke(app, ["demo"]).exception)


def test_a_token_works_for_what_it_is_for(service: Service, upwell: CliRunner) -> None:
    ran(upwell.invoke(app, ["index", "create", "guarded", "--dimensions", "2"]))
    made = upwell.invoke(
        app, ["token", "create", "--access", "read", "--expires-days", "1", "--name", "reader"]
    )
    token = ran(made).strip()
    assert token.startswith("upw_") and "\n" not in token
    index = service.apis[0].index("guarded")
    assert index.get("", token=token).status == 200
    assert index.post("upsert", lines(1), token=token).error[:2] == (403, 7403)
    ran(upwell.invoke(app, ["token", "revoke", "-"], input=token + "\n"))
    assert index.get("", token=token).error[:2] == (401, 10000)
    ran(upwell.invoke(app, ["token", "revoke", token]))
    again = upwell.invoke(app, ["token", "revoke", "upw_never_was"])
    assert again.exit_code != 0 and "no such token" in str(again.exception)
    itself = upwell.invoke(app, ["token", "revoke", TOKEN])
    assert "bootstrap admin token is a setting" in str(itself.exception)
    assert index.get("").status == 200


def test_a_token_may_be_made_for_so_many_requests(service: Service, upwell: CliRunner) -> None:
    ran(upwell.invoke(app, ["index", "create", "metered", "--dimensions", "2"]))
    token = ran(upwell.invoke(app, ["token", "create", "--rate", "2/hour"])).strip()
    index = service.apis[0].index("metered")
    assert [index.get("", token=token).status for _ in range(3)] == [200, 200, 429]
    refused = upwell.invoke(app, ["token", "create", "--rate", "twice"])
    assert refused.exit_code == 1
    assert "rate: expected a rate such as 10/second or 1200/5minutes" in str(refused.exception)


def test_the_demo_measures(upwell: CliRunner) -> None:
    measured = json.loads(ran(upwell.invoke(app, ["demo", "--vectors", "600", "--json"])))
    assert measured["vectors"] == 600
    assert measured["recall_at_10"] == 1.0
    assert 0 < measured["visible_p50_ms"] <= measured["visible_p99_ms"]
    assert "demo-" not in ran(upwell.invoke(app, ["index", "list"]))


def test_batches_are_whole_lines_and_know_where_they_begin() -> None:
    source = b"\n".join(b"x" * n for n in range(1, 8)) + b"\n\n \n"
    batches = list(batches_of(io.BytesIO(source), 3))
    assert [(batch.first_line, batch.vectors) for batch in batches] == [(1, 3), (4, 3), (7, 1)]
    assert b"".join(batch.text for batch in batches) == source
    assert list(batches_of(io.BytesIO(b"\n\n"), 3)) == []


def test_tokens_are_listed_rotated_and_revoked_by_id(service: Service, upwell: CliRunner) -> None:
    index = service.apis[0].index("tour")
    made = upwell.invoke(
        app, ["token", "create", "--door", "cloudflare", "--name", "[red]x\x1b[2J", "--access", "read"]
    )
    token = ran(made).strip()
    binding = f"/bindings/vectorize/default/{index.name}/info"
    assert service.apis[0].call("GET", binding, token=token).status == 403
    successor = ran(
        upwell.invoke(app, ["token", "rotate", "-", "--overlap", "3600"], input=token + "\n")
    ).strip()
    assert successor.startswith("upw_") and successor != token
    again = upwell.invoke(app, ["token", "rotate", token])
    assert again.exit_code != 0 and "rotated already" in str(again.exception)
    identity = service.apis[0].call("GET", "/client/v4/user", token=token).result["id"]
    assert service.apis[0].call("GET", "/client/v4/user", token=successor).result["id"] == identity
    listed = ran(upwell.invoke(app, ["token", "list"]))
    assert listed.count(identity) == 2 and "rotated, still good" in listed and "[red]x[2J" in listed
    assert token not in listed and successor not in listed and "\x1b" not in listed
    ran(upwell.invoke(app, ["token", "revoke", "--id", identity]))
    for useless in (token, successor):
        assert service.apis[0].call("GET", "/client/v4/user", token=useless).status == 401
    assert identity not in ran(upwell.invoke(app, ["token", "list"]))
    assert "revoked" in ran(upwell.invoke(app, ["token", "list", "--all"]))
    for wrong in (["token", "revoke"], ["token", "revoke", token, "--id", identity]):
        refused = upwell.invoke(app, wrong)
        assert refused.exit_code != 0 and "either the token or its --id" in str(refused.exception)
