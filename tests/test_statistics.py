from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.analysis.statistics import Interval, mean_interval, paired_differences

# Two-sided critical values of Student's t from printed tables: (confidence, degrees of freedom) -> t.
T_TABLE = {(0.95, 1): 12.706, (0.95, 2): 4.303, (0.95, 4): 2.776, (0.95, 9): 2.262, (0.90, 2): 2.920, (0.99, 2): 9.925}


def paired_difference(a: dict[int, float], b: dict[int, float]) -> Interval:
    """As the analysis pairs seeds: differences first, then their mean."""
    return mean_interval(list(paired_differences(a, b).values()))


numbers = st.floats(-1e3, 1e3, allow_nan=False)
samples = st.lists(numbers, min_size=2, max_size=8)


@pytest.mark.parametrize(("confidence", "freedom"), T_TABLE)
def test_interval_matches_printed_t_table(confidence: float, freedom: int) -> None:
    values = [float(i) for i in range(freedom + 1)]  # 0 .. n-1: variance n(n+1)/12
    n = len(values)
    interval = mean_interval(values, confidence)
    reach = T_TABLE[confidence, freedom] * math.sqrt(n * (n + 1) / 12) / math.sqrt(n)
    assert interval.estimate == pytest.approx((n - 1) / 2)
    assert interval.half_width == pytest.approx(reach, rel=2e-4)
    assert (interval.low + interval.high) / 2 == pytest.approx(interval.estimate)
    assert interval.n == n


def test_three_seeds_by_hand() -> None:
    # s = 0.01, t = 4.302653, sqrt(3) = 1.7320508
    interval = mean_interval([0.71, 0.72, 0.73])
    assert interval.low == pytest.approx(0.72 - 0.02484138, abs=1e-8)
    assert interval.high == pytest.approx(0.72 + 0.02484138, abs=1e-8)


def test_one_value_has_no_interval() -> None:
    interval = mean_interval([0.7])
    assert interval.estimate == 0.7
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert not interval.bounded
    assert not interval.within(-math.inf, math.inf)


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [math.inf, 1.0]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_impossible_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], confidence)


def test_within_is_strict() -> None:
    interval = Interval(0.0, -0.5, 0.5, 3)
    assert interval.within(-0.51, 0.51)
    assert not interval.within(-0.5, 0.6)
    assert not interval.within(-0.6, 0.5)


@given(samples, numbers)
def test_translation_moves_the_interval(values: list[float], shift: float) -> None:
    before, after = mean_interval(values), mean_interval([value + shift for value in values])
    assert after.estimate == pytest.approx(before.estimate + shift, abs=1e-6)
    assert after.half_width == pytest.approx(before.half_width, abs=1e-6)


@given(samples, st.floats(-100, 100).filter(lambda factor: abs(factor) > 1e-3))
def test_scale_stretches_the_interval(values: list[float], factor: float) -> None:
    before, after = mean_interval(values), mean_interval([value * factor for value in values])
    assert after.estimate == pytest.approx(before.estimate * factor, abs=1e-6)
    assert after.half_width == pytest.approx(before.half_width * abs(factor), abs=1e-6)


@given(samples)
def test_more_confidence_is_wider(values: list[float]) -> None:
    assert mean_interval(values, 0.90).half_width <= mean_interval(values, 0.95).half_width


@given(st.dictionaries(st.integers(0, 6), numbers, min_size=4), st.dictionaries(st.integers(0, 6), numbers, min_size=4))
def test_paired_difference_is_antisymmetric_and_uses_common_seeds(a: dict[int, float], b: dict[int, float]) -> None:
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert forth.n == len(set(a) & set(b))
    assert forth.estimate == -back.estimate
    if forth.bounded:
        assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))


def test_pairing_cancels_what_the_seeds_share() -> None:
    scratch = {0: 0.60, 1: 0.70, 2: 0.80}
    method = {2: 0.82, 0: 0.61, 1: 0.715, 9: 0.1}
    assert list(paired_differences(method, scratch)) == [0, 1, 2]
    interval = paired_difference(method, scratch)
    assert interval.estimate == pytest.approx(0.015)  # differences 0.010, 0.015, 0.020: s = 0.005
    assert interval.half_width == pytest.approx(4.302653 * 0.005 / math.sqrt(3), rel=1e-6)
    assert interval.half_width < mean_interval(list(scratch.values())).half_width / 10


def test_no_common_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="finite values"):
        paired_difference({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize("n", [2, 3, 5])
def test_coverage_is_nominal(n: int) -> None:
    repetitions = 4000
    draws = np.random.default_rng(n).normal(0.7, 0.02, size=(repetitions, n))
    intervals = [mean_interval(row.tolist()) for row in draws]
    covered = sum(interval.low <= 0.7 <= interval.high for interval in intervals)
    tolerance = 4 * math.sqrt(repetitions * 0.95 * 0.05)  # four standard deviations of the binomial
    assert abs(covered - 0.95 * repetitions) < tolerance
