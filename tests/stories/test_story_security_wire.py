"""Attacks on the wire: clients that are slow, silent, or many, and requests that are no HTTP or that two readers would read differently."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.service import Api, until
from tests.wire import AUTHORISED, Overheard, Wire, request, sockets_of

IDLE_S = 2.0
BODY_IDLE_S = 2.0
CONNECTIONS_MAX = 40
INDEX = "/client/v4/accounts/default/vectorize/v2/indexes/docs"
LINE = b'{"id":"a","values":[1,2,3]}'
GET = f"GET {INDEX} HTTP/1.1\r\nHost: x\r\n".encode() + AUTHORISED
POST = f"POST {INDEX}/upsert HTTP/1.1\r\nHost: x\r\n".encode() + AUTHORISED
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
MEMORY_GROWTH_MAX = 64 << 20


@pytest.fixture(scope="module")
def service() -> Iterator[Overheard]:
    settings = {
        "UPWELL_IDLE_S": str(IDLE_S),
        "UPWELL_BODY_IDLE_S": str(BODY_IDLE_S),
        "UPWELL_CONNECTIONS_MAX": str(CONNECTIONS_MAX),
        "UPWELL_LOG_LEVEL": "debug",
    }
    with Overheard(settings) as service:
        service.start_api().index("docs").create()
        yield service
        said = service.said.read_text()
    assert "Traceback" not in said and "unexpectedly" not in said, said


@pytest.fixture
def api(service: Overheard) -> Api:
    return service.apis[0]


@pytest.fixture(autouse=True)
def _the_house_is_as_it_was(api: Api) -> Iterator[None]:
    """Whatever was done to it, a front end goes on, and what was attacked is let go of."""
    yield
    for _ in until(60):
        if sockets_of(api.process.pid) <= 12 and api.index("docs").get("").status == 200:
            return


# Slow, silent, and many.


def test_silence_is_hung_up_on(api: Api) -> None:
    with Wire(api) as wire:
        assert wire.read() == b""


def test_a_head_that_trickles_gains_nothing_over_silence(api: Api) -> None:
    with Wire(api) as wire:
        began = time.monotonic()
        for byte in GET + b"X: " + b"y" * 10_000:
            if not wire.send(bytes([byte])):
                break
            time.sleep(0.02)
        assert time.monotonic() - began < 30, "200 seconds' worth of head was listened to"


def test_silence_after_an_answer_is_hung_up_on(api: Api) -> None:
    with Wire(api) as wire:
        assert wire.send(SMUGGLED)
        assert len(wire.answers()) == 1


def test_a_connection_that_is_used_in_time_goes_on(api: Api) -> None:
    def used() -> bool:
        with Wire(api) as wire:
            return all(
                wire.send(SMUGGLED) and b" 200 " in wire.read_some() and paused(IDLE_S / 2) for _ in range(4)
            )

    assert in_time(IDLE_S, used)


def paused(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def in_time(limit_s: float, works: Callable[[], bool]) -> bool:
    """Does it work? A machine that was busy for as long as the limit proves nothing, and so there are some tries."""
    return any(works() for _ in range(1 + int(limit_s)))


@pytest.mark.parametrize(
    "start", [b"Content-Length: 100000\r\n\r\n", CHUNKED + b"8000\r\n" + LINE], ids=["nothing", "a little"]
)
def test_a_body_that_stands_still_is_a_408(api: Api, start: bytes) -> None:
    with Wire(api) as wire:
        wire.send(POST + start)
        answer = wire.read()
    assert re.match(rb"HTTP/1\.1 408 ", answer) and b'"code":50408' in answer and b"1024 bytes" in answer, (
        answer
    )


def test_a_body_that_trickles_is_a_408(api: Api) -> None:
    with Wire(api) as wire:
        wire.send(POST + b"Content-Length: 100000\r\n\r\n")
        for _ in range(1_000):
            if not wire.send(b"x"):
                break
            time.sleep(0.02)
        else:
            pytest.fail("20 seconds of single bytes were listened to")


def test_a_slow_upload_that_moves_is_taken(api: Api) -> None:
    lines = [b'{"id":"%d","values":[1,2,3],"metadata":{"x":"%s"}}\n' % (n, b"y" * 600) for n in range(20)]

    def taken() -> bool:
        with Wire(api) as wire:
            wire.send(POST + b"Connection: close\r\n" + CHUNKED)
            began = time.monotonic()
            for line in lines:
                wire.send(b"%x\r\n%s\r\n" % (len(line), line))
                time.sleep(BODY_IDLE_S / 8)
            assert time.monotonic() - began > 2 * BODY_IDLE_S
            wire.send(b"0\r\n\r\n")
            return wire.answers() == [200]

    assert in_time(BODY_IDLE_S, taken)


def test_long_polls_and_streams_may_be_silent(api: Api) -> None:
    index = api.index("docs")
    mutation = index.upsert([{"id": "a", "values": [1, 2, 3]}])
    with Wire(api) as stream:
        stream.send(GET.replace(INDEX.encode(), f"{INDEX}/mutations/events".encode()) + b"\r\n")
        assert b"text/event-stream" in stream.read_some()
        assert index.status(mutation, wait_s=2 * IDLE_S)["state"] == "queued"
        stream.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stream.read_some()  # nothing has come, and it has not ended


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's doing")
def test_an_answer_that_is_not_taken_is_not_kept_for_ever(api: Api) -> None:
    with Wire(api, receive_bytes=4_096) as wire:
        wire.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        for held in (True, False):
            for _ in until(60, every_s=0.1):
                if is_held(wire.socket.getsockname()[1]) == held:
                    break


def is_held(port: int) -> bool:
    """Has the kernel an open connection whose other end has this port?"""
    with open("/proc/net/tcp") as connections:
        fields = [line.split() for line in connections.readlines()[1:]]
    return any(remote.endswith(f":{port:04X}") and state == "01" for _, _, remote, state, *_ in fields)


def test_connections_beyond_the_most_are_told_so_and_others_go_on(api: Api) -> None:
    others = [Wire(api) for _ in range(3 * CONNECTIONS_MAX)]
    try:
        answers = [other.read() for other in others]
    finally:
        for other in others:
            other.socket.close()
    refused = [answer for answer in answers if answer]
    assert len(refused) >= 2 * CONNECTIONS_MAX
    for answer in refused:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ") and b"Retry-After: " in head and b'"code":50503' in body
        assert f"Content-Length: {len(body)}".encode() in head


# Large.


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G" * 20_000,
        b"GET /" + b"a" * (1 << 22),
        GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        GET + b"X: " + b"a" * (1 << 22),
        GET + b"a" * (1 << 22),
        GET + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
        POST + CHUNKED + b"1b\r\n" + LINE + b"\r\n0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        POST + CHUNKED + b"1b\r\n" + LINE + b"\r\n0\r\nX: " + b"y" * (1 << 22) + b"\r\n\r\n",
    ],
    ids=[
        "line",
        "method",
        "endless line",
        "field",
        "endless field",
        "endless name",
        "fields",
        "trailers",
        "trailer",
    ],
)
def test_a_head_without_measure_is_a_400(api: Api, head: bytes) -> None:
    with Wire(api) as wire:
        wire.send(head)
        assert wire.answers() in ([400], []), "those who do not stop sending may miss the answer"


def test_many_large_heads_take_little_memory(api: Api) -> None:
    before = memory_of(api)
    wires = [Wire(api) for _ in range(CONNECTIONS_MAX - 5)]
    for wire in wires:
        wire.send(GET + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 8_000) for n in range(120)))
    assert memory_of(api) - before < MEMORY_GROWTH_MAX
    for wire in wires:
        wire.socket.close()


def memory_of(api: Api) -> int:
    with open(f"/proc/{api.process.pid}/status") as status:
        (kib,) = [int(line.split()[1]) for line in status if line.startswith("VmRSS:")]
    return kib << 10


# What two readers would read differently. Each body, taken for something else, would be a second request.


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 36\r\n" + CHUNKED + b"0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 36\r\nContent-Length: 0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"Content-Length: 0, 36\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: +0\r\n\r\n",
        b"Content-Length: 0x0\r\n\r\n",
        b"Content-Length: 0_0\r\n\r\n",
        b"Content-Length: 99999999999999999999999\r\n\r\n",
        b"Content-Length : 0\r\n\r\n",
        b"Content-Length:\x0b0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"0x0\r\n\r\n",
        CHUNKED + b"-1\r\n\r\n",
        CHUNKED + b"0\n\n",
        CHUNKED + b"ffffffffffffffffffff\r\n",
        CHUNKED + b'1b;a="\r\n' + LINE + b"\r\n0\r\n\r\n",
        CHUNKED + b"1b\r\n" + LINE + b"0\r\n\r\n",
        CHUNKED + b"1b\r\n" + LINE + b"\r\n0\r\nContent-Length: 36\r\n\r\n",
        b"X: a\x00b\r\n\r\n",
        b"X: a\r\n b\r\n\r\n",
        b"X: a\rContent-Length: 36\r\n\r\n",
        b": a\r\n\r\n",
        b"Host: other\r\n\r\n",
    ],
    ids=lambda head: repr(head)[2:60],
)
def test_an_ambiguous_request_is_refused_and_nothing_of_it_is_a_second(api: Api, head: bytes) -> None:
    with Wire(api) as wire:
        wire.send(POST + head + SMUGGLED)
        assert wire.answers() == [400]


@pytest.mark.parametrize(
    "line",
    [b"GET /healthz HTTP/1.1\nHost: x\n\n", b"GET  /healthz HTTP/1.1\r\n\r\n", b"GET /h\x7f HTTP/1.1\r\n\r\n", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
     b"G@T /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(99),
     b"GET http://[::/healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n"],
    ids=repr,
)  # fmt: skip
def test_what_is_not_http_is_a_400(api: Api, line: bytes) -> None:
    with Wire(api) as wire:
        wire.send(line + SMUGGLED)
        assert wire.answers() == [400]


def test_an_unwanted_body_is_not_taken_for_a_request(api: Api) -> None:
    with Wire(api) as wire:
        wire.send(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED
        )
        assert wire.answers() == [200]


def test_requests_in_a_row_are_answered_in_a_row(api: Api) -> None:
    with Wire(api) as wire:
        wire.send(
            SMUGGLED * 50 + GET + b"\r\n" + POST + b"Content-Length: %d\r\n\r\n" % len(LINE) + LINE + SMUGGLED
        )
        assert wire.answers() == [200] * 53


def test_an_upgrade_is_not_made(api: Api) -> None:
    with Wire(api) as wire:
        wire.send(GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n")
        assert wire.answers() == [200]


def test_chunk_extensions_are_no_part_of_the_body(api: Api) -> None:
    with Wire(api) as wire:
        wire.send(POST + b"Connection: close\r\n" + CHUNKED + b"1b;a=b;c\r\n" + LINE + b"\r\n0\r\n\r\n")
        assert wire.answers() == [200]


def test_no_header_can_be_brought_into_an_answer(api: Api) -> None:
    nasty = "%0d%0aSet-Cookie:%20a=b%0d%0a%0d%0a"
    targets = [
        f"{INDEX}/mutations/{nasty}",
        f"{INDEX}/list?cursor={nasty}",
        f"{INDEX}/mutations?state={nasty}",
        f"/client/v4/accounts/{nasty}/vectorize/v2/indexes",
        f"/client/v4/accounts?name={nasty}",
        f"/{nasty}",
    ]
    for target in targets:
        with Wire(api) as wire:
            wire.send(request("GET", target))
            head = wire.read().partition(b"\r\n\r\n")[0]
        assert b"set-cookie" not in head.lower(), target
    for header in ("Idempotency-Key: a\u00ff", "Idempotency-Key: " + "k" * 256, "Prefer: wait=1; x=\u0085"):
        with Wire(api) as wire:
            wire.send(request("POST", f"{INDEX}/upsert?dry-run=true", header, body=LINE))
            assert wire.answers()[0] in (200, 400)
