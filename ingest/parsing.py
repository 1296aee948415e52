"""Parsing uploads beside the event loop: small ones in threads, large ones in processes of their own.

Text becomes columns under Python's lock, of which a process has one: a second core is of use only to a second process. Body and
columns travel as anonymous files (spool.py), so that a front end neither copies nor holds them. A parsing process that dies costs
its upload one more try in a thread, and is replaced.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import pyarrow as pa
import structlog
from aiohttp import hdrs, web

from ingest.body import Rules, parse_upload
from ingest.body.inflate import Bytes
from ingest.requests import read_body
from ingest.spool import (
    POSSIBLE,
    SPOOLED_BYTES_MIN,
    Spooled,
    SpooledName,
    map_whole,
    opened,
    receive,
)
from upwell.changeset import Changeset, Operation
from upwell.children import begin_helper
from upwell.failpoint import Step, reached
from upwell.log.entry import Mutation, PreparedMutation, prepare

T = TypeVar("T")
log = structlog.get_logger()

THREADS = 2


class Reading(Protocol):
    """How to read an upload's body. Goes to other processes, so it is made of plain values."""

    @property
    def content_encoding(self) -> str | None:
        """As the request has it."""

    @property
    def bytes_max(self) -> int:
        """Of the body, sent or inflated."""

    @property
    def accepted_at(self) -> datetime:
        """When the request came."""

    def changeset(self, body: Bytes) -> Changeset:
        """What the body, as it was sent, comes to. Raises an UpwellError for one that cannot be accepted; blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """How to read a body of vectors in the forms that ``ingest.body`` knows."""

    operation: Operation
    content_type: str | None
    content_encoding: str | None
    rules: Rules
    accepted_at: datetime

    @property
    def bytes_max(self) -> int:
        return self.rules.bytes_max

    def changeset(self, body: Bytes) -> Changeset:
        return parse_upload(
            body,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            operation=self.operation,
            rules=self.rules,
        )


class Received:
    """A request's body, as it was sent: in memory, or in a file. Leave its ``with``, or ``release`` it. Used from one event loop."""

    def __init__(self, body: bytes | Spooled) -> None:
        self.body = body
        self._holders = 1

    def hold(self) -> None:
        """Keep the file until a ``release`` more."""
        self._holders += 1

    def release(self) -> None:
        """Let go of it; the last one to do so closes the file."""
        self._holders -= 1
        if not self._holders and isinstance(self.body, Spooled):
            self.body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Parsers:
    """Threads, and so many processes, that parse. Used from one event loop."""

    def __init__(self, processes: int) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="parse")
        self._count = processes if POSSIBLE else 0
        self._processes = self._new_processes() if self._count else None

    def start(self) -> None:
        """Start the processes, so that the first large upload does not wait for them."""
        if self._processes is not None:
            for _ in range(self._count):
                self._processes.submit(_nothing)

    async def run(self, function: Callable[[], T]) -> T:
        """Run a small parser in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def upload(self, request: web.Request, how: Reading) -> PreparedMutation:
        """Read a request's body and prepare its mutation. Raises TooLarge, Invalid, and what ``how`` does."""
        with await self.receive(request, how.bytes_max) as received:
            return await self.prepare(received, how)

    async def receive(self, request: web.Request, bytes_max: int) -> Received:
        """A request's body, all of it. Raises TooLarge, TooSlow or Invalid."""
        size = request.content_length
        # Of an encoded body nobody knows how large it is.
        is_small = (
            size is not None and size < SPOOLED_BYTES_MIN and not request.headers.get(hdrs.CONTENT_ENCODING)
        )
        if self._processes is None or is_small:
            received = Received(await read_body(request, bytes_max))
        else:
            file = Spooled("upload")
            try:
                await receive(request, bytes_max, file)
            except BaseException:
                file.close()
                raise
            received = Received(file)
        reached(Step.BODY_RECEIVED)
        return received

    async def look(self, received: Received, function: Callable[[Bytes], T]) -> T:
        """What ``function`` says of a body, in whichever process; it goes there. Raises what it does."""
        body = received.body
        if not isinstance(body, Spooled):
            return await self.run(lambda: function(body))
        return await self._held(received, self._in_process(_look_into_file, body.name, function))

    async def prepare(self, received: Received, how: Reading) -> PreparedMutation:
        """The mutation that a body is. Raises what ``how`` does."""
        body = received.body
        if not isinstance(body, Spooled):
            return await self.run(lambda: _prepare(body, how))
        return await self._held(received, self._prepared_in_process(body, how))

    async def _held(self, received: Received, work: Coroutine[Any, Any, T]) -> T:
        """Do the work to its end, whoever waits for it: while a process may open files by their descriptors, these must not become
        other files'."""
        received.hold()
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: received.release())
        return await asyncio.shield(task)

    async def _prepared_in_process(self, body: Spooled, how: Reading) -> PreparedMutation:
        with Spooled("columns") as columns:
            mutation = await self._in_process(_parse_files, body.name, columns.name, how)
            return PreparedMutation(mutation=mutation, columns=pa.py_buffer(columns.read()))

    async def _in_process(self, function: Callable[..., T], *arguments: object) -> T:
        """Run ``function`` in a process; once more, in a thread, if that dies."""
        assert self._processes is not None
        loop, processes = asyncio.get_running_loop(), self._processes
        try:
            return await loop.run_in_executor(processes, function, *arguments)
        except BrokenProcessPool:
            log.error("a parsing process died; its upload is parsed here")
            if self._processes is processes:
                self._processes = self._new_processes()
            return await self.run(lambda: function(*arguments))

    def _new_processes(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=begin_helper,
            initargs=(os.getpid(), "upwell parse"),
        )

    async def close(self) -> None:
        """Finish what was begun, then stop threads and processes."""
        await asyncio.to_thread(self._threads.shutdown, wait=True)
        if self._processes is not None:
            await asyncio.to_thread(self._processes.shutdown, wait=True)


def _prepare(body: bytes | memoryview, how: Reading) -> PreparedMutation:
    changeset = how.changeset(body)
    reached(Step.BODY_PARSED)
    return prepare(changeset, how.accepted_at)


def _parse_files(body: SpooledName, columns: SpooledName, how: Reading) -> Mutation:
    """Parse the body in one file and write the columns into another; returns the rest of the mutation."""
    with opened(body, os.O_RDONLY) as fd:
        prepared = _prepare(map_whole(fd), how)
    with opened(columns, os.O_WRONLY) as fd:
        view = memoryview(prepared.columns)
        while view.nbytes:
            view = view[os.write(fd, view) :]
    return prepared.mutation


def _look_into_file(body: SpooledName, function: Callable[[Bytes], T]) -> T:
    with opened(body, os.O_RDONLY) as fd:
        return function(map_whole(fd))


def _nothing() -> None:
    """A task that has a process started."""
