"""Tables and plots of what the benchmarks measured.

    make bench-report              or: python -m tests.bench.report

Reads tests/bench/results/*.json and writes TABLES.md and an SVG a benchmark beside them; the same figures give the same bytes.
The plots need matplotlib, which is in .venv-bench and not in .venv: found missing, it is looked for there, and if it is nowhere,
the tables are written and the way to install it is said.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.filters.cases import CASES

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "tests" / "bench" / "results"
BENCH_VENV = ROOT / ".venv-bench"
MIB = 1 << 20
INSTALL = """\
The plots need matplotlib, which is not installed; TABLES.md was written, the plots were not. To install it:

    python3 -m venv .venv-bench        (unless it is there)
    .venv-bench/bin/python -m pip install --require-hashes -r tests/bench/requirements.lock
"""

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def number(key: str, places: int = 0, scale: float = 1) -> Callable[[Row], str]:
    """A column's figure, or a dash."""

    def text(row: Row) -> str:
        value = row.get(key)
        return "–" if value is None else f"{value / scale:,.{places}f}"

    return text


def plain(key: str) -> Callable[[Row], str]:
    """A column's text, or a dash."""

    def text(row: Row) -> str:
        value = row.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{name} {one}" for name, one in value.items())
        return "–" if value in (None, "") else str(value).replace("|", "\\|")

    return text


def share(key: str) -> Callable[[Row], str]:
    """A column's share in percent, and whether its bar is met."""
    what = key.removesuffix("_share")
    return lambda row: f"{row[key]:.0%}, {'met' if row['met'][what] else 'NOT met'}"


def filtered(case: str) -> Callable[[Row], str]:
    """A filter's p50 and recall, and the share of topK that came back, if not all did."""

    def text(row: Row) -> str:
        found = row["cases"][case]
        back = "" if found["returned"] > 0.995 else f", {found['returned']:.0%} back"
        return f"{found['p50_ms']:.2f} ({found['recall_at_10']:.3f}{back})"

    return text


def worded(case: str, key: str) -> Callable[[Row], str]:
    """A figure of full-text queries of one kind."""
    return lambda row: str(row["cases"][case][key])


def slowest_first(row: Row) -> str:
    """The slowest first query of those with filters."""
    return f"{max(one['first_ms'] for case, one in row['cases'].items() if case != 'no filter'):.1f}"


def kind_mib(kind: str) -> Callable[[Row], str]:
    """MiB of one kind of object."""
    return lambda row: f"{row['bytes_by_kind'][kind] / MIB:.2f}"


COLUMNS: dict[str, list[Column]] = {
    "peers": [
        ("system", plain("name")),
        ("version", plain("version")),
        ("kind", plain("kind")),
        ("dimensions", number("dimensions")),
        ("load s", number("load_s", 1)),
        ("vectors/s to queryable", number("vectors_per_s")),
        ("recall@10", number("recall_at_10", 4)),
        ("query p50 ms", number("p50_ms", 2)),
        ("p99 ms", number("p99_ms", 2)),
        ("RSS MiB", number("rss_mib")),
        ("disk MiB", number("disk_mib")),
        ("settings", plain("settings")),
    ],
    "growth": [
        ("vectors", number("size")),
        ("to visible p50 ms", number("visible_p50_ms")),
        ("max ms", number("visible_max_ms")),
        ("CPU ms", number("cpu_ms_per_upsert")),
        ("MiB written", number("bytes_with_compaction", 2, MIB)),
        *((kind, kind_mib(kind)) for kind in ("log", "segment", "deletions", "manifest", "compaction")),
        ("manifest KiB", number("manifest_bytes", 1, 1024)),
        ("RSS anon MiB", number("rss_anon_mib")),
    ],
    "small": [
        ("system", plain("name")),
        ("version", plain("version")),
        ("acknowledged/s", number("acknowledged_per_s")),
        ("p50 ms", number("acknowledged_p50_ms", 1)),
        ("p99 ms", number("acknowledged_p99_ms", 1)),
        ("visible/s", number("visible_per_s")),
        ("p50 ms", number("visible_p50_ms", 1)),
        ("p99 ms", number("visible_p99_ms", 1)),
        ("settings", plain("settings")),
    ],
    "filters": [
        ("system", plain("name")),
        ("indexes", plain("build")),
        ("load s", number("load_s", 1)),
        *((f"{case}: p50 ms (recall)", filtered(case)) for case in CASES),
        ("slowest first query, ms", slowest_first),
    ],
    "full_text": [
        ("system", plain("name")),
        ("version", plain("version")),
        ("acknowledged/s", number("acknowledged_per_s")),
        ("visible/s", number("visible_per_s")),
        *(
            (f"{case}: {title}", worded(case, key))
            for case in ("as in texts", "telling")
            for title, key in (
                ("p50 ms", "p50_ms"),
                ("p95 ms", "p95_ms"),
                ("by clients, /s", "per_s"),
                ("agreeing", "agreeing"),
            )
        ),
        ("RSS MiB", number("rss_mib")),
        ("disk MiB", number("disk_mib")),
        ("settings", plain("settings")),
    ],
    "limit": [
        ("dimensions", number("dimensions")),
        ("limit, vectors/s", number("limit_vectors_per_s")),
        ("acknowledged/s", number("acknowledged_vectors_per_s")),
        ("of the limit", share("acknowledged_share")),
        ("visible/s", number("visible_vectors_per_s")),
        ("of the limit", share("visible_share")),
    ],
    "workers": [
        ("task", plain("task")),
        ("workers", number("workers")),
        ("vectors/s", number("vectors_per_s")),
    ],
}


def table(found: dict[str, Any]) -> str:
    """One benchmark's part of TABLES.md."""
    machine, rows = found["machine"], found["rows"]
    lines = [f"## {found['bench']}", ""]
    lines += [
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, Python {machine['python']}.",
        "",
    ]
    measured = [row for row in rows if not row.get("error")]
    columns = COLUMNS.get(found["bench"]) or scalar_columns(measured)
    if measured:
        lines += ["| " + " | ".join(title for title, _ in columns) + " |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(text(row) for _, text in columns) + " |" for row in measured]
        lines += [""]
    lines += [f"* {row.get('name', 'a row')}: {row['error']}" for row in rows if row.get("error")]
    lines += notes(found)
    return "\n".join(lines).rstrip() + "\n"


def scalar_columns(rows: Sequence[Row]) -> list[Column]:
    """For a benchmark that is not known here: whatever is one value."""
    first = rows[0] if rows else {}
    return [(name, plain(name)) for name, value in first.items() if isinstance(value, str | int | float)]


def notes(found: dict[str, Any]) -> list[str]:
    """What stands below a table."""
    data = found["data"]
    others = data.get("others_cores")
    lines = [] if others is None else [f"* other programs took {others:.2f} cores meanwhile"]
    if found["bench"] == "growth":
        bar = data["bar"]
        words = {
            "visible_p50_ms": "p50 to visible",
            "bytes_per_upsert": "bytes",
            "bytes_without_deletions": "bytes without deletions",
            "bytes_with_compaction": "bytes with compaction",
        }
        told = (f"{words[name]} {data['ratios'][name]:.2f}" for name in words)
        lines += [f"* largest over smallest (the bar is {bar}): {', '.join(told)}"]
        lines += [f"* written over ingested, the whole run: {data['write_amplification']:.2f}"]
    return lines


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All results, in the order of their names."""
    found = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if {"bench", "machine", "data", "rows"} <= set(result):
            found.append(result)
        else:
            print(f"{path.name} is left out: it has no bench, machine, data and rows")
    return found


def write_tables(folder: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write TABLES.md."""
    head = "# What was measured\n\nWritten by `make bench-report` from the JSON files beside it.\n"
    (folder / "TABLES.md").write_text("\n".join([head, *map(table, results)]))


#: Okabe and Ito's colours, which people see apart whatever their eyes.
BLUE, ORANGE, GREEN, YELLOW, PINK, SKY, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#999999",
)  # fmt: skip
KIND_COLOURS = {
    "log": SKY, "segment": BLUE, "deletions": ORANGE, "manifest": PINK, "compaction": GREEN, "other": GREY,
}  # fmt: skip
STYLE = {
    "svg.hashsalt": "upwell",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "figure.facecolor": "white",
    "legend.frameon": False,
}


def log_axis(axes: Any, which: str, plt: Any) -> None:
    """A logarithmic axis whose figures are written out, at 1, 2 and 5."""
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(plt.NullFormatter())


def draw_peers(found: dict[str, Any], plt: Any) -> Any:
    """Vectors a second to queryable against the query's p50, recall beside each; a panel a dimension."""
    rows = [row for row in found["rows"] if not row.get("error")]
    dimensions = sorted({row["dimensions"] for row in rows})
    figure, panels = plt.subplots(1, len(dimensions), figsize=(6.4 * len(dimensions), 5), squeeze=False)
    for axes, one in zip(panels[0], dimensions, strict=True):
        here = sorted((row for row in rows if row["dimensions"] == one), key=lambda row: row["p50_ms"])
        for row in here:
            ours = row["name"].lower().startswith("upwell")
            at = (row["vectors_per_s"], row["p50_ms"])
            axes.scatter(*at, s=70 if ours else 45, color=ORANGE if ours else BLUE, zorder=3)
            label = f"{row['name']} ({row['recall_at_10']:.3f})"
            weight = "bold" if ours else "normal"
            axes.annotate(label, at, (7, 4), textcoords="offset points", fontsize=9, fontweight=weight)
        for which in "xy":
            log_axis(axes, which, plt)
        axes.set_title(f"{one} dimensions; recall@10 in brackets")
        axes.set(xlabel="vectors/s until all can be queried →", ylabel="← query p50, ms")
        axes.margins(x=0.35, y=0.15)
    return figure


def draw_growth(found: dict[str, Any], plt: Any) -> Any:
    """Time and bytes of an upsert against the size of the index."""
    rows = found["rows"]
    sizes = [row["size"] for row in rows]
    figure, (times, written) = plt.subplots(1, 2, figsize=(11, 4.4))
    for key, label, colour, mark in (
        ("visible_p50_ms", "p50", BLUE, "o-"),
        ("visible_max_ms", "slowest", ORANGE, "s--"),
    ):
        times.plot(sizes, [row[key] for row in rows], mark, color=colour, label=label)
    times.set(xscale="log", xlabel="vectors in the index", ylabel="ms", title="sent to visible")
    times.set_ylim(bottom=0)
    times.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    times.legend()
    below = [0.0] * len(rows)
    for kind, colour in KIND_COLOURS.items():
        heights = [row["bytes_by_kind"][kind] / MIB for row in rows]
        if any(heights):
            written.bar(range(len(rows)), heights, 0.55, below, color=colour, label=kind)
        below = [one + height for one, height in zip(below, heights, strict=True)]
    written.set_xticks(range(len(rows)), [f"{size:,}" for size in sizes])
    written.set(xlabel="vectors in the index", ylabel="MiB", title="written for one upsert")
    written.set_ylim(0, 1.3 * max(below))
    written.legend(ncols=3, loc="upper left")
    data = found["data"]
    figure.suptitle(f"An upsert of {data['body_lines']:,} × {data['dimensions']}, half replacing, half new")
    return figure


def draw_small(found: dict[str, Any], plt: Any) -> Any:
    """One-vector upserts a second, and their times."""
    rows = [row for row in found["rows"] if not row.get("error")]
    figure, (rates, times) = plt.subplots(1, 2, figsize=(11, 2.2 + 0.8 * len(rows)))
    for place, (what, colour) in enumerate((("acknowledged", BLUE), ("visible", ORANGE))):
        at = [row + 0.4 * place for row in range(len(rows))]
        bars = rates.barh(at, [row[f"{what}_per_s"] for row in rows], 0.36, color=colour, label=what)
        rates.bar_label(bars, [f"{row[f'{what}_per_s']:,.0f}" for row in rows], padding=3, fontsize=9)
        for p50_p99, y in zip(
            ([row[f"{what}_{p}_ms"] for p in ("p50", "p99")] for row in rows), at, strict=True
        ):
            times.plot(p50_p99, [y, y], color=colour, linewidth=3, solid_capstyle="butt")
            times.scatter(p50_p99, [y, y], color=colour, marker="|", s=90)
            for value, side in zip(p50_p99, ("right", "left"), strict=True):
                text, shift = f"{value:,.0f}", -6 if side == "right" else 6
                times.annotate(
                    text, (value, y), (shift, 0), textcoords="offset points", ha=side, va="center", fontsize=9
                )
    for axes in (rates, times):
        axes.set_yticks([row + 0.2 for row in range(len(rows))], [row["name"] for row in rows])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    rates.set(title="mutations/s")
    rates.margins(x=0.15)
    rates.xaxis.set_major_formatter("{x:,g}")
    figure.legend(*rates.get_legend_handles_labels(), loc="lower center", ncols=2)
    log_axis(times, "x", plt)
    times.set_title("ms from sent, p50 to p99")
    times.margins(x=0.15)
    data = found["data"]
    figure.suptitle(
        f"Upserts of one vector, {data['dimensions']} dimensions, {data['connections']} connections"
    )
    return figure


def draw_limit(found: dict[str, Any], plt: Any) -> Any:
    """Upwell beside the limit, and the bars."""
    rows, bars = found["rows"], found["data"]["bars"]
    figure, axes = plt.subplots(figsize=(7, 4.4))
    for place, (what, colour) in enumerate((("limit", GREY), ("acknowledged", BLUE), ("visible", ORANGE))):
        at = [row + 0.27 * place for row in range(len(rows))]
        rates = [row[f"{what}_vectors_per_s"] for row in rows]
        drawn = axes.bar(at, rates, 0.24, color=colour, label="limit (bare server)" if place == 0 else what)
        shares = [
            f"{row[f'{what}_share']:.0%}" if what in bars else f"{row[f'{what}_vectors_per_s']:,.0f}"
            for row in rows
        ]
        axes.bar_label(drawn, shares, padding=3, fontsize=9)
        for x, row in zip(at, rows, strict=True):
            if what in bars:
                asked = bars[what] * row["limit_vectors_per_s"]
                axes.plot([x - 0.12, x + 0.12], [asked, asked], color="black", linewidth=2)
    axes.plot([], [], color="black", linewidth=2, label="asked for, at least")
    axes.set_xticks(
        [row + 0.27 for row in range(len(rows))], [f"{row['dimensions']} dimensions" for row in rows]
    )
    axes.set(ylabel="vectors/s", title="Bulk upserts as a share of the limit")
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_ylim(0, 1.35 * max(row["limit_vectors_per_s"] for row in rows))
    axes.legend(loc="upper center", ncols=2)
    return figure


def draw_workers(found: dict[str, Any], plt: Any) -> Any:
    """Throughput against the number of workers, beside what as many times one worker would be."""
    figure, axes = plt.subplots(figsize=(7, 4.4))
    tasks = sorted({row["task"] for row in found["rows"]})
    for task, colour, mark in zip(tasks, (BLUE, ORANGE, GREEN, PINK), "os^D", strict=False):
        rows = sorted((row for row in found["rows"] if row["task"] == task), key=lambda row: row["workers"])
        counts = [row["workers"] for row in rows]
        first = rows[0]["vectors_per_s"] / counts[0]
        axes.plot(counts, [row["vectors_per_s"] for row in rows], f"{mark}-", color=colour, label=task)
        axes.plot(counts, [first * count for count in counts], ":", color=colour, linewidth=1)
    counts = sorted({row["workers"] for row in found["rows"]})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set(
        xlabel="workers", ylabel="vectors/s", title="Throughput by number of workers (dotted: in proportion)"
    )
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


DRAWN: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "peers": draw_peers, "growth": draw_growth, "small": draw_small, "limit": draw_limit, "workers": draw_workers,
}  # fmt: skip


def write_plots(folder: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write an SVG for each benchmark that has a plot. Raises ImportError without matplotlib."""
    importlib.import_module("matplotlib").use("svg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    for found in results:
        draw = DRAWN.get(found["bench"])
        if draw is None or all(row.get("error") for row in found["rows"]):
            continue
        with plt.rc_context(STYLE):
            figure = draw(found, plt)
            figure.tight_layout(rect=(0, 0.06 if figure.legends else 0, 1, 1))
            path = folder / f"{found['bench']}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            plt.close(figure)
        print(f"written: {path.name}")


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of JSON files")
    folder = parser.parse_args().results.resolve()
    results = read_results(folder)
    if not results:
        sys.exit(f"there are no results in {folder}: run a benchmark first")
    write_tables(folder, results)
    print("written: TABLES.md")
    try:
        write_plots(folder, results)
    except ModuleNotFoundError:
        if Path(sys.prefix) == BENCH_VENV or not (BENCH_VENV / "bin" / "python").exists():
            sys.exit(INSTALL)
        command = [str(BENCH_VENV / "bin" / "python"), "-m", "tests.bench.report", "--results", str(folder)]
        sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
