"""How a leaderboard is laid out in MLflow's UI: saved views, which MLflow keeps as JSON in an experiment's tags.

The format is undocumented: read from MLflow 3.17 and looked at in a browser. A UI that does not know it shows its
plain table instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdbench.measuring.record import Record
from kdbench.store.mlflow_entries import MethodRun, mlflow_name

VIEW_TAG = "mlflow.sharedViewState."
VIEW_LIMIT = 5000  # characters of an experiment's tag
GAINS = ("gain_pp", "gain")  # of a fraction in percentage points, of another metric in its own unit
COSTS = ("train_s", "cpu_ms", "macs_M")

_ORDINALS = frozenset({"rank", "seeds"})  # neither sorts the table nor makes a chart
_RUN_NAME, _CREATED = "attributes.`Run Name`", "runDateAndNestInfo"
_NARROWEST, _WIDEST, _LETTER, _PADDING = 68, 320, 6.8, 32  # pixels
_SENTENCE = 40  # letters; longer texts are read on the run's page, not in a column
_MODE = "workflowType=machine_learning"  # the other mode of the UI is about language models


@dataclass(frozen=True)
class View:
    """One saved view: its key in links, its title in the UI's menu, and what it shows."""

    key: str
    title: str
    state: Mapping[str, Any]
    charts: bool = False

    def path(self, experiment_id: str) -> str:
        """Where it opens, from the server's root."""
        mode = "&compareRunsMode=CHART" if self.charts else ""
        return f"/#/experiments/{experiment_id}/runs?{_MODE}&viewStateShareKey={self.key}{mode}"

    def tag(self, time: int) -> tuple[str, str]:
        """The experiment tag that holds it; `time` in milliseconds since 1970."""
        value = {"name": self.title, "createdAt": time, "updatedAt": time, "state": json.dumps(self.state)}
        return VIEW_TAG + self.key, json.dumps(value)


def run_path(experiment_id: str, run_id: str, page: str = "") -> str:
    """Where one MLflow run opens, from the server's root; `page` is the part after its id."""
    return f"/#/experiments/{experiment_id}/runs/{run_id}{page}?{_MODE}"


def view_key(kind: str, *scope: str) -> str:
    """The same from one sync to the next, so that links last."""
    return f"{kind}-{hashlib.sha256('|'.join(scope).encode()).hexdigest()[:12]}"


def saved_views(run_name: str, method_runs: Sequence[MethodRun], records: Sequence[Record]) -> tuple[View, ...]:
    """The leaderboard as a table, the same numbers as charts, the learning curves; then, of several, every board's own.

    A board is one task and pair; the first view shows all of them.
    """
    lower = {record.task for record in records if not record.higher_is_better}
    curves = dict.fromkeys(name for record in records for name in record.curves)
    boards: dict[tuple[str, str], list[MethodRun]] = {}
    for run in method_runs:
        boards.setdefault((run.task, run.pair), []).append(run)
    single = [
        _table(view_key("leaderboard", run_name, *board), f"{run_name}: {board[0]}, {board[1]}", where, runs, lower)
        for board, runs in boards.items()
        if len(boards) > 1 and (where := _of_board(run_name, *board))
    ]
    return (
        _table(view_key("leaderboard", run_name), f"Leaderboard: {run_name}", _of_role(run_name), method_runs, lower),
        View(
            view_key("charts", run_name),
            f"Charts: {run_name}",
            {
                **_state(_of_role(run_name) + _of_methods(method_runs)),
                **_order(method_runs, lower),
                **_charts(_method_sections(method_runs)),
            },
            charts=True,
        ),
        View(
            view_key("curves", run_name),
            f"Learning curves: {run_name}",
            {
                **_state(_of_role(run_name, "trial")),
                "orderByKey": "tags.`mlflow.runName`",
                **_charts({"Curves": _lines(curves)}, closed=("machine", "Model metrics")),
            },
            charts=True,
        ),
        *single,
    )


def primary_aggregate(method_runs: Sequence[MethodRun]) -> str | None:
    """The metric that the table is sorted by: the first that any method has, ranks and counts aside."""
    return next((name for name in _metrics(method_runs) if name not in _ORDINALS), None)


def _table(key: str, title: str, where: str, method_runs: Sequence[MethodRun], lower: Collection[str]) -> View:
    return View(key, title, _fitted({**_state(where), **_order(method_runs, lower)}, title, method_runs))


def _of_role(run_name: str, role: str = "method") -> str:
    return f"tags.role = '{role}' and tags.suite_run = '{run_name}'"


def _of_methods(method_runs: Sequence[MethodRun]) -> str:
    """Leaves controls out of the charts, where methods remain: one placebo far below would flatten all other bars."""
    return " and tags.kind = 'method'" if any(run.tags.get("kind") == "method" for run in method_runs) else ""


def _of_board(run_name: str, task: str, pair: str) -> str | None:
    """None where a name holds both kinds of quotes, which MLflow's filters cannot say."""
    quotes = [next((quote for quote in "'\"" if quote not in text), None) for text in (task, pair)]
    if None in quotes:
        return None
    first, second = quotes
    return f"{_of_role(run_name)} and tags.task = {first}{task}{first} and tags.pair = {second}{pair}{second}"


def _state(where: str) -> dict[str, Any]:
    return {
        "searchFilter": where,
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [],
        "columnOrder": [],
        "columnWidths": {},
        "groupBy": None,
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        # Smoothed where it is left out, and a smoothed curve lags behind the true one.
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _order(method_runs: Sequence[MethodRun], lower: Collection[str]) -> dict[str, Any]:
    primary = primary_aggregate(method_runs)
    if primary is None:
        return {}
    ascending = all(run.task in lower for run in method_runs)
    return {"orderByKey": f"metrics.`{mlflow_name(primary)}`", "orderByAsc": ascending}


def _fitted(state: dict[str, Any], title: str, method_runs: Sequence[MethodRun]) -> dict[str, Any]:
    """The state with as many columns as the tag can hold: the last metrics give way first."""
    columns = _columns(method_runs)
    while True:
        names = list(columns)
        selected = [name for name in names if name not in (_RUN_NAME, _CREATED)]
        fitted = {**state, "selectedColumns": selected, "columnOrder": names, "columnWidths": columns}
        if not columns or len(View("", title, fitted).tag(0)[1]) < VIEW_LIMIT - 50:  # room for the times
            return fitted
        columns.popitem()


def _columns(method_runs: Sequence[MethodRun]) -> dict[str, int]:
    """Width in pixels of every column, in order, wide enough for its longest value."""
    tags: dict[str, list[str]] = {}
    for name in ("task", "pair"):
        values = [str(getattr(run, name)) for run in method_runs]
        if len(set(values)) > 1:
            tags[name] = values
    for run in method_runs:
        for key, text in run.tags.items():
            tags.setdefault(mlflow_name(key), []).append(text)
    columns = {_RUN_NAME: _width([f"{run.label} | {' ' * 12}" for run in method_runs]), _CREATED: 136}
    for key, texts in tags.items():
        if max(map(len, texts)) <= _SENTENCE:
            columns[f"tags.`{key}`"] = _width([key, *texts])
    for name in _metrics(method_runs):
        texts = [f"{run.metrics[name]:.8g}" for run in method_runs if name in run.metrics]
        columns[f"metrics.`{mlflow_name(name)}`"] = _width([name, *texts])
    return columns


def _width(texts: Iterable[str]) -> int:
    longest = max((len(text) for text in texts), default=0)
    return int(min(_WIDEST, max(_NARROWEST, longest * _LETTER + _PADDING)))


def _metrics(method_runs: Sequence[MethodRun]) -> list[str]:
    return list(dict.fromkeys(name for run in method_runs for name in run.metrics))


def _method_sections(method_runs: Sequence[MethodRun]) -> dict[str, list[dict[str, Any]]]:
    """Gains first: bars begin at 0, so that accuracies look alike and their differences do not.

    MLflow adds a chart of every other metric by itself.
    """
    names = _metrics(method_runs)
    primary = primary_aggregate(method_runs)
    benefit = [name for name in (*GAINS, primary) if name in names]
    costs = [name for name in COSTS if name in names]
    scatter = [
        {"type": "SCATTER", "xaxis": {"type": "METRIC", "key": cost}, "yaxis": {"type": "METRIC", "key": primary}}
        for cost in costs
        if primary is not None and primary not in costs
    ]
    sections = {
        "Benefit": [_bar(name) for name in benefit if name],
        "Benefit against cost": scatter,
        "Cost": [_bar(name) for name in costs],
    }
    return {name: charts for name, charts in sections.items() if charts}


def _bar(name: str) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": mlflow_name(name)}


def _lines(curves: Iterable[str]) -> list[dict[str, Any]]:
    """Whole losses and validation scores; the single terms of a loss stay in the charts that MLflow adds itself."""
    names = [mlflow_name(f"epoch/{name}") for name in curves if "/" not in name]
    line = {"type": "LINE", "xAxisKey": "step", "lineSmoothness": 0, "displayPoints": False}
    return [{**line, "metricKey": name, "selectedMetricKeys": [name]} for name in names]


def _charts(sections: Mapping[str, Sequence[Mapping[str, Any]]], closed: Iterable[str] = ()) -> dict[str, Any]:
    """`closed`: sections that MLflow fills by itself, folded away."""
    headings = [{"uuid": f"closed-{name}", "name": name, "display": False, "isReordered": False} for name in closed]
    charts = []
    for number, (title, members) in enumerate(sections.items()):
        section = f"section-{number}"
        headings.append({"uuid": section, "name": title, "display": True, "isReordered": False})
        charts += [
            {
                **chart,
                "uuid": f"{section}-{index}",
                "metricSectionId": section,
                "runsCountToCompare": 100,
                "deleted": False,
                "isGenerated": False,
            }
            for index, chart in enumerate(members)
        ]
    return {"compareRunSections": headings, "compareRunCharts": charts}
