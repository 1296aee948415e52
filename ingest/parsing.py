"""Parsing uploads beside the event loop: small ones in threads, large ones in processes of their own.

Text becomes columns under Python's lock, of which a process has one: a second core is of use only to a second process. Body and
columns travel as anonymous files (spool.py), so that a front end neither copies nor holds them. A parsing process that dies costs
its upload one more try in a thread, and is replaced.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

import pyarrow as pa
import structlog
from aiohttp import web

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
        size, bytes_max = request.content_length, how.bytes_max
        # Of an encoded body nobody knows how large it is.
        is_small = size is not None and size < SPOOLED_BYTES_MIN and not how.content_encoding
        if self._processes is None or is_small:
            body = await read_body(request, bytes_max)
            reached(Step.BODY_RECEIVED)
            return await self.run(lambda: _prepare(body, how))
        body_file = Spooled("upload")
        try:
            await receive(request, bytes_max, body_file)
        except BaseException:
            body_file.close()
            raise
        reached(Step.BODY_RECEIVED)
        # Shielded: while a process may open the files by their descriptors, these must not become other files'.
        return await asyncio.shield(self._in_process(body_file, how))

    async def _in_process(self, body: Spooled, how: Reading) -> PreparedMutation:
        assert self._processes is not None
        loop, processes = asyncio.get_running_loop(), self._processes
        with body, Spooled("columns") as columns:
            try:
                mutation = await loop.run_in_executor(processes, _parse_files, body.name, columns.name, how)
            except BrokenProcessPool:
                log.error("a parsing process died; its upload is parsed here")
                if self._processes is processes:
                    self._processes = self._new_processes()
                mutation = await self.run(lambda: _parse_files(body.name, columns.name, how))
            return PreparedMutation(mutation=mutation, columns=pa.py_buffer(columns.read()))

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


def _nothing() -> None:
    """A task that has a process started."""
