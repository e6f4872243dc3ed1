"""The report as text: everything is in it, once, escaped, and it needs nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from kdbench.analysis.columns import columns

VOID = {"meta", "br", "hr", "img", "link"}


class Page(HTMLParser):
    """Tags in order, with their attributes, and the text of the page; fails where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += data

    def count(self, tag: str) -> int:
        return [name for name, _ in self.tags].count(tag)


@pytest.fixture(scope="module")
def html(run: Any) -> str:
    return str(run.html())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_all_sections_are_there(page: Page) -> None:
    for said in (
        "Does knowledge distillation really work here?",
        "Does it help a small network?",
        "Leaderboard",
        "Why these verdicts",
        "Gain over scratch",
        "Gain over the controls",
        "Score against the work of one answer",
        "Score against waiting time",
        "Score against the cost of training",
        "Like the teacher, and as good?",
        "Learning curves",
        "Calibration",
        "When the inputs are corrupted",
        "What training took",
        "What is claimed for distillation",
        "Without a result",
        "Departures from the protocol",
        "two seeds only",
        "Provenance",
        "Imaginary 9000",
        "9f2c" * 16,
        "512 MiB",
    ):
        assert said in page.text, said


def test_the_leaderboard_reads_as_in_the_terminal(run: Any, page: Page) -> None:
    for row in run.board.rows:
        for column in columns(run.board):
            assert column.cell(row) in page.text
    assert "label_smoothing" in page.text
    assert "compressed teacher" in page.text


def test_everything_is_escaped(html: str, page: Page) -> None:
    assert "<script>alert('$x^2$')</script>" in page.text
    assert page.count("script") == 1, "only the page's own"
    assert "Quick & <i>small</i>" in page.text
    assert (page.count("i"), page.count("b")) == (0, 0)
    assert "suite: quick@1.0  # <b>bold</b>" in page.text


def test_it_needs_nothing_else(html: str, page: Page) -> None:
    assert "http" not in html
    assert "@import" not in html
    assert "url(" not in html.replace("url(#", "")
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe")
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")


def test_links_inside_the_page_lead_somewhere(page: Page) -> None:
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in page.tags:
        if "href" in attributes:
            assert str(attributes["href"]).removeprefix("#") in names
    assert set(re.findall(r"url\(#([^)]+)\)", str(page.tags))) <= set(names)


def test_every_figure_has_a_name_and_its_numbers(page: Page) -> None:
    figures = page.count("figure")
    assert figures == 9
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == figures == page.count("figcaption")
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert all("width" not in picture and "viewbox" in picture for picture in pictures)
    assert page.text.count("The numbers") == figures


def test_failures_have_their_traceback_folded(html: str, page: Page) -> None:
    failures = html[html.index('id="unfinished"') :]
    assert "Traceback, seed 0</summary><pre>Traceback\n  ValueError: 3 &lt; 4</pre>" in failures
    assert page.text.count("no tap 'stage4'") == 2, "once beside the verdict, once for all three seeds"


def test_the_same_run_gives_the_same_bytes(run: Any, html: str) -> None:
    assert run.html() == html


def test_several_tasks_are_ranked_across(run: Any) -> None:
    page = Page(run.on_another_task().html())
    for said in (
        "cifar100: resnet32x4 -> resnet8x4",
        "svhn: resnet32x4 -> resnet8x4",
        "Across leaderboards",
        "Mean rank across tasks",
    ):
        assert said in page.text
    assert page.count("figure") == 19


def test_a_run_of_which_little_is_known_has_a_report_too(run: Any) -> None:
    bare = [record for record in run.records if record.status != "done" or record.method == "scratch"]
    bare = [record.model_copy(update={"curves": {}, "calibration_curve": {}, "provenance": {}}) for record in bare]
    page = Page(run.with_records(bare).html())
    assert "No distillation method" in page.text or "Not shown" in page.text or "cannot be said" in page.text
    assert "Learning curves" not in page.text
    assert "Calibration" not in page.text


def test_one_seed_has_no_intervals_and_a_report(run: Any) -> None:
    page = Page(run.with_records([record for record in run.records if record.seed == 0]).html())
    assert "Gain over scratch" in page.text
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_it_is_small(html: str) -> None:
    assert len(html.encode()) < 1.5e6
