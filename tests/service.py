"""A whole Upwell for tests: front ends and workers as real processes on one real embedded Valkey and one directory.

Everything binds to 127.0.0.1 on free ports, and is stopped by process id.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import redis

from tests.forked import Process, forkserver
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.doorbell.keys import DRAIN_QUEUE, lease_key

TOKEN = "story-token-0123456789"
ROOT = Path(__file__).resolve().parent.parent
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, headers, and the body as JSON."""

    status: int
    headers: dict[str, str]
    json: Any

    @property
    def result(self) -> Any:
        """The envelope's result; the whole answer is the message when it is none."""
        assert self.status == 200 and self.json["success"] is True, self
        return self.json["result"]

    @property
    def error(self) -> tuple[int, int, str]:
        """Status, code and message of a refusal, whose envelope must agree with its status."""
        assert self.status >= 400 and self.json["success"] is False and self.json["result"] is None, self
        (first,) = self.json["errors"]
        return self.status, first["code"], first["message"]


@dataclass
class Api:
    """One front-end process."""

    process: Process
    url: str

    def call(
        self,
        method: str,
        path: str,
        body: bytes | str | dict[str, Any] | None = None,
        *,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
        timeout_s: float = 70,
    ) -> Answer:
        """One request, as curl would send it. A dict is sent as JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        if isinstance(body, dict):
            body = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        data = body.encode() if isinstance(body, str) else body
        request = Request(self.url + path, data=data, method=method, headers=sent)
        try:
            with urlopen(request, timeout=timeout_s) as reply:
                return Answer(reply.status, dict(reply.headers), json.loads(reply.read()))
        except HTTPError as reply:
            with reply:
                return Answer(reply.code, dict(reply.headers), json.loads(reply.read()))

    def index(self, name: str, account: str = "default") -> Index:
        """An index to work with; it need not exist."""
        return Index(self, name, account)


@dataclass
class Index:
    """One index through one front end's Cloudflare door."""

    api: Api
    name: str
    account: str = "default"

    def path(self, rest: str = "") -> str:
        """The path of this index, and what follows."""
        base = f"/client/v4/accounts/{self.account}/vectorize/v2/indexes"
        return f"{base}/{self.name}{rest}"

    def create(self, dimensions: int = 3, metric: str = "cosine", **more: Any) -> Answer:
        body = {"name": self.name, "config": {"dimensions": dimensions, "metric": metric}, **more}
        return self.api.call("POST", self.path().rsplit("/", 1)[0], body)

    def post(self, operation: str, body: bytes | str | dict[str, Any], **how: Any) -> Answer:
        return self.api.call("POST", self.path(f"/{operation}"), body, **how)

    def get(self, rest: str, **how: Any) -> Answer:
        return self.api.call("GET", self.path(rest), **how)

    def upsert(self, vectors: Iterable[dict[str, Any]], operation: str = "upsert") -> str:
        """Upload vectors; returns the mutationId."""
        body = "\n".join(json.dumps(vector) for vector in vectors)
        answer = self.post(operation, body, headers={"Content-Type": "application/x-ndjson"})
        return str(answer.result["mutationId"])

    def delete(self, ids: Sequence[str]) -> str:
        return str(self.post("delete_by_ids", {"ids": list(ids)}).result["mutationId"])

    def status(self, mutation_id: str, wait_s: float = 0) -> dict[str, Any]:
        result = self.get(f"/mutations/{mutation_id}?wait={wait_s}").result
        assert isinstance(result, dict)
        return result

    def visible(self, mutation_id: str, wait_s: float = 60) -> dict[str, Any]:
        """Wait until a mutation is visible; returns its status."""
        status = self.status(mutation_id, wait_s)
        assert status["state"] == "visible", status
        return status

    def query(self, vector: Sequence[float], **how: Any) -> list[dict[str, Any]]:
        matches = self.post("query", {"vector": list(vector), **how}).result["matches"]
        assert isinstance(matches, list)
        return matches

    def fetch(self, *ids: str) -> dict[str, dict[str, Any]]:
        """The vectors of the given ids that exist, by id."""
        return {one["id"]: one for one in self.post("get_by_ids", {"ids": list(ids)}).result}


@dataclass
class Service:
    """Front ends and workers as processes, forked where that can be done. Use as a context manager."""

    settings: dict[str, str] = field(default_factory=dict)
    #: Whether each is a Python of its own, as in real life.
    fresh: bool = sys.platform != "linux"

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="upwell-test-"))
        self.data = self.folder / "data"
        self.data.mkdir()
        self.valkey = EmbeddedValkey(self.folder)
        self.valkey.start()
        self.apis: list[Api] = []
        self.workers: list[Process] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in [*self.workers, *(api.process for api in self.apis)]:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in [*self.workers, *(api.process for api in self.apis)]:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        if self.valkey.alive():
            self.valkey.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def rests(self) -> None:
        """Wait until no worker drains anything: who has made a mutation visible looks once more whether there is another."""
        with redis.Redis.from_url(self.valkey.url) as client:
            for _ in until(60):
                if not client.zcard(DRAIN_QUEUE) and not client.keys(lease_key("*")):
                    return

    def _environment(self) -> dict[str, str]:
        mine = {
            "UPWELL_REDIS": self.valkey.url,
            "UPWELL_DATA": str(self.data),
            "UPWELL_HOST": "127.0.0.1",
            "UPWELL_PORT": "0",
            "UPWELL_TOKEN": TOKEN,
            "UPWELL_LOG_LEVEL": "warning",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("UPWELL_")}
        return kept | mine | self.settings

    def start_api(self) -> Api:
        """Start a front end and wait until it listens."""
        ready = self.folder / f"ready-{len(self.apis)}-{time.monotonic_ns()}"
        process = self._process("api", self._environment() | {"UPWELL_READY_FILE": str(ready)})
        for _ in until(START_S):
            if ready.exists():
                break
            assert process.poll() is None, f"the front end ended with {process.returncode}"
        api = Api(process, ready.read_text().strip())
        self.apis.append(api)
        return api

    def start_worker(self) -> Process:
        """Start a worker process."""
        process = self._process("worker", self._environment())
        self.workers.append(process)
        return process

    def _process(self, kind: Literal["api", "worker"], environment: dict[str, str]) -> Process:
        if not self.fresh:
            return forkserver().start(kind, environment)
        command = [sys.executable, "-m", {"api": "ingest", "worker": "workers"}[kind]]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)


def until(seconds: float, every_s: float = 0.02) -> Iterator[None]:
    """For loops that wait for something: yields until ``seconds`` have passed, then fails the test."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(every_s)
    raise AssertionError(f"did not happen within {seconds} s")


@contextmanager
def running(apis: int = 1, workers: int = 1, **settings: str) -> Iterator[Service]:
    """A service with so many front ends and workers; settings by their names in the environment."""
    with Service(settings) as service:
        for _ in range(apis):
            service.start_api()
        for _ in range(workers):
            service.start_worker()
        yield service
