"""Which name means which model, what settings may say, and that each model is loaded once and used by so many threads at once."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ingest.cli.environment import environment_of
from tests.embedding_server import DIMENSIONS, embedding_server
from upwell.changeset import Matrix
from upwell.embed import sentence_transformers, wordllama
from upwell.embed.configuration import ServerSettings, plain_name
from upwell.embed.model import embed_each
from upwell.embed.models import Models
from upwell.errors import Invalid, ModelAway, TextRefused
from upwell.settings import Settings

SERVER: dict[str, object] = {"url": "http://127.0.0.1:1", "model": "m", "dimensions": DIMENSIONS}
SECRET = "sk-very-secret-0123456789"


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("BAAI/bge-large-en-v1.5", "BGE_LARGE_EN_V1_5"),
        ("BAAI/bge-base-en-v1.5", "BGE_BASE_EN_V1_5"),
        ("BAAI/bge-small-en-v1.5", "BGE_SMALL_EN_V1_5"),
        ("BAAI/bge-m3", "BGE_M3"),
        ("BGE_M3", "BGE_M3"),
        ("bm25", "BM25"),
        ("wordllama", "WORDLLAMA"),
        ("nomic-embed-text:v1.5", "NOMIC_EMBED_TEXT_V1_5"),
    ],
)
def test_names_have_a_plain_form(name: str, plain: str) -> None:
    assert plain_name(name) == plain
    assert plain_name(plain) == plain


def configured(**embedding_models: object) -> Settings:
    return Settings.model_validate({"embedding_models": embedding_models})


def test_built_in_models_are_known_without_configuration() -> None:
    models = Models(Settings())
    assert models.known_dense() == ("WORDLLAMA",) and models.known_sparse() == ("BM25",)
    assert models.dense_dimensions("wordllama") == models.dense("WordLlama").dimensions == 256
    assert models.sparse("bm25").name == "BM25"
    assert len(models.sparse("BM25").documents(["a"] * 600)) == 600


def test_one_name_may_be_dense_and_sparse_in_either_spelling() -> None:
    models = Models(
        Settings.model_validate(
            {
                "embedding_models": {"BAAI/bge-m3": {"builtin": "wordllama"}},
                "sparse_embedding_models": {"BGE_M3": {"builtin": "bm25"}},
            }
        )
    )
    assert models.dense("bge-m3") is models.dense("BGE_M3")
    assert models.dense("BGE_M3").name == models.sparse("BAAI/bge-m3").name == "BGE_M3"
    assert models.known_dense() == ("BGE_M3", "WORDLLAMA")


def test_an_unknown_name_is_told_which_are_known() -> None:
    models = Models(configured(BGE_M3=SERVER))
    for ask in (models.dense, models.dense_dimensions):
        with pytest.raises(Invalid, match="no embedding model 'nobody' here; known are BGE_M3, WORDLLAMA"):
            ask("nobody")
    with pytest.raises(Invalid, match="no sparse embedding model 'BGE_M3' here; known are BM25"):
        models.sparse("BGE_M3")


def test_models_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPWELL_EMBEDDING_MODELS", json.dumps({"BAAI/bge-m3": {**SERVER, "dimensions": 1024}}))
    assert Models(Settings()).dense_dimensions("BGE_M3") == 1024


@pytest.mark.parametrize("text", ["", "[]", '{"x": ', f'{{"x": {SECRET}}}'])
def test_a_variable_without_an_object_in_json_is_told_of(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("UPWELL_EMBEDDING_MODELS", text)
    with pytest.raises(
        ValidationError, match=r"embedding_models\n  .*(JSON object|valid dictionary)"
    ) as caught:
        Settings()
    assert SECRET not in str(caught.value)


def test_a_server_answers_under_its_name() -> None:
    with embedding_server() as server:
        models = Models(configured(mine={**SERVER, "url": server.url, "api_key": SECRET}))
        try:
            model = models.dense("mine")
            assert (model.name, model.dimensions) == ("MINE", DIMENSIONS)
            assert model.embed(["a", "b"]).shape == (2, DIMENSIONS)
        finally:
            models.close()
        assert server.asked[0].headers["Authorization"] == f"Bearer {SECRET}"


def test_a_key_may_be_in_a_variable_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configured(mine={**SERVER, "api_key_env": "MINE_KEY"})
    monkeypatch.delenv("MINE_KEY", raising=False)
    with pytest.raises(Invalid, match="MINE has no API key: the environment variable MINE_KEY holds no key"):
        Models(settings)
    monkeypatch.setenv("MINE_KEY", SECRET)
    model = settings.embedding_models["MINE"]
    assert isinstance(model, ServerSettings) and model.key() == SECRET
    Models(settings).close()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://h:8080", "http://h:8080/v1/embeddings"),
        ("http://h:8080/", "http://h:8080/v1/embeddings"),
        ("https://h/v1/", "https://h/v1/embeddings"),
        ("https://h/api/openai/v1", "https://h/api/openai/v1/embeddings"),
        ("https://h/v1/embeddings", "https://h/v1/embeddings"),
    ],
)
def test_a_servers_address_may_be_short(given: str, address: str) -> None:
    assert ServerSettings.model_validate({**SERVER, "url": given}).address == address


WRONG: list[tuple[dict[str, object], str]] = [
    ({"X": {}}, 'one of "builtin", "url" and "sentence_transformers"'),
    ({"X": {**SERVER, "builtin": "wordllama"}}, 'one of "builtin"'),
    ({"X": "wordllama"}, 'one of "builtin"'),
    ({"X": {"builtin": "bm25"}}, "Input should be 'wordllama'"),
    ({"X": {**SERVER, "colour": "red"}}, "Extra inputs are not permitted"),
    ({"X": {"url": "http://h", "model": "m"}}, "dimensions"),
    ({"X": {**SERVER, "dimensions": 0}}, "greater than or equal to 1"),
    ({"X": {**SERVER, "call_s_max": 60}}, "less than or equal to 50"),
    ({"X": {**SERVER, "url": "ftp://h"}}, "http or https address"),
    ({"X": {**SERVER, "url": "http://h:99999"}}, "http or https address"),
    ({"X": {**SERVER, "url": f"http://me:{SECRET}@h"}}, "without a name or password"),
    ({"X": {**SERVER, "url": f"http://h/?key={SECRET}"}}, "without a query"),
    ({"X": {**SERVER, "api_key": f"{SECRET}\n"}}, "visible ASCII"),
    ({"X": {**SERVER, "api_key": SECRET, "api_key_env": "E"}}, "not both"),
    ({"a/BGE-M3": SERVER, "BGE_M3": SERVER}, "known as BGE_M3"),
    ({"wordllama": SERVER}, "the name of a built-in model"),
    ({"bm25": {"builtin": "wordllama"}}, "the name of a built-in model"),
    ({"/": SERVER}, "1 to 128 letters and digits"),
    ({"x" * 129: SERVER}, "1 to 128 letters and digits"),
]


@pytest.mark.parametrize(("given", "says"), WRONG)
def test_what_is_wrong_is_named_and_secrets_are_not(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        configured(**given)
    assert says in str(caught.value)
    assert SECRET not in str(caught.value) and SECRET not in repr(caught.value)


def test_children_get_the_same_models_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configured(mine={**SERVER, "api_key": SECRET}, other={"builtin": "wordllama"})
    assert SECRET not in repr(settings) + settings.model_dump_json() + repr(settings.model_dump())
    for name, value in environment_of(settings).items():
        if name.startswith("UPWELL_"):
            monkeypatch.setenv(name, value)
    assert Settings() == settings


class Counting:
    """A model that notes how many threads are in it, and refuses some texts."""

    dimensions, texts_at_once = 2, 3

    def __init__(self, name: str) -> None:
        self.name = name
        self.now = self.most = 0
        self.calls: list[int] = []
        self.lock = threading.Lock()
        self.pause = threading.Event()

    def embed(self, texts: Sequence[str]) -> Matrix:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.calls.append(len(texts))
        self.pause.wait(0.002)
        with self.lock:
            self.now -= 1
        if refused := [text for text in texts if text.startswith("bad")]:
            raise TextRefused(f"refuses {refused[0]}")
        return np.array([[len(text), 1] for text in texts], np.float32).reshape(len(texts), 2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_model_is_loaded_once_and_used_by_so_many_at_once(
    monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    made: list[Counting] = []

    def make(name: str) -> Counting:
        made.append(Counting(name))
        return made[-1]

    monkeypatch.setattr(wordllama, "WordLlamaModel", make)
    models = Models(Settings(embedding_jobs=jobs))
    begin, results = threading.Barrier(6), []

    def embed() -> None:
        begin.wait(30)
        results.append(models.dense("wordllama").embed([f"{n:03}" for n in range(20)]))

    threads = [threading.Thread(target=embed) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and made[0].most == jobs
    assert max(made[0].calls) == 3  # others have their turn in between
    assert all(np.array_equal(one, np.full((20, 2), [3, 1], np.float32)) for one in results)


def test_a_model_that_failed_to_load_is_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Any] = [ModelAway("not yet"), Counting("W")]

    def make(_: str) -> Counting:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, Counting)
        return outcome

    monkeypatch.setattr(wordllama, "WordLlamaModel", make)
    models = Models(Settings())
    with pytest.raises(ModelAway):
        models.dense("wordllama")
    assert models.dense("wordllama").name == "W"


@pytest.mark.parametrize("bad", [(), (0,), (5,), (0, 1, 2), (3, 4, 9), tuple(range(9))])
def test_refused_texts_are_found_by_halves(bad: tuple[int, ...]) -> None:
    texts = [f"bad {n}" if n in bad else f"{n} good" for n in range(10)]
    model = Counting("C")
    found = embed_each(model, texts)
    assert {place: error.detail for place, error in found.refused.items()} == {
        n: f"refuses bad {n}" for n in bad
    }
    assert [bool(row.any()) for row in found.vectors] == [n not in bad for n in range(10)]
    assert len(model.calls) <= 2 + 2 * len(bad) * 4


def test_a_text_alone_may_be_refused() -> None:
    assert set(embed_each(Counting("C"), ["bad"]).refused) == {0}
    assert embed_each(Counting("C"), []).vectors.shape == (0, 2)


class FakeTransformer:
    """What our calling of sentence-transformers is checked against."""

    loaded: tuple[str, str | None] | None = None
    answer: Any = None

    def __init__(self, name: str, device: str | None = None) -> None:
        if name == "missing":
            raise OSError("no such model")
        FakeTransformer.loaded = (name, device)

    def encode(
        self, texts: list[str], *, batch_size: int, convert_to_numpy: bool, show_progress_bar: bool
    ) -> Any:
        assert type(texts) is list  # a tuple would be taken for one pair of texts
        assert (batch_size, convert_to_numpy, show_progress_bar) == (32, True, False)
        if isinstance(self.answer, Exception):
            raise self.answer
        return (
            np.array([[len(text), 1, 2] for text in texts], np.float64)
            if self.answer is None
            else self.answer
        )


@pytest.fixture
def fake_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = FakeTransformer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(sentence_transformers, "is_installed", lambda: True)
    monkeypatch.setattr(FakeTransformer, "answer", None)


TRANSFORMER = {"sentence_transformers": "BAAI/bge-small-en-v1.5", "dimensions": 3}


@pytest.mark.usefixtures("fake_package")
def test_sentence_transformers_is_called_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only how we call it, by a stand-in: the package needs torch, which is too large for these tests. No real model ran here."""
    model = Models(configured(small={**TRANSFORMER, "device": "cpu"})).dense("small")
    assert FakeTransformer.loaded == ("BAAI/bge-small-en-v1.5", "cpu")
    found = model.embed(["a", "bb"])
    assert found.dtype == np.float32 and found.tolist() == [[1, 1, 2], [2, 1, 2]]
    assert model.embed([]).shape == (0, 3)
    for answer, says in [
        (np.zeros((1, 2)), "2 dimensions, expected 3"),
        (np.full((1, 3), np.nan), "not finite"),
        (RuntimeError("out of memory"), "failed: out of memory"),
    ]:
        monkeypatch.setattr(FakeTransformer, "answer", answer)
        with pytest.raises(ModelAway, match=says):
            model.embed(["a"])


@pytest.mark.usefixtures("fake_package")
def test_a_model_of_sentence_transformers_that_cannot_be_loaded_is_away() -> None:
    """By the stand-in too."""
    models = Models(configured(small={**TRANSFORMER, "sentence_transformers": "missing"}))
    with pytest.raises(ModelAway, match="SMALL cannot be loaded: no such model"):
        models.dense("small")


def test_without_the_extra_its_models_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_transformers, "is_installed", lambda: False)
    with pytest.raises(
        Invalid, match=r"SMALL needs sentence-transformers: pip install 'upwell\[sentence-transformers\]'"
    ):
        Models(configured(small=TRANSFORMER))
