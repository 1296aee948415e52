"""Making vectors of texts, shared among workers: a drain claims the texts it needs next, and asks others to make those behind.

Each job of the queue for it makes and keeps vectors of whatever lies unclaimed in an index's log, until there is nothing left. A claim
lasts a few seconds and is renewed while its holder lives; so a killed worker's texts are another's soon. A claim spares work and decides
nothing (upwell/shard/embedding.py). With Redis away every drain makes its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, Executor
from typing import Any, TypeVar

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from upwell.doorbell.ending import end
from upwell.doorbell.jobs import enqueue
from upwell.doorbell.keys import (
    EMBED_ASKED_TTL_S,
    EMBED_CLAIM_TTL_S,
    EMBED_JOB,
    EMBED_QUEUE,
    embed_asked_key,
    embed_claim_key,
    embed_job_id,
)
from upwell.doorbell.lease import mark
from upwell.errors import ModelAway, UpwellError
from upwell.ids import new_identity
from workers.engine import Drainable
from workers.hold import on_loop

log = structlog.get_logger()

T = TypeVar("T")

#: A Redis that takes longer to answer is taken to be away.
CALL_S = 2.0
#: How often claims are renewed.
RENEW_S = EMBED_CLAIM_TTL_S / 3
#: What calling it may raise while it is away, while its connections are being closed, or while this process ends.
AWAY = (RedisError, OSError, TimeoutError, RuntimeError, CancelledError)
#: So many workers are asked at once; who finds nothing to do is free again at once.
ASKED = 8


class Claims:
    """TextClaims (upwell/shard/embedding.py) over Redis, for one batch or job. Its methods are called from a thread.

    Redis is asked until it fails us once: a batch may have a thousand entries with texts, and must not wait for it a thousand times. Nor
    is it asked when the batch is over for everybody else: the thread of one that was cancelled may still be at it.
    """

    def __init__(self, redis: ArqRedis, index_id: str, loop: asyncio.AbstractEventLoop) -> None:
        self._redis = redis
        self._index_id = index_id
        self._loop = loop
        self._held: list[str] = []
        #: Begun with the first claim: most batches have no texts, and need none.
        self._renewing: asyncio.Task[None] | None = None
        self._asks = True
        #: How often it was said that the work goes on.
        self.signs = 0

    def claim_texts(self, position: int) -> bool:
        """Is this entry ours to embed?"""
        return self._called(self._claim, embed_claim_key(self._index_id, position)) is not False

    def ask_for_embedding(self) -> None:
        """Enqueue jobs for those who have time, unless that was done a moment ago."""
        self._called(self._ask)

    def went_on(self) -> None:
        """Some vectors more are made, or some texts more are asked for words."""
        self.signs += 1

    def _called(self, what: Callable[..., Coroutine[Any, Any, T]], *arguments: str) -> T | None:
        """Call Redis, from a thread; None if it is away."""
        if not self._asks:
            return None
        try:
            return on_loop(self._loop, what(*arguments), CALL_S)
        except AWAY as error:
            self._asks = False
            log.debug("texts are not shared", index=self._index_id, error=repr(error))
            return None

    async def _claim(self, key: str) -> bool:
        # What is taken later than anybody waited for is given up with the rest.
        ours = await mark(self._redis, key, EMBED_CLAIM_TTL_S)
        if ours:
            self._held.append(key)
            if self._renewing is None and self._asks:
                self._renewing = asyncio.create_task(self._renew(), name="text-claims")
        return ours

    async def _ask(self) -> None:
        if not await mark(self._redis, embed_asked_key(self._index_id), EMBED_ASKED_TTL_S):
            return
        token = new_identity()
        for number in range(ASKED):
            name = embed_job_id(self._index_id, token, number)
            await enqueue(self._redis, EMBED_JOB, self._index_id, job_id=name, queue=EMBED_QUEUE)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with contextlib.suppress(*AWAY):
                async with asyncio.timeout(CALL_S), self._redis.pipeline(transaction=False) as pipe:
                    for key in self._held:
                        pipe.expire(key, EMBED_CLAIM_TTL_S)
                    await pipe.execute(raise_on_error=False)

    async def give_up(self) -> None:
        """Ask for nothing any more, and let go of what is claimed; what cannot be let go of now is nobody's soon."""
        asks, self._asks = self._asks, False
        if self._renewing is not None:
            await end(self._renewing)
        if self._held and asks:
            with contextlib.suppress(*AWAY):
                async with asyncio.timeout(CALL_S):
                    await self._redis.delete(*self._held)


@contextlib.asynccontextmanager
async def claiming(redis: ArqRedis, index_id: str) -> AsyncIterator[Claims]:
    """Claims that are renewed as long as the block runs, and given up with it: what was claimed is made then, or is another's to make."""
    claims = Claims(redis, index_id, asyncio.get_running_loop())
    try:
        yield claims
    finally:
        await claims.give_up()


class EmbeddingAhead:
    """One worker's share of making vectors."""

    def __init__(self, engine: Drainable, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor
        #: Set when the process is told to stop.
        self.stopping = False

    async def embed(self, redis: ArqRedis, index_id: str) -> None:
        """Make vectors of an index's texts as long as any are unclaimed."""
        loop = asyncio.get_running_loop()
        while not self.stopping:
            try:
                async with claiming(redis, index_id) as claims:
                    entries = await loop.run_in_executor(
                        self._executor, self._engine.embed_ahead, index_id, claims
                    )
            except ModelAway as error:
                log.warning("texts not embedded", index=index_id, error=str(error))
                return
            except UpwellError as error:
                # Whoever applies them does it himself, or says what is wrong.
                log.warning("could not embed ahead", index=index_id, error=str(error))
                return
            if entries == 0:
                return
            log.debug("embedded ahead", index=index_id, entries=entries)
