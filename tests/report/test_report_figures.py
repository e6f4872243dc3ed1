"""Figures as values: what is drawn, what is named instead, and the numbers behind."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.analysis.ranks import Ranking
from kdbench.report.figures.amounts import gains_by_amount
from kdbench.report.figures.calibration import reliability
from kdbench.report.figures.canvas import Chart, draw
from kdbench.report.figures.curves import learning_curves
from kdbench.report.figures.fidelity import agreement_and_score
from kdbench.report.figures.front import COSTS, fronts, pareto, points_of
from kdbench.report.figures.gains import gains_over_baseline, gains_over_controls
from kdbench.report.figures.labels import shortened, spread
from kdbench.report.figures.ranks import critical_difference
from kdbench.report.figures.robustness import corrupted_scores
from kdbench.report.figures.scale import far_out, fences
from kdbench.report.table import Table


def texts(chart: Chart) -> set[str]:
    return {element.text or "" for element in ElementTree.fromstring(chart.svg).iter("text")}


def lines(chart: Chart | None) -> dict[str, tuple[str, ...]]:
    assert chart is not None
    return {line.cells[0]: line.cells[1:] for line in chart.data.lines}


def test_gains_are_those_of_the_board(run: Any) -> None:
    chart = gains_over_baseline(run.board)
    assert chart is not None
    assert lines(chart)["kd"] == ("scratch", "+1.88", "+1.72", "+2.04", "3")
    assert next(iter(lines(chart))) == "kd"
    assert {"kd", "works", "distillation method", "control", "-62.4"} <= texts(chart)
    assert "<script>ale…)</script>" in texts(chart), "a long name is cut, and no mathematics"


def test_gains_over_controls_leave_the_baseline_to_the_other_figure(run: Any) -> None:
    chart = gains_over_controls(run.board)
    assert chart is not None
    over = {(line.cells[0], line.cells[1]) for line in chart.data.lines}
    assert over == {
        (method, control)
        for method in ("kd", "rkd", "<script>alert('$x^2$')</script>")
        for control in ("label_smoothing", "shuffled")
    }
    assert {"over label_smoothing", "over shuffled"} <= texts(chart)


def test_no_figure_of_what_nobody_measured(run: Any) -> None:
    bare = run.with_records(
        [
            record.model_copy(
                update={
                    "metrics": {"accuracy": record.metrics["accuracy"]},
                    "measurements": {},
                    "curves": {},
                    "calibration_curve": {},
                    "controls": (),
                }
            )
            for record in run.records
            if record.status == "done"
        ]
    )
    assert fronts(bare.board) == []
    found = (gains_over_controls, agreement_and_score, corrupted_scores)
    assert [figure(bare.board) for figure in found] == [None, None, None]
    assert learning_curves(bare.board, bare.records) is None
    assert reliability(bare.board, bare.records) is None


def test_fronts(run: Any) -> None:
    work, waiting, training = fronts(run.board)
    assert lines(work)["teacher"][0] == "teacher"
    assert {name: cells[-1] for name, cells in lines(work).items()} == {
        "teacher": "yes",
        "kd": "yes",
        **dict.fromkeys(("rkd", "scratch", "label_smoothing", "pruned", "shuffled"), ""),
        "<script>alert('$x^2$')</script>": "",
    }
    assert lines(work)["pruned"][:2] == ("compressed teacher", "20.0M")
    assert lines(waiting)["teacher"][1] == "2.10"
    assert "teacher" not in lines(training)
    assert {"scratch", "kd", "teacher"} <= texts(work)
    assert "shuffled" not in texts(work)
    assert "Off the scale: shuffled (10.1)." in work.caption


def test_a_front_where_lower_is_better(run: Any) -> None:
    points = points_of(run.board, COSTS[2])
    best, *_ = sorted(points, key=lambda point: point.cost)
    assert pareto(points, True)[0] == best
    worst = min(points, key=lambda point: point.score.estimate)
    assert pareto(points, False)[-1] == worst


def test_curves_are_means_over_seeds_in_percent(run: Any) -> None:
    chart = learning_curves(run.board, run.records)
    assert chart is not None
    assert chart.data.headers[:3] == ("validation accuracy %", "epochs", "10 %")
    assert lines(chart)["kd"][0] == "99"
    assert lines(chart)["kd"][-1] == "74.3"
    assert "shuffled" not in texts(chart)
    assert "shuffled (10.1 at the end)" in chart.caption


def test_reliability_pools_the_seeds_by_confidence(run: Any) -> None:
    empty = {"confidence": [0.98], "accuracy": [0.8], "share": [1.0]}  # one seed answers with certainty only
    records = [
        record.model_copy(update={"calibration_curve": empty}) if (record.method, record.seed) == ("kd", 0) else record
        for record in run.records
    ]
    chart = reliability(run.board, records)
    assert chart is not None
    (at,) = [index for index, line in enumerate(chart.data.lines) if line.cells[0] == "kd"]
    unsure, sure = (line.cells for line in chart.data.lines[at : at + 2])
    assert unsure == ("kd", "52.0", "40.0", "20.0", "0.050")
    share = (1.0 + 0.7 + 0.7) / 3
    assert sure[1:4] == ("97.4", f"{100 * (0.8 + 0.63 + 0.63) / 3 / share:.1f}", f"{100 * share:.1f}")


def test_corruption_has_a_panel_per_kind(run: Any) -> None:
    chart = corrupted_scores(run.board)
    assert chart is not None
    assert chart.data.headers == ("accuracy %", "gaussian noise", "jpeg")
    assert [float(cell) for cell in lines(chart)["kd"]] == pytest.approx([54.34, 64.34], abs=0.05)
    assert {"gaussian noise", "jpeg", "accuracy %"} <= texts(chart)


def test_critical_difference_joins_equals() -> None:
    ranking = Ranking(("a: x", "b: x"), {"kd": 1.5, "rkd": 1.5, "scratch": 3.0}, 0.04, 1.2, (("kd", "rkd"),))
    chart = critical_difference(ranking)
    assert lines(chart) == {"kd": ("1.50",), "rkd": ("1.50",), "scratch": ("3.00",)}
    assert {"kd", "rkd", "scratch"} <= texts(chart)
    assert "1.20" in chart.caption


def test_drawings_are_alike_and_leave_no_trace(run: Any) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    chart, again = gains_over_baseline(run.board), gains_over_baseline(run.board)
    assert chart == again
    assert dict(matplotlib.rcParams) == before


def test_a_drawing_takes_the_page_s_colours_and_any_letters() -> None:
    def paint(figure: Any) -> None:
        figure.text(0.1, 0.5, "知識 $x^2$ <b>")

    svg = draw('a "title" & <more>', 1.0, paint)
    assert "currentColor" in svg
    assert 'aria-label="a &quot;title&quot; &amp; &lt;more&gt;"' in svg
    assert "知識 $x^2$ &lt;b&gt;" in svg


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=12))
def test_names_never_lie_on_each_other(places: list[float]) -> None:
    moved = spread(sorted(places), 0.05)
    assert all(above - below > 0.0499 for below, above in pairwise(moved))
    assert moved[0] > -1e-9
    assert moved[-1] < 1 + 1e-9


def test_names_stay_where_there_is_room() -> None:
    assert spread([0.1, 0.5, 0.9], 0.05) == pytest.approx([0.1, 0.5, 0.9])
    assert shortened("kd[temperature=4.0]", 10) == "kd[te…4.0]"
    assert shortened("kd") == "kd"


def test_far_out() -> None:
    values = dict(zip("abcdef", (0.70, 0.71, 0.72, 0.73, 0.74, 0.1), strict=True))
    assert far_out(values) == {"f"}
    assert far_out({"a": 0.1, "b": 0.9}) == set()
    assert fences([1.0] * 9 + [2.0]) == (-math.inf, math.inf)


def test_columns_of_numbers_are_told_from_words() -> None:
    table = Table.of(
        ("#", "method", "score", "gain", "MACs", "cost", "said", "none"),
        [
            ("1", "kd", "74.47 ± 0.50", "+1.9 [+0.7, +3.1]", "12.4M", "1.87×", "3 seeds agree", ""),
            ("2", "2kd", "-", "-0.19", "-", "20×", "+0.1 points", "-"),
        ],
    )
    assert table.numeric == (True, False, True, True, True, True, False, False)
    assert Table.of(("a",), []).numeric == ()


def test_gains_by_the_amount_of_data(run: Any) -> None:
    assert gains_by_amount(run.leaderboard) == []
    fewer = [
        record.model_copy(
            update={
                "task": "cifar100, 10 %",
                "data_set": "cifar100",
                "train_fraction": 0.1,
                "fingerprint": f"{record.fingerprint}-10",
                "metrics": {**record.metrics, "accuracy": record.metrics["accuracy"] / 2},
            }
        )
        for record in run.records
        if record.status == "done"
    ]
    whole = [record.model_copy(update={"data_set": "cifar100"}) for record in run.records]
    (chart,) = gains_by_amount(run.with_records([*whole, *fewer]).leaderboard)
    found = [line.cells for line in chart.data.lines if line.cells[0] == "kd"]
    assert [cells[1] for cells in found] == ["10", "100"]
    assert [cells[2].split()[0] for cells in found] == ["+0.94", "+1.88"]
    assert {"kd", "rkd", "10", "100"} <= texts(chart)
    assert "label_smoothing" not in texts(chart), "controls have their place in the other figures"
