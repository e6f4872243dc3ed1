from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from kdbench.analysis.comparison import Change, Comparison, Side, compare
from kdbench.analysis.leaderboard import leaderboard
from kdbench.analysis.tables import comparison_to_json
from kdbench.errors import BadInput
from kdbench.measuring.record import Record
from kdbench.report.findings import comparison_tables

PROVENANCE = {
    "data": "d" * 64,
    "machine": "m1",
    "engine": "e1",
    "teachers": ["t1"],
    "recipe": {"epochs": 2},
    "plugin": {"distribution": "kdbench", "version": "1.0", "source": "s1"},
    "environment": {"kdbench": "0.4", "torch": "2.13"},
}


def trials(method: str, *scores: float, source: str = "s1", **changes: Any) -> list[Record]:
    provenance = {**PROVENANCE, "plugin": {**PROVENANCE["plugin"], "source": source}, **changes.pop("provenance", {})}
    return [
        Record(
            **{
                "fingerprint": f"{method}/{seed}/{source}/{sorted(provenance.items())}/{changes}",
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
                "metrics": {"accuracy": score, "teacher_accuracy": 0.8, "training_flops": 1e9, "parameters": 5.0},
                "measurements": {"latency_ms_p50": 0.5 if source == "s1" else 0.4},
                "provenance": provenance,
                **changes,
            }
        )
        for seed, score in enumerate(scores)
    ]


def side(name: str, records: list[Record], **options: Any) -> Side:
    return Side(name, leaderboard(records), records, **options)


def compared(old: list[Record], new: list[Record]) -> Comparison:
    return compare(side("before", old), side("after", new))


def change(comparison: Comparison, label: str) -> Change:
    (found,) = [each for board in comparison.boards for each in board.changes if each.label == label]
    return found


SCRATCH = trials("scratch", 0.70, 0.72, 0.68)
OLD = trials("kd", 0.75, 0.76, 0.74)
NEW = trials("kd", 0.76, 0.78, 0.755, source="s2")


def test_the_same_seeds_are_paired() -> None:
    """1, 2, 1.5 points: 1.5 ± 4.302653 * 0.5 / sqrt(3)."""
    found = compared([*SCRATCH, *OLD], [*SCRATCH, *NEW])
    kd = change(found, "kd")
    assert kd.gain is not None
    assert (kd.paired, kd.identical) == (True, False)
    assert (kd.gain.estimate, kd.gain.half_width) == (pytest.approx(0.015), pytest.approx(0.0124207, rel=1e-5))
    assert kd.costs["training_flops"] == (1e9, 1e9)
    assert kd.cost_ratio("latency_ms_p50") == pytest.approx(0.8)
    scratch = change(found, "scratch")
    assert scratch.identical
    assert found.circumstances == ("source or version of the plugin differs: kd",)
    assert found.missing == ()


def test_test_examples_count_as_in_a_leaderboard() -> None:
    def influences(scale: float) -> Any:
        return lambda record: np.linspace(-scale, scale, 50) if record.method == "kd" else None

    old, new = [*SCRATCH, *OLD], [*SCRATCH, *NEW]
    wide = compare(side("before", old, influences=influences(0.1)), side("after", new, influences=influences(1.0)))
    gain, narrow = change(wide, "kd").gain, change(compared(old, new), "kd").gain
    assert gain is not None
    assert narrow is not None
    assert gain.estimate == narrow.estimate
    assert gain.half_width > narrow.half_width


def test_other_seeds_teachers_recipes_or_engines_are_not_paired() -> None:
    """Welch by hand: variances 1e-4 and 1.75e-4 over 3 and 3 seeds, so a standard error of 0.957427 points and 3.72
    degrees of freedom, of which the 97.5 % quantile is 2.8602."""
    for differing in ({"engine": "e2"}, {"teachers": ["t2"]}, {"recipe": {"epochs": 3}}):
        new = trials("kd", 0.76, 0.78, 0.755, source="s2", provenance=differing)
        kd = change(compared([*SCRATCH, *OLD], [*SCRATCH, *new]), "kd")
        assert not kd.paired
        assert kd.gain is not None
        assert kd.gain.estimate == pytest.approx(0.015)
        assert kd.gain.half_width == pytest.approx(2.8602 * 0.00957427, rel=1e-3)


def test_more_seeds_are_compared_on_those_in_common() -> None:
    more = trials("kd", 0.76, 0.78, 0.755, 0.1, source="s2")
    kd = change(compared([*SCRATCH, *OLD], [*trials("scratch", 0.70, 0.72, 0.68, 0.7), *more]), "kd")
    assert kd.paired
    assert kd.gain is not None
    assert (kd.gain.n, kd.gain.estimate) == (3, pytest.approx(0.015))


def test_one_seed_and_no_spread_have_no_interval() -> None:
    one = compared(
        [*trials("scratch", 0.7), *trials("kd", 0.75)], [*trials("scratch", 0.7), *trials("kd", 0.7, source="s2")]
    )
    gain = change(one, "kd").gain
    assert gain is not None
    assert not gain.bounded
    other = {"engine": "e2"}
    same = compared([*SCRATCH, *trials("kd", 0.7, 0.7)], [*SCRATCH, *trials("kd", 0.8, 0.8, provenance=other)])
    gain = change(same, "kd").gain
    assert gain is not None
    assert not gain.bounded


def test_lower_is_better_turns_the_change_round() -> None:
    def errors(*scores: float, **more: Any) -> list[Record]:
        return [
            record.model_copy(update={"primary": "wer", "higher_is_better": False, "metrics": {"wer": score}})
            for record, score in zip(trials("kd", *scores, **more), scores, strict=True)
        ]

    kd = change(compared(errors(0.30, 0.31), errors(0.20, 0.22, source="s2")), "kd")
    assert kd.gain is not None
    assert kd.gain.estimate == pytest.approx(0.095)
    other = errors(0.20, 0.22, 0.21, source="s2", provenance={"engine": "e2"})
    kd = change(compared(errors(0.30, 0.31), other), "kd")
    assert kd.gain is not None
    assert kd.gain.low < 0.095 < kd.gain.high


def test_times_are_compared_on_one_machine_only() -> None:
    new = trials("kd", 0.76, 0.78, 0.755, source="s2", provenance={"machine": "m2"})
    found = compared([*SCRATCH, *OLD], [*SCRATCH, *new])
    assert "latency_ms_p50" not in change(found, "kd").costs
    assert change(found, "kd").cost_ratio("latency_ms_p50") is None
    assert change(found, "kd").cost_ratio("parameters") == 1
    assert "machine (times are not compared): m1, then m1, m2" in found.circumstances


def test_rows_and_boards_on_one_side_only_are_listed() -> None:
    letters = trials("scratch", 0.5, 0.6, task="letters")
    found = compared([*SCRATCH, *OLD, *letters], [*SCRATCH, *trials("rkd", 0.7, 0.7, 0.71)])
    assert [(each.label, each.old is not None, each.new is not None) for each in found.boards[0].changes] == [
        ("scratch", True, True),
        ("rkd", False, True),
        ("kd", True, False),
    ]
    assert found.missing == ("letters: big -> small is in before only",)
    assert change(found, "kd").gain is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "slow@1.0"}, "they ran different suites, quick and slow"),
        ({"suite": "quick@2.0"}, "quick changed its major version, 1.0 and 2.0"),
        ({"task": "letters"}, "no task and pair is in both"),
        ({"provenance": {"data": "f" * 64}}, "on digits, big -> small: other data .*: d{12} in before, f{12} in after"),
        ({"primary": "f1", "metrics": {"f1": 0.5}}, "other primary metrics: accuracy in before, f1 in after"),
    ],
)  # fmt: skip
def test_incomparable_runs_are_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        compared([*SCRATCH, *OLD], trials("scratch", 0.7, 0.7, **changes))


def test_a_minor_version_may_change() -> None:
    found = compared(
        [*SCRATCH, *OLD], [record.model_copy(update={"suite": "quick@1.1"}) for record in [*SCRATCH, *OLD]]
    )
    assert found.suites == ("quick@1.0", "quick@1.1")
    assert found.circumstances == ("minor version of the suite: quick@1.0, then quick@1.1",)


def test_json_is_strict() -> None:
    found = compared([*SCRATCH, *trials("kd", 0.7)], [*SCRATCH, *NEW])
    written = json.loads(comparison_to_json(found), parse_constant=lambda constant: pytest.fail(constant))
    kd = {each["label"]: each for each in written["boards"][0]["changes"]}["kd"]
    assert kd["change"] == pytest.approx(0.06)
    assert (kd["change_low"], kd["old"]["verdict"], kd["new"]["seeds"]) == (None, "unranked", 3)


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit(width: int) -> None:
    long = trials("attention_transfer", 0.70, 0.72, 0.69, params={"weight": 1000.0})
    found = compared([*SCRATCH, *OLD, *long], [*SCRATCH, *NEW, *trials("rkd", 0.7, 0.7, 0.71)])
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(comparison_tables(found, width))
    text = console.export_text()
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    (line,) = [line for line in text.splitlines() if line.split()[:1] == ["kd"]]
    shown = ["75.0", "76.5", "+1.5", "[+0.3,", "+2.7]", "1.00×", *(["0.80×"] if width == 120 else []), "works"]
    assert line.split()[1:] == shown
    assert "same trials" in text
    assert "source or version of the plugin differs: kd" in text
