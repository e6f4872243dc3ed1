from __future__ import annotations

import io
from collections.abc import Iterable

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from kdbench.analysis.leaderboard import leaderboard
from kdbench.measuring.record import Record
from kdbench.report.terminal import leaderboard_table, verdict_panel

SCORES = {
    "scratch": (0.7240, 0.7290, 0.7210),
    "label_smoothing": (0.7262, 0.7291, 0.7243),
    "kd": (0.7421, 0.7484, 0.7398),
    "attention_transfer": (0.7341, 0.7402, 0.7288),
    "self_distillation": (0.7150, 0.7204, 0.7118),
    "rkd": (0.7250, 0.7400, 0.7210),
}
SIZES = {"parameters": 78042.0, "macs": 12.46e6}


def record(method: str, seed: int, score: float | None, **changes: object) -> Record:
    metrics = {"agreement": 0.693, "ece": 0.0571, "teacher_accuracy": 0.7942, "training_flops": 1e12, **SIZES}
    if method == "kd":
        metrics["training_flops"] = 1.87e12
    values = {
        "fingerprint": f"{method}-{changes}-{seed}",
        "status": "done",
        "suite": "quick@1.0",
        "task": "cifar100",
        "pair": "resnet32x4 -> resnet8x4",
        "teachers": ("resnet32x4",),
        "student": "resnet8x4",
        "method": method,
        "params": {},
        "family": "control" if method in ("scratch", "label_smoothing") else "response",
        "seed": seed,
        "primary": "accuracy",
        "metrics": {} if score is None else {"accuracy": score, **metrics},
        "measurements": {} if score is None else {"latency_ms_p50": 0.5234},
    }
    return Record(**{**values, **changes})


def records(methods: Iterable[str] = SCORES) -> list[Record]:
    return [record(method, seed, score) for method in methods for seed, score in enumerate(SCORES[method])]


SKIPPED = [
    record("ensemble", seed, None, status="skipped", reason="needs at least two teachers, the pair has one")
    for seed in range(3)
]
BOARD = leaderboard([*records(), *SKIPPED])


def rendered(renderable: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True, color_system="truecolor")
    console.print(renderable)
    lines = console.export_text().splitlines()
    assert lines
    assert max(cell_len(line) for line in lines) <= width
    assert not any("…" in line or "..." in line for line in lines)
    return lines


def line_of(lines: list[str], label: str) -> str:
    (found,) = [line for line in lines if label in line.split()[:2]]
    return found


def test_at_120_columns_everything_shows() -> None:
    lines = rendered(leaderboard_table(BOARD.boards[0], 120), 120)
    assert line_of(lines, "kd").split() == [
        "1",
        "kd",
        "74.3",
        "±",
        "1.1",
        "+1.88",
        "[+1.72,",
        "+2.04]",
        "93.6",
        "27",
        "69.3",
        "0.057",
        "78.0k",
        "12.5M",
        "0.523",
        "1.87×",
        "3/3",
        "works",
    ]
    assert line_of(lines, "teacher").split() == ["teacher", "79.4", "±", "0.0"]
    assert line_of(lines, "ensemble").split()[-2:] == ["0/3", "unranked"]


def test_at_80_columns_whole_columns_are_left_out() -> None:
    lines = rendered(leaderboard_table(BOARD.boards[0], 80), 80)
    assert line_of(lines, "kd").split() == [
        "1",
        "kd",
        "74.3",
        "±",
        "1.1",
        "+1.88",
        "[+1.72,",
        "+2.04]",
        "93.6",
        "1.87×",
        "works",
    ]
    assert "student resnet8x4: 78.0k parameters, 12.5M MACs" in lines
    assert "attention_transfer" in "\n".join(lines)


def test_every_width_keeps_rank_score_gain_and_verdict() -> None:
    for width in range(72, 200, 7):
        lines = rendered(leaderboard_table(BOARD.boards[0], width), width)
        words = line_of(lines, "kd").split()
        assert words[:8] == ["1", "kd", "74.3", "±", "1.1", "+1.88", "[+1.72,", "+2.04]"]
        assert words[-1] == "works"


def test_teacher_then_methods_then_controls() -> None:
    lines = rendered(leaderboard_table(BOARD.boards[0], 100), 100)
    place = {label: lines.index(line_of(lines, label)) for label in ("teacher", "kd", "ensemble", "label_smoothing")}
    rules = [index for index, line in enumerate(lines) if line.strip("─ ") == "" and "─" in line]
    assert len(rules) == 3
    assert (
        rules[0] < place["teacher"] < rules[1] < place["kd"] < place["ensemble"] < rules[2] < place["label_smoothing"]
    )


def test_long_labels_break_before_their_parameters() -> None:
    variants = [
        record("attention_transfer", seed, 0.73 + weight / 1e6, params={"weight": weight})
        for seed in range(3)
        for weight in (10.0, 1000.0)
    ]
    lines = rendered(leaderboard_table(leaderboard([*records(["scratch"]), *variants]).boards[0], 80), 80)
    first = next(index for index, line in enumerate(lines) if "attention_transfer" in line)
    assert lines[first].split()[0] == "1"
    assert lines[first + 1].split() == ["[weight=1000.0]"]


def test_legend_explains_only_what_is_shown() -> None:
    narrow = " ".join(rendered(leaderboard_table(BOARD.boards[0], 80), 80))
    wide = " ".join(rendered(leaderboard_table(BOARD.boards[0], 120), 120))
    assert "cost: training FLOPs / scratch's" in narrow
    assert "ECE: calibration error" not in narrow
    assert "ECE: calibration error" in wide


@pytest.mark.parametrize("width", [80, 120])
def test_panel_gives_headline_and_evidence(width: int) -> None:
    lines = rendered(verdict_panel(BOARD), width)
    text = " ".join(" ".join(line.strip("│╭╮╰╯─ ").split()) for line in lines)
    assert "Does knowledge distillation really work here?" in text
    assert "2 of 5 methods work: kd (+1.88 points), attention_transfer (+0.97);" in text
    assert "+1.72 to +2.04" in text
    assert "Verdicts are corrected for comparing several methods" in text
    assert {line.strip("│ ").split()[0] for line in lines if "unranked" in line and "skipped" in line} == {"ensemble"}


def test_one_seed_and_other_units_render() -> None:
    single = [record(method, 0, SCORES[method][0]) for method in ("scratch", "kd")]
    words = line_of(rendered(leaderboard_table(leaderboard(single).boards[0], 80), 80), "kd").split()
    assert words[:4] == ["1", "kd", "74.21", "+1.81"]
    assert words[-1] == "inconclusive"
    perplexity = [
        record(method, seed, 0.0, primary="ppl", higher_is_better=False, metrics={"ppl": value + seed})
        for method, value in (("scratch", 24.0), ("kd", 22.0))
        for seed in range(2)
    ]
    lines = rendered(leaderboard_table(leaderboard(perplexity).boards[0], 80), 80)
    # 22 and 23: 22.5 ± 12.706 / 2; both gains are 2, so that there is no spread to judge by.
    assert line_of(lines, "kd").split()[:6] == ["1", "kd", "22.5", "±", "6.4", "+2.000"]
    assert line_of(lines, "kd").split()[-1] == "inconclusive"


def test_no_verdict_relies_on_colour() -> None:
    console = Console(width=120, file=io.StringIO(), record=True, color_system=None, no_color=True)
    console.print(leaderboard_table(BOARD.boards[0], 120))
    text = console.export_text()
    for label in ("works", "hurts", "inconclusive", "unranked", "baseline"):
        assert label in text
