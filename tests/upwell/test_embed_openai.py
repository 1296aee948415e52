"""A model behind HTTP, against a real server in a thread: what is right, and every way in which it can go wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tests.embedding_server import (
    DIMENSIONS,
    Answer,
    Asked,
    EmbeddingServer,
    embedding_server,
    item,
    sound,
    vector_of,
)
from upwell.changeset import Matrix
from upwell.clock import SystemClock
from upwell.embed import openai
from upwell.embed.configuration import ServerSettings
from upwell.embed.model import embed_each
from upwell.embed.openai import OpenAIModel
from upwell.errors import ModelAway, TextRefused

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "PAUSE_S", 0.001)


@contextmanager
def model(server: EmbeddingServer | str, **chosen: object) -> Iterator[OpenAIModel]:
    url = server if isinstance(server, str) else server.url
    fields = {"url": url, "model": "m", "dimensions": DIMENSIONS, "texts_per_request": 3, **chosen}
    made = OpenAIModel("M", ServerSettings.model_validate(fields), SystemClock(), KEY)
    try:
        yield made
    finally:
        made.close()


def expected(texts: list[str]) -> Matrix:
    return np.array([vector_of(text) for text in texts], np.float32)


def test_texts_become_vectors_in_their_order(server: EmbeddingServer) -> None:
    texts = [f"text {n} " + "x" * n for n in range(20)]
    with model(server) as m:
        found = m.embed(texts)
    assert np.array_equal(found, expected(texts))
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert sorted(len(asked.texts) for asked in server.asked) == [2, 3, 3, 3, 3, 3, 3]
    one = server.asked[0]
    assert one.path == "/v1/embeddings"
    assert one.headers["Authorization"] == f"Bearer {KEY}"
    assert {**one.body, "input": None} == {"model": "m", "input": None, "encoding_format": "float"}


def test_no_texts_ask_nothing(server: EmbeddingServer) -> None:
    with model(server) as m:
        assert m.embed([]).shape == (0, DIMENSIONS)
    assert server.asked == []


def test_dimensions_are_sent_if_so_configured(server: EmbeddingServer) -> None:
    with model(server, send_dimensions=True) as m:
        m.embed(["a"])
    assert server.asked[0].body["dimensions"] == DIMENSIONS


def test_a_lone_surrogate_can_be_sent(server: EmbeddingServer) -> None:
    with model(server) as m:
        m.embed(["a\ud800b", "\ud83e\udd84"])
    assert server.asked[0].texts == ["a\ufffdb", "\U0001f984"]


def test_several_requests_are_on_their_way_at_once_and_no_more(server: EmbeddingServer) -> None:
    met = threading.Barrier(3)  # each waits for two others, so fewer at once would never answer
    lock, now, most = threading.Lock(), 0, 0

    def answer(asked: Asked) -> Answer:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        met.wait(30)
        with lock:
            now -= 1
        return Answer(sound(asked.texts))

    server.answer = answer
    with model(server, requests_at_once=3, texts_per_request=1) as m:
        m.embed([str(n) for n in range(9)])
    assert most == 3


def test_data_may_come_out_of_order(server: EmbeddingServer) -> None:
    texts = ["a", "bb", "ccc"]
    server.script(Answer({"data": [item(n, texts[n]) for n in (2, 0, 1)]}))
    with model(server) as m:
        assert np.array_equal(m.embed(texts), expected(texts))


def test_data_without_index_is_in_order(server: EmbeddingServer) -> None:
    texts = ["a", "bb", "ccc"]
    server.script(Answer({"data": [{"embedding": vector_of(text)} for text in texts]}))
    with model(server) as m:
        assert np.array_equal(m.embed(texts), expected(texts))


@pytest.mark.parametrize(
    "fault",
    [
        Answer(status=500),
        Answer({"error": "busy"}, status=503),
        Answer(status=408),
        Answer(status=429, headers={"Retry-After": "0"}),
        Answer(sound(["a"]), cut=20),
        Answer(sound(["a"]), cut=0),
    ],
    ids=["500", "503", "408", "429", "cut off amid the answer", "cut off before it"],
)
def test_what_fails_in_passing_is_asked_again(server: EmbeddingServer, fault: Answer) -> None:
    server.script(fault, fault)
    with model(server) as m:
        assert np.array_equal(m.embed(["a"]), expected(["a"]))
    assert len(server.asked) == 3


def test_a_server_that_stays_broken_is_away_after_so_many_tries(server: EmbeddingServer) -> None:
    server.answer = lambda _: Answer(status=500)
    with model(server, tries_max=3) as m, pytest.raises(ModelAway, match="answered 500, tries=3"):
        m.embed(["a"])
    assert len(server.asked) == 3


def test_retry_after_is_waited_for(server: EmbeddingServer) -> None:
    server.script(Answer(status=429, headers={"Retry-After": "1"}))
    clock = SystemClock()
    with model(server) as m:
        began = clock.monotonic()
        m.embed(["a"])
        assert clock.monotonic() - began >= 1


def test_a_long_retry_after_is_not_waited_for_but_told(server: EmbeddingServer) -> None:
    server.answer = lambda _: Answer(status=429, headers={"Retry-After": "3600"})
    with model(server) as m, pytest.raises(ModelAway, match="429") as caught:
        m.embed(["a"])
    assert caught.value.retry_after_s == 3600
    assert len(server.asked) == 1


def test_a_silent_server_is_away(server: EmbeddingServer) -> None:
    server.answer = server.hang
    with (
        model(server, timeout_s=0.05, tries_max=2) as m,
        pytest.raises(ModelAway, match="fell silent, tries=2"),
    ):
        m.embed(["a"])


def test_a_call_ends_in_time_whatever_its_requests_do(server: EmbeddingServer) -> None:
    """The first requests hang, and others wait behind them: far from their own timeout, the call is given up."""
    server.answer = server.hang
    with (
        model(server, call_s_max=0.2, timeout_s=50, texts_per_request=1) as m,
        pytest.raises(ModelAway, match=r"in time|fell silent"),
    ):
        m.embed([str(n) for n in range(20)])
    assert len(server.asked) <= 4


#: A process that calls a server which sends what it is told byte by byte, and then ends like any other.
DRIPPED_ON = """
import itertools, socket, sys, threading
from upwell.clock import SystemClock
from upwell.embed.configuration import ServerSettings
from upwell.embed.openai import OpenAIModel
from upwell.errors import ModelAway
head = {"header": b"HTTP/1.1 200 OK", "body": b"HTTP/1.1 200 OK\\r\\nContent-Length: 99999999\\r\\n\\r\\n"}[sys.argv[1]]
listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()
def serve():
    taken = []
    while True:
        taken.append(listener.accept()[0])
        taken[-1].sendall(head)
        threading.Thread(target=drip, args=(taken[-1],), daemon=True).start()
def drip(client):
    try:
        while not over.wait(0.01): client.sendall(b" ")
    except OSError: pass
threading.Thread(target=serve, daemon=True).start()
url = f"http://127.0.0.1:{listener.getsockname()[1]}"
model = OpenAIModel("M", ServerSettings(url=url, model="m", dimensions=2, call_s_max=0.3, timeout_s=50), SystemClock(), None)
for _ in range(2):
    try: model.embed(["a"])
    except ModelAway as error: print(error.detail)
"""


@pytest.mark.parametrize("what", ["header", "body"])
def test_a_server_that_drips_holds_neither_the_call_nor_the_process(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIPPED_ON, what], check=False, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("in time" in line or "fell silent" in line for line in lines)


def test_a_closed_model_takes_no_call(server: EmbeddingServer) -> None:
    with model(server) as m:
        m.close()
        with pytest.raises(ModelAway, match="closed"):
            m.embed(["a"])


def test_no_server_is_away() -> None:
    with embedding_server() as gone:
        url = gone.url
    with model(url, tries_max=2) as m, pytest.raises(ModelAway, match="cannot be reached, tries=2"):
        m.embed(["a"])


NONSENSE: dict[str, tuple[Callable[[list[str]], object], str]] = {
    "too few": (lambda texts: sound(texts[:-1]), "1 vectors for 2 texts"),
    "too many": (lambda texts: sound([*texts, "more"]), "3 vectors for 2 texts"),
    "none": (lambda _: {"data": []}, "0 vectors for 2 texts"),
    "other dimensions": (
        lambda texts: {"data": [{"index": n, "embedding": [1.0] * 5} for n in range(len(texts))]},
        "5 dimensions, expected 4",
    ),
    "ragged": (lambda _: {"data": [{"embedding": [1.0] * 4}, {"embedding": [1.0] * 3}]}, "no list of vectors"),
    "strings": (lambda texts: {"data": [{"embedding": ["1.0"] * 4}] * len(texts)}, "not made of numbers"),
    "base64": (lambda texts: {"data": [{"embedding": "AACAPwAAgD8="}] * len(texts)}, "not made of numbers"),
    "nulls": (lambda texts: {"data": [{"embedding": [None] * 4}] * len(texts)}, "not made of numbers"),
    "too large for float32": (lambda texts: {"data": [{"embedding": [1e300] * 4}] * len(texts)}, "not finite"),
    "NaN": (lambda _: b'{"data": [{"embedding": [NaN, 1, 1, 1]}]}', "no list of vectors"),
    "infinite": (lambda _: b'{"data": [{"embedding": [1e999, 1, 1, 1]}]}', "no list of vectors"),
    "indices twice": (lambda texts: {"data": [item(0, text) for text in texts]}, "no list of vectors"),
    "indices missing": (lambda texts: {"data": [item(1, texts[0]), {"embedding": [1.0] * 4}]}, "no list of vectors"),
    "no JSON": (lambda _: b"<html>welcome</html>", "no list of vectors"),
    "no data": (lambda _: {"object": "list"}, "no list of vectors"),
    "data of texts": (lambda _: {"data": ["a", "b"]}, "no list of vectors"),
    "a list": (lambda _: [1, 2], "no list of vectors"),
    "empty": (lambda _: b"", "no list of vectors"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "says"), NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_a_model_that_is_away(
    server: EmbeddingServer, answer: Callable[[list[str]], object], says: str
) -> None:
    server.answer = lambda asked: Answer(answer(asked.texts))
    with model(server) as m, pytest.raises(ModelAway, match=says):
        m.embed(["a", "b"])
    assert len(server.asked) == 1  # to ask again at once would not help


def test_a_huge_answer_is_not_read_to_its_end(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "ANSWER_BYTES_MORE", 1 << 16)
    server.answer = lambda _: Answer(b" " * (8 << 20))
    with model(server) as m, pytest.raises(ModelAway, match="more than 65792 bytes"):
        m.embed(["a"])


@pytest.mark.parametrize("status", [401, 403, 404, 405, 301, 204])
def test_what_can_be_repaired_is_away_and_asked_once(server: EmbeddingServer, status: int) -> None:
    body = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    server.answer = lambda _: Answer(
        body if status != 204 else b"", status=status, headers={"Location": "/x"}
    )
    with model(server) as m, pytest.raises(ModelAway, match=str(status)) as caught:
        m.embed(["a"])
    assert KEY not in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_text_says_why_in_one_line_without_the_key(server: EmbeddingServer, status: int) -> None:
    body = {"error": {"message": f"maximum context\nlength exceeded {KEY} " + "x" * 1_000}}
    server.answer = lambda _: Answer(body, status=status)
    with model(server) as m, pytest.raises(TextRefused) as caught:
        m.embed(["a"])
    assert f"({status}): maximum context length exceeded *** xxx" in str(caught.value)
    assert len(str(caught.value)) < 300


def refusing(server: EmbeddingServer, what: str) -> None:
    """Answer 400 to every request with a text that contains ``what``."""

    def answer(asked: Asked) -> Answer:
        if any(what in text for text in asked.texts):
            return Answer({"error": {"message": "too long"}}, status=400)
        return Answer(sound(asked.texts))

    server.answer = answer


def test_refused_texts_are_found_and_the_others_get_their_vectors(server: EmbeddingServer) -> None:
    refusing(server, "bad")
    texts = [f"bad {n}" if n in (0, 7, 8, 20) else f"good {n}" for n in range(21)]
    with model(server) as m:
        found = embed_each(m, texts)
    assert set(found.refused) == {0, 7, 8, 20}
    assert all("too long" in error.detail for error in found.refused.values())
    good = [n for n in range(21) if n not in found.refused]
    assert np.array_equal(found.vectors[good], expected(texts)[good])


def test_a_server_that_refuses_all_is_away_and_blames_no_text(server: EmbeddingServer) -> None:
    refusing(server, "")
    with model(server) as m, pytest.raises(ModelAway, match="refuses every text"):
        embed_each(m, ["a", "b"])
    assert len(server.asked) == 2


def test_the_key_is_in_no_representation() -> None:
    settings = ServerSettings.model_validate(
        {"url": "http://h", "model": "m", "dimensions": 1, "api_key": KEY}
    )
    assert settings.key() == KEY
    assert KEY not in repr(settings) + str(settings) + settings.model_dump_json() + repr(
        settings.model_dump()
    )
