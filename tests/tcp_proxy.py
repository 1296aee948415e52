"""A TCP proxy for tests: between a client and a server, and able to do to their connections what networks do.

It runs on a loop in a thread of its own; its methods may be called from any thread and have happened when they return.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
CHUNK_BYTES = 1 << 14
#: A place to connect to: a port of 127.0.0.1, or the path of a socket.
Target = int | str


@dataclass
class Weather:
    """What connections go through at present."""

    #: Each chunk comes this much later, each way, and by chance as much again as the jitter says. Chunks never overtake.
    latency_s: float = 0.0
    jitter_s: float = 0.0
    #: How fast bytes go, each way and connection; None: as they come.
    bytes_per_s: float | None = None


class TcpProxy:
    """One port of 127.0.0.1 that leads to ``target``. Use as a context manager."""

    def __init__(self, target: Target | None) -> None:
        self._target = target
        self._weather = Weather()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[asyncio.Task[None]] = set()
        #: How many connections were accepted, and cut.
        self.accepted = 0
        self.cut_count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The address of a Redis behind it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def lead_to(self, target: Target | None, *, cut: bool = True) -> None:
        """Connections from now on lead there; None: they are closed at once. Those there are end, or (``cut=False``) stay."""
        self._call(self._lead_to(target, cut=cut))

    def pause(self) -> None:
        """Nothing goes through; connections stay, and new ones are accepted: a server that hangs."""
        self._call(self._set(self._flowing.clear))

    def resume(self) -> None:
        """Everything goes on, what was on its way too."""
        self._call(self._set(self._flowing.set))

    def change(self, weather: Weather) -> None:
        """From the next chunk on."""
        self._weather = weather

    def cut(self, share: float = 1.0) -> None:
        """Close connections, or by chance a share of them, in the middle of whatever they carry."""
        self._call(self._cut(share))

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        self._server.close()
        await self._cut(1.0)

    async def _set(self, change: Any) -> None:
        change()

    async def _lead_to(self, target: Target | None, *, cut: bool) -> None:
        self._target = target
        if cut:
            await self._cut(1.0)

    async def _cut(self, share: float) -> None:
        chosen = [link for link in self._links if random.random() < share]
        for link in chosen:
            link.cancel()
        self.cut_count += len(chosen)
        await asyncio.gather(*chosen, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            await self._link(reader, writer)
        except asyncio.CancelledError:
            pass  # cut
        finally:
            self._links.discard(link)
            writer.transport.abort()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._target is None:
            return
        try:
            if isinstance(self._target, int):
                there = await asyncio.open_connection("127.0.0.1", self._target)
            else:
                there = await asyncio.open_unix_connection(self._target)
        except OSError:
            return
        ways = [
            asyncio.create_task(self._carry(reader, there[1])),
            asyncio.create_task(self._carry(there[0], writer)),
        ]
        try:
            # When one side has nothing more to say, the other is closed too: Redis knows no half of a connection.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there[1].transport.abort()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                weather = self._weather
                late_s = weather.latency_s + random.uniform(0, weather.jitter_s)
                if weather.bytes_per_s:
                    late_s += len(data) / weather.bytes_per_s
                if late_s:
                    await asyncio.sleep(late_s)
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
