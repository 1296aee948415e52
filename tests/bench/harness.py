"""What the benchmarks share: a service as a user would start it, calls to it, its use of memory, processor and disk, and tables.

A benchmark measures ``upwell serve`` on a fresh temporary directory over the Cloudflare door, and nothing inside it. What is
here can be imported in the peers' environment too, which need not have aiohttp and orjson: they are imported where they are used.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import aiohttp

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "tests" / "bench" / "results"
PEERS_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
TOKEN = "bench-token-0123456789"
BASE = "/client/v4/accounts/default/vectorize/v2/indexes"
MIB = 1 << 20
STOP_S = 60
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Serving:
    """A running ``upwell serve``."""

    url: str
    data: Path
    pid: int

    @property
    def store(self) -> Path:
        """The folder of everything that is kept."""
        return self.data / "store"

    def usage(self) -> Usage | None:
        """What its processes use now."""
        return usage(self.pid)


@contextlib.contextmanager
def serving(workers: int = 1, **settings: str) -> Iterator[Serving]:
    """``upwell serve`` on a fresh directory that goes with it; settings by their names in the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPWELL_")}
    environment = kept | {"UPWELL_TOKEN": TOKEN, "UPWELL_LOG_LEVEL": "warning"} | settings
    command = [sys.executable, "-c", "from ingest.cli import main; main()", "serve"]
    with tempfile.TemporaryDirectory(prefix="upwell-bench-") as folder:
        data = Path(folder) / "data"
        options = ["--port", "0", "--data", str(data), "--workers", str(workers)]
        process = subprocess.Popen(
            [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, env=environment, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("upwell ready on "):
                raise RuntimeError(f"upwell serve did not start; it said {line!r}")
            yield Serving(line.strip().removeprefix("upwell ready on "), data, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)


class Calls:
    """Calls over the Cloudflare door. Whatever is refused raises RuntimeError."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        """One request; returns the envelope's result."""
        import orjson

        async with self._session.request(method, BASE + path, data=body) as answer:
            envelope = orjson.loads(await answer.read())
            if not envelope["success"]:
                raise RuntimeError(f"{method} {path}: {envelope['errors']}")
            return envelope["result"]

    async def create(self, name: str, dimensions: int) -> None:
        """Make a cosine index."""
        config = {"dimensions": dimensions, "metric": "cosine"}
        await self.call("POST", "", json.dumps({"name": name, "config": config}).encode())

    async def upsert(self, name: str, body: bytes) -> str:
        """Upload NDJSON; returns the mutationId."""
        return str((await self.call("POST", f"/{name}/upsert", body))["mutationId"])

    async def upsert_data(self, name: str, body: bytes) -> str:
        """Send texts through the Upstash door; returns the mutationId."""
        async with self._session.post(f"/upstash/default/{name}/upsert-data", data=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"upsert-data: {await answer.text()}")
            return answer.headers["X-Mutation-Id"]

    async def delete(self, name: str, ids: Sequence[str]) -> str:
        """Delete by ids; returns the mutationId."""
        body = json.dumps({"ids": list(ids)}).encode()
        return str((await self.call("POST", f"/{name}/delete_by_ids", body))["mutationId"])

    async def visible(self, name: str, mutation: str) -> None:
        """Wait until a mutation is visible."""
        while (state := await self._state(name, mutation)) != "visible":
            if state == "failed":
                raise RuntimeError(f"mutation {mutation} failed")

    async def count(self, name: str) -> int:
        """How many vectors the index holds."""
        return int((await self.call("GET", f"/{name}/info"))["vectorCount"])

    async def _state(self, name: str, mutation: str) -> str:
        return str((await self.call("GET", f"/{name}/mutations/{mutation}?wait=60"))["state"])


@contextlib.asynccontextmanager
async def connected(url: str, connections: int = 0) -> AsyncIterator[Calls]:
    """Calls over at most so many connections; 0: as many as it takes."""
    import aiohttp

    headers = {"Authorization": f"Bearer {TOKEN}"}
    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(url, headers=headers, connector=connector, timeout=timeout) as session:
        yield Calls(session)


class Clusters:
    """Seeded vectors of unit length around 64 centres, as embeddings are."""

    def __init__(self, dimensions: int, seed: int = 11) -> None:
        self._generator = np.random.default_rng(seed)
        self._centres = _unit(self._generator.normal(size=(64, dimensions)).astype(np.float32))

    def points(self, rows: int) -> Matrix:
        """The next ``rows`` vectors."""
        return self.numbered(rows)[0]

    def numbered(self, rows: int) -> tuple[Matrix, npt.NDArray[np.int64]]:
        """The next ``rows`` vectors, and which centre each lies around."""
        dimensions = self._centres.shape[1]
        noise = self._generator.standard_normal(size=(rows, dimensions), dtype=np.float32)
        numbers = self._generator.integers(64, size=rows)
        points = _unit(self._centres[numbers] + noise * np.float32(0.6 / np.sqrt(dimensions)))
        return points, numbers


def _unit(points: Matrix) -> Matrix:
    unit: Matrix = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit


def ndjson(ids: Sequence[str], points: Matrix) -> bytes:
    """An upload's body: id, values and a little metadata a line."""
    import orjson

    lines = (
        orjson.dumps(
            {"id": id, "values": point, "metadata": {"row": row, "topic": "wells"}},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        for row, (id, point) in enumerate(zip(ids, points, strict=True))
    )
    return b"\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Memory that processes hold now, and processor time that they have taken so far."""

    rss_anon_mib: float
    rss_mib: float
    cpu_s: float


def usage(pid: int) -> Usage | None:
    """What a process and all below it use; None where there is no /proc."""
    if not Path("/proc/self/status").exists():
        return None
    found = [_usage_of(one) for one in process_tree(pid)]
    return Usage(
        rss_anon_mib=sum(one.rss_anon_mib for one in found),
        rss_mib=sum(one.rss_mib for one in found),
        cpu_s=sum(one.cpu_s for one in found),
    )


def process_tree(pid: int) -> list[int]:
    """A process and all below it."""
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            below.setdefault(int(_stat_fields(path)[1]), []).append(int(path.parent.name))
    tree = [pid]
    for one in tree:
        tree += below.get(one, [])
    return tree


def _usage_of(pid: int) -> Usage:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = _stat_fields(Path(f"/proc/{pid}/stat"))
    except OSError:
        return Usage(rss_anon_mib=0, rss_mib=0, cpu_s=0)
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return Usage(
        rss_anon_mib=kib.get("RssAnon", 0) / 1024,
        rss_mib=kib.get("VmRSS", 0) / 1024,
        cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
    )


def _stat_fields(path: Path) -> list[str]:
    """The fields of a stat file after the process's name, which may hold spaces: state, parent, and on."""
    return path.read_text().rpartition(")")[2].split()


class Others:
    """How many cores programs that are none of ours kept busy meanwhile; with them, figures are too low.

    Use as a context manager around all that is measured, servers' ends included: a child's time counts once it has ended.
    """

    #: Known after the end; None where there is no /proc.
    cores: float | None = None

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._before = _others_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after = _others_s()
        if self._before is not None and after is not None:
            self.cores = max(0.0, (after - self._before) / (time.perf_counter() - self._began))

    def tell(self) -> None:
        """Print it."""
        if self.cores is not None:
            print(f"other programs took {self.cores:.2f} cores meanwhile")


def _others_s() -> float | None:
    """Processor time that all programs but ours have taken so far."""
    try:
        user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    except OSError:
        return None
    return (user + nice + system + irq + softirq) / TICKS_PER_S - sum(os.times()[:4])


def disk_bytes(folder: Path) -> int:
    """The sum of the sizes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Written:
    """Every object that ever appears below a folder, with its size. Looks every 50 ms, so that what is deleted later counts.

    Use as a context manager. Names that begin with a dot are the store's private files, which become objects or nothing.
    """

    def __init__(self, folder: Path, every_s: float = 0.05) -> None:
        self._folder = str(folder)
        self._every_s = every_s
        self._known: dict[str, set[str]] = {}
        self._changed_at: dict[str, int] = {}
        self._found: list[tuple[str, int]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def mark(self) -> int:
        """A point in time, for ``since``."""
        with self._lock:
            self._look(self._folder, fully=True)
            return len(self._found)

    def since(self, mark: int = 0) -> list[tuple[str, int]]:
        """The objects that appeared after ``mark``: path below the folder, and size."""
        self.mark()
        return self._found[mark:]

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            with self._lock:
                self._look(self._folder, fully=False)

    def _look(self, folder: str, *, fully: bool) -> None:
        """Note new files. A folder that did not change since is not listed again, unless ``fully``."""
        try:
            changed_at = os.stat(folder).st_mtime_ns
            if fully or self._changed_at.get(folder) != changed_at:
                self._changed_at[folder] = changed_at
                self._list(folder)
        except FileNotFoundError:
            return
        for below in [one for one in self._changed_at if os.path.dirname(one) == folder]:
            self._look(below, fully=fully)

    def _list(self, folder: str) -> None:
        known = self._known.setdefault(folder, set())
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in known or entry.name.startswith("."):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_dir():
                        self._changed_at[entry.path] = 0
                    else:
                        size = entry.stat().st_size
                        self._found.append((os.path.relpath(entry.path, self._folder), size))
                    known.add(entry.name)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and max; all 0 of nothing."""
    if not values:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": float(max(values))}


def machine() -> dict[str, Any]:
    """What the machine is, and not which one."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30), 1),
        "python": platform.python_version(),
        "cpu": cpu,
    }


def write_result(path: Path, bench: str, data: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write what was measured as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"bench": bench, "machine": machine(), "data": data, "rows": rows}
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {path}")


def print_row(cells: Sequence[object], widths: Sequence[int]) -> None:
    """One line of a plain table: the first column to the left, the others to the right; at once, also through a pipe."""
    first, *others = zip(cells, widths, strict=True)
    line = f"{first[0]!s:<{first[1]}}" + "".join(f"{cell!s:>{width}}" for cell, width in others)
    print(line, flush=True)
