"""Trying out the next log entry of an index in a process of its own, which may break without harm to anybody.

The trial does all that a drain does, on a store that reads like the real one and keeps nothing of what is written.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from upwell import failpoint
from upwell.children import begin_helper
from upwell.clock import SystemClock
from upwell.engine import Engine
from upwell.errors import Unavailable, UpwellError
from upwell.settings import Settings
from upwell.shard.batch import Broken
from upwell.shard.embedding import NoClaims
from upwell.store import Store, open_store
from upwell.streamed import Part, chunks_of

log = structlog.get_logger()

#: A process that dies may have been killed for no fault of the mutation's: so often it must die to prove one.
DEATHS_MIN = 3
#: A hundred times what the largest batch takes. A search (poison.py) for what hangs must come to its end before its job's time is over.
TRIAL_TIMEOUT_S = 120.0
REASON_CHARACTERS_MAX = 500
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class ForgetfulStore:
    """Reads from a store, and forgets what it is told to write or to delete."""

    real: Store

    def create(self, key: str, *parts: Part) -> None:  # noqa: ARG002  it is a Store's
        for part in parts:
            for _ in chunks_of(part):
                pass

    def confirm(self, key: str) -> None:
        pass

    def read(self, key: str) -> memoryview:
        return self.real.read(key)

    def exists(self, key: str) -> bool:
        return self.real.exists(key)

    def size_bytes(self, key: str) -> int:
        return self.real.size_bytes(key)

    def list(self, folder: str, *, after: str = "") -> Iterator[str]:
        return self.real.list(folder, after=after)

    def delete(self, key: str) -> None:
        pass

    def delete_folder(self, folder: str) -> None:
        pass


class Trials:
    """One index's trials. Use as an async context manager."""

    def __init__(self, settings: Settings, index_id: str, timeout_s: float = TRIAL_TIMEOUT_S) -> None:
        self._settings = settings
        self._index_id = index_id
        self._timeout_s = timeout_s
        self._pool: ProcessPoolExecutor | None = None
        self._signs = _CONTEXT.RawValue(ctypes.c_uint64)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    async def breaks(self, broken: Broken | None) -> str | None:
        """Why the next entry cannot be applied even without the mutations of ``broken``, or (None) the next batch; None if it can.

        Raises Unavailable or Corrupt: then the store, the machine or the index itself is not what a trial needs, and nothing is proved.
        """
        reason: str | None = None
        for _ in range(DEATHS_MIN):
            try:
                reason = await self._once(broken)
                break
            except BrokenProcessPool:
                reason = f"a process that applied it died, {DEATHS_MIN} times out of {DEATHS_MIN}"
            except TimeoutError:
                reason = f"applying it took longer than {self._timeout_s:g} s"
                self._pool = None
                break
            self._pool = None
        if reason is not None:
            log.warning("trial broke", index=self._index_id, reason=reason)
        return reason

    async def _once(self, broken: Broken | None) -> str | None:
        loop = asyncio.get_running_loop()
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1,
                _CONTEXT,
                initializer=_begin,
                initargs=(os.getpid(), self._settings, self._signs),
            )
        try:
            child = await loop.run_in_executor(self._pool, os.getpid)
        except (BrokenProcessPool, OSError) as error:
            # Before it has seen any mutation: the store, or the machine, is not what a trial needs.
            self._pool = None
            raise Unavailable("a process for trials could not begin") from error
        answer = loop.run_in_executor(self._pool, _try, self._index_id, broken)
        try:
            return await self._answered(answer)
        except (TimeoutError, asyncio.CancelledError):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(BrokenProcessPool):
                await answer
            raise

    async def _answered(self, answer: asyncio.Future[str | None]) -> str | None:
        """What a trial says. Raises TimeoutError if it takes too long, and makes no more vectors of texts either: a model may be slow."""
        while True:
            signs = self._signs.value
            done, _ = await asyncio.wait([answer], timeout=self._timeout_s)
            if done:
                return await answer
            if self._signs.value == signs:
                raise TimeoutError


class _Signs(NoClaims):
    """For a trial, which works alone: tells whoever waits for it that it goes on."""

    def __init__(self, signs: ctypes.c_uint64) -> None:
        self._signs = signs

    def went_on(self) -> None:
        """Some vectors more are made, or some texts more are asked for words."""
        self._signs.value += 1


#: In the child: what trials are made with.
_engine: Engine | None = None
_signs: _Signs | None = None


def _begin(worker: int, settings: Settings, signs: ctypes.c_uint64) -> None:
    """In a new process: open the store, and change nothing of it."""
    global _engine, _signs  # noqa: PLW0603  a process of a pool has nowhere else to keep them
    _signs = _Signs(signs)
    begin_helper(worker, "upwell trial")
    # The worker says what comes of it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    failpoint.leave_nothing_to_chance()
    store = open_store(settings.store, settings.data, to_look=True)
    _engine = Engine(ForgetfulStore(store), settings, SystemClock())


def _try(index_id: str, broken: Broken | None) -> str | None:
    """Apply the next entry or batch, without a trace; returns what went wrong. Raises Unavailable or Corrupt."""
    assert _engine is not None
    try:
        _engine.apply_batch(index_id, lambda: True, broken=broken, claims=_signs)
    except UpwellError:
        raise
    except Exception as error:  # noqa: BLE001  whatever it is, it is what is looked for
        return f"{type(error).__name__}: {error}"[:REASON_CHARACTERS_MAX]
    return None
