from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from kdbench.analysis.leaderboard import leaderboard
from kdbench.analysis.requirements import Check, Condition, Requirement, check
from kdbench.analysis.tables import checks_to_json
from kdbench.errors import BadInput, UnknownName
from kdbench.measuring.record import Record
from kdbench.report.findings import checks_table

COSTS = {
    "parameters": 10.0,
    "teacher_parameters": 40.0,
    "macs": 30.0,
    "teacher_macs": 60.0,
    "file_bytes": 100.0,
    "teacher_file_bytes": 200.0,
}


def trials(method: str, *scores: float, **changes: Any) -> list[Record]:
    return [
        Record(
            **{
                "fingerprint": f"{method}/{seed}/{changes}",
                "status": "done",
                "suite": "quick@1.0",
                "task": "digits",
                "pair": "big -> small",
                "teachers": ("big",),
                "student": "small",
                "method": method,
                "params": {},
                "family": "control" if method == "scratch" else "response",
                "seed": seed,
                "primary": "accuracy",
                "unit": "share",
                "metrics": {"accuracy": score, "teacher_accuracy": 0.80, "ece": 0.05 + seed / 100, **COSTS},
                "measurements": {"latency_ms_p50": 0.5 + seed / 100, "teacher_latency_ms_p50": 1.0},
                **changes,
            }
        )
        for seed, score in enumerate(scores)
    ]


BOARD = [*trials("scratch", 0.70, 0.72, 0.68), *trials("kd", 0.78, 0.80, 0.79)]


def checked(text: str, records: list[Record] = BOARD, confident: bool = False) -> tuple[Check, ...]:
    return check(leaderboard(records), [Requirement.parse(text)], confident)


def only(text: str, **options: Any) -> Check:
    (found,) = checked(text, **options)
    return found


def test_reads_as_written() -> None:
    read = Requirement.parse(
        ' kd[temperature=2.0,name="a:b"] : accuracy_drop <= 0.01, latency_ratio<5e-1,gain>0,works '
    )
    assert read.method == 'kd[temperature=2.0,name="a:b"]'
    assert [(each.quantity, each.operator) for each in read.conditions] == [
        ("accuracy_drop", "<="),
        ("latency_ratio", "<"),
        ("gain", ">"),
        ("works", ""),
    ]
    assert [each.bound for each in read.conditions[:3]] == [0.01, 0.5, 0.0]
    assert [str(each) for each in read.conditions][2:] == ["gain > 0", "works"]
    assert Requirement.parse("kd:corrupted_accuracy/noise>=0.5").conditions[0].quantity == "corrupted_accuracy/noise"


@pytest.mark.parametrize(
    "text",
    ["", "kd", "kd:", ":works", "kd:gain", "kd:gain>=", "kd:gain>=1%", "kd:gain>=nan", "kd:gain>=inf", "kd:gain=1",
     "kd:gain==1", "kd:>=1", "kd:gain>=1,", "kd:0<gain<1", "kd:gain=>1", "kd:gain>=1 works", "kd:works>=1,,"],
)  # fmt: skip
def test_what_cannot_be_read_says_how_to_write_it(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        Requirement.parse(text)
    assert "METHOD:CONDITION" in str(caught.value) or "shares are written 0.01" in str(caught.value)


conditions = st.builds(
    Condition,
    st.from_regex(r"[a-z][a-z_0-9/]{0,20}", fullmatch=True).filter(lambda name: name != "works"),
    st.sampled_from(["<=", ">=", "<", ">"]),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda bound: float(f"{bound:g}")).filter(math.isfinite),
)
requirements = st.builds(
    Requirement,
    st.from_regex(r"[A-Za-z_][\w.+-]{0,20}(\[[a-z]{1,9}=[\w.:]{1,9}(,[a-z]{1,9}=\w{1,9})?\])?", fullmatch=True),
    st.lists(conditions, min_size=1, max_size=4).map(tuple),
)


@given(requirements)
def test_what_is_written_is_read_back(requirement: Requirement) -> None:
    assert Requirement.parse(str(requirement)) == requirement


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = Requirement.parse(text)
    except BadInput:
        return
    assert read.method
    assert read.conditions


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        ("accuracy", 0.79),
        ("accuracy_drop", 0.01),
        ("gain", 0.09),
        ("retention", 0.79 / 0.8),
        ("gap_recovery", 0.9),
        ("latency_ratio", 0.51),
        ("parameters_ratio", 0.25),
        ("macs_ratio", 0.5),
        ("size_ratio", 0.5),
        ("ece", 0.06),
        ("latency_ms_p50", 0.51),
        ("parameters", 10.0),
    ],
)
def test_quantities_by_hand(quantity: str, value: float) -> None:
    above, below = only(f"kd:{quantity}>={value - 1e-6}"), only(f"kd:{quantity}<{value - 1e-6}")
    assert above.value is not None
    assert above.value.estimate == pytest.approx(value)
    assert (above.passed, below.passed) == (True, False)
    assert only(f"kd:{quantity}<={value + 1e-6}").passed


def test_a_drop_is_what_the_student_is_worse_by() -> None:
    def errors(method: str, *scores: float) -> list[Record]:
        lower = {"primary": "wer", "higher_is_better": False}
        return [
            record.model_copy(update={**lower, "metrics": {"wer": score, "teacher_wer": 0.10}})
            for record, score in zip(trials(method, *scores), scores, strict=True)
        ]

    board = [*errors("scratch", 0.30, 0.31), *errors("kd", 0.12, 0.13)]
    for quantity, value in {"wer_drop": 0.025, "gain": 0.18, "retention": 0.8, "gap_recovery": 0.18 / 0.205}.items():
        found = only(f"kd:{quantity}>0", records=board).value
        assert found is not None
        assert found.estimate == pytest.approx(value)


def test_the_confident_ask_the_worse_end() -> None:
    """0.78, 0.80, 0.79: 0.79 ± 4.302653 * 0.01 / sqrt(3) = 0.0248."""
    assert only("kd:accuracy>=0.78").passed
    assert not only("kd:accuracy>=0.78", confident=True).passed
    assert only("kd:accuracy>=0.76", confident=True).passed
    assert not only("kd:accuracy<=0.80", confident=True).passed
    assert only("kd:accuracy<=0.82", confident=True).passed
    assert only("kd:accuracy<=0.82", confident=True).reason == "by the upper end of its 95 % interval"


def test_one_seed_gives_no_confidence_but_a_count_needs_none() -> None:
    one = [*trials("scratch", 0.7), *trials("kd", 0.8)]
    assert only("kd:accuracy>0.5", records=one).passed
    unsure = only("kd:accuracy>0.5", records=one, confident=True)
    assert (unsure.passed, unsure.reason) == (False, "one seed has no interval to be confident by")
    assert only("kd:parameters_ratio<=0.25", records=one, confident=True).passed


def test_works_is_the_verdict() -> None:
    assert only("kd:works").passed
    baseline = only("scratch:works")
    assert not baseline.passed
    assert baseline.reason.startswith("baseline: ")


def test_unranked_fails_with_its_reason() -> None:
    broken = trials("kd", 0.9, 0.9)
    broken.append(trials("kd", 0, 0, 0)[2].model_copy(update={"status": "diverged", "reason": "nan", "metrics": {}}))
    found = only("kd:accuracy>0.1", records=[*BOARD[:3], *broken])
    assert (found.passed, found.reason) == (False, "unranked: diverged: nan (seed 2)")


def test_all_boards_must_hold() -> None:
    letters = [*trials("scratch", 0.5, 0.5, 0.5, task="letters"), *trials("kd", 0.6, 0.61, 0.6, task="letters")]
    found = checked("kd:accuracy>=0.7,gain>0", records=[*BOARD, *letters])
    assert [(each.task, each.condition.quantity, each.passed) for each in found] == [
        ("digits", "accuracy", True),
        ("letters", "accuracy", False),
        ("digits", "gain", True),
        ("letters", "gain", True),
    ]
    elsewhere = checked("kd:accuracy>=0.7", records=[*BOARD, *letters[:3]])
    assert [(each.passed, each.reason) for each in elsewhere][1] == (False, "it was not run here")


def test_a_teacher_no_better_than_the_baseline_leaves_no_gap() -> None:
    strong = [*trials("scratch", 0.81, 0.82, 0.83), *trials("kd", 0.85, 0.86, 0.86)]
    with pytest.raises(UnknownName):
        checked("kd:gap_recovery>=0.5", records=strong)


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(UnknownName, match="did you mean 'kd'"):
        checked("kdd:works")
    with pytest.raises(UnknownName, match="did you mean 'accuracy_drop'"):
        checked("kd:acuracy_drop<=0.1")
    with pytest.raises(BadInput, match="no result"):
        check(leaderboard([]), [Requirement.parse("kd:works")])


def test_a_name_with_several_rows_must_be_chosen() -> None:
    variants = [record for t in (2.0, 4.0) for record in trials("kd", 0.7, 0.8, 0.8, params={"temperature": t})]
    with pytest.raises(BadInput, match=r"choose one of: kd\[temperature=2.0\], kd\[temperature=4.0\]"):
        checked("kd:works", records=[*BOARD[:3], *variants])
    assert checked("kd[temperature=2.0]:accuracy>0", records=[*BOARD[:3], *variants])[0].passed


def test_json_for_machines() -> None:
    board = leaderboard(BOARD)
    checks = check(board, [Requirement.parse("kd:accuracy>=0.7,works")])
    written = json.loads(checks_to_json(board, checks), parse_constant=lambda constant: pytest.fail(constant))
    assert written["passed"] is True
    first, second = written["checks"]
    assert (first["quantity"], first["operator"], first["bound"]) == ("accuracy", ">=", 0.7)
    assert first["value"] == pytest.approx(0.79)
    assert (second["quantity"], second["bound"], second["value"]) == ("works", None, None)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_says_pass_and_fail_in_words(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(checks_table(checked("kd:accuracy_drop<=0.001,latency_ratio<=0.6,works")))
    text = console.export_text()
    assert max(cell_len(line) for line in text.splitlines()) <= width
    (failed,) = [line.split() for line in text.splitlines() if line.startswith("FAIL")]
    assert failed[1:7] == ["kd", "accuracy_drop", "<=", "0.001", "0.01", "[-0.0148,"]
    assert text.splitlines()[-1].strip() == "2 of 3 requirements are met."
