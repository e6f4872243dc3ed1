"""How often real trials of nothing come out as something: the A/A test of `make validate-trials`.

    kdbench run benchmarks/aa.yaml
    python benchmarks/validate_trials.py

Scratch and scratch under another name were trained on the same seeds from random streams of their own. The seeds are
cut into disjoint experiments of 3, 5 and 10, each of which is judged as any leaderboard is; at most one in twenty may
come out "works". The range is the 95 % interval of the share (Clopper-Pearson).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from statsmodels.stats.proportion import proportion_confint

from kdbench.analysis.leaderboard import BASELINE, leaderboard
from kdbench.measuring.record import Record
from kdbench.store.run_folder import RunFolder

LABELS = ("works", "hurts", "no effect", "inconclusive")


def experiments(records: Sequence[Record], seeds: int) -> Iterator[list[Record]]:
    """The records cut into experiments of so many seeds each; what is left over is left out."""
    numbers = sorted({record.seed for record in records})
    for start in range(0, len(numbers) - seeds + 1, seeds):
        group = numbers[start : start + seeds]
        yield [record for record in records if record.seed in group]


def verdicts(run: RunFolder, records: Sequence[Record], seeds: int) -> Counter[str]:
    """How often which verdict was given."""
    margin = run.manifest().equivalence_margin
    found: Counter[str] = Counter()
    for experiment in experiments(records, seeds):
        board = leaderboard(
            experiment,
            equivalence_margin=margin,
            influences=lambda record: run.trial(record.fingerprint).influences(),
        )
        found.update(row.verdict.label for row in board.boards[0].rows if row.method != BASELINE)
    return found


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", default="aa@1.0", help="a run's name or folder")
    parser.add_argument("--out", default="results", type=Path, help="the folder of all runs")
    arguments = parser.parse_args()
    run = RunFolder.open(arguments.run, arguments.out)
    records = [record for record in run.records() if record.status == "done"]
    print("| seeds | experiments |", " | ".join(LABELS), '| share of "works" | range |')
    print("| ---" * (len(LABELS) + 4), "|")
    for seeds in (3, 5, 10):
        counts = verdicts(run, records, seeds)
        total = sum(counts.values())
        low, high = proportion_confint(counts["works"], total, method="beta")
        shown = " | ".join(str(counts[label]) for label in LABELS)
        print(f"| {seeds} | {total} | {shown} | {counts['works'] / total:.1%} | {low:.1%} to {high:.1%} |")


if __name__ == "__main__":
    main()
