"""Which name means which model: what an operator writes into ``embedding_models`` and ``sparse_embedding_models``.

    {"BAAI/bge-m3":       {"url": "http://127.0.0.1:8080", "model": "bge-m3", "dimensions": 1024, "api_key_env": "KEY"},
     "BGE_SMALL_EN_V1_5": {"sentence_transformers": "BAAI/bge-small-en-v1.5", "dimensions": 384},
     "BGE_BASE_EN_V1_5":  {"builtin": "wordllama"}}

A name is known by its plain form, which is what Upstash shows of its own: ``BAAI/bge-m3`` and ``BGE_M3`` are one. ``wordllama`` (dense) and
``BM25`` (sparse) are known without being configured. One name may be dense and sparse, as BGE_M3 is.
"""

from __future__ import annotations

import json
import os
import re
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    SerializationInfo,
    Tag,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode

NAME_LENGTH_MAX = 128
#: As the context of ``model_dump``: write keys out. For handing settings to our own child processes, and nothing else.
REVEALING = {"reveal_secrets": True}

_KEY = re.compile(r"[!-~]+")  # what an HTTP header can carry


def plain_name(name: str) -> str:
    """The form under which a model is known: what follows the last slash, in upper case, with _ for what is no letter or digit."""
    return re.sub(r"[^A-Z0-9]", "_", name.rsplit("/", 1)[-1].upper())


class _ModelSettings(BaseModel):
    # What was given is not repeated when it is wrong: it may hold a key.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class WordLlamaSettings(_ModelSettings):
    """The built-in dense model."""

    builtin: Literal["wordllama"]


class Bm25Settings(_ModelSettings):
    """The built-in sparse model."""

    builtin: Literal["bm25"]


class SentenceTransformersSettings(_ModelSettings):
    """A model that runs in this process, by the package sentence-transformers."""

    #: A name on its hub, or a folder.
    sentence_transformers: str = Field(min_length=1)
    dimensions: int = Field(ge=1)
    device: str | None = None
    texts_per_batch: int = Field(32, ge=1, le=4_096)


class ServerSettings(_ModelSettings):
    """A server that speaks OpenAI's ``POST /v1/embeddings``."""

    #: With or without ``/v1`` and ``/embeddings``.
    url: str
    #: What the server calls the model.
    model: str = Field(min_length=1)
    #: What its vectors must have.
    dimensions: int = Field(ge=1)
    #: Ask the server for so many dimensions; not all know how.
    send_dimensions: bool = False
    api_key: SecretStr | None = None
    #: Or the name of the environment variable that holds the key.
    api_key_env: str | None = Field(None, min_length=1)
    texts_per_request: int = Field(64, ge=1, le=4_096)
    #: Requests of one process that are on their way at the same time.
    requests_at_once: int = Field(4, ge=1, le=64)
    connect_timeout_s: float = Field(5.0, gt=0, le=30)
    #: How long the server may be silent before and amid an answer.
    timeout_s: float = Field(20.0, gt=0, le=50)
    #: How long one call may take with all its requests and their repetitions.
    call_s_max: float = Field(45.0, gt=0, le=50)
    #: How often one request is sent before its call fails.
    tries_max: int = Field(4, ge=1, le=20)

    @field_validator("url")
    @classmethod
    def _leads_somewhere(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
            parts = urlsplit("")
        if not sound or not _KEY.fullmatch(url) or parts.query or parts.fragment:
            raise ValueError(
                "expected an http or https address without a query, such as http://127.0.0.1:8080/v1"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "expected an address without a name or password in it; use api_key or api_key_env"
            )
        return url

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not _KEY.fullmatch(key.get_secret_value()):
            raise ValueError("expected a key of visible ASCII characters")
        return key

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key is not None and self.api_key_env is not None:
            raise ValueError("expected api_key or api_key_env, not both")
        return self

    @field_serializer("api_key")
    def _hidden(self, key: SecretStr | None, info: SerializationInfo) -> str | None:
        if key is None:
            return None
        return key.get_secret_value() if info.context == REVEALING else str(key)

    @property
    def address(self) -> str:
        """Where texts are posted."""
        url = self.url.rstrip("/")
        if url.endswith("/embeddings"):
            return url
        return f"{url}/embeddings" if urlsplit(url).path else f"{url}/v1/embeddings"

    def key(self) -> str | None:
        """The key to send, if one is configured. Raises ValueError if its variable is not set, or holds none."""
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env, "")
            if not _KEY.fullmatch(key):
                raise ValueError(f"the environment variable {self.api_key_env} holds no key")
            return key
        return None if self.api_key is None else self.api_key.get_secret_value()


def _kind(value: Any) -> str | None:
    """Which kind of model is meant: the one of these fields that is there."""
    kinds = ("builtin", "url", "sentence_transformers")
    found = [kind for kind in kinds if (kind in value if isinstance(value, dict) else hasattr(value, kind))]
    return found[0] if len(found) == 1 else None


DenseSettings = Annotated[
    Annotated[WordLlamaSettings, Tag("builtin")]
    | Annotated[ServerSettings, Tag("url")]
    | Annotated[SentenceTransformersSettings, Tag("sentence_transformers")],
    Discriminator(
        _kind,
        custom_error_type="model_kind",
        custom_error_message='expected an object with one of "builtin", "url" and "sentence_transformers"',
    ),
]

#: What is known without being configured.
BUILTIN_DENSE = {"WORDLLAMA": WordLlamaSettings(builtin="wordllama")}
BUILTIN_SPARSE_NAME = "BM25"
BUILTIN_SPARSE = {BUILTIN_SPARSE_NAME: Bm25Settings(builtin="bm25")}
BUILTIN = BUILTIN_DENSE.keys() | BUILTIN_SPARSE.keys()

_Any = TypeVar("_Any", bound=_ModelSettings)


def _by_plain_name(models: dict[str, _Any]) -> dict[str, _Any]:
    """The same models, each under its plain name. Raises ValueError if two are the same, or one is taken."""
    plain: dict[str, _Any] = {}
    for name, model in models.items():
        known = plain_name(name)
        if not known.strip("_") or len(known) > NAME_LENGTH_MAX:
            raise ValueError(
                f"expected names of 1 to {NAME_LENGTH_MAX} letters and digits, got {name[:64]!r}"
            )
        if known in plain:
            raise ValueError(f"{name!r} is there twice: it is known as {known}")
        if known in BUILTIN and getattr(model, "builtin", "").upper() != known:
            raise ValueError(f"{name!r} is the name of a built-in model")
        plain[known] = model
    return plain


def _from_text(models: Any) -> Any:
    """A variable's text is JSON. It is read here, so that what is wrong with it is told like all else."""
    if not isinstance(models, str):
        return models
    try:
        return json.loads(models)
    except ValueError:
        raise ValueError("expected a JSON object of models by name") from None


_Rules = (BeforeValidator(_from_text), AfterValidator(_by_plain_name), NoDecode)
DenseModels = Annotated[dict[str, DenseSettings], *_Rules]
SparseModels = Annotated[dict[str, Bm25Settings], *_Rules]
