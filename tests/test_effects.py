"""Effects over seeds and examples: the variance's parts, the intervals' coverage, p-values, power."""

from __future__ import annotations

import gc
import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kdbench.analysis.effects import Effect, holm

PARTS = st.floats(1e-8, 1e-2)


def crossed(seeds: int, examples: int, by_seed: float, shared: float, own: float, seed: int = 0) -> np.ndarray:
    """Differences [seeds, examples]: a part of each seed, one of each example, and noise of both."""
    random = np.random.default_rng(seed)
    return (
        random.normal(0, by_seed, (seeds, 1))
        + random.normal(0, shared, (1, examples))
        + random.normal(0, own, (seeds, examples))
    )


def effect_of(differences: np.ndarray) -> Effect:
    per_seed = differences.mean(axis=1)
    return Effect.of(per_seed, differences - per_seed[:, None])


def test_without_examples_it_is_students_t():
    values = np.array([0.01, 0.03, -0.005, 0.02])
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    interval = Effect.of(values).interval()
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)
    assert Effect.of(values).p_value() == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6)
    less = stats.ttest_1samp(values, 0.02, alternative="less").pvalue
    assert Effect.of(values).p_value(0.02, "less") == pytest.approx(less, rel=1e-6)


def test_influences_give_the_variance_that_a_bootstrap_tends_to():
    differences = crossed(5, 800, 0.01, 0.2, 0.3)
    draws = np.random.default_rng(1).multinomial(800, np.full(800, 1 / 800), size=20_000) / 800
    resampled = draws @ differences.T
    joint, own = resampled.mean(axis=1).var(ddof=1), resampled.var(axis=0, ddof=1).sum() / 25
    bootstrapped = (joint - own) * 5 / 4
    assert effect_of(differences).example_variance == pytest.approx(bootstrapped, rel=0.05)


def test_the_parts_of_the_variance_are_told_apart():
    estimates = [effect_of(crossed(5, 400, 0.02, 0.3, 0.4, seed)) for seed in range(600)]
    assert np.mean([each.example_variance for each in estimates]) == pytest.approx(0.3**2 / 400, rel=0.05)
    by_seed = (0.02**2 + 0.4**2 / 400) / 5
    assert np.mean([each.seed_variance for each in estimates]) == pytest.approx(by_seed, rel=0.1)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("parts", [(0.02, 0.0, 0.3), (0.01, 0.3, 0.1), (0.015, 0.15, 0.2), (0.0, 0.3, 0.3)])
def test_intervals_cover_the_truth(seeds: int, parts: tuple[float, float, float]):
    repetitions = 2000
    effects = [effect_of(crossed(seeds, 200, *parts, seed=seed)) for seed in range(repetitions)]
    covered = sum(each.interval().low <= 0 <= each.interval().high for each in effects) / repetitions
    # three standard errors of a share of 2000 around the promised 93 to 97 %
    assert 0.93 - 0.017 <= covered <= 0.97 + 0.012


@given(seed=PARTS, example=PARTS, seeds=st.integers(2, 30), estimate=st.floats(-0.05, 0.05))
def test_intervals_and_p_values_agree(seed: float, example: float, seeds: int, estimate: float):
    effect = Effect(estimate, seed, example, seeds)
    interval = effect.interval()
    assert interval.low < estimate < interval.high
    excludes = interval.low > 0 or interval.high < 0
    p_value = effect.p_value()
    assert 0 <= p_value <= 1
    if abs(p_value - 0.05) > 1e-6:
        assert (p_value < 0.05) == excludes
    assert effect.p_value(0, "greater") + effect.p_value(0, "less") == pytest.approx(1)
    # between the promises of the seeds alone and of endless seeds
    assert stats.norm.ppf(0.975) - 1e-9 <= effect.quantile(0.975) <= stats.t.ppf(0.975, seeds - 1) + 1e-9


@given(
    seed=PARTS,
    example=PARTS,
    only=st.sampled_from(["seeds", "examples", "both"]),
    seeds=st.integers(2, 30),
    distance=st.floats(0.1, 5),
)
def test_a_p_value_is_the_inverse_of_the_quantile(seed: float, example: float, only: str, seeds: int, distance: float):
    spread = Effect(0.0, 0.0 if only == "examples" else seed, 0.0 if only == "seeds" else example, seeds)
    effect = replace(spread, estimate=distance * spread.standard_error)
    assert effect.quantile(1 - effect.p_value() / 2) == pytest.approx(distance, rel=1e-4)


@given(seed=PARTS, example=PARTS, seeds=st.integers(2, 30), margin=st.floats(0.001, 0.1))
def test_equivalence_is_the_ninety_percent_interval_within_the_margin(seed, example, seeds, margin):
    effect = Effect(0.0004, seed, example, seeds)
    p_value = effect.equivalence_p_value(margin)
    if abs(p_value - 0.05) > 1e-6:
        assert (p_value < 0.05) == effect.interval(0.9).within(-margin, margin)


def test_power_is_what_simulated_experiments_find():
    planned = Effect(0.0, 0.02**2 / 5, 0.1**2 / 400, 5)
    size = planned.detectable(power=0.8)
    found = 0
    for seed in range(1000):
        found += effect_of(crossed(5, 400, 0.02, 0.1, 0.0, seed) + size).interval().low > 0
    assert 0.76 <= found / 1000 <= 0.9


def test_seeds_to_settle_is_the_least_number_that_does():
    effect = Effect(0.01, 0.02**2 / 3, 1e-6, 3)
    needed = effect.seeds_to_settle(0.01)
    assert needed is not None
    assert effect.with_seeds(needed).detectable() <= 0.01 < effect.with_seeds(needed - 1).detectable()
    assert Effect(0.01, 1e-4, 0.01**2, 3).seeds_to_settle(0.01) is None, "no number of seeds makes up for examples"


def test_one_seed_says_nothing():
    effect = Effect.of(np.array([0.3]))
    assert not effect.interval().bounded
    assert effect.p_value() == effect.equivalence_p_value(0.5) == 1
    assert effect.detectable() == math.inf
    assert effect.seeds_to_settle(0.01) is None


def test_no_spread_at_all():
    assert Effect(0.0, 0.0, 0.0, 3).p_value() == 1
    assert Effect(0.1, 0.0, 0.0, 3).p_value() == 0
    assert Effect(0.1, 0.0, 1e-12, 3).p_value() == 0, "a hundred thousand standard errors"


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_statsmodels_holm(p_values):
    with patch.object(gc, "collect"):  # which statsmodels calls each time: a second, with all that tests have loaded
        expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(expected), abs=1e-12)
