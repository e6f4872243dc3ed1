"""The report: one HTML file that needs nothing else: it works offline, in MLflow's frame, on a phone and on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board, Leaderboard
from kdbench.analysis.claims import Claim
from kdbench.analysis.headline import headline
from kdbench.analysis.ranks import Ranking
from kdbench.measuring.record import Record
from kdbench.report import sections
from kdbench.report.figures.amounts import gains_by_amount
from kdbench.report.figures.calibration import reliability
from kdbench.report.figures.canvas import Chart
from kdbench.report.figures.curves import learning_curves
from kdbench.report.figures.fidelity import agreement_and_score
from kdbench.report.figures.front import fronts
from kdbench.report.figures.gains import gains_over_baseline, gains_over_controls
from kdbench.report.figures.ranks import critical_difference
from kdbench.report.figures.robustness import corrupted_scores
from kdbench.report.table import Table
from kdbench.store.run_folder import Manifest

if TYPE_CHECKING:
    from jinja2 import Template


_WORDS = 1.0  # inches of text around a figure


@dataclass(frozen=True)
class Section:
    """One leaderboard with everything that explains it.

    Attributes:
        anchor: its name in links.
        legend: headers with their meaning.
        charts: in two columns of about the same height.
    """

    anchor: str
    title: str
    leaderboard: Table
    legend: Sequence[tuple[str, str]]
    evidence: Table
    costs: Table
    charts: Sequence[Sequence[Chart]]


def html_report(
    manifest: Manifest,
    leaderboard: Leaderboard,
    records: Sequence[Record],
    claims: Sequence[Claim],
    ranking: Ranking | None,
) -> str:
    """A whole run as one page: the same bytes for the same results."""
    question, *answers = headline(leaderboard).split("\n")
    return _template().render(
        manifest=manifest,
        question=question,
        answers=answers,
        counted=sections.counted(leaderboard, records),
        boards=[_section(board, place, records) for place, board in enumerate(leaderboard.boards, start=1)],
        claims=claims,
        across=_two_columns([*gains_by_amount(leaderboard), *([critical_difference(ranking)] if ranking else [])]),
        unfinished=sections.unfinished(records),
        environments=sections.environment_tables(records),
        digests=sections.digest_table(manifest, records),
        sessions=sections.session_table(manifest),
    )


def _section(board: Board, place: int, records: Sequence[Record]) -> Section:
    return Section(
        anchor=f"board-{place}",
        title=f"{board.task}: {board.pair}",
        leaderboard=sections.leaderboard_table(board),
        legend=sections.legend(board),
        evidence=sections.evidence_table(board),
        costs=sections.cost_table(board),
        charts=_two_columns(_charts(board, records)),
    )


def _charts(board: Board, records: Sequence[Record]) -> list[Chart]:
    found = (
        gains_over_baseline(board),
        gains_over_controls(board),
        *fronts(board),
        agreement_and_score(board),
        learning_curves(board, records),
        reliability(board, records),
        corrupted_scores(board),
    )
    return [chart for chart in found if chart is not None]


def _two_columns(charts: Sequence[Chart]) -> list[list[Chart]]:
    """Each chart in turn where less stands so far; on a phone the second column follows the first."""
    columns: tuple[list[Chart], list[Chart]] = ([], [])
    heights = [0.0, 0.0]
    for chart in charts:
        shorter = heights.index(min(heights))
        columns[shorter].append(chart)
        heights[shorter] += chart.height + _WORDS
    return [column for column in columns if column]


@cache
def _template() -> Template:
    """The page, with its style and script pulled in, and everything that is put into it escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kdbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
