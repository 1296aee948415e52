"""When more comes than can be taken: a backlog without workers, a token that asks too often, and bodies that are not even sent."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.service import ROOT, TOKEN, Answer, Api, Index, Service, running, until

MUTATIONS_MAX = 6


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(apis=2, workers=0, UPWELL_BACKLOG_MUTATIONS_MAX=str(MUTATIONS_MAX)) as service:
        yield service


def vector(name: str) -> str:
    return json.dumps({"id": name, "values": [1, 2, 3]})


def too_many(answer: Answer) -> str:
    """The message of a 429, whose envelope and headers must be right."""
    status, code, message = answer.error
    assert (status, code) == (429, 40041), answer
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert message.startswith("Too Many Requests: ")
    return message


def test_a_backlog_refuses_writes_on_all_front_ends_until_a_worker_comes(service: Service) -> None:
    here, there = (api.index("waiting") for api in service.apis)
    here.create(3)
    # Both have looked before the other appends, so each has to find out.
    here.upsert([{"id": "a", "values": [1, 2, 3]}])
    there.upsert([{"id": "b", "values": [1, 2, 3]}])
    backlog = here.get("/info").result["backlog"]
    assert backlog["mutations"] == 2 and backlog["bytes"] > 0
    last = ""
    for _ in range(MUTATIONS_MAX - 2):
        last = here.upsert([{"id": "c", "values": [1, 2, 3]}])
    full = here.get("/info").result["backlog"]
    assert full == there.get("/info").result["backlog"]
    assert full["mutations"] == MUTATIONS_MAX
    says = f"backlog of {MUTATIONS_MAX} mutations and {full['bytes']:,} bytes, at most {MUTATIONS_MAX} and "
    assert says in too_many(here.post("upsert", vector("d")))
    for _ in until(60):
        answer = there.post("insert", vector("d"))
        if answer.status != 200:
            assert "backlog of" in too_many(answer)
            break
    too_many(there.post("delete_by_ids", {"ids": ["a"]}))
    # Reading goes on, and other indexes are not concerned.
    assert here.status(last)["state"] == "queued" and here.query([1, 2, 3]) == []
    other = service.apis[0].index("other")
    other.create(3)
    other.upsert([{"id": "a", "values": [1, 2, 3]}])
    worker = service.start_worker()
    for index in (here, there):
        for _ in until(60):
            answer = index.post("upsert", vector("e"))
            if answer.status == 200:
                index.visible(answer.result["mutationId"])
                break
            too_many(answer)
    assert here.delete(["a"])
    for _ in until(60):
        if here.get("/info").result["backlog"] == {"mutations": 0, "bytes": 0}:
            break
    worker.terminate()
    worker.wait(20)


class Held:
    """A client that holds its body back until it is asked for it, byte by byte."""

    def __init__(self, index: Index, operation: str, size: int, token: str = TOKEN) -> None:
        address = urlsplit(index.api.url)
        assert address.hostname is not None and address.port is not None
        self.socket = socket.create_connection((address.hostname, address.port), timeout=30)
        head = (
            f"POST {index.path('/' + operation)} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
        )
        self.socket.sendall(head.encode())

    def line(self) -> bytes:
        """The first line of what comes next, up to an empty one."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, "hung up without an answer"
            head += byte
        return head.split(b"\r\n")[0]

    def rest(self) -> bytes:
        """Everything until the service hangs up."""
        with self.socket:
            return b"".join(iter(lambda: self.socket.recv(65_536), b""))


def test_a_refused_body_is_never_sent(service: Service) -> None:
    api = service.apis[0]
    index = api.index("held-back")
    index.create(3)
    reader = api.call("POST", "/upwell/v1/tokens", {"access": "read"}).result["token"]
    body = vector("held").encode()
    held = Held(index, "upsert", len(body))
    assert held.line() == b"HTTP/1.1 100 Continue"
    held.socket.sendall(body)
    assert held.line() == b"HTTP/1.1 200 OK"
    held.socket.close()
    for _ in range(MUTATIONS_MAX - 1):
        index.upsert([{"id": "c", "values": [1, 2, 3]}])
    refused = [
        (Held(index, "upsert", 100_000_000, token="wrong-token-0123"), 401),
        (Held(index, "upsert", 100_000_000, token=reader), 403),
        (Held(api.index("nowhere"), "upsert", 100_000_000), 404),
        (Held(index, "upsert", 100_000_001), 429),
        (Held(index, "delete_by_ids", 100_000_000), 429),
        (Held(index, "query", 100_000_001), 413),
    ]
    for held, status in refused:
        assert held.line().startswith(f"HTTP/1.1 {status} ".encode())
        envelope = json.loads(held.rest())
        assert envelope["success"] is False and len(envelope["errors"]) == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_does_not_send_a_body_that_is_refused(service: Service, tmp_path: Path) -> None:
    body = tmp_path / "large.ndjson"
    body.write_bytes(b" " * 50_000_000)
    index = service.apis[0].index("nowhere")
    done = subprocess.run(
        ["curl", "--silent", "--header", f"Authorization: Bearer {TOKEN}", "--data-binary", f"@{body}",
         "--write-out", "\n%{http_code} %{size_upload}", index.api.url + index.path("/upsert")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    envelope, numbers = done.stdout.rsplit("\n", 1)
    assert json.loads(envelope)["errors"][0]["code"] == 3000
    assert numbers == "404 0"


def make_token(api: Api, **asked: object) -> str:
    token = api.call("POST", "/upwell/v1/tokens", {"access": "read", **asked}).result["token"]
    assert isinstance(token, str)
    return token


def test_a_token_that_asks_too_often_is_told_so_and_others_are_not() -> None:
    with running(apis=2, workers=0, UPWELL_TOKEN_RATE="40/hour") as service:
        api, other = service.apis
        index = api.index("rates")
        index.create(3)
        usual, slow = make_token(api), make_token(api, rate="3 per hour")

        def ask(token: str, at: Api = api) -> Answer:
            return at.index("rates").get("", token=token)

        for _ in range(3):
            assert ask(slow).status == 200
        for _ in range(5):
            refused = ask(slow)
            assert "limit of 3 per hour is reached" in refused.error[2]
            assert refused.error[:2] == (429, 40041) and 3_500 < int(refused.headers["Retry-After"]) <= 3_604
        # Each front end counts for itself, and each token has its own count; what is refused counts for nobody.
        assert ask(slow, other).status == 200
        for _ in range(40):
            assert ask(usual).status == 200
        assert "limit of 40/hour is reached" in ask(usual).error[2]
        assert index.get("").status == 200, "the bootstrap token has a count of its own"
        # Whoever cannot be told apart is not counted, and neither is who watches over us.
        for _ in range(50):
            assert index.get("", token="nobody-knows-me").status == 401
            assert api.call("GET", "/healthz").status == 200
        bad = api.call("POST", "/upwell/v1/tokens", {"rate": "often"})
        assert bad.status == 400
        assert "rate: expected a rate such as 10/second or 1200/5minutes" in bad.error[2]


@pytest.mark.parametrize("command", [["upwell", "api"], ["ingest"]])
def test_a_rate_that_is_none_is_named_at_the_start(command: list[str], tmp_path: Path) -> None:
    run = ["-m", "ingest"] if command == ["ingest"] else ["-c", "from ingest.cli import main; main()", "api"]
    environment = os.environ | {
        "UPWELL_TOKEN_RATE": "1200 now and then",
        "UPWELL_DATA": str(tmp_path),
        "UPWELL_PORT": "0",
    }
    done = subprocess.run(
        [sys.executable, *run],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "token_rate" in done.stderr and "expected a rate such as 10/second" in done.stderr
    assert "'1200 now and then'" in done.stderr
