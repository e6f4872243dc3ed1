from __future__ import annotations

import json
from typing import Any

import pytest

from kdbench.analysis.claims import Claim, claims
from kdbench.analysis.leaderboard import leaderboard
from kdbench.analysis.tables import verdicts_to_json
from kdbench.measuring.record import Record

FAMILIES = {
    "scratch": "control",
    "mixed_up": "control",
    "untaught": "control",
    "longer": "control",
    "stranger": "control",
    "exits": "control",
    "pruned": "compression",
    "kd": "response",
    "rkd": "relation",
    "mutual": "online",
    "own": "self",
    "many": "ensemble",
}
KEEPS = "the student keeps the teacher's accuracy"
GENERALISES = "it generalises better than training alone"
FEW_DATA = "it helps most when data are few"
DARK = "soft targets carry dark knowledge"
FEATURES = "the student learns the teacher's features and relations"
FIDELITY = "the student matches the teacher (fidelity)"
CALIBRATION = "it is better calibrated"
SALIENCY = "it is more interpretable"
SMALLER = "it runs faster and smaller"
PRUNING = "it beats pruning or quantising the teacher to the same cost"
SELF = "self-distillation improves a network of the same size"
ONLINE = "online distillation needs no teacher"
MANY = "an ensemble fits in one student"
PAYS = "it pays"


def trials(method: str, *scores: float, **changes: Any) -> list[Record]:
    """Three or so seeds of one method; metrics that vary by seed are lists."""
    given = changes.pop("metrics", {})
    task = changes.get("task", "digits")
    return [
        Record(
            **{
                "fingerprint": f"{task}/{method}/{seed}",
                "status": "done",
                "suite": "quick@1.0",
                "task": "digits",
                "pair": "big -> small",
                "teachers": ("big",),
                "student": "small",
                "method": method,
                "params": {},
                "family": FAMILIES[method],
                "seed": seed,
                "primary": "accuracy",
                "unit": "share",
                "metrics": {
                    "accuracy": score,
                    "teacher_accuracy": 0.80 + seed / 1000,
                    **{name: value[seed] if isinstance(value, tuple) else value for name, value in given.items()},
                },
                **changes,
            }
        )
        for seed, score in enumerate(scores)
    ]


def found(records: list[Record], claim: str) -> Claim:
    (one,) = [each for each in claims(leaderboard(records)) if each.claim == claim]
    return one


SCRATCH = trials("scratch", 0.700, 0.702, 0.698)
KD = trials("kd", 0.750, 0.753, 0.747)


def test_all_claims_of_the_protocol_in_its_order() -> None:
    assert [claim.claim for claim in claims(leaderboard([]))] == [
        KEEPS, GENERALISES, FEW_DATA, DARK, FEATURES, FIDELITY, CALIBRATION, SALIENCY, SMALLER, PRUNING, SELF, ONLINE,
        MANY, PAYS,
    ]  # fmt: skip


def test_what_is_not_tested_says_what_the_suite_lacks() -> None:
    for claim in claims(leaderboard([])):
        assert claim.answer == "not tested"
        (said,) = claim.evidence
        assert said.startswith("not tested by this suite: it")
        assert claim.controls == ()
    assert "train_fractions" in found([*SCRATCH, *KD], FEW_DATA).evidence[0]


def test_accuracy_is_kept_within_the_margin() -> None:
    kept = found([*SCRATCH, *trials("kd", 0.7995, 0.8012, 0.8013)], KEEPS)
    assert kept.answer == "supported"
    assert kept.evidence == (
        "kd keeps 100.0 % (95 % interval 99.8 to 100.1) of the teacher's accuracy, "
        "100 % of the way from scratch to it: "
        "-0.03 points over the teacher, 95 % interval -0.15 to +0.08, 3 paired seeds",
    )
    lost = found([*SCRATCH, *KD], KEEPS)
    assert lost.answer == "contradicted"
    assert lost.evidence[0].startswith("kd keeps 93.6 %")


def test_lower_is_better_keeps_its_sense() -> None:
    def errors(method: str, *scores: float) -> list[Record]:
        lower = {"primary": "wer", "higher_is_better": False}
        return [
            record.model_copy(update={**lower, "metrics": {"wer": score, "teacher_wer": 0.1}})
            for record, score in zip(trials(method, *scores), scores, strict=True)
        ]

    said = found([*errors("scratch", 0.4, 0.41, 0.39), *errors("kd", 0.2, 0.21, 0.19)], KEEPS)
    assert said.answer == "contradicted"
    assert said.evidence[0].startswith("kd keeps 50.0 % (")
    assert "a gain of -10.0 points over the teacher" in said.evidence[0]


def test_generalising_follows_the_verdicts_and_the_corrupted_inputs() -> None:
    supported = found([*SCRATCH, *KD], GENERALISES)
    assert (supported.answer, supported.controls) == ("supported", ("scratch",))
    assert supported.evidence[0].startswith("kd: works, +5.00 points over scratch, 95 % interval")
    fragile = {"corrupted_accuracy": (0.40, 0.41, 0.42)}
    robust = {"corrupted_accuracy": (0.60, 0.62, 0.61)}
    mixed = found(
        [
            *trials("scratch", 0.7, 0.702, 0.698, metrics=robust),
            *trials("kd", 0.75, 0.753, 0.747, metrics=fragile),
        ],
        GENERALISES,
    )
    assert mixed.answer == "mixed"
    assert mixed.evidence[0].startswith("1 of 2 comparisons for it, 1 against it; the first: kd: works")
    assert mixed.evidence[2].startswith(
        "against it: kd: accuracy on corrupted inputs 41.0 % against 61.0 %: -20.0 points"
    )


def test_a_control_that_explains_the_gain_speaks_against() -> None:
    ruled = {"controls": ("longer",)}
    records = [*SCRATCH, *trials("longer", 0.7499, 0.7531, 0.7470), *trials("kd", 0.750, 0.753, 0.747, **ruled)]
    said = found(records, GENERALISES)
    assert (said.answer, said.controls) == ("contradicted", ("scratch", "longer"))


def part(fraction: float, **scores: tuple[float, ...]) -> list[Record]:
    place = {"task": f"digits at {100 * fraction:g} %", "data_set": "digits", "train_fraction": fraction}
    return [record for method, each in scores.items() for record in trials(method, *each, **place)]


def test_few_data_by_hand() -> None:
    """Gains of 10, 11, 9 points at 10 % and 2, 2.5, 1.5 at 100 %: 8, 8.5, 7.5 more; 4.302653 * 0.5 / sqrt(3) = 1.24."""
    few = part(0.1, scratch=(0.5, 0.5, 0.5), kd=(0.60, 0.61, 0.59))
    some = part(0.3, scratch=(0.6, 0.6, 0.6), kd=(0.65, 0.655, 0.645))
    all_ = part(1.0, scratch=(0.7, 0.7, 0.7), kd=(0.72, 0.725, 0.715))
    said = found([*all_, *few, *some], FEW_DATA)
    assert said.answer == "supported"
    assert said.evidence == (
        "digits, big -> small: kd gains +10.0 points (95 % interval +7.5 to +12.5, 3 paired seeds) at 10 %, "
        "+5.0 points (95 % interval +3.8 to +6.2, 3 paired seeds) at 30 %, "
        "+2.0 points (95 % interval +0.8 to +3.2, 3 paired seeds) at 100 % of the training data, "
        "so with 10 % more than with 100 % by +8.0 points (95 % interval +6.8 to +9.2, 3 paired seeds)",
    )
    turned = found([*part(0.1, scratch=(0.5, 0.5, 0.5), kd=(0.501, 0.502, 0.499)), *all_], FEW_DATA)
    assert turned.answer == "contradicted"
    worse = found(
        [
            *part(0.1, scratch=(0.5, 0.5, 0.5), kd=(0.45, 0.46, 0.44)),
            *part(1.0, scratch=(0.7, 0.7, 0.7), kd=(0.5, 0.51, 0.49)),
        ],
        FEW_DATA,
    )
    assert worse.answer == "inconclusive"


ROBBED: dict[str, Any] = {"family": "control", "without_dark_knowledge": True}


def test_dark_knowledge_needs_a_control_without_it() -> None:
    asked = trials("kd", 0.750, 0.753, 0.747, controls=("mixed_up", "untaught"))
    untaught = trials("untaught", 0.69, 0.691, 0.692, family="control")
    mixed_up = trials("mixed_up", 0.70, 0.701, 0.702, **ROBBED)
    assert found([*SCRATCH, *asked, *untaught], DARK).answer == "not tested"
    said = found([*SCRATCH, *asked, *untaught, *mixed_up], DARK)
    assert (said.answer, said.controls) == ("supported", ("mixed_up",))
    (only,) = said.evidence
    assert only.startswith("kd: +4.90 points over mixed_up, 95 % interval")
    equal = trials("mixed_up", 0.750, 0.7531, 0.7469, **ROBBED)
    assert found([*SCRATCH, *asked, *equal], DARK).answer == "contradicted"


def test_dark_knowledge_must_beat_every_such_control() -> None:
    far = trials("mixed_up", 0.10, 0.101, 0.102, **ROBBED)
    near = trials("untaught", 0.742, 0.752, 0.751, **ROBBED)
    kd = trials("kd", 0.750, 0.753, 0.747, controls=("mixed_up", "untaught"))
    said = found([*SCRATCH, *kd, *far, *near], DARK)
    assert (said.answer, said.controls) == ("inconclusive", ("mixed_up", "untaught"))
    assert "points over mixed_up" in said.evidence[0]
    assert "points over untaught" in said.evidence[0]


def test_likeness_is_measured_against_students_that_never_saw_the_teacher() -> None:
    like = {"agreement": (0.90, 0.91, 0.92), "cka": (0.8, 0.81, 0.82)}
    unlike = {"agreement": (0.80, 0.80, 0.81), "cka": (0.6, 0.61, 0.63)}
    scratch = trials("scratch", 0.7, 0.702, 0.698, metrics=unlike)
    said = found([*scratch, *trials("kd", 0.75, 0.753, 0.747, metrics=like)], FIDELITY)
    assert (said.answer, said.controls) == ("supported", ("scratch",))
    assert said.evidence[0].startswith(
        "kd: agreement with the teacher 91.0 % against 80.3 %: +10.7 points over scratch"
    )
    stranger = trials("stranger", 0.7, 0.7, 0.7, metrics={"agreement": 0.95, "cka": (0.80, 0.82, 0.81)})
    kd = trials("kd", 0.75, 0.753, 0.747, metrics=like, fidelity_controls=("stranger",))
    said = found([*scratch, *stranger, *kd], FIDELITY)
    assert (said.answer, said.controls) == ("contradicted", ("stranger",))
    assert found([*scratch, *stranger, *kd], FEATURES).answer in ("inconclusive", "contradicted")
    assert found([*scratch, *stranger, *kd], SALIENCY).answer == "not tested"


def test_calibration_is_better_where_it_is_lower() -> None:
    bad, good = {"ece": (0.10, 0.11, 0.12)}, {"ece": (0.05, 0.06, 0.08)}
    said = found(
        [*trials("scratch", 0.7, 0.7, 0.7, metrics=bad), *trials("kd", 0.75, 0.753, 0.747, metrics=good)], CALIBRATION
    )
    assert said.answer == "supported"
    assert said.evidence[0].startswith(
        "kd: calibration error (ECE) 0.063 against 0.110: a gain of +0.047 ece over scratch"
    )


def test_several_methods_are_corrected_for() -> None:
    bad = {"ece": (0.10, 0.11, 0.12)}
    better = {"ece": (0.08, 0.086, 0.092)}  # by 2.0, 2.4, 2.8: p = 0.009
    scratch = trials("scratch", 0.7, 0.7, 0.7, metrics=bad)
    assert found([*scratch, *trials("kd", 0.7, 0.7, 0.7, metrics=better)], CALIBRATION).answer == "supported"
    many = [trials("kd", 0.7, 0.7, 0.7, metrics=better, params={"weight": n}) for n in range(6)]
    said = found([*scratch, *(record for records in many for record in records)], CALIBRATION)
    assert said.answer == "inconclusive"
    assert said.evidence[1].endswith("not sure once corrected for the methods compared (p = 0.055)")


def test_faster_and_smaller() -> None:
    counted = {"parameters": 78_000.0, "teacher_parameters": 640_000.0, "file_bytes": 3e5, "teacher_file_bytes": 26e5}
    timed = {
        "latency_ms_p50": (1.2, 1.3, 1.1),
        "teacher_latency_ms_p50": (0.4, 0.42, 0.38),
        "peak_memory_bytes": 95.0,
        "teacher_peak_memory_bytes": 100.0,
    }
    said = found(trials("scratch", 0.7, 0.7, 0.7, metrics={**counted, **timed}), SMALLER)
    assert said.answer == "mixed"
    assert said.evidence[0] == (
        "1 of 3 comparisons for it, 1 against it, 1 undecided; the first: of the teacher's, the student has "
        "12.2 % of the parameters (78.0k against 640k), 11.5 % of the file size (300k against 2.60M)"
    )
    assert "300.0 % (95 % interval" in said.evidence[2]
    assert found(trials("scratch", 0.7, metrics=counted), SMALLER).answer == "supported"


def test_pruning_is_beaten_only_at_no_greater_cost() -> None:
    kd = trials("kd", 0.750, 0.753, 0.747, metrics={"file_bytes": 100.0})
    for size, score, answer in ((100.0, 0.7, "supported"), (50.0, 0.7, "inconclusive"), (100.0, 0.8, "contradicted")):
        pruned = trials("pruned", score, score + 0.001, score - 0.002, metrics={"file_bytes": size})
        said = found([*SCRATCH, *kd, *pruned], PRUNING)
        assert (said.answer, said.controls) == (answer, ("pruned",))
    assert said.evidence[0].startswith("kd, at 1.00 times the file size of pruned: -4.97 points over pruned")


def test_online_is_no_worse_for_no_more_flops() -> None:
    kd = trials("kd", 0.750, 0.753, 0.747, metrics={"training_flops": 2e9})
    for flops, score, answer in ((2e9, 0.75, "supported"), (4e9, 0.75, "inconclusive"), (2e9, 0.7, "contradicted")):
        mutual = trials("mutual", score, score + 0.003, score - 0.0031, metrics={"training_flops": flops})
        assert found([*SCRATCH, *kd, *mutual], ONLINE).answer == answer


def test_self_distillation_and_ensembles() -> None:
    own = trials("own", 0.71, 0.713, 0.707, controls=("exits",))
    exits = trials("exits", 0.70, 0.701, 0.699)
    said = found([*SCRATCH, *own, *exits], SELF)
    assert (said.answer, said.controls) == ("supported", ("scratch", "exits"))
    many = trials("many", 0.76, 0.761, 0.762, metrics={"own_teacher_accuracy": (0.8, 0.803, 0.804)})
    said = found([*SCRATCH, *many], MANY)
    assert said.answer == "contradicted"
    assert said.evidence[0].startswith("many keeps 94.8 %")


@pytest.mark.parametrize(("flops", "answer"), [(2e9, "supported"), (1e9, "not tested")])
def test_it_pays_if_labels_alone_gain_less_for_as_many_flops(flops: float, answer: str) -> None:
    longer = trials("longer", 0.71, 0.711, 0.712, metrics={"training_flops": flops, "teacher_flops": 0.0})
    spent = {"training_flops": 2e9, "teacher_flops": 1e9}
    kd = trials("kd", 0.750, 0.753, 0.747, metrics=spent, controls=("longer",))
    assert found([*SCRATCH, *longer, *kd], PAYS).answer == answer


def test_one_seed_decides_nothing_and_a_broken_method_is_left_out() -> None:
    assert found([*trials("scratch", 0.7), *trials("kd", 0.9)], KEEPS).answer == "inconclusive"
    broken = [*KD[:2], KD[2].model_copy(update={"status": "failed", "metrics": {}})]
    assert found([*SCRATCH, *broken], KEEPS).answer == "not tested"


def test_boards_are_named_where_there_are_several() -> None:
    other = [*trials("scratch", 0.5, 0.5, 0.51, task="letters"), *trials("kd", 0.55, 0.56, 0.56, task="letters")]
    said = found([*SCRATCH, *KD, *other], KEEPS)
    assert said.evidence[1].startswith("against it: digits, big -> small: kd keeps")
    assert said.evidence[2].startswith("against it: letters, big -> small: kd keeps")


def test_json_has_all_claims_with_their_evidence() -> None:
    written = json.loads(verdicts_to_json(leaderboard([*SCRATCH, *KD])))["claims"]
    assert len(written) == 14
    assert set(written[0]) == {"claim", "answer", "evidence", "controls"}
