"""``python -m tests.crash [--kills N] [--seed S] [--minutes M]``: kill until it was often enough, and say what held."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys

from tests.crash.report import table
from tests.crash.run import Plan, run


def main() -> int:
    """Run once; returns 1 if a promise did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000, help="processes to kill (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of all that is left to chance; none: any")
    parser.add_argument("--minutes", type=float, default=60, help="end after so long (default: %(default)s)")
    parser.add_argument(
        "--pace", type=float, default=3, help="kills a second to aim at (default: %(default)s)"
    )
    asked = parser.parse_args()
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    plan = Plan(seed=seed, kills=asked.kills, seconds=60 * asked.minutes, pace=asked.pace)
    report = asyncio.run(run(plan, lambda line: print(line, flush=True)))
    print(table(report))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
