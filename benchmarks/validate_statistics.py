"""Is the instrument honest? Coverage of the intervals, false alarms and power, on simulated experiments.

    make validate-statistics

Every experiment is a pair of methods over seeds and test examples that both share. Where the methods are equal (A/A)
the truth is 0; where they differ it is known from the simulation. Prints one Markdown table, the same at each run.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit
from statsmodels.stats.proportion import proportion_confint

from kdbench.analysis.effects import Effect

Array = NDArray[np.float64]
EXAMPLES = 1000


@dataclass(frozen=True)
class World:
    """Where differences come from: spreads of seeds, of examples that are easier for one method, and of both."""

    name: str
    by_seed: float
    by_example: float
    by_both: float

    def accuracies(self, random: np.random.Generator, seeds: int, gain: float) -> Array:
        """Differences [seeds, EXAMPLES] of two methods' right (1) and wrong (0) answers, whose log-odds differ by
        `gain` in the mean; the spreads are in log-odds."""
        hardness = random.normal(1.0, 1.5, (1, EXAMPLES))
        taste = random.normal(0, self.by_example, (1, EXAMPLES)) / 2
        answers = []
        for side in (1, -1):
            seed = random.normal(0, self.by_seed / np.sqrt(2), (seeds, 1))
            both = random.normal(0, self.by_both / np.sqrt(2), (seeds, EXAMPLES))
            chance = expit(hardness + side * (taste + gain / 2) + seed + both)
            answers.append(random.random((seeds, EXAMPLES)) < chance)
        return answers[0].astype(np.float64) - answers[1]

    def truth(self, gain: float) -> float:
        """The expected difference in accuracy, over a million draws of seed and example."""
        random = np.random.default_rng(0)
        noise = np.sqrt((self.by_seed**2 + self.by_both**2) / 2)
        hardness, taste = random.normal(1.0, 1.5, 1_000_000), random.normal(0, self.by_example, 1_000_000) / 2
        sides = [expit(hardness + s * (taste + gain / 2) + random.normal(0, noise, 1_000_000)) for s in (1, -1)]
        return float((sides[0] - sides[1]).mean()) if gain else 0.0

    def gain_of(self, truth: float) -> float:
        """The difference in log-odds whose expected difference in accuracy is `truth`."""
        return float(brentq(lambda gain: self.truth(gain) - truth, 0.0, 6.0, xtol=1e-3))


WORLDS = (
    World("seeds alike", 0.0, 0.0, 1.0),
    World("seeds differ", 0.15, 0.0, 1.0),
    World("seeds differ much", 0.5, 0.0, 1.0),
    World("examples differ", 0.0, 1.5, 0.5),
    World("both differ", 0.15, 1.0, 0.5),
    World("both differ much", 0.4, 2.0, 0.5),
)


def effect_of(differences: Array) -> Effect:
    """As the leaderboard makes it of two methods' records."""
    per_seed = differences.mean(axis=1)
    return Effect.of(per_seed, differences - per_seed[:, None])


def covers(effect: Effect, truth: float) -> bool:
    """Whether the 95 % interval holds the truth."""
    interval = effect.interval()
    return interval.low <= truth <= interval.high


def share(found: list[bool]) -> str:
    """`95.1 (94.1 to 96.0)`: percent, with its 95 % Wilson interval."""
    low, high = proportion_confint(sum(found), len(found), method="wilson")
    return f"{100 * np.mean(found):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def experiments(world: World, seeds: int, gain: float, repetitions: int) -> list[Effect]:
    """So many repetitions of the whole experiment, new seeds and new test examples each time."""
    random = np.random.default_rng([seeds, round(1000 * gain), *map(ord, world.name)])
    return [effect_of(world.accuracies(random, seeds, gain)) for _ in range(repetitions)]


def line(world: World, seeds: int, repetitions: int) -> list[str]:
    """One row: what the instrument says of equal methods, and of methods that differ by a known gain."""
    same = experiments(world, seeds, 0.0, repetitions)
    different = experiments(world, seeds, 0.3, repetitions)
    truth = world.truth(0.3)
    typical = Effect(
        truth,
        float(np.mean([each.seed_variance for each in different])),
        float(np.mean([each.example_variance for each in different])),
        seeds,
    )
    promised = typical.detectable(0.8)
    findable = experiments(world, seeds, world.gain_of(promised), repetitions)
    return [
        world.name,
        str(seeds),
        share([covers(each, 0.0) for each in same]),
        share([each.interval().low > 0 for each in same]),
        share([covers(each, truth) for each in different]),
        f"{100 * truth:+.2f}",
        share([each.interval().low > 0 for each in different]),
        f"{100 * promised:.2f}",
        share([each.interval().low > 0 for each in findable]),
        f"{100 * np.mean([each.interval().half_width for each in same]):.2f}",
    ]


HEAD: tuple[str, ...] = (
    "simulated",
    "seeds",
    "A/A: interval covers 0, %",
    'A/A: called "works", %',
    "effect: interval covers it, %",
)
HEAD += ("effect, points", "effect found, %", "80 % power is promised for, points", "found, %", "half-width, points")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    repetitions = parser.parse_args().repetitions
    print("# The instrument, tested\n")
    print(
        f"`make validate-statistics`: {repetitions} simulated experiments a row, {EXAMPLES} test examples, "
        "95 % intervals; in brackets the 95 % binomial interval of each share.\n"
    )
    print("| " + " | ".join(HEAD) + " |")
    print("|" + " --- |" * len(HEAD))
    for seeds in (3, 5, 10):
        for world in WORLDS:
            print("| " + " | ".join(line(world, seeds, repetitions)) + " |", flush=True)


if __name__ == "__main__":
    main()
