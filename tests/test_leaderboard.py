from __future__ import annotations

import csv
import io
import json
import math
import random
from typing import Any

import pytest

from kdbench.analysis.board import Board, Row
from kdbench.analysis.leaderboard import leaderboard
from kdbench.analysis.tables import to_csv, to_frame, to_json, to_markdown, verdicts_to_json
from kdbench.errors import BadInput
from kdbench.measuring.record import Record
from kdbench.report.tracking import method_runs


def trial(method: str, seed: int, score: float | None = None, **changes: Any) -> Record:
    """A record of one trial; without a score it needs a status and a reason."""
    metrics = {} if score is None else {"accuracy": score, "teacher_accuracy": 0.80, **changes.pop("metrics", {})}
    values: dict[str, Any] = {
        "fingerprint": f"{method}-{changes.get('params', {})}-{seed}",
        "status": "done",
        "suite": "quick@1.0",
        "task": "digits",
        "pair": "big -> small",
        "teachers": ("big",),
        "student": "small",
        "method": method,
        "params": {},
        "family": "control" if method in ("scratch", "label_smoothing") else "response",
        "seed": seed,
        "primary": "accuracy",
        "metrics": metrics,
    }
    return Record(**{**values, **changes})


def trials(method: str, *scores: float, **changes: Any) -> list[Record]:
    return [trial(method, seed, score, **changes) for seed, score in enumerate(scores)]


def only(records: list[Record], **options: Any) -> Board:
    (board,) = leaderboard(records, **options).boards
    return board


def row(board: Board, label: str) -> Row:
    (found,) = [row for row in board.rows if row.label == label]
    return found


SCRATCH = trials("scratch", 0.70, 0.72, 0.68)
KD = trials("kd", 0.75, 0.76, 0.74)


def test_numbers_by_hand() -> None:
    board = only([*SCRATCH, *KD])
    kd, scratch = row(board, "kd"), row(board, "scratch")
    assert kd.score is not None
    assert kd.score.estimate == pytest.approx(0.75)
    assert kd.score.half_width == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert kd.gains == pytest.approx({0: 0.05, 1: 0.04, 2: 0.06})
    assert kd.difference is not None
    assert kd.difference.estimate == pytest.approx(0.05)
    assert kd.difference.half_width == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert kd.retention == pytest.approx(0.75 / 0.80)
    assert kd.gap_recovery == pytest.approx(0.05 / 0.10)
    assert (kd.rank, scratch.rank) == (1, 2)
    assert (kd.verdict.label, scratch.verdict.label) == ("works", "baseline")
    assert (scratch.difference, scratch.gains, scratch.gap_recovery) == (None, {}, None)
    assert (kd.control, scratch.control) == (False, True)
    assert kd.fingerprints == ("kd-{}-0", "kd-{}-1", "kd-{}-2")
    assert kd.status == "3/3"
    assert (board.seeds, board.baseline, board.has_baseline, board.unit) == ((0, 1, 2), "scratch", True, "share")
    assert board.teacher is not None
    assert (board.teacher.estimate, board.teacher.half_width) == (pytest.approx(0.80), pytest.approx(0.0))


def test_order_of_records_does_not_matter() -> None:
    records = [*SCRATCH, *KD, *trials("rkd", 0.75, 0.76, 0.74), *trials("at", 0.6, 0.7), *trials("kd", 0.5, task="a")]
    expected = leaderboard(records)
    for seed in range(5):
        assert leaderboard(random.Random(seed).sample(records, len(records))) == expected
    assert [board.task for board in expected.boards] == ["a", "digits"]


def test_equal_scores_share_a_rank() -> None:
    board = only([*SCRATCH, *KD, *trials("rkd", 0.75, 0.76, 0.74)])
    assert [(row.label, row.rank) for row in board.rows] == [("kd", 1), ("rkd", 1), ("scratch", 3)]


def test_method_with_a_missing_trial_is_unranked_and_last() -> None:
    broken = [
        *trials("lucky", 0.99, 0.98),
        trial("lucky", 2, status="diverged", reason="the loss is nan at epoch 3"),
        *trials("interrupted", 0.97),
        *[trial("impossible", seed, status="skipped", reason="small has no tap 'stage4'") for seed in range(3)],
        *[trial("crashes", seed, status="failed", reason="ValueError: shapes") for seed in range(3)],
    ]
    board = only([*SCRATCH, *KD, *broken])
    assert [(row.label, row.rank) for row in board.rows] == [
        ("kd", 1),
        ("scratch", 2),
        ("lucky", None),
        ("interrupted", None),
        ("crashes", None),
        ("impossible", None),
    ]
    lucky, interrupted, impossible = (row(board, name) for name in ("lucky", "interrupted", "impossible"))
    assert {r.verdict.label for r in board.rows if not r.ranked} == {"unranked"}
    assert lucky.score is not None
    assert lucky.score.estimate == pytest.approx(0.985)
    assert lucky.counts == {"done": 2, "diverged": 1}
    assert lucky.verdict.evidence == "diverged: the loss is nan at epoch 3 (seed 2)"
    assert lucky.status == "2 done, 1 diverged"
    assert interrupted.counts == {"done": 1, "missing": 2}
    assert interrupted.verdict.evidence == "not run (seeds 1, 2)"
    assert (impossible.score, impossible.difference, impossible.means) == (None, None, {})
    assert impossible.verdict.evidence == "skipped: small has no tap 'stage4'"
    assert len(impossible.fingerprints) == 3


def test_score_that_is_no_number_is_a_failure() -> None:
    board = only([*SCRATCH, *trials("kd", 0.75, math.nan, 0.74), *trials("rkd", 0.7, 0.7, math.inf)])
    assert row(board, "kd").counts == {"done": 2, "failed": 1}
    assert row(board, "kd").verdict.evidence == "failed: no finite accuracy (seed 1)"
    assert not row(board, "rkd").ranked


def test_baseline_that_lacks_a_seed_is_said() -> None:
    board = only([*trials("scratch", 0.70, 0.72), trial("scratch", 2, status="failed", reason="killed"), *KD])
    kd = row(board, "kd")
    assert row(board, "scratch").verdict.label == "unranked"
    assert kd.ranked
    assert list(kd.gains) == [0, 1]
    assert "2 paired seeds of 3 (scratch has no result for the others)" in kd.verdict.evidence
    assert kd.gap_recovery == pytest.approx(0.045 / 0.09)  # over the paired seeds only


def test_without_a_baseline_nothing_is_judged() -> None:
    board = only(KD)
    assert not board.has_baseline
    assert row(board, "kd").difference is None
    assert row(board, "kd").verdict.label == "inconclusive"


def test_another_baseline_may_be_named() -> None:
    board = only([*SCRATCH, *KD], baseline="kd")
    assert row(board, "kd").verdict.label == "baseline"
    assert row(board, "scratch").verdict.label == "hurts"


def test_teacher_no_better_than_scratch_leaves_no_gap() -> None:
    weak = {"metrics": {"teacher_accuracy": 0.70}}
    kd = row(only([*trials("scratch", 0.70, 0.70, **weak), *trials("kd", 0.71, 0.72, **weak)]), "kd")
    assert kd.gap_recovery is None
    assert kd.retention == pytest.approx(0.715 / 0.70)


def test_teacher_of_the_pair_is_the_baselines() -> None:
    own = trials("born_again", 0.71, 0.71, 0.71, metrics={"teacher_accuracy": 0.70})
    board = only([*own, *SCRATCH, *KD])
    assert board.teacher is not None
    assert board.teacher.estimate == pytest.approx(0.80)
    assert row(board, "born_again").retention == pytest.approx(0.71 / 0.80)
    assert row(board, "born_again").means["teacher_accuracy"] == pytest.approx(0.70)


def test_lower_is_better_turns_everything_round() -> None:
    def errors(method: str, *scores: float) -> list[Record]:
        return [
            trial(
                method, seed, primary="wer", higher_is_better=False, metrics={"wer": s, "teacher_wer": 0.10}, score=0.5
            )
            for seed, s in enumerate(scores)
        ]

    board = only([*errors("scratch", 0.30, 0.31), *errors("kd", 0.20, 0.20), *errors("bad", 0.40, 0.42)])
    assert [row.label for row in board.rows] == ["kd", "scratch", "bad"]
    kd = row(board, "kd")
    assert kd.gains == pytest.approx({0: 0.10, 1: 0.11})
    assert kd.retention == pytest.approx(0.10 / 0.20)
    assert kd.gap_recovery == pytest.approx(0.105 / 0.205)
    bad = row(board, "bad").difference
    assert bad is not None
    assert bad.estimate == pytest.approx(-0.105)
    assert (board.unit, board.equivalence_margin) == ("", pytest.approx(0.305 / 100))


def scored(metric: str, unit: str, higher: bool, teacher: float, **scores: tuple[float, ...]) -> list[Record]:
    return [
        trial(
            method,
            seed,
            0.0,
            primary=metric,
            unit=unit,
            higher_is_better=higher,
            metrics={metric: score, f"teacher_{metric}": teacher},
        )
        for method, values in scores.items()
        for seed, score in enumerate(values)
    ]


CYCLES = scored("rmse_cycles", "cycles", False, 12.0, scratch=(18.0, 19.0, 17.5), kd=(16.0, 16.8, 15.4))
METRICS = {
    "cycles": CYCLES,
    "perplexity": scored("perplexity", "", False, 20.0, scratch=(25.0, 25.5, 24.8), kd=(23.0, 23.6, 22.7)),
    "bits": scored("bits_per_character", "bits", False, 0.85, scratch=(0.92, 0.93, 0.91), kd=(0.88, 0.88, 0.871)),
    "wer": scored("wer", "share", False, 0.2, scratch=(1.05, 1.0, 1.02), kd=(0.31, 0.33, 0.30)),
    "bleu": scored("bleu", "", True, 35.0, scratch=(28.1, 28.4, 28.0), kd=(30.2, 30.4, 30.3)),
}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cycles", "| 1 | kd | 16.1 ± 1.7 | +2.10 [+1.85, +2.35] | 74.7 | 34 | "),
        ("perplexity", "| 1 | kd | 23.1 ± 1.1 | +2.00 [+1.75, +2.25] | 86.6 | 39 | "),
        ("bits", "| 1 | kd | 0.877 ± 0.013 | +0.043 [+0.028, +0.058] | 96.9 | 61 | "),
        ("wer", "| 1 | kd | 31.3 ± 3.8 | +71.0 [+62.0, +80.0] | 63.8 | 86 | "),
        ("bleu", "| 1 | kd | 30.30 ± 0.25 | +2.13 [+1.75, +2.51] | 86.6 | 31 | "),
    ],
)
def test_a_row_reads_in_the_unit_of_its_metric(name: str, line: str) -> None:
    """The numbers by hand; the half-widths are 4.302653 s / sqrt(3)."""
    table = to_markdown(leaderboard(METRICS[name]))
    assert line in table


def test_headers_tell_shares_and_where_lower_is_better() -> None:
    headers = {name: to_markdown(leaderboard(records)).splitlines()[0] for name, records in METRICS.items()}
    assert headers == {
        "cycles": "**digits: big -> small** (rmse cycles ↓, 3 seeds)",
        "perplexity": "**digits: big -> small** (perplexity ↓, 3 seeds)",
        "bits": "**digits: big -> small** (bits per character ↓, 3 seeds)",
        "wer": "**digits: big -> small** (wer % ↓, 3 seeds)",
        "bleu": "**digits: big -> small** (bleu, 3 seeds)",
    }


def test_a_record_without_a_unit_is_read_by_its_values() -> None:
    old = [record.model_copy(update={"unit": None}) for record in METRICS["bleu"]]
    assert only(old).unit == ""
    assert only([*SCRATCH, *KD]).unit == "share"


def test_the_margin_is_in_the_unit_of_each_metric() -> None:
    both = [*(record.model_copy(update={"task": "engines"}) for record in CYCLES), *SCRATCH, *KD]

    def margins(asked: Any = None) -> dict[str, float]:
        boards = leaderboard(both, equivalence_margin=asked).boards
        return {board.primary: board.equivalence_margin for board in boards}

    # half a point of a share, a hundredth of the baseline's score of anything else
    assert margins() == pytest.approx({"accuracy": 0.005, "rmse_cycles": 0.5450 / 3})
    assert margins({"rmse_cycles": 3.0}) == {"accuracy": 0.005, "rmse_cycles": 3.0}
    assert margins(0.25) == {"accuracy": 0.25, "rmse_cycles": 0.25}
    (board, _) = leaderboard(both, equivalence_margin={"rmse_cycles": 3.0}).boards[::-1]
    verdict = row(board, "kd").verdict
    assert verdict.label == "no effect"
    assert verdict.evidence == (
        "a gain of +2.10 cycles over scratch, 95 % interval +1.85 to +2.35, 3 paired seeds: "
        "a real difference, but smaller than the margin of 3 cycles"
    )
    engines = json.loads(to_json(leaderboard(both)))["boards"][1]
    assert (engines["unit"], engines["higher_is_better"]) == ("cycles", False)
    assert engines["equivalence_margin"] == pytest.approx(0.5450 / 3)


def test_labels_tell_variants_apart() -> None:
    two = trials("kd", 0.7, params={"temperature": 2.0, "hard_weight": 0.1})
    four = trials("kd", 0.7, params={"temperature": 4.0, "hard_weight": 0.1})
    other = trials("at", 0.7, params={"weight": 1000.0})
    labels = {row.label for row in only([*two, *four, *other]).rows}
    assert labels == {"kd[temperature=2.0]", "kd[temperature=4.0]", "at"}


def test_costs_and_means() -> None:
    def cost(flops: float, seconds: float, ece: float) -> dict[str, Any]:
        return {
            "metrics": {"training_flops": flops, "ece": ece},
            "measurements": {"training_seconds": seconds, "latency_ms_p50": 0.5},
        }

    board = only([*trials("scratch", 0.7, 0.7, **cost(1e9, 10, 0.1)), *trials("kd", 0.7, 0.8, **cost(2.5e9, 15, 0.2))])
    kd = row(board, "kd")
    assert kd.flops_ratio == pytest.approx(2.5)
    assert kd.seconds_ratio == pytest.approx(1.5)
    assert kd.means["ece"] == pytest.approx(0.2)
    assert kd.means["latency_ms_p50"] == 0.5
    assert "accuracy" not in kd.means


def test_metric_that_a_seed_lacks_has_no_mean() -> None:
    records = [*SCRATCH, trial("kd", 0, 0.7, metrics={"ece": 0.1}), trial("kd", 1, 0.7), trial("kd", 2, 0.7)]
    assert "ece" not in row(only(records), "kd").means


def test_seed_recorded_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="kd, seed 1, is recorded twice"):
        leaderboard([*SCRATCH, *KD, KD[1].model_copy(update={"fingerprint": "older"})])


def test_suites_of_other_names_or_majors_are_refused() -> None:
    leaderboard([*SCRATCH, trial("kd", 0, 0.7, suite="quick@1.3")])
    for suite in ("quick@2.0", "standard@1.0"):
        with pytest.raises(BadInput, match="cannot share a table"):
            leaderboard([*SCRATCH, trial("kd", 0, 0.7, suite=suite)])


MIXED = [
    *SCRATCH,
    *trials("kd", 0.75, 0.76, 0.74, params={"temperature": 4.0}, metrics={"agreement": 0.8123}),
    *[trial("ensemble", seed, status="skipped", reason="needs two teachers, the pair has one") for seed in range(3)],
]


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_frame_keeps_full_precision() -> None:
    frame = to_frame(leaderboard(MIXED))
    assert list(frame["method"]) == ["kd", "scratch", "ensemble"]
    assert frame.loc[0, "score"] == pytest.approx(0.75, abs=1e-15)
    assert frame.loc[0, "agreement"] == 0.8123
    assert frame["rank"].isna().tolist() == [False, False, True]
    assert frame.loc[2, "reasons"] == "skipped: needs two teachers, the pair has one"
    assert json.loads(str(frame.loc[0, "params"])) == {"temperature": 4.0}
    assert to_frame(leaderboard([])).empty


def test_csv_has_a_line_per_row() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(leaderboard(MIXED)))))
    assert [(line["label"], line["rank"]) for line in lines] == [("kd", "1"), ("scratch", "2"), ("ensemble", "")]
    assert float(lines[0]["gain"]) == pytest.approx(0.05)
    assert lines[1]["gain"] == ""


def test_json_is_strict_where_numbers_are_unknown() -> None:
    one_seed = leaderboard([trial("scratch", 0, 0.70), trial("kd", 0, 0.75), *MIXED[-3:-2]])
    (board,) = strict(to_json(one_seed))["boards"]
    kd, _, skipped = board["rows"]
    assert (kd["score"], kd["score_low"], kd["gain_high"]) == (0.75, None, None)
    assert (skipped["score"], skipped["rank"], skipped["counts"]) == (None, None, {"skipped": 1})
    assert (board["teacher"], board["seeds"], board["baseline"]) == (0.8, [0], "scratch")
    verdicts = strict(verdicts_to_json(one_seed))
    assert [line["verdict"] for line in verdicts["verdicts"]] == ["inconclusive", "baseline", "unranked"]
    assert verdicts["verdicts"][0]["gain"] == pytest.approx(0.05)
    assert verdicts["headline"].startswith("Does knowledge distillation really work here?")


def test_markdown_is_a_whole_table() -> None:
    lines = to_markdown(leaderboard(MIXED)).splitlines()
    assert lines[0] == "**digits: big -> small** (accuracy %, 3 seeds)"
    table = lines[2:]
    assert {line.count("|") for line in table} == {15}, "without the secondary scores, which no record has"
    assert table[2].startswith("|  | *teacher* | *80.0 ± 0.0* |")
    assert table[3].startswith("| 1 | kd | 75.0 ± 2.5 | +5.0 [+2.5, +7.5] | ")
    assert " | 50 | 81.2 | " in table[3]
    assert table[3].endswith("| 3/3 | works |")


def test_mlflow_rows_are_rounded_and_complete() -> None:
    kd, scratch, ensemble = method_runs(leaderboard(MIXED))
    assert kd.metrics == {
        "rank": 1,
        "acc_pct": 75.0,
        "gain_pp": 5.0,
        "gain_low_pp": 2.52,
        "gain_high_pp": 7.48,
        "retention_pct": 93.75,
        "agreement_pct": 81.23,
        "seeds": 3,
    }
    assert kd.tags["acc"] == "75.0 ± 2.5"
    assert kd.tags["gain"] == "+5.0 [+2.5, +7.5]"
    assert kd.tags["verdict"] == "works"
    assert (kd.label, kd.method, kd.task, kd.pair, kd.family) == ("kd", "kd", "digits", "big -> small", "response")
    assert kd.params == {"temperature": 4.0}
    assert kd.fingerprints == tuple(record.fingerprint for record in MIXED[3:6])
    assert "gain_pp" not in scratch.metrics
    assert ensemble.metrics == {"seeds": 0}
    assert ensemble.tags["status"] == "3 skipped"


def test_mlflow_rows_of_other_units_are_in_that_unit() -> None:
    (kd, scratch), (errors, _) = (method_runs(leaderboard(METRICS[name])) for name in ("cycles", "wer"))
    assert kd.metrics == {
        "rank": 1,
        "rmse_cycles": 16.0667,
        "gain": 2.1,
        "gain_low": 1.8516,
        "gain_high": 2.3484,
        "retention_pct": 74.69,
        "seeds": 3,
    }
    assert (kd.tags["rmse_cycles"], kd.tags["gain"]) == ("16.1 ± 1.7", "+2.10 [+1.85, +2.35]")
    assert (scratch.metrics["rank"], "gain" in scratch.metrics) == (2, False)
    assert {"wer_pct": 31.33, "gain_pp": 71.0}.items() <= errors.metrics.items()
    assert errors.tags["wer"] == "31.3 ± 3.8"


def test_a_seed_on_which_everything_was_skipped_is_missed_by_nobody() -> None:
    """As an interrupted run of more seeds leaves behind: skips are recorded at once."""
    kd = [record for record in MIXED if record.method == "kd"]
    skipped = kd[0].model_copy(
        update={
            "method": "other",
            "seed": 99,
            "status": "skipped",
            "reason": "no tap",
            "fingerprint": "x",
            "metrics": {},
        }
    )
    (board,) = leaderboard([*kd, skipped]).boards
    assert 99 not in board.seeds
    assert {row.method: row.ranked for row in board.rows} == {"kd": True, "other": False}
