"""The few things that every door does, off the event loop; what else a door asks of the engine goes through its pools, too.

Each method is awaited on the loop and does its blocking work in a pool: parsing and encoding in one, the store's looks and
appends in another, searches in a third, so that a long search never keeps an upload waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import structlog
from aiohttp import web

from ingest.admission import Admission
from ingest.appending import Accepted, Appending, Check, Sender
from ingest.body import Rules
from ingest.body.inflate import Bytes
from ingest.metrics import Metrics
from ingest.parsing import Parsers, Reading, Received, Upload
from ingest.rates import TokenRates
from ingest.waiting import Visibility
from upwell.catalog.names import NewIndex
from upwell.catalog.record import IndexRecord
from upwell.catalog.tokens import Grant
from upwell.changeset import Changeset, Matrix, Operation
from upwell.doorbell.bell import Bell
from upwell.engine import Engine, Index
from upwell.errors import Corrupt, Unavailable, UpwellError
from upwell.log.entry import Mutation, PreparedMutation, prepare
from upwell.log.receipt import mint, parse
from upwell.log.request import Request
from upwell.outcome import Outcome, State
from upwell.shard.view import View
from upwell.sparse import Sparse

T = TypeVar("T")
log = structlog.get_logger()

#: Threads for looks at the store and for appends: they wait for the disk, so there may be more than cores.
STORE_THREADS = 8
#: Threads that turn the text of queries into vectors, or wait for a server that does.
EMBED_THREADS = 4
HOUSEKEEPING_S = 30.0
#: Damaged objects that are remembered as told.
DAMAGED_KEPT = 10_000


class Operations:
    """What doors call. Used from one event loop."""

    def __init__(self, engine: Engine, bell: Bell, visibility: Visibility, metrics: Metrics) -> None:
        self.engine = engine
        self.bell = bell
        self.visibility = visibility
        self.metrics = metrics
        #: Damaged objects that the log has told of.
        self._damaged: set[str] = set()
        self._rates = TokenRates(engine.settings.token_rate, engine.clock)
        self._admission = Admission(engine.settings, engine.clock, self.look)
        self._store_pool = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store")
        self._appending = Appending(engine, bell, metrics, self._store_pool)
        self._parsers = Parsers(engine.settings.parse_processes)
        self._query_pool = ThreadPoolExecutor(engine.settings.query_threads, thread_name_prefix="query")
        self._bulk_pool = ThreadPoolExecutor(1, thread_name_prefix="bulk")
        # Made now, though nothing is loaded yet: an operator is to hear of models that cannot be, and not a client.
        self._models = engine.models
        self._embed_pool = ThreadPoolExecutor(EMBED_THREADS, thread_name_prefix="embed")
        #: What else is to be done now and then, on the loop.
        self.chores: list[Callable[[], None]] = []

    def start(self) -> None:
        """Start what takes a while to start."""
        self._parsers.start()

    # Tokens and the catalog.

    async def grant_of(self, token: str, door: str) -> Grant:
        """What a token allows at a door. Raises Unauthenticated, Forbidden, or TooOften: each call counts as a request of the token's."""
        tokens = self.engine.tokens
        grant = tokens.admin if tokens.is_admin_token(token) else await self.look(tokens.grant_of, token)
        self._rates.count(grant)
        grant.check_door(door)
        return grant

    async def check_still_valid(self, token: str) -> None:
        """Raise Unauthenticated if a token that was good when its request began is not any more. Counts as no request."""
        if not self.engine.tokens.is_admin_token(token):
            await self.look(self.engine.tokens.grant_of, token)

    async def create_index(self, account: str, new: NewIndex) -> IndexRecord:
        """Make an index. Raises Exists."""
        return await self.look(self.engine.create, account, new)

    async def list_indexes(self, account: str) -> list[IndexRecord]:
        """An account's indexes by name."""
        return await self.look(lambda: list(self.engine.catalog.list(account)))

    async def find_index(self, account: str, name: str) -> Index:
        """The index that a name stands for now. Raises NotFound or Gone."""
        return await self.look(self.engine.find, account, name)

    async def delete_index(self, account: str, name: str) -> None:
        """Delete an index. Raises NotFound or Gone."""
        await self.look(self.engine.catalog.delete, account, name)

    # Writing.

    async def parse(self, function: Callable[[], T]) -> T:
        """Run a small parser in a thread."""
        return await self._parsers.run(function)

    async def upload(
        self,
        index: Index,
        request: web.Request,
        operation: Operation,
        rules: Rules,
        *,
        sender: Sender,
        may: Check,
    ) -> tuple[Accepted, Mutation]:
        """Read an upload, make it durable, and ring. ``may`` blocks, and raises if there is no room for it.

        Raises InvalidLine, TooLarge, Invalid, KeyReused or Unavailable.
        """
        return await self.take(
            index, request, self._upload(request, operation, rules), sender=sender, may=may
        )

    async def take(
        self, index: Index, request: web.Request, how: Reading, *, sender: Sender, may: Check | None = None
    ) -> tuple[Accepted, Mutation]:
        """The same for a body that is read as ``how`` says. Also raises what that does."""
        if sender.key is None and may is not None:
            # What cannot be a request that is known already need not be read to be refused.
            await self.look(may)
        prepared = await self._parsers.upload(request, how)
        return await self.append_prepared(index, prepared, sender, may), prepared.mutation

    async def receive(self, request: web.Request, bytes_max: int) -> Received:
        """The body of a request that says itself which index it is about. Raises TooLarge, TooSlow or Invalid."""
        return await self._parsers.receive(request, bytes_max)

    async def look_into(self, received: Received, function: Callable[[Bytes], T]) -> T:
        """What ``function``, which may go to another process, says of a body. Raises what it does."""
        return await self._parsers.look(received, function)

    async def read_received(self, received: Received, how: Reading) -> PreparedMutation:
        """The mutation that a body is. Raises what ``how`` does."""
        return await self._parsers.prepare(received, how)

    async def rehearse(self, request: web.Request, operation: Operation, rules: Rules) -> Mutation:
        """Read an upload, and do nothing with it. Raises InvalidLine, TooLarge or Invalid."""
        return (await self._parsers.upload(request, self._upload(request, operation, rules))).mutation

    def _upload(self, request: web.Request, operation: Operation, rules: Rules) -> Upload:
        return Upload(
            operation=operation,
            content_type=request.headers.get("Content-Type"),
            content_encoding=request.headers.get("Content-Encoding"),
            rules=rules,
            accepted_at=self.engine.clock.now(),
        )

    async def admit(self, index: Index, *, adds_rows: bool = False) -> None:
        """Before the body of a write is read: raises Behind if its index waits with too much already. See Admission."""
        await self._admission.check(index, adds_rows=adds_rows)

    async def append(
        self, index: Index, changeset: Changeset, sender: Sender, may: Check | None = None
    ) -> Accepted:
        """Make a mutation durable, ring for the workers, and return its id. ``may`` blocks, and raises if it must not be.

        Raises KeyReused or Unavailable.
        """
        accepted_at = self.engine.clock.now()
        prepared = await self.parse(lambda: prepare(changeset, accepted_at))
        return await self.append_prepared(index, prepared, sender, may)

    async def retry(self, index: Index, mutation_id: str, sender: Sender) -> Accepted:
        """Append a mutation that failed once more, as a new one. Raises Invalid for one that did not fail, NotFound, Behind,
        Corrupt or Unavailable.

        Whoever asks, and however often, it becomes one new mutation for as long as requests are remembered; when that has failed as
        well, another one.
        """
        # All that came of it are to do the same, so it is sent as it was at first, whatever has become of their bytes.
        prepared = await self.look(index.sent.again, mutation_id, self.engine.clock.now())
        request = Request.of_retry(mutation_id)
        while (settled := await self.look(index.requests.answer, request.name)) is not None:
            followed = mint(index.record.receipt_key, settled.receipt)
            if (await self.look(index.outcomes.of, followed)).state is not State.FAILED:
                return Accepted(followed, settled.receipt, index, replayed=True)
            request = Request.of_retry(followed)
        await self.admit(index, adds_rows=prepared.mutation.brings_rows)
        return await self.append_prepared(index, prepared, replace(sender, key=None), None, request)

    async def append_prepared(
        self,
        index: Index,
        prepared: PreparedMutation,
        sender: Sender,
        may: Check | None = None,
        request: Request | None = None,
    ) -> Accepted:
        """As ``append``, of a mutation that is prepared. ``request``: the one that it is, of a sender without a key."""
        return await self._appending.append(index, prepared, sender, may, request)

    # Reading.

    async def read(self, index: Index, function: Callable[[View], T]) -> T:
        """Run ``function`` on a view that was the newest at some moment after this call began."""
        return await self.ask(lambda: function(index.newest.get()))

    async def ask(self, function: Callable[[], T]) -> T:
        """Run a query in the pool for them."""
        return await asyncio.get_running_loop().run_in_executor(self._query_pool, function)

    async def bulk(self, function: Callable[[], T]) -> T:
        """Run a piece of something long in the thread for that, where pieces of several take turns and hold up nothing else."""
        return await asyncio.get_running_loop().run_in_executor(self._bulk_pool, function)

    async def look(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a short look at the store in the pool for it."""
        return await asyncio.get_running_loop().run_in_executor(self._store_pool, function, *arguments)

    def met_damage(self, error: Corrupt) -> None:
        """Count a request that met a damaged object, and log each such object once."""
        self.metrics.corrupt_reads.inc()
        key = str(error.facts.get("key", ""))
        if key not in self._damaged:
            log.error("damaged object: see upwell fsck", key=key, error=str(error))
            if len(self._damaged) < DAMAGED_KEPT:
                self._damaged.add(key)

    def report(self, request: web.Request, error: UpwellError, status: int) -> None:
        """Let the operator know of a failure of ours, which was, or would elsewhere be, answered with this status."""
        if isinstance(error, Corrupt):
            self.met_damage(error)
        else:
            log.error(
                "request failed", method=request.method, path=request.path, status=status, error=str(error)
            )

    # Waiting.

    async def outcome(self, index: Index, mutation_id: str, wait_s: float) -> Outcome:
        """A mutation's outcome, after waiting up to ``wait_s`` for it to be visible or failed. Raises NotFound."""
        receipt = parse(index.record.receipt_key, mutation_id)
        if wait_s > 0:
            await self.visibility.reached(index, receipt.position, wait_s)
        return await self.look(index.outcomes.of, mutation_id)

    async def seen(self, index: Index, mutation_id: str, wait_s: float) -> None:
        """Return once queries reflect ``mutation_id``. Raises NotFound, or Unavailable after ``wait_s``."""
        receipt = parse(index.record.receipt_key, mutation_id)
        if not await self.visibility.reached(index, receipt.position, wait_s):
            raise Unavailable("the mutation is not visible yet", mutationId=mutation_id)

    async def caught_up(self, index: Index, wait_s: float) -> None:
        """Return once queries reflect all that was acknowledged before this call, by whichever front end. Raises Unavailable after
        ``wait_s``."""

        def newest() -> int:
            return index.log.tail(index.head.refresh().applied_through)

        position = await self.look(newest)
        if not await self.visibility.reached(index, position, wait_s):
            raise Unavailable(
                "writes that were acknowledged before this read are not visible yet; try again later, or with "
                "read-your-writes turned off"
            )

    async def removals_applied(self, index: Index, wait_s: float) -> None:
        """Wait for those mutations that remove what they describe, a namespace say, but no longer than ``wait_s``."""
        await self.look(index.load)
        await self.visibility.reached(index, index.backlog.last_removal, wait_s)

    # Text.

    async def embed_query(
        self, index: Index, texts: Sequence[str], *, dense: bool, sparse: bool
    ) -> tuple[Matrix | None, Sparse | None]:
        """What the index's models make of questions: a dense vector each, and a sparse one, as far as asked for.

        Raises Invalid for a model that is not known here, TextRefused or ModelAway.
        """
        record = index.record

        def made() -> tuple[Matrix | None, Sparse | None]:
            vectors = rows = None
            if dense and record.embedding_model is not None:
                vectors = self._models.dense(record.embedding_model).embed(texts)
            if sparse and record.sparse_embedding_model is not None:
                rows = self._models.sparse(record.sparse_embedding_model).queries(texts)
            return vectors, rows

        return await asyncio.get_running_loop().run_in_executor(self._embed_pool, made)

    # Housekeeping.

    async def keep_house(self) -> None:
        """For as long as the front end lives: let go of indexes that were deleted, here or elsewhere."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self._rates.forget_idle()
            for chore in self.chores:
                chore()
            try:
                dead = await self.look(self.engine.forget_dead)
            except UpwellError as error:
                log.warning("housekeeping put off", error=str(error))
                continue
            for index_id in dead:
                self._admission.forget(index_id)
                self._appending.forget(index_id)

    async def close(self) -> None:
        """Finish what was accepted, then stop the pools."""
        await self._appending.drained()
        await self._parsers.close()
        # Who waits for a model's server is let go.
        await asyncio.to_thread(self.engine.close)
        for pool in (self._query_pool, self._store_pool, self._bulk_pool, self._embed_pool):
            await asyncio.to_thread(pool.shutdown, wait=True)
