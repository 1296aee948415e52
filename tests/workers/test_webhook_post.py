"""One POST: what is sent, what counts as taken, and where it must not lead, whatever a name resolves to."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.receiver import Receiver, receiving
from upwell.clock import SystemClock
from upwell.settings import Settings
from upwell.webhook import Event, Message, Webhook
from upwell.webhook.signing import new_secret
from workers.post import Answer, Post

MESSAGE = Message(id="msg_1", type="t", mutation_id="m", position=1, place=0, body='{"é":1}')


class Told(AbstractResolver):
    """Resolves every name to what it is told, and counts."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        return [
            ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0)
            for one in self.addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


def webhook(url: str) -> Webhook:
    return Webhook(
        id="0" * 32,
        url=url,
        events=tuple(Event),
        secret=new_secret(),
        created_at=SystemClock().now(),
        position=0,
        place=0,
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@asynccontextmanager
async def posting(
    resolver: AbstractResolver | None = None, *, inside: bool = False, timeout_s: float = 5
) -> AsyncIterator[Post]:
    """What is tested; ``inside`` allows what is not public."""
    settings = Settings(webhook_private_addresses=inside, webhook_timeout_s=timeout_s)
    async with Post(settings, SystemClock(), resolver) as post:
        yield post


async def test_what_is_sent_verifies_and_names_itself(receiver: Receiver) -> None:
    hook = webhook(receiver.url + "?a=b%20c")
    async with posting(inside=True) as post:
        assert await post.send(hook, MESSAGE) == Answer()
    (got,) = receiver.received
    assert got.verified(hook.secret) == {"é": 1} and got.body == MESSAGE.body.encode()
    assert got.path == "/hook?a=b%20c" and got.headers["content-type"] == "application/json"
    assert got.headers["host"] == urlsplit(receiver.url).netloc and "authorization" not in got.headers


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_taken(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda _: status
    async with posting(inside=True) as post:
        assert await post.send(webhook(receiver.url), MESSAGE) == Answer()


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (300, "answered 300 Multiple Choices"),
        (304, "answered 304 Not Modified"),
        (400, "answered 400 Bad Request"),
        (404, "answered 404 Not Found"),
        (429, "answered 429 Too Many Requests"),
        (500, "answered 500 Internal Server Error"),
        (599, "answered 599"),
        (999, "answered 999"),
    ],
)
async def test_anything_else_is_not(receiver: Receiver, status: int, problem: str) -> None:
    receiver.answer, receiver.body = lambda _: status, b"" if status == 304 else b"secrets of the receiver"
    async with posting(inside=True) as post:
        assert await post.send(webhook(receiver.url), MESSAGE) == Answer(problem=problem)


async def test_410_means_never_again(receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    async with posting(inside=True) as post:
        assert await post.send(webhook(receiver.url), MESSAGE) == Answer(
            problem="answered 410 Gone", gone=True
        )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda one: status if one.path == "/hook" else 200
    receiver.headers = {"Location": receiver.url + "/elsewhere", "Set-Cookie": "a=b"}
    url = f"http://example.com:{receiver.port}/hook"  # cookies are for names
    async with posting(Told("127.0.0.1"), inside=True) as post:
        for _ in range(2):
            answer = await post.send(webhook(url), MESSAGE)
            assert answer.problem is not None and answer.problem.startswith(f"answered {status}")
    assert [one.path for one in receiver.received] == ["/hook", "/hook"]
    assert all("cookie" not in one.headers for one in receiver.received)


async def test_a_connection_is_used_again_after_a_short_answer_and_closed_after_a_long_one(
    receiver: Receiver,
) -> None:
    receiver.answer, receiver.body = lambda _: 200, b"thank you"
    async with posting(inside=True) as post:
        for _ in range(5):
            assert await post.send(webhook(receiver.url), MESSAGE) == Answer()
        assert receiver.connections == 1
        receiver.body = bytes(50_000_000)
        for _ in range(2):
            assert await post.send(webhook(receiver.url), MESSAGE) == Answer()
        assert receiver.connections == 2


async def test_a_body_that_lies_about_its_form_decides_nothing(receiver: Receiver) -> None:
    receiver.answer, receiver.body = lambda _: 200, gzip.compress(bytes(100_000_000))[:3_000] + b"damage"
    receiver.headers = {"Content-Encoding": "gzip"}
    async with posting(inside=True) as post:
        assert await post.send(webhook(receiver.url), MESSAGE) == Answer()


@asynccontextmanager
async def saying(*pieces: bytes, hold_open: bool = False) -> AsyncIterator[str]:
    """A server that says the same to everybody, whatever it is asked; its URL."""
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if hold_open:
            await ended.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        ended.set()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n\r\n",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbroken",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        bytes(range(256)),
    ],
    ids=range(7),
)
async def test_nonsense_is_a_problem_and_no_error(said: bytes) -> None:
    async with saying(said) as url, posting(inside=True) as post:
        answer = await post.send(webhook(url), MESSAGE)
    assert answer.problem and len(answer.problem) <= 200 and not answer.gone


async def test_an_answer_that_breaks_off_after_its_status_counts() -> None:
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"
    async with saying(begun) as url, posting(inside=True) as post:
        assert await post.send(webhook(url), MESSAGE) == Answer()
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nonly this"
    async with saying(chunks) as url, posting(inside=True) as post:
        assert await post.send(webhook(url), MESSAGE) == Answer()


async def test_who_does_not_answer_is_not_waited_for() -> None:
    async with saying(hold_open=True) as url, posting(inside=True, timeout_s=0.2) as post:
        assert await post.send(webhook(url), MESSAGE) == Answer(problem="no answer within 0.2 s")
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"
    async with saying(begun, hold_open=True) as url, posting(inside=True, timeout_s=0.2) as post:
        assert await post.send(webhook(url), MESSAGE) == Answer(), "the status was said"


async def test_what_nobody_foresaw_is_a_problem_as_well(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its message would be tried without a pause and without an end."""

    def broken(*_: object, **how: object) -> None:
        raise AssertionError("of a library")

    async with posting(inside=True) as post:
        monkeypatch.setattr(post._session, "post", broken)
        assert await post.send(webhook(receiver.url), MESSAGE) == Answer(
            problem="AssertionError: of a library"
        )


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with posting(inside=True) as post:
            answer = await post.send(webhook(f"http://127.0.0.1:{taken.getsockname()[1]}/"), MESSAGE)
    assert answer.problem is not None and answer.problem.startswith("cannot connect: ")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate that nobody has signed but itself, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to make one")
    file = tmp_path / "self.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-keyout", str(file), "-out", str(tmp_path / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_bytes(file.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return file


async def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with receiving(tls) as receiver:
        async with posting(inside=True) as post:
            answer = await post.send(webhook(receiver.url), MESSAGE)
    assert answer.problem is not None and "cannot connect" in answer.problem
    assert receiver.received == []


# Where it must not lead.


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "localhost"])
async def test_an_address_in_the_url_is_looked_at_too(receiver: Receiver, host: str) -> None:
    url = f"http://{host}:{receiver.port}/"
    async with posting() as post:
        answer = await post.send(webhook(url), MESSAGE)
    assert answer.problem is not None and "is not allowed" in answer.problem
    assert receiver.connections == 0


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1."])
async def test_odd_notations_lead_nowhere_even_if_they_were_stored(receiver: Receiver, host: str) -> None:
    """Registering refuses them; should one be there all the same, it does not get through."""
    url = f"http://{host}:{receiver.port}/"
    async with posting() as post:
        assert (await post.send(webhook(url), MESSAGE)).problem
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "::1", "::ffff:127.0.0.1", "fe80::1"],
)
async def test_a_name_that_resolves_to_what_is_not_public(receiver: Receiver, address: str) -> None:
    resolver = Told(address)
    async with posting(resolver) as post:
        answer = await post.send(webhook(f"http://example.com:{receiver.port}/"), MESSAGE)
    assert answer.problem is not None and "is not allowed" in answer.problem and resolver.asked == 1
    assert receiver.connections == 0


async def test_a_name_that_resolves_to_something_else_at_the_second_look(receiver: Receiver) -> None:
    """Rebinding: allowed when it was registered or called last, and now it leads inside."""
    resolver, url = Told("127.0.0.1"), f"http://example.com:{receiver.port}/"
    async with posting(resolver, inside=True) as post:
        assert await post.send(webhook(url), MESSAGE) == Answer()
    async with posting(resolver) as post:
        for _ in range(3):
            assert (await post.send(webhook(url), MESSAGE)).problem is not None
    assert resolver.asked == 4 and receiver.connections == 1


async def test_of_several_addresses_those_inside_are_passed_over(receiver: Receiver) -> None:
    resolver = Told("127.0.0.1", "::1", "10.0.0.1")
    async with posting(resolver) as post:
        answer = await post.send(webhook(f"http://example.com:{receiver.port}/"), MESSAGE)
    assert answer.problem is not None and receiver.connections == 0


async def test_a_proxy_of_the_environment_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, receiver.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with posting(Told("127.0.0.2"), inside=True) as post:
        assert (await post.send(webhook("http://example.com/"), MESSAGE)).problem is not None
    assert receiver.connections == 0


async def test_a_name_that_does_not_resolve() -> None:
    async with posting(timeout_s=30) as post:
        answer = await post.send(webhook("http://nobody.invalid/"), MESSAGE)
    assert answer == Answer(problem="the host cannot be resolved")
