"""Making mutations durable: where a write of any door ends, whatever came before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TypeVar

from ingest.metrics import Metrics
from upwell.doorbell.bell import Bell
from upwell.engine import Engine, Index
from upwell.errors import Gone, KeyReused
from upwell.failpoint import Step, reached
from upwell.log.appender import Appender
from upwell.log.entry import PreparedMutation, request_of
from upwell.log.receipt import Receipt, mint
from upwell.log.request import Request, Settled

T = TypeVar("T")
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A mutation that is durable: acknowledged from here on. ``replayed``: the request was sent before, and this is what it became."""

    mutation_id: str
    receipt: Receipt
    #: Whose it is: the index that was written to, or another that was made in its place meanwhile.
    index: Index
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends a mutation: the identity of a token, and the key that it gave the request, if it may send it again."""

    by: str
    key: str | None = None


class Appending:
    """Appends to the logs of all indexes. Used from one event loop."""

    def __init__(self, engine: Engine, bell: Bell, metrics: Metrics, executor: Executor) -> None:
        """``executor``: for looks at the store, and for appends."""
        self._engine = engine
        self._bell = bell
        self._metrics = metrics
        self._executor = executor
        self._appenders: dict[str, Appender] = {}

    async def append(
        self,
        index: Index,
        prepared: PreparedMutation,
        sender: Sender,
        may: Check | None = None,
        request: Request | None = None,
    ) -> Accepted:
        """Make a mutation durable, ring for the workers, and return its id. ``may`` blocks, and raises if it must not be.
        ``request``: the one that it is, of a sender without a key.

        If another index was made in the place of this one meanwhile it becomes a mutation of that: nothing was ever acknowledged of this
        one, and what is checked of a write is the same of both (``NewIndex.like``). Raises KeyReused, Gone or Unavailable.
        """
        while True:
            try:
                return await self._append(index, prepared, sender, may, request)
            except Gone:
                # An index takes the place of others that it names, and is none of those: so this comes to an end.
                successor = await self._look(self._engine.successor, index)
                if successor is None:
                    raise
                index = successor

    async def _append(
        self,
        index: Index,
        prepared: PreparedMutation,
        sender: Sender,
        may: Check | None,
        request: Request | None,
    ) -> Accepted:
        if sender.key is not None:
            request = await self._look(request_of, prepared, sender.by, sender.key)
            settled = await self._look(index.requests.answer, request.name)
            if settled is not None:
                await self._hold(index)
                return _replayed(index, request, settled)
        if may is not None:
            # Only now: what was accepted once is not refused for what came of it.
            await self._look(may)
        mutation = replace(prepared.mutation, by=sender.by, request=request)
        reached(Step.APPEND_BEFORE)
        receipt = await self._appender(index).append(
            PreparedMutation(mutation=mutation, columns=prepared.columns)
        )
        await self._hold(index)
        if request is not None:
            settled = await self._look(index.requests.settle, request, receipt)
            if settled.receipt != receipt:
                # The same request came twice at once. What we appended is left out by whoever applies it.
                return _replayed(index, request, settled)
        self._metrics.mutations.labels(mutation.operation).inc()
        self._metrics.rows.labels(mutation.operation).inc(mutation.rows)
        reached(Step.ACK_BEFORE)
        return Accepted(mint(index.record.receipt_key, receipt), receipt, index)

    async def _hold(self, index: Index) -> None:
        """What is in the log of an index in whose place another was made is lost, and must not be acknowledged. Raises Gone."""
        if index.may_be_replaced:
            await self._look(index.hold)

    def _appender(self, index: Index) -> Appender:
        def appended(position: int, entry: Sequence[PreparedMutation]) -> None:
            self._bell.ring(index.record.id)
            index.backlog.appended(position, [one.mutation for one in entry])

        appender = self._appenders.get(index.record.id)
        if appender is None:
            appender = self._appenders[index.record.id] = Appender(
                index.log_writer(),
                self._executor,
                batch_vectors_max=self._engine.settings.batch_vectors_max,
                on_appended=appended,
            )
        return appender

    def forget(self, index_id: str) -> None:
        """Let go of an index that was deleted, unless something is being appended to it."""
        appender = self._appenders.get(index_id)
        if appender is not None and appender.idle:
            del self._appenders[index_id]

    async def drained(self) -> None:
        """Return once all that was handed to ``append`` so far is durable or has failed."""
        await asyncio.gather(*(appender.drained() for appender in self._appenders.values()))

    async def _look(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def _replayed(index: Index, request: Request, settled: Settled) -> Accepted:
    if settled.digest != request.digest:
        raise KeyReused("the Idempotency-Key was used for another request; use a new key for a new request")
    return Accepted(mint(index.record.receipt_key, settled.receipt), settled.receipt, index, replayed=True)
