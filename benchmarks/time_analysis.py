"""How long the whole analysis of a big board takes: 20 methods x 5 seeds x 10,000 test examples, controls included.

    python benchmarks/time_analysis.py [--methods 20] [--seeds 5] [--examples 10000]

Made-up records, every method compared with the baseline and six controls: ranking, intervals over seeds and examples,
Holm, equivalence, power, verdicts and claims. Prints the seconds of each of five repetitions, and their median.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from numpy.typing import NDArray

from kdbench.analysis.claims import claims
from kdbench.analysis.leaderboard import BASELINE, leaderboard
from kdbench.measuring.record import Record

CONTROLS = tuple(f"control{number}" for number in range(6))


def made_up(methods: int, seeds: int, examples: int) -> tuple[list[Record], dict[str, NDArray[np.float32]]]:
    """Records of `methods` methods, six controls and the baseline, and the influences of their test examples."""
    random = np.random.default_rng(0)
    hardness = random.normal(1.0, 1.5, examples)
    records, influences = [], {}
    for method in (BASELINE, *CONTROLS, *(f"method{number}" for number in range(methods))):
        distils = method.startswith("method")
        for seed in range(seeds):
            right = (hardness + random.normal(0.1 * distils, 1.0, examples) > 0).astype(np.float32)
            fingerprint = f"{method}-{seed}"
            influences[fingerprint] = right - right.mean()
            records.append(
                Record(
                    fingerprint=fingerprint,
                    status="done",
                    suite="made-up@1.0",
                    task="examples",
                    pair="teacher -> student",
                    teachers=("teacher",),
                    student="student",
                    method=method,
                    params={},
                    family="response" if distils else "control",
                    controls=CONTROLS if distils else (),
                    seed=seed,
                    primary="accuracy",
                    metrics={"accuracy": float(right.mean()), "teacher_accuracy": 0.9, "ece": 0.05, "agreement": 0.9},
                )
            )
    return records, influences


def main() -> None:
    """Prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("methods", 20), ("seeds", 5), ("examples", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    records, influences = made_up(arguments.methods, arguments.seeds, arguments.examples)
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        claims(leaderboard(records, influences=lambda record: influences[record.fingerprint]))
        taken.append(time.perf_counter() - started)
    print(f"{len(records)} records of {arguments.examples} examples: {statistics.median(taken):.2f} s (median of five)")
    print("each:", ", ".join(f"{seconds:.2f}" for seconds in taken))


if __name__ == "__main__":
    main()
