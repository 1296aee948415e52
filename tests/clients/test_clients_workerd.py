"""env.VECTORIZE of the real workerd, on what deploy/workerd says: its configuration and Worker, and its plugin in wrangler dev.

The Worker calls what it is told to and hands back the result, or the message of the exception that a Worker would see.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.clients.javascript import JS, NODE, Home
from tests.service import ROOT, TOKEN, Service, running

DEPLOY = ROOT / "deploy" / "workerd"
MODULES = JS / "node_modules"
EXAMPLE_TOKEN = "choose-a-long-random-one"
EXAMPLE_INDEX = '"tour"'
LINES_OR_NOT = {'json = "true"': 'json = "false"'}
END_S = 15


@dataclass(frozen=True)
class Worker:
    """The Worker of deploy/workerd, running."""

    url: str

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of ``env.VECTORIZE[method](...arguments)``."""
        status, answer = self._send(method, arguments)
        assert status == 200, answer
        return answer

    def fails(self, method: str, *arguments: Any) -> str:
        """The message of the exception that the call throws."""
        status, answer = self._send(method, arguments)
        assert status == 502, answer
        return str(answer["error"])

    def _send(self, method: str, arguments: tuple[Any, ...]) -> tuple[int, Any]:
        body = json.dumps({"call": method, "with": arguments}).encode()
        try:
            with urlopen(Request(self.url, data=body), timeout=30) as reply:
                return reply.status, json.loads(reply.read())
        except HTTPError as reply:
            with reply:
                return reply.code, json.loads(reply.read())


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def start(service: Service, home: Home) -> Iterator[Callable[..., Worker]]:
    """Start the Worker for an index: ``start("workerd", "name")``."""
    with ExitStack() as stack:

        def one(how: str, index: str, *, token: str = TOKEN, lines: bool = True) -> Worker:
            folder = home.folder / index
            shutil.copytree(DEPLOY, folder)
            api = service.apis[0].url
            if how == "workerd":
                says = {EXAMPLE_TOKEN: token, EXAMPLE_INDEX: f'"{index}"'}
                fill_in(folder / "config.capnp", says | ({} if lines else LINES_OR_NOT))
                return stack.enter_context(in_workerd(folder, api))
            fill_in(folder / "wrangler.jsonc", {EXAMPLE_INDEX: f'"{index}"'})
            knowing = home.knowing(UPWELL_URL=api, UPWELL_TOKEN=token)
            return stack.enter_context(in_wrangler(how, folder, knowing))

        yield one


def fill_in(file: Path, says: dict[str, str]) -> None:
    """What a user would write in place of what the example says."""
    text = file.read_text("utf-8")
    for example, own in says.items():
        assert example in text, f"{file.name} does not say {example} any more"
        text = text.replace(example, own)
    file.write_text(text, "utf-8")


@contextmanager
def in_workerd(folder: Path, api: str) -> Iterator[Worker]:
    """workerd itself, which tells on a pipe where it listens."""
    (workerd,) = MODULES.glob("@cloudflare/workerd-*/bin/workerd")
    reading, writing = os.pipe()
    command = [str(workerd), "serve", "config.capnp", f"--control-fd={writing}"]
    command += [
        "--socket-addr",
        "http=127.0.0.1:0",
        "--external-addr",
        f"upwell={api.removeprefix('http://')}",
    ]
    with open(reading) as told:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, pass_fds=[writing])
        os.close(writing)
        try:
            listens = json.loads(told.readline() or "{}")
            assert listens.get("event") == "listen", f"workerd ended with {process.wait(END_S)}"
            yield Worker(f"http://127.0.0.1:{listens['port']}/")
        finally:
            process.terminate()
            process.wait(END_S)


@contextmanager
def in_wrangler(version: str, folder: Path, home: Home) -> Iterator[Worker]:
    """``wrangler dev``, in a session of its own, so that its children end with it."""
    # As npm install would do; require() looks there too.
    packages = folder / "packages"
    packages.mkdir()
    (packages / "upwell-vectorize").symlink_to(DEPLOY)
    quiet = {
        "NODE_PATH": str(packages),
        "CI": "true",
        "CLOUDFLARE_CF_FETCH_ENABLED": "false",
        "WRANGLER_HIDE_BANNER": "true",
        "WRANGLER_REGISTRY_PATH": str(folder / "registry"),
        "WRANGLER_SEND_METRICS": "false",
    }
    command = [str(NODE), str(MODULES / version / "bin" / "wrangler.js"), "dev", "--env", "local"]
    command += ["--ip", "127.0.0.1", "--port", "0", "--inspector-port", "0"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=home.knowing(**quiet).environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            ready = re.search(r"Ready on (http://127\.0\.0\.1:\d+)", line)
            if ready:
                break
        else:
            pytest.fail(f"wrangler dev did not start:\n{said}")
        yield Worker(ready[1] + "/")
    finally:
        # Those that stay behind when the first of them ends are of the same group.
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, how)
                process.wait(END_S)
        process.stdout.close()


@pytest.mark.parametrize("how", ["workerd", "wrangler", "wrangler-newest"])
def test_what_a_worker_does(service: Service, start: Callable[..., Worker], how: str) -> None:
    index = service.apis[0].index(f"whole-{how}")
    index.create(3)
    worker = start(how, index.name)
    empty = worker.call("describe")
    assert (empty["dimensions"], empty["vectorCount"]) == (3, 0) and "processedUpToMutation" not in empty

    inserted = worker.call(
        "insert",
        [
            {"id": "a", "values": [1, 0, 0], "metadata": {"title": "Frühling\n"}},
            {"id": "b", "values": [0, 1, 0], "namespace": "n"},
        ],
    )
    index.visible(inserted["mutationId"])
    upserted = worker.call("upsert", [{"id": "c", "values": [0, 0, 2.5], "metadata": {"n": [1]}}])
    index.visible(upserted["mutationId"])
    described = worker.call("describe")
    assert described["vectorCount"] == 3 and described["processedUpToMutation"] == upserted["mutationId"]

    plain = worker.call("query", [0, 0, 1], {"topK": 1})
    assert plain == {"count": 1, "matches": [{"id": "c", "score": 1}]}
    whole = worker.call("query", [1, 0, 0], {"topK": 1, "returnValues": True, "returnMetadata": "all"})
    assert whole["matches"] == [
        {"id": "a", "score": 1, "values": [1, 0, 0], "metadata": {"title": "Frühling\n"}}
    ]
    # workerd makes "all" of true, and sends false as it is.
    assert worker.call("query", [0, 0, 1], {"topK": 1, "returnMetadata": True})["matches"][0]["metadata"]
    assert "metadata" not in worker.call("query", [0, 0, 1], {"returnMetadata": False})["matches"][0]
    named = worker.call("queryById", "b", {"namespace": "n"})
    assert named == {"count": 1, "matches": [{"id": "b", "score": 1, "namespace": "n"}]}

    assert worker.call("getByIds", ["c", "nobody", "b"]) == [
        {"id": "c", "values": [0, 0, 2.5], "metadata": {"n": [1]}},
        {"id": "b", "values": [0, 1, 0], "namespace": "n"},
    ]
    deleted = worker.call("deleteByIds", ["b", "nobody"])
    # What a Worker sends beside its vector arrives, so it can read its own writes.
    left = worker.call("query", [0, 1, 0], {"after": deleted["mutationId"]})
    assert {match["id"] for match in left["matches"]} == {"a", "c"}
    assert worker.fails("query", [1, 0]) == (
        "VECTOR_QUERY_ERROR (code = 40006): invalid query vector, expected 3 dimensions, and got 2 dimensions"
    )


def test_a_binding_without_ndjson(service: Service, start: Callable[..., Worker]) -> None:
    index = service.apis[0].index("documents")
    index.create(2)
    worker = start("workerd", index.name, lines=False)
    inserted = worker.call("insert", [{"id": "a", "values": [1, 0]}, {"id": "b", "values": [0, 1]}])
    upserted = worker.call("upsert", [{"id": "b", "values": [0.5, 1]}])
    assert index.visible(inserted["mutationId"])["counts"]["inserted"] == 2
    assert index.visible(upserted["mutationId"])["counts"]["replaced"] == 1
    assert worker.fails("insert", [{"id": "a", "values": [1]}]).startswith(
        "VECTOR_INSERT_ERROR (code = 40012): invalid vector"
    )


def test_errors_as_a_worker_sees_them(service: Service, start: Callable[..., Worker]) -> None:
    index = service.apis[0].index("erring")
    index.create(3)
    worker = start("workerd", index.name)
    assert worker.fails("insert", []) == (
        "VECTOR_INSERT_ERROR (code = 50400): the request body contains no vectors"
    )
    assert worker.fails("upsert", [{"id": "a", "values": [1, "2", 3]}]).startswith(
        "VECTOR_UPSERT_ERROR (code = 40023): "
    )
    assert worker.fails("query", [1, 2, 3], {"topK": 101}).startswith("VECTOR_QUERY_ERROR (code = 40025): ")
    assert worker.fails("queryById", "nobody").startswith("VECTOR_QUERY_ERROR (code = 50404): ")
    assert worker.fails("getByIds", []).startswith("VECTOR_GET_ERROR (code = 40026): ")
    assert worker.fails("deleteByIds", ["x" * 65]).startswith("VECTOR_DELETE_ERROR (code = 40008): ")
    assert worker.call("describe")["vectorCount"] == 0


def test_an_index_or_a_token_that_is_not_there(service: Service, start: Callable[..., Worker]) -> None:
    assert start("workerd", "never-was").fails("describe") == (
        'INDEX_GET_ERROR (code = 3000): vectorize.index.not_found - Index name "never-was"'
    )
    service.apis[0].index("guarded").create(3)
    refused = start("workerd", "guarded", token="wrong").fails("deleteByIds", ["a"])
    assert refused.startswith("VECTOR_DELETE_ERROR (code = 10000): Authentication error")
