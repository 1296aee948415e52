"""Parsing in processes: the same as in threads, whatever happens to the processes."""

from __future__ import annotations

import asyncio
import copy
import gzip
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ingest.body import Rules
from ingest.body.inflate import Bytes
from ingest.parsing import Parsers, Received, Upload
from ingest.spool import SPOOLED_BYTES_MIN, Spooled, SpooledName, opened
from upwell.changeset import Operation, decode_columns
from upwell.errors import Gone, Invalid, InvalidLine, LineProblem, Reason, TooLarge, UpwellError
from upwell.log.entry import PreparedMutation

RULES = Rules(dimensions=4, vectors_max=100_000, bytes_max=8_000_000)
WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def lines(count: int, last: object = None) -> bytes:
    rows = [{"id": f"v{n}", "values": [n, 1, 2, 0.5], "metadata": {"n": n}} for n in range(count)]
    return b"\n".join(map(orjson.dumps, [*rows, last] if last else rows))


LARGE = lines(10_000)
assert len(LARGE) > SPOOLED_BYTES_MIN


class Front:
    """A server whose one route parses what it is sent, and keeps what came of it."""

    def __init__(self, processes: int) -> None:
        self.parsers = Parsers(processes)
        self.outcomes: list[PreparedMutation | Exception] = []

    async def handle(self, request: web.Request) -> web.Response:
        how = Upload(
            operation=Operation.UPSERT,
            content_type=None,
            content_encoding=request.headers.get("Content-Encoding"),
            rules=RULES,
            accepted_at=WHEN,
        )
        try:
            self.outcomes.append(await self.parsers.upload(request, how))
        except UpwellError as error:
            self.outcomes.append(error)
        return web.Response()


@pytest.fixture(params=[0, 1], ids=["threads", "processes"])
async def front(request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    front = Front(request.param)
    yield front
    await front.parsers.close()


@pytest.fixture
async def client(front: Front) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application(client_max_size=0)
    app.router.add_post("/", front.handle)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_a_large_body_becomes_the_same_columns(
    front: Front, client: TestClient[web.Request, web.Application]
) -> None:
    await client.post("/", data=io.BytesIO(LARGE))
    await client.post("/", data=lines(3))

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(LARGE), 100_000):
            yield LARGE[start : start + 100_000]

    await client.post("/", data=pieces())
    expected = [10_000, 3, 10_000]
    for outcome, rows in zip(front.outcomes, expected, strict=True):
        assert isinstance(outcome, PreparedMutation)
        assert (outcome.mutation.rows, outcome.mutation.received, outcome.mutation.accepted_at) == (
            rows,
            rows,
            WHEN,
        )
        changeset = decode_columns(outcome.columns, Operation.UPSERT, received=rows)
        assert changeset.vectors is not None and changeset.metadata is not None
        assert changeset.vectors[-1].tolist() == [rows - 1, 1, 2, 0.5]
        assert (changeset.ids[-1].as_py(), changeset.metadata[-1].as_py()) == (
            f"v{rows - 1}",
            b'{"n":%d}' % (rows - 1),
        )


async def test_what_is_wrong_comes_back_whole(
    front: Front, client: TestClient[web.Request, web.Application]
) -> None:
    await client.post("/", data=io.BytesIO(lines(10_000, {"id": "x", "values": [1, 2]})))
    await client.post("/", data=io.BytesIO(b"\n" * (SPOOLED_BYTES_MIN + 1)))
    await client.post("/", data=io.BytesIO(b"x" * (RULES.bytes_max + 1)))
    wrong, empty, large = front.outcomes
    assert isinstance(wrong, InvalidLine)
    assert (wrong.problem.line, wrong.problem.reason, wrong.problem.id) == (
        10_001,
        Reason.WRONG_DIMENSIONS,
        "x",
    )
    assert isinstance(empty, Invalid) and "no vectors" in str(empty)
    assert isinstance(large, TooLarge)


async def test_an_encoded_body_is_parsed_in_a_process_however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred kilobytes may become a hundred megabytes, and would stop everything else in this process for seconds."""
    front = Front(1)
    monkeypatch.setattr(front.parsers, "run", None)
    app = web.Application()
    app.router.add_post("/", front.handle)
    server = TestServer(app)
    # As our front ends do: what was encoded comes as it was sent.
    await server.start_server(auto_decompress=False)
    async with TestClient(server) as client:
        await client.post("/", data=gzip.compress(lines(2)), headers={"Content-Encoding": "gzip"})
    await front.parsers.close()
    (outcome,) = front.outcomes
    assert isinstance(outcome, PreparedMutation) and outcome.mutation.rows == 2


async def test_a_process_that_dies_costs_nobody_an_upload(tmp_path: Path) -> None:
    front = Front(1)
    app = web.Application()
    app.router.add_post("/", front.handle)
    async with TestClient(TestServer(app)) as client:
        await client.post("/", data=io.BytesIO(LARGE))
        pool = front.parsers._processes
        assert pool is not None
        for pid in list(pool._processes):
            os.kill(pid, signal.SIGKILL)
        for _ in range(3):
            await client.post("/", data=io.BytesIO(LARGE))
        assert front.parsers._processes is not pool
    assert [outcome.mutation.rows for outcome in front.outcomes if isinstance(outcome, PreparedMutation)] == [
        10_000
    ] * 4
    await front.parsers.close()


@pytest.mark.parametrize("alive_s", [0.0, 0.2, 1.5])
def test_a_front_end_that_is_killed_leaves_no_process_behind(alive_s: float) -> None:
    """Also when it is killed while its processes are just starting."""
    script = """
import sys, time
from ingest.parsing import Parsers, _nothing
if __name__ == "__main__":
    parsers = Parsers(2)
    parsers.start()
    print(*parsers._processes._processes, flush=True)
    time.sleep(60)
"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "front.py"
        path.write_text(script)
        root = Path(__file__).parents[2]
        front = subprocess.Popen(
            [sys.executable, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        with front:
            assert front.stdout is not None
            pids = [int(pid) for pid in front.stdout.readline().split()]
            assert pids
            time.sleep(alive_s)
            front.kill()
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline, "left behind"
            time.sleep(0.05)


async def test_an_upload_that_is_given_up_leaves_no_file_open() -> None:
    front = Front(1)
    app = web.Application()
    app.router.add_post("/", front.handle)
    async with TestClient(TestServer(app)) as client:
        await client.post("/", data=io.BytesIO(LARGE))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"y" * 300_000)
            await writer.drain()
            writer.close()
            del reader
        async with asyncio.timeout(60):
            while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110  the server lets go when it notices
                await asyncio.sleep(0.02)
    await front.parsers.close()


def slow_size(body: Bytes) -> int:
    """How large a body is, found out slowly."""
    time.sleep(0.3)
    return len(body)


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_body_is_kept_for_as_long_as_somebody_looks_into_it(given_up: bool) -> None:
    """Though who asked gives up, and lets go of it, before the process has opened it."""
    parsers, file = Parsers(1), Spooled("upload")
    file.write(b"abc")
    path = Path(f"/proc/self/fd/{Path(file.name.path).name}")
    with Received(file) as received:
        look = asyncio.ensure_future(parsers.look(received, slow_size))
        if given_up:
            await asyncio.sleep(0)
            look.cancel()
            with pytest.raises(asyncio.CancelledError):
                await look
        else:
            assert await look == 3
    assert path.exists() is given_up
    async with asyncio.timeout(60):
        while path.exists():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)
    await parsers.close()


def test_a_descriptor_that_became_another_file_is_not_touched() -> None:
    with Spooled("one") as one:
        name = one.name
        one.write(b"abc")
        assert bytes(one.read()) == b"abc"
        with opened(name, os.O_RDONLY) as fd:
            assert os.read(fd, 10) == b"abc"
        other = SpooledName(name.path, name.inode + 1)
        with pytest.raises(FileNotFoundError), opened(other, os.O_WRONLY):
            pytest.fail("opened")


@pytest.mark.parametrize(
    "error",
    [
        InvalidLine(
            LineProblem(line=3, reason=Reason.ID_MISSING, field="id", detail="expected one", id=None)
        ),
        TooLarge("too large", got=3),
        Gone("deleted", name="x"),
        UpwellError(),
    ],
)
def test_errors_travel_between_processes(error: UpwellError) -> None:
    # By the same way as pickle.
    other = copy.copy(error)
    assert type(other) is type(error) and str(other) == str(error) and vars(other) == vars(error)
