"""Plant small faults in callme, one at a time, and report those that no test notices.

``python -m tests.mutants --budget 60``: as many mutants as an hour allows, evenly over the modules.
``--module callme/worker/poller.py``: those of one module.
``--equivalents``: those that are listed as equivalent, none of which may be noticed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from pathlib import Path
from random import Random

from .equivalents import EQUIVALENTS
from .operators import mutants
from .report import Results
from .targets import TARGETS, Target
from .trials import Trial, prepare, record, run_trials

MIN_PERCENT = 95.0
"""The share of the mutants that the tests must kill."""


def trials_of(target: Target, modules: Iterable[str], random: Random) -> Iterator[list[Trial]]:
    """Record the tests of a target; yield the trials of each module in a random order."""
    recorded = record(target)
    for module in modules:
        source = Path(module).read_bytes()
        found = mutants(module, source)
        random.shuffle(found)
        yield [Trial(mutant=one, tests=recorded.tests_of(one, source)) for one in found]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=55, help="minutes, without the recording")
    parser.add_argument("--seed", type=int, default=1, help="determines the order of the mutants")
    parser.add_argument("--workers", type=int, default=2, help="mutants that run side by side")
    parser.add_argument("--module", action="append", help="only this one; may be repeated")
    parser.add_argument("--equivalents", action="store_true")
    parser.add_argument("--write", type=Path, help="a Markdown file for the results")
    given = parser.parse_args()
    prepare()
    equivalents = {one.identity for one in EQUIVALENTS}
    trials: list[list[Trial]] = []
    for target in TARGETS:
        modules = [one for one in target.modules if given.module is None or one in given.module]
        if modules:
            trials += trials_of(target, modules, Random(given.seed))
    results = Results(trials, equivalents)
    chosen = (
        trial
        for trial in chain.from_iterable(zip_longest(*trials))
        if trial is not None and (trial.mutant.identity in equivalents) == given.equivalents
    )
    until = time.monotonic() + 60 * given.budget
    for mutant, verdict in run_trials(chosen, given.workers, until):
        results.note(mutant, verdict)
    print(results.table(), flush=True)
    if given.write:
        given.write.write_text(results.page(), encoding="utf-8")
    if given.equivalents:
        return 1 if results.killed else 0
    return 0 if results.percent >= MIN_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
