"""Run the daemon with simulated clocks and injected faults; report what breaks its promise.

``python -m tests.simulation --seeds 5000``: 5000 runs, each in another world.
``--sweep``: every fault at every statement of one short story, and a kill before every step.
``--mutations``: the number of seeds needed to detect each mutation of callme.
``--seed 1234 --verbose``, ``--place full:17 --verbose``: one run, with everything that happens.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from multiprocessing import Pool

from twisted.logger import globalLogBeginner

from . import scenario, sweep
from .mutations import MUTATIONS
from .scenario import Result

MOST_SEEDS = 2000
"""Maximum number of seeds that may miss a mutation."""


def _prepare() -> None:
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    gc.freeze()


def _run(seed: int) -> tuple[str, Result]:
    return f"--seed {seed}", scenario.run(seed)


def _tell(place: sweep.Place) -> tuple[str, Result]:
    return f"--place {place}", sweep.tell(place)


def _find(number: int) -> tuple[int, int | None]:
    """Return the first seed that detects a mutation, given by its number.

    The patches of a mutation cannot be sent to another process.
    """
    with MUTATIONS[number].applied():
        return number, next((n for n in range(MOST_SEEDS) if scenario.run(n).broken), None)


def report(what: str, results: Iterable[tuple[str, Result]]) -> int:
    """Print the results of many runs; return the number that broke the promise."""
    began = time.perf_counter()
    faults, calls, sums = Counter[str](), Counter[str](), Counter[str]()
    for one, result in results:
        faults += result.faults
        calls += result.calls
        sums.update(
            runs=1,
            tasks=result.tasks,
            requests=result.requests,
            statements=result.statements,
            steps=result.steps,
        )
        if result.broken:
            sums["broken"] += 1
            print(f"{one}: {result.broken[0]}")
            print(f"  to repeat it: python -m tests.simulation {one} --verbose", flush=True)
    seconds = time.perf_counter() - began
    print(f"{what}: {sums['runs']:,} runs in {seconds:.0f} s", end="")
    print(f", {60 * sums['runs'] / seconds:,.0f} a minute")
    print("  " + ", ".join(f"{name} {sums[name]:,}" for name in ("tasks", "requests", "steps")))
    for name, counts in (("faults", faults), ("endpoints", calls)):
        print(f"  {name}: " + ", ".join(f"{one} {n:,}" for one, n in counts.most_common()))
    print(f"  runs that broke the promise: {sums['broken']}", flush=True)
    return sums["broken"]


def show(result: Result) -> int:
    """Print the events of one run."""
    print("\n".join(result.lines))
    print("\n".join(result.broken) or "the promise was kept")
    return len(result.broken)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=0, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--mutations", action="store_true")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int)
    parser.add_argument("--place", type=sweep.Place.parse)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    if given.seed is not None or given.place is not None:
        _prepare()
        if given.place is not None:
            result = sweep.tell(given.place, given.verbose)
        else:
            result = scenario.run(given.seed, given.verbose)
        return 1 if show(result) else 0
    bad = 0
    with Pool(given.processes, _prepare) as pool:
        if given.seeds:
            seeds = range(given.first, given.first + given.seeds)
            bad += report("seeds", pool.imap(_run, seeds, 10))
        if given.sweep:
            bad += report("sweep", pool.imap(_tell, list(sweep.places()), 10))
        if given.mutations:
            found = 0
            for number, seed in pool.imap(_find, range(len(MUTATIONS))):
                found += seed is not None
                print(f"{MUTATIONS[number].name}: seed {seed}", flush=True)
            print(f"mutations found: {found} of {len(MUTATIONS)}")
            bad += len(MUTATIONS) - found
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
