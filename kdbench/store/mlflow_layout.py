"""How a leaderboard is laid out in MLflow's UI: saved views, which MLflow keeps as JSON in an experiment's tags.

The format is undocumented: read from MLflow 3.17 and looked at in a browser. A UI that does not know it shows its
plain table instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdbench.store.mlflow_entries import MethodRun, mlflow_name

VIEW_TAG = "mlflow.sharedViewState."
VIEW_LIMIT = 5000  # characters of an experiment's tag
GAIN = "gain_pp"
COSTS = ("train_s", "cpu_ms", "macs_M")

_ORDINALS = frozenset({"rank", "seeds"})  # neither sorts the table nor makes a chart
_RUN_NAME, _CREATED = "tags.`mlflow.runName`", "runDateAndNestInfo"
_NARROWEST, _WIDEST, _LETTER, _PADDING = 72, 340, 7.6, 38  # pixels


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
        return f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={self.key}{mode}"

    def tag(self, time: int) -> tuple[str, str]:
        """The experiment tag that holds it; `time` in milliseconds since 1970."""
        value = {"name": self.title, "createdAt": time, "updatedAt": time, "state": json.dumps(self.state)}
        return VIEW_TAG + self.key, json.dumps(value)


def view_key(kind: str, run_name: str) -> str:
    """The same from one sync to the next, so that links last."""
    return f"{kind}-{hashlib.sha256(run_name.encode()).hexdigest()[:12]}"


def saved_views(
    run_name: str, method_runs: Sequence[MethodRun], higher_is_better: bool, curves: Iterable[str]
) -> tuple[View, View, View]:
    """The leaderboard as a table, the same numbers as charts, and the trials' learning curves by method."""
    order = _order(method_runs, higher_is_better)
    leaderboard = View(
        view_key("leaderboard", run_name),
        f"Leaderboard: {run_name}",
        _fitted({**_state(run_name, "method"), **order}, run_name, method_runs),
    )
    charts = View(
        view_key("charts", run_name),
        f"Charts: {run_name}",
        {**_state(run_name, "method"), **order, **_charts(_method_sections(method_runs))},
        charts=True,
    )
    learning = View(
        view_key("curves", run_name),
        f"Learning curves: {run_name}",
        {**_state(run_name, "trial"), "groupBy": _BY_METHOD, **_charts({"Learning curves": _lines(curves)})},
        charts=True,
    )
    return leaderboard, charts, learning


def primary_aggregate(method_runs: Sequence[MethodRun]) -> str | None:
    """The metric that the table is sorted by: the first that any method has, ranks and counts aside."""
    return next((name for name in _metrics(method_runs) if name not in _ORDINALS), None)


_BY_METHOD = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "method"}]}


def _state(run_name: str, role: str) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.role = '{role}' and tags.suite_run = '{run_name}'",
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
    }


def _order(method_runs: Sequence[MethodRun], higher_is_better: bool) -> dict[str, Any]:
    primary = primary_aggregate(method_runs)
    return {"orderByKey": f"metrics.`{primary}`", "orderByAsc": not higher_is_better} if primary else {}


def _fitted(state: dict[str, Any], run_name: str, method_runs: Sequence[MethodRun]) -> dict[str, Any]:
    """The state with as many columns as the tag can hold: the last metrics give way first."""
    columns = _columns(run_name, method_runs)
    while True:
        names = list(columns)
        selected = [name for name in names if name not in (_RUN_NAME, _CREATED)]
        fitted = {**state, "selectedColumns": selected, "columnOrder": names, "columnWidths": columns}
        if len(json.dumps(json.dumps(fitted))) <= VIEW_LIMIT - 300 or not columns:
            return fitted
        columns.popitem()


def _columns(run_name: str, method_runs: Sequence[MethodRun]) -> dict[str, int]:
    """Width in pixels of every column, in order, wide enough for its longest value."""
    tags: dict[str, list[str]] = {}
    for name in ("task", "pair"):
        values = [str(getattr(run, name)) for run in method_runs]
        if len(set(values)) > 1:
            tags[name] = values
    for run in method_runs:
        for key, text in run.tags.items():
            tags.setdefault(mlflow_name(key), []).append(text)
    columns = {
        _RUN_NAME: _width(["x" * 6 + f"{run.label} | {run_name}" for run in method_runs]),
        _CREATED: 140,
    }
    columns |= {f"tags.`{key}`": _width([key, *texts]) for key, texts in tags.items()}
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
    """Gains first: bars begin at 0, so that accuracies look alike and their differences do not."""
    names = _metrics(method_runs)
    primary = primary_aggregate(method_runs)
    benefit = [name for name in (GAIN, primary) if name in names]
    costs = [name for name in COSTS if name in names]
    others = [name for name in names if name not in {*benefit, *costs, *_ORDINALS}]
    scatter = [
        {"type": "SCATTER", "xaxis": {"type": "METRIC", "key": cost}, "yaxis": {"type": "METRIC", "key": primary}}
        for cost in costs
        if primary is not None and primary not in costs
    ]
    sections = {
        "Benefit": [_bar(name) for name in benefit if name],
        "Benefit against cost": scatter,
        "Cost": [_bar(name) for name in costs],
        "Everything else": [_bar(name) for name in others],
    }
    return {name: charts for name, charts in sections.items() if charts}


def _bar(name: str) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": mlflow_name(name)}


def _lines(curves: Iterable[str]) -> list[dict[str, Any]]:
    """Whole losses and validation scores; the single terms of a loss stay in the charts that MLflow adds itself."""
    names = [mlflow_name(f"epoch/{name}") for name in curves if "/" not in name]
    return [{"type": "LINE", "metricKey": name, "selectedMetricKeys": [name], "xAxisKey": "step"} for name in names]


def _charts(sections: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    headings, charts = [], []
    for number, (title, members) in enumerate(sections.items()):
        section = f"section-{number}"
        headings.append({"uuid": section, "name": title, "display": True, "isReordered": True})
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
