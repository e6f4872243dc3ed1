from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scikit_posthocs
from hypothesis import given
from hypothesis import strategies as st

from kdbench.analysis.leaderboard import leaderboard
from kdbench.analysis.ranks import ranking
from kdbench.measuring.record import Record


def record(task: str, method: str, seed: int, score: float, **changes: object) -> Record:
    values: dict[str, object] = {
        "fingerprint": f"{task}/{method}/{seed}/{changes}",
        "status": "done",
        "suite": "quick@1.0",
        "task": task,
        "pair": "big -> small",
        "teachers": ("big",),
        "student": "small",
        "method": method,
        "params": {},
        "family": "control" if method == "scratch" else "response",
        "seed": seed,
        "primary": "accuracy",
        "unit": "share",
        "metrics": {"accuracy": score},
    }
    return Record.model_validate({**values, **changes})


def board(task: str, **scores: float) -> list[Record]:
    return [record(task, method, seed, score) for method, score in scores.items() for seed in range(2)]


def boards(count: int) -> list[Record]:
    """The same order on every task: a, b, c, scratch."""
    tasks = [board(f"task{n}", scratch=0.5, a=0.8 - n / 100, b=0.7, c=0.6) for n in range(count)]
    return [each for task in tasks for each in task]


def test_nothing_to_rank_across() -> None:
    assert ranking(leaderboard([])) is None
    assert ranking(leaderboard(boards(1))) is None
    two = [*board("one", scratch=0.5, a=0.6), *board("two", scratch=0.5, a=0.6)]
    assert ranking(leaderboard(two)) is None


def test_ranks_by_hand() -> None:
    """The critical differences are of Demsar 2006, table 5: q = 2.569 for 4 methods, times sqrt(4 * 5 / 6 N)."""
    found = ranking(leaderboard(boards(10)))
    assert found is not None
    assert found.mean_ranks == {"a": 1.0, "b": 2.0, "c": 3.0, "scratch": 4.0}
    assert list(found.mean_ranks) == ["a", "b", "c", "scratch"]
    assert found.critical_difference == pytest.approx(2.569 * (20 / 60) ** 0.5, abs=1e-3)  # 1.483
    # chi-square 12 * 10 / 20 * (1 + 4 + 9 + 16 - 25) = 30 with 3 degrees of freedom
    assert found.p_value == pytest.approx(1.3801e-6, rel=1e-3)
    assert found.alike == (("a", "b"), ("b", "c"), ("c", "scratch"))
    assert found.note == "4 methods on 10 tasks: their ranks differ (Friedman test, p = 1.4e-06)."


def test_few_tasks_say_that_they_are_few() -> None:
    found = ranking(leaderboard(boards(2)))
    assert found is not None
    assert found.critical_difference > 3
    assert found.alike == (("a", "b", "c", "scratch"),)
    assert found.note.endswith("So few tasks cannot tell even the first from the last.")
    five = ranking(leaderboard(boards(5)))
    assert five is not None
    assert five.note.endswith("With so few tasks only large differences show.")


def test_ties_share_the_mean_of_their_ranks() -> None:
    tied = [*board("one", scratch=0.5, a=0.1 + 0.2, b=0.3), *board("two", scratch=0.5, a=0.3, b=0.1 + 0.2)]
    found = ranking(leaderboard(tied))
    assert found is not None
    assert found.mean_ranks == {"scratch": 1.0, "a": 2.5, "b": 2.5}


def test_all_alike_is_no_difference_and_no_warning() -> None:
    found = ranking(leaderboard([*board("one", scratch=0.5, a=0.5, b=0.5), *board("two", scratch=0.4, a=0.4, b=0.4)]))
    assert found is not None
    assert found.p_value == 1.0
    assert not found.differ
    assert found.alike == (("a", "b", "scratch"),)


def test_lower_is_better_on_one_of_the_tasks() -> None:
    errors = [
        record("errors", method, 0, 0.0, primary="wer", higher_is_better=False, metrics={"wer": value})
        for method, value in {"scratch": 0.3, "a": 0.1, "b": 0.2}.items()
    ]
    found = ranking(leaderboard([*board("one", scratch=0.5, a=0.8, b=0.7), *errors]))
    assert found is not None
    assert found.mean_ranks == {"a": 1.0, "b": 2.0, "scratch": 3.0}


def test_only_what_finished_everywhere_is_ranked_and_parts_of_a_data_set_are_no_tasks() -> None:
    broken = record("task1", "d", 0, 0.0, status="failed", reason="out of memory", metrics={})
    extra = [record("task0", "d", seed, 0.99) for seed in range(2)]
    part = [
        record("task0 at 10 %", m, seed, s, data_set="task0", train_fraction=0.1)
        for m, s in {"scratch": 0.9, "a": 0.1, "b": 0.2, "c": 0.3}.items()
        for seed in range(2)
    ]
    found = ranking(leaderboard([*boards(2), *extra, broken, *part]))
    assert found is not None
    assert found.tasks == ("task0: big -> small", "task1: big -> small")
    assert list(found.mean_ranks) == ["a", "b", "c", "scratch"]


@given(seed=st.integers(0, 2**32 - 1), methods=st.integers(3, 6), apart=st.floats(0, 2))
def test_alike_are_those_that_the_nemenyi_test_does_not_tell_apart(seed: int, methods: int, apart: float) -> None:
    scores = np.random.default_rng(seed).normal(apart * np.arange(methods), 1.0, (14, methods)).round(1)
    places = {f"method{number}": number for number in range(scores.shape[1])}
    records = [
        record(f"task{task}", name, 0, row[place]) for task, row in enumerate(scores) for name, place in places.items()
    ]
    found = ranking(leaderboard(records, baseline="none"))
    assert found is not None
    p_values = scikit_posthocs.posthoc_nemenyi_friedman(scores).to_numpy()
    together = {frozenset(pair) for group in found.alike for pair in combinations(group, 2)}
    for one, other in combinations(places, 2):
        assert (frozenset((one, other)) in together) == (p_values[places[one], places[other]] > 0.05)
