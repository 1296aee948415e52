"""The couriers: delivering webhooks' messages, one courier at a time for each webhook.

A drain says of each commit that it made it, and the index's webhooks are looked at then and there. Besides, every worker looks at the
indexes that it knows to have webhooks once a second (a retry is due, a courier died, another worker's drain committed), and finds
out every FIND_S which those are. So a worker that knows of no webhooks looks at nothing each second; finding them takes 25 ms for
a thousand indexes, a thirtieth of what the sweep takes in that time, and a commit to an index without any costs 20 us.

Ceiling: some ten thousand webhooks a store, each of which every worker looks at once a second in 75 us.

A lease in Redis keeps couriers of other workers away. It spares receivers repetitions and no more: what is told next is in the store
(upwell/webhook/), where of two couriers only one gets on. Without Redis nothing is delivered, and everything waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from upwell.clock import Clock
from upwell.doorbell.ending import end
from upwell.doorbell.lease import Lease
from upwell.errors import Fenced, NotFound, UpwellError
from upwell.failpoint import Step, reached
from upwell.settings import Settings
from upwell.webhook import Delivery, Message
from workers.engine import Drainable
from workers.hold import Hold, past_refusals, renewed
from workers.post import Answer, Post

T = TypeVar("T")
log = structlog.get_logger()

#: How often it is found out which indexes have webhooks: 25 ms for a thousand of them on a local disk.
FIND_S = 15.0
#: Webhooks that one worker delivers for at once, and how long one keeps its turn while others wait.
AT_ONCE = 16
TURN_S = 5.0
#: How long a message on its way is waited for once we are told to stop.
FINISH_S = 2.0
#: Threads for looks at the store.
THREADS = 2


class Courier:
    """One worker's share of delivering. Used from one event loop."""

    def __init__(self, engine: Drainable, settings: Settings, clock: Clock) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="webhooks")
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._wake = asyncio.Event()
        #: Indexes to look at now, and those that have webhooks as far as is known.
        self._touched: set[str] = set()
        self._known: set[str] = set()
        self._look_at = self._find_at = clock.monotonic()
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        #: Turns under way during which something became due.
        self._again: set[tuple[str, str]] = set()
        #: Set when the process is told to stop: turns end after the message that is on its way.
        self.stopping = False

    def committed(self, index_id: str) -> None:
        """An index may have something to tell: look at it now."""
        self._touched.add(index_id)
        self._wake.set()

    async def run(self, redis: ArqRedis) -> None:
        """Deliver until cancelled."""
        try:
            while True:
                with past_refusals("looking for webhooks"):
                    await self.once(redis)
                wait_s = self._settings.sweep_interval_s * random.uniform(0.75, 1.25)  # noqa: S311  jitter
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
        finally:
            await end(*self._running.values())

    async def once(self, redis: ArqRedis) -> None:
        """Send couriers for all webhooks that something is due for."""
        self._wake.clear()
        now = self._clock.monotonic()
        if now >= self._find_at:
            self._find_at = now + FIND_S * random.uniform(0.75, 1.25)  # noqa: S311  jitter
            await self._look_or_log(self._find)
        if now >= self._look_at:
            # Less than a pause, so that only what wakes us in between does not lead here.
            self._look_at = now + self._settings.sweep_interval_s / 2
            self._touched |= self._known
        touched, self._touched = self._touched, set()
        for index_id in touched:
            for webhook_id in await self._look_or_log(self._engine.webhooks_due, index_id) or ():
                self._known.add(index_id)
                self._send(redis, index_id, webhook_id)

    async def finish(self) -> None:
        """Once told to stop: give turns a moment to end by themselves. What they are at is sent again otherwise."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=FINISH_S)

    def close(self) -> None:
        """Stop the threads, after what they are at."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _find(self) -> None:
        self._known = set(self._engine.webhook_indexes())

    def _send(self, redis: ArqRedis, index_id: str, webhook_id: str) -> None:
        """Start a turn for a webhook; after the one that is under way, if there is one: it may have looked for the last time."""
        key = (index_id, webhook_id)
        if key in self._running:
            self._again.add(key)
        elif not self.stopping:
            task = self._running[key] = asyncio.create_task(self._turn(redis, *key), name="courier")
            task.add_done_callback(lambda _: self._ended(key))

    def _ended(self, key: tuple[str, str]) -> None:
        del self._running[key]
        if key in self._again:
            self._again.discard(key)
            self.committed(key[0])

    async def _turn(self, redis: ArqRedis, index_id: str, webhook_id: str) -> None:
        about = {"index": index_id, "webhook": webhook_id}
        try:
            async with self._turns:
                more = await self._deliver(redis, index_id, webhook_id)
            if more:
                self.committed(index_id)
        except (Fenced, NotFound) as error:
            log.info("delivery ended", reason=str(error), **about)
        except UpwellError as error:
            log.error("webhook cannot be delivered for", error=str(error), **about)
        except (RedisError, OSError) as error:
            log.warning("redis lost while delivering", error=str(error), **about)
        except Exception:  # one webhook must not keep the others, or the drains, from going on
            log.exception("delivery failed unexpectedly", **about)

    async def _deliver(self, redis: ArqRedis, index_id: str, webhook_id: str) -> bool:
        """Deliver what is due, unless another worker does; returns whether more is."""
        ttl_s = self._settings.lease_ttl_s
        lease = Lease(redis, index_id, ttl_s, webhook=webhook_id)
        if not await lease.claim():
            return False
        try:
            async with renewed(lease, ttl_s / 3) as hold:
                delivery = await self._look(self._engine.webhook_delivery, index_id, webhook_id)
                if delivery is None:
                    return False
                try:
                    async with Post(self._settings, self._clock) as post:
                        return await self._deliver_all(delivery, post, hold)
                finally:
                    await self._look(delivery.save)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await lease.drop()

    async def _deliver_all(self, delivery: Delivery, post: Post, hold: Hold) -> bool:
        """Until nothing is due any more (False), or the turn is over (True); a turn delivers one message at least."""
        turn_ends = self._clock.monotonic() + TURN_S
        while (due := await self._look(delivery.due)) is not None:
            for message in due.messages:
                if self.stopping or not hold.ours or not await self._look(delivery.is_wanted):
                    return False
                answer = await post.send(delivery.webhook, message)
                reached(Step.WEBHOOK_SENT)
                if not self._settle(delivery, message, answer):
                    return False
                if delivery.must_be_saved:
                    await self._look(delivery.save)
                if self._clock.monotonic() > turn_ends:
                    return True
            delivery.passed(due)
        return False

    def _settle(self, delivery: Delivery, message: Message, answer: Answer) -> bool:
        """Note what became of a message; returns whether the next one's turn has come."""
        about = {"webhook": delivery.webhook.id, "message": message.id, "mutation": message.mutation_id}
        if answer.problem is None:
            delivery.succeeded(message)
            return True
        if answer.gone:
            delivery.refused(message, answer.problem)
            log.warning("webhook disabled by its receiver", **about)
            return False
        given_up = delivery.failed(message, answer.problem)
        if given_up:
            log.error("webhook's message given up", reason=answer.problem, **about)
        else:
            log.info("webhook's message not taken", reason=answer.problem, **about)
        return given_up

    async def _look(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    async def _look_or_log(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """A look whose failure must not end the others."""
        try:
            return await self._look(function, *arguments)
        except UpwellError as error:
            log.error("webhooks not looked for", error=str(error))
            return None
