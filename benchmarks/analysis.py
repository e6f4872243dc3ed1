"""How long the whole analysis of a big board takes: 20 methods x 5 seeds x 10,000 test examples, controls included.

Made-up records, every method compared with the baseline and six controls: ranking, intervals over seeds and examples,
Holm, equivalence, power, verdicts and claims.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdbench.analysis.claims import claims
from kdbench.analysis.leaderboard import leaderboard

from .harness import Report, Setting, Table, main
from .made_up import MadeUpRun
from .timing import interleaved


@dataclass(frozen=True)
class Analysis(Setting):
    """One board, analysed `rounds` times after `warmup` times."""

    methods: int = 20
    seeds: int = 5
    examples: int = 10_000
    rounds: int = 5
    warmup: int = 1
    clock: str = "wall"


QUICK = Analysis(rounds=3, warmup=0)


def measure(setting: Analysis) -> Report:
    """Times the leaderboard alone, and with the claims."""
    trials = list(MadeUpRun(setting.methods, setting.seeds, examples=setting.examples).trials())
    records = [record for record, _ in trials]
    influences = {record.fingerprint: values for record, values in trials}
    board = leaderboard(records, influences=lambda record: influences[record.fingerprint])
    steps = {
        "leaderboard": lambda: leaderboard(records, influences=lambda record: influences[record.fingerprint]),
        "claims": lambda: claims(board),
    }
    rounds = interleaved(steps, setting.rounds, setting.warmup, setting.clock)
    rows = [(name, rounds.median(name).shown(2)) for name in steps]
    title = (
        f"{len(records)} records of {setting.examples} examples, {setting.rounds} rounds; "
        f"times ({setting.clock}): median (quartiles)."
    )
    tables = (Table(title, ("part", "s"), [*rows, ("together", rounds.median(*steps).shown(2))]),)
    return Report("analysis", "Analysis of one big board, in memory.", tables, samples=rounds.seconds)


if __name__ == "__main__":
    main(measure, QUICK, Analysis())
