"""The world that is attacked: a Valkey, front ends and workers in slots, and a client that writes down what it is answered."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from tests.crash.history import Answer, History
from tests.crash.processes import Kind, Processes, Slot
from tests.crash.witness import Witness
from tests.embedding_server import DIMENSIONS, embedding_server
from tests.service import TOKEN
from upwell.changeset import KeyScope
from upwell.clock import SystemClock
from upwell.doorbell.embedded import EmbeddedValkey
from upwell.engine import Engine, Index
from upwell.settings import Settings
from upwell.store import DirectoryStore

#: An answer that takes longer will not come: somebody hangs.
HANG_S = 90.0
#: Short periods, so that everything that takes its time in real life happens all the while.
SETTINGS = {
    "grace_s": "3",
    "results_s": "6",
    "failed_s": "15",
    "idempotency_s": "15",
    "lease_ttl_s": "1",
    "sweep_interval_s": "0.3",
    "compaction_fanout": "2",
    "compaction_settle_s": "0.3",
    "parse_processes": "0",
    "request_vectors_max": "12000",
    "metadata_indexes_max": "1000",
    "recall": "1",
    "webhook_private_addresses": "true",
    "poll_delay_s": "0.02",
    # However long the embedding server is away, nothing fails for it.
    "embedding_patience_s": "600",
}
NDJSON = "application/x-ndjson"
#: Somebody died, or is away, or a disk failed: whatever was asked for may have been done, or not.
UNSURE = frozenset({0, 503, 507})
#: A keyed request is not sent again after this long: it would be a new one by then.
RESEND_S = 5.0


@dataclass(frozen=True, slots=True)
class Spec:
    """An index of the world: so many groups of so many members. ``weight``: how often it is written to."""

    name: str
    members: int
    groups: int
    dimensions: int = 4
    shards: int = 3
    weight: float = 1.0
    #: Has metadata, and metadata indexes come and go.
    metadata: bool = False
    #: A webhook is told of its mutations.
    told: bool = False
    #: How many members a read asks for; None: all.
    asked: int | None = None


SPECS = (
    Spec("single", members=1, groups=8, shards=2, weight=2),
    Spec("plain", members=12, groups=3, shards=4, weight=4),
    Spec("tagged", members=6, groups=2, weight=3, metadata=True),
    Spec("told", members=3, groups=3, shards=1, weight=1, told=True),
    # More than a drain writes alone, and than an entry holds.
    Spec("bulk", members=10_500, groups=2, dimensions=32, weight=0.3, asked=40),
)


class World:
    """All parts, and the history of what they did. Use as an async context manager, from the main thread."""

    def __init__(self, folder: Path, seed: int, *, fresh: bool = False, **settings: str) -> None:
        self.folder = folder
        self.dice = random.Random(seed)
        self.history = History()
        self.indexes: dict[str, Index] = {}
        self.generations = itertools.count(2, 2)
        #: Answers by what was asked and how it ended.
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._fresh = fresh
        self._settings = SETTINGS | settings

    async def __aenter__(self) -> Self:
        data = self.folder / "data"
        data.mkdir()
        self._embedding = embedding_server()
        self.model = self._embedding.__enter__()
        self.valkey = EmbeddedValkey(self.folder / "valkey")
        self.valkey.start()
        letters = {
            "url": self.model.url,
            "model": "letters",
            "dimensions": DIMENSIONS,
            "tries_max": 2,
            "timeout_s": 2,
        }
        mine = {f"UPWELL_{name.upper()}": value for name, value in self._settings.items()} | {
            "UPWELL_REDIS": self.valkey.url,
            "UPWELL_DATA": str(data),
            "UPWELL_PORT": "0",
            "UPWELL_TOKEN": TOKEN,
            "UPWELL_LOG_LEVEL": "warning",
            "UPWELL_LOG_FORMAT": "json",
            "UPWELL_EMBEDDING_MODELS": json.dumps({"LETTERS": letters}),
        }
        self.processes = Processes(self.folder, mine, fresh=self._fresh)
        await self.processes.__aenter__()
        # A connection is used once: one that broke is not tried again behind our back.
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=aiohttp.ClientTimeout(total=HANG_S),
        )
        self.store = DirectoryStore(data / "store")
        settings = Settings.model_validate(self._settings | {"data": data})
        self.engine = Engine(self.store, settings, SystemClock())
        self.witness = Witness(self.engine)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()
        await self.processes.__aexit__()
        if self.witness.is_alive():
            self.witness.stop()
        self.valkey.stop()
        self._embedding.__exit__(None, None, None)

    async def begin(self, slots: dict[str, Kind], specs: tuple[Spec, ...] = SPECS) -> None:
        """Start processes, by the names of their slots, and make the indexes, in peace."""
        for name, kind in slots.items():
            await self.processes.add(name, kind)
        for spec in specs:
            await self.make(spec.name, spec)
            self.history.members[spec.name] = spec.members
            self.indexes[spec.name] = self.witness.follow(spec.name, spec.members)

    async def begin_door(self, spec: Spec, created: Mapping[str, Any]) -> None:
        """Make an index that is written to at the Upstash door; ``created`` is what is said of it besides."""
        status, envelope = await self.make(spec.name, spec, **created)
        assert status == 200, envelope
        self.history.door.indexes[spec.name] = "embeddingModel" in created
        self.indexes[spec.name] = self.witness.follow(spec.name, None)

    async def make(self, name: str, spec: Spec, **more: Any) -> tuple[int, Any]:
        """Create an index."""
        config = {"dimensions": spec.dimensions, "metric": "euclidean"}
        body = {"name": name, "config": config, "shards": spec.shards, **more}
        return await self.call("create", "POST", "", body)

    def follow_door(self, name: str, scope: KeyScope) -> None:
        """Have an index followed that was made at the Milvus door."""
        self.history.door.indexes[name] = False
        self.history.door.scopes[name] = scope
        self.indexes[name] = self.witness.follow(name, None)

    async def milvus(
        self, slot: Slot, command: str, body: Any, sent: dict[str, str]
    ) -> tuple[int, Any, Mapping[str, str]]:
        """One request at the Milvus door. Returns status, what it says, and headers; status 0: as with ``call``."""
        url = f"{slot.url}/v2/vectordb/{command}"
        found = await self._exchange(slot, "POST", url, body, sent)
        code = found[1].get("code") if isinstance(found[1], dict) else None
        self.outcomes[f"milvus {command}", "none" if found[0] == 0 else str(code)] += 1
        return found

    def front_end(self) -> Slot | None:
        """Any that can be asked just now."""
        able = [slot for slot in self.processes.of("api") if slot.url is not None]
        return self.dice.choice(able) if able else None

    async def any_front_end(self) -> Slot:
        """Any, as soon as there is one."""
        while (slot := self.front_end()) is None:  # noqa: ASYNC110  processes come to life at their own pace
            await asyncio.sleep(0.01)
        return slot

    async def call(
        self, what: str, method: str, path: str, body: Any = None, *, at: Slot | None = None, **headers: str
    ) -> tuple[int, Any]:
        """One request; ``path`` follows ``…/indexes``. Returns status and envelope (of an export: its lines); status 0: no answer, or
        half of one.

        An answer that should never be given is written down.
        """
        slot = at or await self.any_front_end()
        url = f"{slot.url}/client/v4/accounts/default/vectorize/v2/indexes{path}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, dict):
            sent["Content-Type"] = "application/json"
        status, envelope, _ = await self._exchange(slot, method, url, body, sent)
        self.outcomes[what, str(status or "none")] += 1
        return status, envelope

    async def door(
        self, slot: Slot, index: str, command: str, body: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        """One request at the Upstash door. Returns status, what it says, and headers; status 0: as with ``call``."""
        found = await self._exchange(slot, "POST", f"{slot.url}/upstash/default/{index}/{command}", body, {})
        self.outcomes[f"door {re.split('[/?]', command)[0]}", str(found[0] or "none")] += 1
        return found

    async def _exchange(
        self, slot: Slot, method: str, url: str, body: Any, sent: dict[str, str]
    ) -> tuple[int, Any, Mapping[str, str]]:
        data = None
        if body is not None:
            data = io.BytesIO(body if isinstance(body, bytes) else orjson.dumps(body))
        status, envelope, problem = 0, None, ""
        headers: Mapping[str, str] = {}
        try:
            async with self._http.request(method, url, data=data, headers=sent) as answer:
                headers = answer.headers
                status, text = answer.status, await answer.read()
                if answer.content_type == NDJSON:
                    envelope = {"lines": [orjson.loads(line) for line in text.splitlines()]}
                else:
                    envelope = orjson.loads(text)
        except TimeoutError:
            problem = f"no answer within {HANG_S:.0f} s"
        except (aiohttp.ClientError, OSError):
            status = 0
        except orjson.JSONDecodeError as error:
            problem = f"{status}, and no JSON: {error}"
        if status == 500 or (status and not isinstance(envelope, dict)):
            problem = problem or f"{status}: {envelope}"
        if problem:
            self.history.answers.append(
                Answer(slot.name, f"{method} {url.removeprefix(slot.url or '')}", problem)
            )
        return status, envelope, headers

    def wrong(self, slot: Slot | None, request: str, said: object) -> None:
        """Write down an answer that should not have been given."""
        self.history.answers.append(Answer(slot.name if slot else "", request, str(said)[:500]))

    def break_redis(self) -> None:
        """Kill the Valkey and start it again, empty; blocks for as long as that takes."""
        if self.valkey.pid is not None:
            os.kill(self.valkey.pid, signal.SIGKILL)
        self.valkey.stop()
        self.valkey.start()


def now() -> float:
    """The time of histories."""
    return time.monotonic()
