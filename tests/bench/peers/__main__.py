"""Upwell beside other vector stores: one machine, the same vectors, each by its documented bulk path.

    make bench-peers               or: .venv/bin/python -m tests.bench.peers [--only upwell,chroma] [--vectors N] [--dimensions D]

Each peer runs in a process of its own, one after the other, on two cores. Loading is timed from the first vector handed over until
all are durable, visible and covered by the peer's index; numpy arrays were put into the objects that the client takes (Upwell:
NDJSON bodies) before. Then 1,000 queries are asked one after the other with the cheapest query settings that reach recall@10 of
0.97 against exact search. Of a peer's several kinds of index the one counts that was loaded fastest among those that reach it; the
others are in the JSON under ``tried``. Memory is that of the processes that serve (a library: of its process, less what it had
before), pages of several processes counted once. What could not be installed or did not work is named with its error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.peers.base import PEERS, RECALL_WANTED
from tests.bench.peers.footprint import field_kib
from tests.bench.peers.install import PYTHON, ROOT, ensure

RESULTS = ROOT / "tests" / "bench" / "results" / "peers.json"
THREADS = 2
TIMEOUT_S = 1_800
STOP_S = 60
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
ERROR_LENGTH = 300
COLUMNS = (
    ("peer", "name", "15"),
    ("index", "index", "13"),
    ("dims", "dimensions", ">5"),
    ("load s", "load_s", ">9.2f"),
    ("vectors/s", "vectors_per_s", ">10,"),
    ("recall", "recall_at_10", ">7.4f"),
    ("p50 ms", "p50_ms", ">8.2f"),
    ("p99 ms", "p99_ms", ">8.2f"),
    ("RSS MiB", "rss_mib", ">8,.0f"),
    ("anon MiB", "rss_anon_mib", ">9,.0f"),
    ("disk MiB", "disk_mib", ">9,.0f"),
)


def python_of(name: str) -> Path:
    """Upwell runs from its own environment, the others from theirs."""
    return Path(sys.executable) if name == "upwell" else PYTHON


def nameless(text: str) -> str:
    """An error without the paths of this machine."""
    for path, name in ((ROOT, "."), (Path(tempfile.gettempdir()), "TMP"), (Path.home(), "~")):
        text = text.replace(str(path), name)
    return text


def run(command: list[str]) -> str | None:
    """Run a process of the comparison from the checkout; the last words of its failure, if it failed."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(THREADS))
    with tempfile.TemporaryFile("w+", errors="replace") as words:
        try:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=words, stderr=words)
        except OSError as problem:
            return nameless(str(problem))
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()
            process.wait()
            return f"took longer than {TIMEOUT_S} s"
        words.seek(0)
        lines = [line for line in words.read().splitlines() if line.strip()]
    if code == 0:
        return None
    return nameless(lines[-1])[:ERROR_LENGTH] if lines else f"ended with {code}"


def made_by(module: str, numbers: dict[str, int], folder: Path) -> None:
    """Let a module write what is loaded and asked, in a process of its own."""
    command = [sys.executable, "-m", module, "--out", str(folder)]
    for name, value in numbers.items():
        command += [f"--{name}", str(value)]
    problem = run(command)
    if problem:
        raise SystemExit(f"no data: {problem}")


def measure(name: str, variant: str, data: Path, scratch: Path) -> dict[str, Any]:
    """One peer with one kind of index, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=scratch, ignore_cleanup_errors=True) as folder:
        own, result = Path(folder) / "data", Path(folder) / "result.json"
        own.mkdir()
        command = [str(python_of(name)), "-m", "tests.bench.peers.measure", "--peer", name]
        command += ["--variant", variant, "--data", str(data), "--folder", str(own)]
        problem = run([*command, "--result", str(result), "--threads", str(THREADS)])
        if problem is not None or not result.exists():
            return {"error": problem or "gave no result", "settings": {"index": variant}}
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def reaches(row: dict[str, Any]) -> bool:
    return bool("error" not in row and row["recall_at_10"] >= RECALL_WANTED)


def best(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest to load that reaches the recall wanted; else the one of best recall; else any error."""
    good = [row for row in tried if reaches(row)]
    if good:
        return min(good, key=lambda row: float(row["load_s"]))
    working = [row for row in tried if "error" not in row]
    if working:
        chosen = max(working, key=lambda row: float(row["recall_at_10"]))
        return chosen | {"error": f"recall@10 stays below {RECALL_WANTED}"}
    return tried[0]


def line(row: dict[str, Any]) -> str:
    cells = {**row, "index": row["settings"]["index"]}
    parts = []
    for _, key, form in COLUMNS:
        value = cells.get(key)
        width = form.partition(".")[0].rstrip(",")
        parts.append(f"{'-':{width}}" if value is None else f"{value:{form}}")
    return " ".join(parts) + (f"  {row['error']}" if "error" in row else "")


def heading() -> str:
    return " ".join(f"{title:{form.partition('.')[0].rstrip(',')}}" for title, _, form in COLUMNS)


def compare(names: list[str], data: Path, scratch: Path, dimensions: int) -> Iterator[dict[str, Any]]:
    """A row for each peer, printed as soon as it is known."""
    for name in names:
        about: dict[str, Any] = {"name": name, "kind": PEERS[name].kind, "dimensions": dimensions}
        if hasattr(os, "getloadavg"):
            about["load_average_before"] = round(os.getloadavg()[0], 2)
        tried: list[dict[str, Any]] = []
        for variant in PEERS[name].variants():
            tried.append(measure(name, variant, data, scratch))
            print("  tried", line(about | tried[-1]), flush=True)
        row = about | best(tried)
        others = [one for one in tried if one["settings"] != row["settings"]]
        print("=>     ", line(row), flush=True)
        yield row | {"tried": others}


def machine() -> dict[str, Any]:
    """What the figures were measured on, without its name."""
    cpu, memory_gib = platform.machine(), 0.0
    if Path("/proc/cpuinfo").exists():
        models = [
            one for one in Path("/proc/cpuinfo").read_text().splitlines() if one.startswith("model name")
        ]
        cpu = models[0].partition(":")[2].strip() if models else cpu
        memory_gib = field_kib(Path("/proc/meminfo").read_text(), "MemTotal") / (1 << 20)
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory_gib, 1),
        "python": platform.python_version(),
        "cpu": cpu,
    }


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vectors", type=int, help="100,000, or as many as the file holds")
    parser.add_argument("--dimensions", default="384,768", help="one or several, with commas between")
    parser.add_argument(
        "--dataset", type=Path, help="an ann-benchmarks HDF5 file instead of generated vectors"
    )
    parser.add_argument("--only", default=",".join(PEERS), help="names of peers, with commas between")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures are written")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(PEERS)
    if unknown:
        parser.error(f"no such peers: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    return options


def make_data(options: argparse.Namespace, dimensions: str, folder: Path) -> dict[str, int]:
    """Write vectors, queries and answers in a process of its own; how many there are."""
    python = PYTHON if options.dataset else Path(sys.executable)
    command = [str(python), "-m", "tests.bench.peers.dataset", "--out", str(folder)]
    if options.vectors:
        command += ["--vectors", str(options.vectors)]
    if options.dataset:
        command += ["--dataset", str(options.dataset.resolve())]
    else:
        command += ["--dimensions", dimensions]
    problem = run(command)
    if problem:
        raise SystemExit(f"no data: {problem}")
    found: dict[str, int] = json.loads((folder / "shape.json").read_text())
    return found


def main() -> None:
    options = options_of()
    missing = {} if options.only == "upwell" and not options.dataset else ensure()
    for package, reason in missing.items():
        print(f"{package} could not be installed: {reason}")
    rows: list[dict[str, Any]] = []
    sizes: list[dict[str, int]] = []
    print("  tried", heading(), flush=True)
    with tempfile.TemporaryDirectory(prefix="upwell-peers-", ignore_cleanup_errors=True) as name:
        for dimensions in ["-"] if options.dataset else options.dimensions.split(","):
            data = Path(name) / f"data-{dimensions}"
            sizes.append(make_data(options, dimensions, data))
            rows += compare(options.only.split(","), data, Path(name), sizes[-1]["dimensions"])
    kind = options.dataset.name if options.dataset else "generated: seeded, clustered, unit length"
    about = {"kind": kind, "metric": "cosine", "recall_wanted": RECALL_WANTED, "sets": sizes}
    found = {"bench": "peers", "machine": machine(), "data": about, "threads": THREADS}
    found |= {"not_installed": missing, "rows": rows}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    print("\n        " + heading(), *("        " + line(row) for row in rows), sep="\n")


if __name__ == "__main__":
    main()
