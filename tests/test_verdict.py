from __future__ import annotations

import math

import numpy as np
import pytest

from kdbench.analysis.effects import Effect
from kdbench.analysis.headline import headline
from kdbench.analysis.leaderboard import leaderboard
from kdbench.analysis.statistics import Interval
from kdbench.analysis.verdict import Rival, Scale, judge
from kdbench.measuring.record import Record

POINTS = Scale("accuracy")


def gains(*values: float) -> Effect | None:
    return Effect.of(np.array(values)) if values else None


# The interval's half-width is 4.302653 s / sqrt(3) = 2.484 s at 95 %, 2.919986 / sqrt(3) = 1.686 s at 90 %.
@pytest.mark.parametrize(
    ("values", "label"),
    [
        ((0.018, 0.019, 0.020), "works"),  # 1.9 ± 0.25 points
        ((-0.018, -0.019, -0.020), "hurts"),
        ((0.00, 0.01, 0.02), "inconclusive"),  # 1.0 ± 2.5
        ((-0.001, 0.0, 0.001), "no effect"),  # 0.0 ± 0.17 at 90 %
        ((-0.003, 0.0, 0.003), "inconclusive"),  # 0.0 ± 0.506 at 90 %: just not within the margin
        ((-0.0029, 0.0, 0.0029), "no effect"),  # 0.0 ± 0.489 at 90 %
        ((0.0029, 0.003, 0.0031), "no effect"),  # surely above 0, and surely below the margin
        ((-0.0029, -0.003, -0.0031), "no effect"),
        ((0.02,), "inconclusive"),
        ((0.0, 0.0, 0.0), "no effect"),
        ((0.01, 0.01, 0.01), "inconclusive"),  # no spread to judge by
        ((0.001, 0.001, 0.001), "inconclusive"),
        ((), "inconclusive"),
    ],
)
def test_label(values: tuple[float, ...], label: str) -> None:
    assert judge(gains(*values), "scratch", POINTS).label == label


def test_spread_below_rounding_is_no_spread() -> None:
    scratch = (0.9, 0.7, 0.3)
    values = [(score + 0.1) - score for score in scratch]
    assert len(set(values)) > 1
    assert judge(gains(*values), "scratch", POINTS).label == "inconclusive"


def test_margin_decides_equivalence() -> None:
    values = gains(0.018, 0.019, 0.020)
    assert judge(values, "scratch", POINTS, margin=0.05).label == "no effect"
    assert judge(values, "scratch", POINTS, margin=0.02).label == "works"  # its 90 % interval ends at 0.0207


@pytest.mark.parametrize(
    ("values", "evidence"),
    [
        ((0.018, 0.019, 0.020), "+1.90 points over scratch, 95 % interval +1.65 to +2.15, 3 paired seeds"),
        (
            (0.00, 0.01, 0.02),
            "+1.0 points over scratch, 95 % interval -1.5 to +3.5, 3 paired seeds: "
            "the interval includes 0; about 10 seeds would tell 1.0 points from none",
        ),
        (
            (0.0029, 0.003, 0.0031),
            "+0.30 points over scratch, 95 % interval +0.28 to +0.32, 3 paired seeds: "
            "a real difference, but smaller than the margin of 0.5 points",
        ),
        (
            (-0.001, 0.0, 0.001),
            "0.00 points over scratch, 95 % interval -0.25 to +0.25, 3 paired seeds: "
            "equivalent within the margin of 0.5 points",
        ),
        (
            (0.02,),
            "+2.00 points over scratch, 1 paired seed: one seed shows no spread, so no interval; run more seeds",
        ),
        ((), "no seed in common with scratch, so nothing to compare with"),
    ],
)
def test_evidence_in_plain_words(values: tuple[float, ...], evidence: str) -> None:
    assert judge(gains(*values), "scratch", POINTS).evidence == evidence


def test_evidence_says_what_the_baseline_lacks() -> None:
    evidence = judge(gains(0.018, 0.020), "scratch", POINTS, seeds=3).evidence
    assert "2 paired seeds of 3 (scratch has no result for the others)" in evidence


def test_other_units_are_named() -> None:
    evidence = judge(gains(0.21, 0.22, 0.24), "scratch", Scale("bleu", "")).evidence
    assert evidence.startswith("+0.223 bleu over scratch, 95 % interval +0.185 to +0.261, 3 paired seeds")
    cycles = Scale("rmse_cycles", "cycles", higher_is_better=False)
    evidence = judge(gains(0.21, 0.22, 0.24), "scratch", cycles, margin=0.5).evidence
    assert evidence == (
        "a gain of +0.223 cycles over scratch, 95 % interval +0.185 to +0.261, 3 paired seeds: "
        "a real difference, but smaller than the margin of 0.5 cycles"
    )
    errors = judge(gains(-0.021, -0.022, -0.024), "scratch", Scale("wer", "share", higher_is_better=False)).evidence
    assert errors.startswith("a gain of -2.23 points over scratch, 95 % interval -2.61 to -1.85")


@pytest.mark.parametrize(
    ("estimate", "half_width", "digits"),
    [
        (13.5, 0.34, 2),
        (13.5, 3.4, 1),
        (345.0, 12.0, 0),
        (54321.0, 900.0, 0),
        (1.834, 0.0042, 4),
        (13.5, math.nan, 2),  # one seed: four digits in all
        (1.834, math.nan, 3),
        (54321.0, math.nan, 0),
        (0.0, math.nan, 3),
        (13.5, 0.0, 2),
    ],
)
def test_decimals_follow_the_width_whatever_the_unit(estimate: float, half_width: float, digits: int) -> None:
    interval = Interval(estimate, estimate - half_width, estimate + half_width, 3)
    assert Scale("rmse_cycles", "cycles", higher_is_better=False).digits([interval, None]) == digits


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (0.0149, 1, True, "+1.5"),
        (-0.0149, 2, True, "-1.49"),
        (0.0, 1, True, "0.0"),
        (-0.0001, 1, True, "-0.0"),  # below 0 all the same: the sign decides the verdict
        (-0.0001, 1, False, "0.0"),
        (0.7447, 2, False, "74.47"),
        (-0.7447, 2, False, "-74.47"),
    ],
)
def test_number(value: float, digits: int, sign: bool, text: str) -> None:
    assert POINTS.number(value, digits, sign) == text


def test_a_against_a_rarely_works() -> None:
    repetitions = 3000
    draws = np.random.default_rng(7).normal(0, 0.01, size=(repetitions, 3))
    labels = [judge(gains(*row), "scratch", POINTS).label for row in draws.tolist()]
    assert labels.count("works") <= 0.05 * repetitions
    assert labels.count("hurts") <= 0.05 * repetitions
    assert labels.count("no effect") <= 0.05 * repetitions  # seeds this noisy prove no equivalence either


def records(method: str, *scores: float, family: str = "response", task: str = "digits") -> list[Record]:
    return [
        Record(
            fingerprint=f"{task}/{method}/{seed}",
            status="done",
            suite="quick@1.0",
            task=task,
            pair="big -> small",
            teachers=("big",),
            student="small",
            method=method,
            params={},
            family=family,
            seed=seed,
            primary="accuracy",
            metrics={"accuracy": score},
        )
        for seed, score in enumerate(scores)
    ]


SCRATCH = records("scratch", 0.70, 0.71, 0.72, family="control")
WORKS = records("kd", 0.720, 0.731, 0.739)
HURTS = records("worse", 0.65, 0.662, 0.669)
UNCLEAR = records("unclear", 0.71, 0.70, 0.74)
SAME = records("same", 0.7001, 0.7099, 0.72)


def test_headline_answers_the_question() -> None:
    said = headline(leaderboard([*SCRATCH, *WORKS, *HURTS, *UNCLEAR, *SAME]))
    assert said == (
        "Does knowledge distillation really work here? 1 of 4 methods works: kd (+2.00 points); "
        "1 worse than the baseline: worse; 1 without effect: same; 1 inconclusive: unclear. "
        "With 3 seeds only large effects show: more seeds narrow the intervals."
    )


@pytest.mark.parametrize(
    ("methods", "start"),
    [
        ([*UNCLEAR], "Not shown: none of 1 method is proven to work; 1 inconclusive: unclear."),
        ([*HURTS, *SAME], "No: none of 2 methods works; 1 worse than the baseline: worse; 1 without effect: same."),
        ([], "No distillation method was run."),
    ],
)
def test_headline_without_a_winner(methods: list[Record], start: str) -> None:
    said = headline(leaderboard([*SCRATCH, *methods]))
    assert said.removeprefix("Does knowledge distillation really work here? ").startswith(start)


def test_headline_tells_what_a_control_explains() -> None:
    smoothing = records("label_smoothing", 0.71, 0.7201, 0.7299, family="control")
    said = headline(leaderboard([*SCRATCH, *against(WORKS, "label_smoothing"), *smoothing]))
    assert "1 of 1 method works: kd" in said, "it is surely better than the control too"
    said = headline(leaderboard([*SCRATCH, *against(WORKS, "label_smoothing"), *relabelled(WORKS, "label_smoothing")]))
    assert "1 better than the baseline, but no better than a control: kd" in said


def test_headline_names_a_control_that_does_better_than_every_method() -> None:
    longer = records("longer", 0.75, 0.761, 0.769, family="control")
    said = headline(leaderboard([*SCRATCH, *WORKS, *longer]))
    assert "Better than all of them: the control longer (+5.00 points)." in said
    said = headline(leaderboard([*SCRATCH, *WORKS, *relabelled(WORKS, "equal"), *against(longer, "none")]))
    assert "longer (+5.00 points)" in said
    assert "equal" not in said


def against(methods: list[Record], *controls: str) -> list[Record]:
    return [record.model_copy(update={"controls": controls}) for record in methods]


def relabelled(methods: list[Record], control: str) -> list[Record]:
    """The same results under the name of a control."""
    return [
        record.model_copy(update={"method": control, "family": "control", "fingerprint": f"{control} {record.seed}"})
        for record in methods
    ]


CONTROLLED = (0.018, 0.019, 0.020)  # gains over scratch, surely above 0


@pytest.mark.parametrize(
    ("over_control", "p_value", "label", "said"),
    [
        ((0.009, 0.010, 0.011), 0.001, "works", "better than smooth too"),
        ((-0.001, 0.0, 0.001), 1.0, "control explains", "but smooth (0.00 points over it"),
        ((-0.02, -0.021, -0.022), 0.001, "control explains", "but smooth (-2.10 points over it"),
        ((0.00, 0.01, 0.02), 0.2, "inconclusive", "not surely better than smooth, +1.0 points over it"),
        ((0.009, 0.010, 0.011), 0.07, "inconclusive", "not sure once corrected"),
    ],
)
def test_a_gain_must_be_one_over_the_controls_too(
    over_control: tuple[float, ...], p_value: float, label: str, said: str
) -> None:
    effect = gains(*over_control)
    assert effect is not None
    verdict = judge(gains(*CONTROLLED), "scratch", POINTS, rivals=[Rival("smooth", effect, p_value)])
    assert (verdict.label, said in verdict.evidence) == (label, True), verdict.evidence


def test_controls_are_asked_only_where_there_is_a_gain() -> None:
    beaten = gains(-0.02, -0.021, -0.022)
    assert beaten is not None
    for values in ((0.0, 0.0, 0.0), (-0.018, -0.019, -0.020), (0.00, 0.01, 0.02)):
        alone = judge(gains(*values), "scratch", POINTS)
        assert judge(gains(*values), "scratch", POINTS, rivals=[Rival("smooth", beaten, 0.0)]) == alone


def test_a_control_without_a_result_is_named() -> None:
    rows = leaderboard([*SCRATCH, *against(WORKS, "class_mean", "scratch")]).boards[0].rows
    kd = next(row for row in rows if row.method == "kd")
    assert kd.verdict.label == "works"
    assert kd.verdict.evidence.endswith("; not compared with class_mean, without a result here")


def test_comparisons_with_one_control_are_corrected_for_their_number() -> None:
    """Alone it surely beats the control (p < 0.05); as one of eight methods it does not (p * 8 > 0.05)."""
    control = records("placebo", 0.78, 0.781, 0.779, family="control")
    many = [against(records(f"kd{n}", 0.80, 0.811, 0.819), "placebo") for n in range(8)]
    alone = leaderboard([*SCRATCH, *control, *many[0]]).boards[0].rows
    crowd = leaderboard([*SCRATCH, *control, *(each for method in many for each in method)]).boards[0].rows
    assert next(row for row in alone if row.method == "kd0").verdict.label == "works"
    assert next(row for row in crowd if row.method == "kd0").verdict.label == "inconclusive"


def test_headline_without_baseline_and_without_records() -> None:
    assert "It cannot be said: no method has a seed in common with scratch." in headline(leaderboard(WORKS))
    assert headline(leaderboard([])).endswith("Nothing has run yet.")


def test_headline_of_several_tasks_has_a_line_each() -> None:
    other = [
        *records("scratch", 0.5, 0.6, family="control", task="cifar10"),
        *records("kd", 0.4, 0.7, task="cifar10"),
    ]
    lines = headline(leaderboard([*SCRATCH, *WORKS, *other])).splitlines()
    assert lines[0] == "Does knowledge distillation really work here?"
    assert lines[1].startswith("cifar10, big -> small: Not shown")
    assert lines[2].startswith("digits, big -> small: 1 of 1 method works")


def test_a_corrected_comparison_takes_more_seeds_to_settle() -> None:
    effect = gains(0.00, 0.01, 0.02)
    assert effect is not None

    def seeds(p_value: float | None) -> int:
        said = judge(effect, "scratch", POINTS, p_value=p_value).evidence
        return int(said.partition("about ")[2].split()[0])

    assert seeds(None) == seeds(effect.p_value()) == effect.seeds_to_settle(0.01)
    assert seeds(5 * effect.p_value()) == effect.seeds_to_settle(0.01, confidence=0.99) > seeds(None)
