"""The built-in dense model, the real one: sense, sameness, and what it must not do to the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upwell.changeset import Matrix
from upwell.embed.wordllama import DIMENSIONS, TEXT_CHARS_MAX, TEXTS_AT_ONCE, WordLlamaModel

ODD = [
    "",
    " ",
    "\n",
    "\x00",
    "日本語",
    "🦄 e\u0301",
    "</s><s><unk>[PAD]<pad>",
    "x" * 3_000,
    "a\ud800",
    "word " * 900,
]


@cache
def model() -> WordLlamaModel:
    return WordLlamaModel("WORDLLAMA")


def cosine(a: Matrix, b: Matrix) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_what_means_nearly_the_same_is_nearer() -> None:
    cat, kitten, stocks = model().embed(["a cat sat on the mat", "a kitten on a rug", "stock prices fell"])
    assert cosine(cat, kitten) > cosine(cat, stocks) + 0.2
    assert cosine(cat, kitten) > cosine(kitten, stocks) + 0.2


def test_vectors_are_as_promised() -> None:
    found = model().embed(ODD)
    assert found.shape == (len(ODD), DIMENSIONS) and found.dtype == np.float32 and found.flags.c_contiguous
    assert np.isfinite(found).all()
    assert np.linalg.norm(found[found.any(axis=1)], axis=1) == pytest.approx(1, abs=1e-6)
    assert model().embed([]).shape == (0, DIMENSIONS)


def test_only_an_empty_text_is_zero() -> None:
    found = model().embed(ODD)
    assert [bool(row.any()) for row in found] == [bool(text) for text in ODD]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.one_of(st.text(max_size=60), st.sampled_from(ODD)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_a_vector_is_the_same_to_the_bit_whatever_its_neighbours(texts: list[str], chance: object) -> None:
    together = model().embed(texts)
    assert np.array_equal(model().embed(texts[::-1])[::-1], together)
    for place, text in enumerate(texts):
        assert model().embed([text])[0].tobytes() == together[place].tobytes()


def test_the_same_beyond_what_is_tokenized_at_once() -> None:
    texts = [f"text {n} " * (n % 7) for n in range(TEXTS_AT_ONCE + 3)]
    found = model().embed(texts)
    for place in (0, 1, TEXTS_AT_ONCE - 1, TEXTS_AT_ONCE, TEXTS_AT_ONCE + 2):
        assert np.array_equal(found[place], model().embed([texts[place]])[0])


def test_what_is_too_long_does_not_count() -> None:
    text = ("the well fills " * TEXT_CHARS_MAX)[:TEXT_CHARS_MAX]
    kept, cut = model().embed([text, text + " and something else"])
    assert np.array_equal(kept, cut)


def test_threads_get_the_same() -> None:
    texts = [f"thread and text {n}" for n in range(100)]
    wrong: list[int] = []
    expected = model().embed(texts)

    def embed() -> None:
        wrong.extend(n for n in range(5) if not np.array_equal(model().embed(texts), expected))

    threads = [threading.Thread(target=embed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


#: A process of its own, in which nothing may be connected to, and what becomes of it.
ALONE = """
import json, logging, os, socket, sys, threading
def refuse(*_): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from upwell.embed import wordllama
before = [name for name in ("tokenizers", "safetensors", "urllib3", "requests", "wordllama") if name in sys.modules]
tasks = lambda: len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
import numpy; numpy.ones((9, 9)) @ numpy.ones((9, 9))
started = tasks()
wordllama.WordLlamaModel("W").embed([f"some text {n}" for n in range(2000)])
print(json.dumps({
    "before": before,
    "after": [name for name in ("requests", "wordllama", "huggingface_hub") if name in sys.modules],
    "threads": tasks() - started,
    "handlers": len(logging.getLogger().handlers),
}))
if os.fork() == 0:
    wordllama.WordLlamaModel("W").embed(["in a child"] * 10)
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_loading_touches_no_network_and_starts_no_threads_and_sets_up_no_logging() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    command = [
        sys.executable,
        "-W",
        "ignore::DeprecationWarning",
        "-uc",
        ALONE,
    ]  # newer Pythons warn of any fork
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"before": [], "after": [], "threads": 0, "handlers": 0}


def test_vectors_are_the_librarys() -> None:
    """Against WordLlamaInference itself, given the same files; its sums are in another order, so not to the bit."""
    script = """
import json, sys
import numpy as np
import pytest
from wordllama import WordLlamaInference
from upwell.embed.wordllama import WordLlamaModel
texts = json.loads(sys.stdin.read())
model = WordLlamaModel("W")
ours = model.embed(texts)
theirs = WordLlamaInference(model._files.table, model._files.tokenizer).embed(texts, norm=True, batch_size=1)
empty = [n for n, text in enumerate(texts) if not text]
assert not ours[empty].any()
theirs[empty] = 0
print(float(np.abs(ours - theirs).max()))
"""
    texts = [
        "a cat sat on the mat",
        "Stock prices fell by 3.5%",
        *(text for text in ODD if "\ud800" not in text),
    ]
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(texts), check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert float(done.stdout) < 1e-5
