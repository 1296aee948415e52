"""The drain: one index's log, applied batch by batch until there is nothing left to apply.

The job carries the index's identity and nothing else. While a batch is being applied in a thread, a task renews the lease;
should it be lost, the batch is not committed. See upwell/doorbell/lease.py for why the order of these steps matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from math import inf

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from upwell.clock import Clock
from upwell.doorbell.lease import Lease, Released, begin_generation, enqueue_drain
from upwell.doorbell.notices import Notice, hint_applying, publish
from upwell.doorbell.tries import count_try, forget_tries
from upwell.errors import Fenced, UpwellError
from upwell.failpoint import Step, reached
from upwell.log.receipt import Receipt
from upwell.settings import Settings
from upwell.shard.apply import Applied
from upwell.shard.batch import Broken
from upwell.shard.embedding import TextClaims
from workers.embedding import Claims as TextsClaimed
from workers.embedding import claiming
from workers.engine import Drainable
from workers.hold import Hold, renewed
from workers.parts import Claims
from workers.poison import NobodysFaultError, culprits
from workers.trial import Trials

log = structlog.get_logger()

#: After this long a drain hands over to a job of its own making, so that other indexes get their turn.
SLICE_S = 10.0
#: How long a hint that a batch is being applied is believed; a batch that takes longer shows as queued again.
HINT_TTL_S = 10.0
#: Pause before looking again after losing a race for a commit.
FENCED_PAUSE_S = 0.02
#: After half a grace period a batch cannot be committed any more; but never is one taken to hang so soon.
HUNG_AFTER_S_MIN = 120.0
WAKING_S = 10.0


def _end_process() -> None:
    """End at once: a thread that hangs keeps every gentler way from coming to its end."""
    sys.stderr.flush()
    os._exit(os.EX_SOFTWARE)


class BrokenBatchError(Exception):
    """Applying a batch failed in a way that nobody foresaw."""


class Drainer:
    """Drains indexes for one worker process."""

    def __init__(
        self,
        engine: Drainable,
        settings: Settings,
        clock: Clock,
        executor: Executor,
        *,
        committed: Callable[[str], None] = lambda _: None,
        trials: Callable[[str], Trials] | None = None,
        hung_after_s: float | None = None,
        end: Callable[[], None] = _end_process,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._executor = executor
        #: Told of each commit: the index's identity.
        self._committed = committed
        self._trials = trials or partial(Trials, settings)
        #: By index: what a search for culprits has found so far.
        self._suspected: dict[str, dict[Receipt, str]] = {}
        self._hung_after_s = hung_after_s or max(HUNG_AFTER_S_MIN, settings.grace_s / 2)
        self._end = end
        #: Set when the process is told to stop: drains end after the batch they are at.
        self.stopping = False

    async def drain(self, redis: ArqRedis, index_id: str) -> None:
        """Apply an index's log to its end, unless another worker does. With Redis gone it ends; the sweep finds what is left."""
        try:
            await self._drain(redis, index_id)
        except (RedisError, OSError) as error:
            log.warning("redis lost while draining", index=index_id, error=str(error))

    async def _drain(self, redis: ArqRedis, index_id: str) -> None:
        await begin_generation(redis, index_id)
        lease = Lease(redis, index_id, self._settings.lease_ttl_s)
        if not await lease.acquire():
            return
        try:
            reached(Step.DRAIN_LEASED)
            finished = await self._drain_held(redis, index_id, lease)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await lease.drop()
        if not finished:
            # After the drop, so that the job finds the lease free, whoever runs it.
            await enqueue_drain(redis, index_id)

    async def _drain_held(self, redis: ArqRedis, index_id: str, lease: Lease) -> bool:
        """Apply until nothing is left or it must end; returns False if somebody should go on soon."""
        slice_ends = self._clock.monotonic() + SLICE_S
        async with renewed(lease, self._settings.lease_ttl_s / 3) as hold:
            # Before anything is applied: whoever is killed by it must have counted.
            tried: int | None = await count_try(redis, index_id)
            while hold.ours:
                try:
                    if tried is not None and tried > self._settings.apply_tries_max:
                        again_and_again = tried > 2 * self._settings.apply_tries_max
                        await self._apply_with_care(redis, index_id, hold, sceptical=again_and_again)
                        if self.stopping:
                            # What it may not have come to is for another one, who is as careful: the tries stay counted.
                            return False
                    applied = await self._apply(redis, index_id, hold)
                except Fenced as error:
                    log.info("commit lost", index=index_id, reason=str(error))
                    await asyncio.sleep(FENCED_PAUSE_S)
                    continue
                except (UpwellError, NobodysFaultError) as error:
                    # Of the store, or of the index. The sweep comes back to it, at its own pace: a broken disk is not asked without pause.
                    log.error("index cannot be drained", index=index_id, error=str(error))
                    await forget_tries(redis, index_id)
                    return True
                except BrokenBatchError as error:
                    # So does it to this one, until it was tried often enough to be looked into.
                    log.error("batch broke", index=index_id, tries=tried, exc_info=error.__cause__)
                    return True
                if tried is not None:
                    hold.tell(forget_tries(redis, index_id))
                    tried = None
                if applied is None:
                    reached(Step.DRAIN_RELEASE)
                    if await lease.release() is not Released.KNOCKED:
                        return True
                elif self.stopping or self._clock.monotonic() > slice_ends:
                    return False
        return True

    async def _apply_with_care(self, redis: ArqRedis, index_id: str, hold: Hold, *, sceptical: bool) -> None:
        """If the next batch breaks whoever applies it, apply it entry by entry, up to one whose mutations are to blame: they fail.

        ``sceptical``: also if a trial of the batch comes to its end. What breaks us all the same may be what a trial has not, such as
        helpers, and our own memory; one entry at a time needs less of them.

        Raises NobodysFaultError if there is none, and whatever ``_apply`` raises.
        """
        log.warning("looking for what breaks batches", index=index_id)
        loop = asyncio.get_running_loop()
        async with self._trials(index_id) as trials:
            fine = await trials.breaks(None) is None
            if fine and not sceptical:
                # Those who did not finish it were killed by something else.
                return
            # A healthy index whose workers were ill-used is not left to creep to its end.
            until = self._clock.monotonic() + (SLICE_S if fine else inf)
            while hold.ours and not self.stopping and self._clock.monotonic() < until:
                mutations = await loop.run_in_executor(self._executor, self._engine.next_entry, index_id)
                suspected = self._suspected.setdefault(index_id, {})
                broken = await culprits(mutations, trials.breaks, suspected)
                applied = await self._apply(redis, index_id, hold, broken)
                self._suspected.pop(index_id, None)
                if broken or applied is None:
                    return

    async def _apply(
        self, redis: ArqRedis, index_id: str, hold: Hold, broken: Broken | None = None
    ) -> Applied | None:
        loop = asyncio.get_running_loop()

        def tell(through: int) -> None:
            loop.call_soon_threadsafe(hold.tell, hint_applying(redis, index_id, through, HINT_TTL_S))

        def apply(claims: TextClaims) -> Applied | None:
            sharing = Claims(redis, index_id, loop) if broken is None else None
            try:
                return self._engine.apply_batch(
                    index_id, lambda: hold.ours, tell, sharing, broken, claims=claims
                )
            except UpwellError:
                raise
            except Exception as error:
                raise BrokenBatchError from error

        async with claiming(redis, index_id) as claims:
            work = loop.run_in_executor(self._executor, apply, claims)
            applied = await self._unless_it_hangs(work, index_id, claims)
        if applied is not None:
            reached(Step.DRAIN_COMMITTED)
            log.debug("batch applied", index=index_id, **asdict(applied))
            self._committed(index_id)
            await publish(redis, Notice(index_id, applied.version, applied.through_position))
            reached(Step.DRAIN_TOLD)
        return applied

    async def _unless_it_hangs(
        self, work: asyncio.Future[Applied | None], index_id: str, claims: TextsClaimed
    ) -> Applied | None:
        """What comes of ``work``. If nothing does, this process ends itself: its thread, and what that has locked, cannot be had back.

        A batch that takes so long could not be committed any more, unless it is texts that take long, of which more and more have their
        vectors, or were told apart into words for a filter: what was found out of them is kept, so it is sooner done the next time. The next
        worker counts it among the tries.
        """
        try:
            while True:
                signs = claims.signs
                done, _ = await asyncio.wait([work], timeout=self._hung_after_s)
                if done or claims.signs == signs:
                    break
            if not done:
                # We may only just have been woken ourselves.
                done, _ = await asyncio.wait([work], timeout=WAKING_S)
        except asyncio.CancelledError:
            work.cancel()
            raise
        if not done:
            log.critical("a batch hangs; this worker ends itself", index=index_id)
            self._end()
        return await work
