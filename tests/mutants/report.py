"""The results of a run: a table of modules, and the mutants that survived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from .operators import Mutant
from .trials import Trial, Verdict

_TABLE_HEAD = ("module", "mutants", "equivalent", "tried", "killed", "survived")


class Results:
    """The verdicts so far; each survivor is printed at once.

    :param trials: all trials, a list for each module.
    :param equivalents: the identities of the mutants that no test can notice.
    """

    def __init__(
        self, trials: Sequence[Sequence[Trial]], equivalents: Collection[object] = ()
    ) -> None:
        mutants = [trial.mutant for of_module in trials for trial in of_module]
        self._total = Counter(one.module for one in mutants)
        self._equivalent = Counter(one.module for one in mutants if one.identity in equivalents)
        self._tried = Counter[str]()
        self._killed = Counter[str]()
        self._survivors: list[tuple[Mutant, Verdict]] = []

    def note(self, mutant: Mutant, verdict: Verdict) -> None:
        """Count a verdict."""
        self._tried[mutant.module] += 1
        if verdict in {Verdict.KILLED, Verdict.TIMED_OUT}:
            self._killed[mutant.module] += 1
        else:
            self._survivors.append((mutant, verdict))
            print(_describe(mutant, verdict), flush=True)

    @property
    def killed(self) -> int:
        """The number of mutants that a test noticed."""
        return self._killed.total()

    @property
    def percent(self) -> float:
        """The share of the tried mutants that were killed."""
        return 100 * self._killed.total() / max(1, self._tried.total())

    def _rows(self) -> list[tuple[str, ...]]:
        counts = (self._total, self._equivalent, self._tried, self._killed)
        rows = []
        for module in [*sorted(self._total), None]:
            row = [one.total() if module is None else one[module] for one in counts]
            rows.append((module or "all", *map(str, [*row, row[2] - row[3]])))
        return rows

    def table(self) -> str:
        """Return the table, and the share that was killed."""
        lines = [f"{row[0]:42}" + "".join(f"{n:>11}" for n in row[1:]) for row in self._table()]
        return "\n".join([*lines, f"killed: {self.percent:.1f} % of {self._tried.total()}"])

    def _table(self) -> list[tuple[str, ...]]:
        return [_TABLE_HEAD, *self._rows()]

    def page(self) -> str:
        """Return the table and the survivors as Markdown."""
        head, *rows = (f"| {' | '.join(row)} |" for row in self._table())
        lines = [head, "|---" + "|--:" * (len(_TABLE_HEAD) - 1) + "|", *rows, ""]
        lines.append(f"Killed: {self.percent:.1f} % of {self._tried.total()}.")
        found = sorted(self._survivors, key=lambda one: one[0].identity)
        lines += ["", "## Survivors", ""] if found else []
        lines += [f"- {_describe(*one)}" for one in found]
        return "\n".join(["# Results of the last mutation run", "", *lines, ""])


def _describe(mutant: Mutant, verdict: Verdict) -> str:
    nth = f" ({mutant.nth})" if mutant.nth > 1 else ""
    where = f"{mutant.module}:{mutant.lines[0]} {mutant.function}"
    return f"{where}: `{mutant.was}` → `{mutant.becomes}`{nth}: {verdict.value}"
