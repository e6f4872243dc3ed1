"""What every benchmark shares: its command line, its report as tables and as JSON, its targets.

python -m benchmarks.NAME [--quick] [--threads 1] [--out results/benchmarks] [any field of its setting]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Setting:
    """How much is measured. Each field of a subclass is an option of its command line."""


S = TypeVar("S", bound=Setting)


@dataclass(frozen=True)
class Table:
    """Rows of text under headers; the first column says what the row is."""

    title: str
    headers: tuple[str, ...]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Target:
    """What a figure must not exceed; `low` and `high` are its interval, where it has one: if that holds the limit, the
    question is open."""

    what: str
    value: float
    limit: float
    unit: str = ""
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        spread = "" if self.low is None or self.high is None else f" ({self.low:.4g} to {self.high:.4g})"
        return f"{self.verdict}: {self.what}: {self.value:.4g}{unit}{spread}, at most {self.limit:g}{unit} wanted"

    @property
    def verdict(self) -> str:
        """Whether it is met, as far as its interval tells."""
        least, most = (self.value if bound is None else bound for bound in (self.low, self.high))
        return "met" if most <= self.limit else "MISSED" if least > self.limit else "open"


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        question: what it measures, in a sentence or two; printed above the tables.
        samples: the raw figures by what they are of, so that other statistics can be made of them.
    """

    name: str
    question: str
    tables: tuple[Table, ...]
    targets: tuple[Target, ...] = ()
    samples: Mapping[str, Any] = field(default_factory=dict)


def main(measure: Callable[[S], Report], quick: S, full: S) -> None:
    """Runs one benchmark from its command line: prints its tables as Markdown and writes all of it as JSON."""
    import torch

    arguments, setting = _parsed(quick, full)
    torch.set_num_threads(arguments.threads)
    started, moment = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    report = measure(setting)
    seconds = time.perf_counter() - started
    conditions = _conditions(getattr(setting, "device", "cpu"))
    _print(report, conditions, seconds)
    whole = {
        **dataclasses.asdict(report),
        "setting": dataclasses.asdict(setting),
        "conditions": {**conditions, "started": moment, "seconds": seconds},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{report.name}.json"
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")


def _parsed(quick: S, full: S) -> tuple[argparse.Namespace, S]:
    """The options that all benchmarks have, and the setting with what the command line says in its place."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="the smaller setting: a minute or two")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on both sides of every comparison")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks", help="the folder of the JSON file")
    names = [each.name for each in dataclasses.fields(full)]
    for name in names:
        usual, short = getattr(full, name), getattr(quick, name)
        said = f"{_written(usual)}; quick: {_written(short)}"
        parser.add_argument(f"--{name.replace('_', '-')}", type=_reader(usual), metavar="X", help=said)
    arguments = parser.parse_args()
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    return arguments, dataclasses.replace(quick if arguments.quick else full, **given)


def _reader(usual: Any) -> Callable[[str], Any]:
    """What turns an option's text into a value like `usual`; tuples are written with semicolons."""
    if isinstance(usual, tuple):
        element = type(usual[0])
        return lambda text: tuple(element(part.strip()) for part in text.split(";")) if text else ()
    return type(usual)


def _written(value: Any) -> str:
    return ";".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _conditions(device: str) -> dict[str, Any]:
    """What the figures were taken with: machine, versions, threads, commit and command."""
    from kdbench.measuring.environment import environment
    from kdbench.training.device import resolve_device

    resolved = resolve_device(device)
    names = [sys.modules["__main__"].__spec__.name] if sys.modules["__main__"].__spec__ else []
    return {
        **environment(str(resolved)),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": bool(_git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")),
        "command": " ".join(["python", "-m", *names, *sys.argv[1:]]),
    }


def _git(*arguments: str) -> str | None:
    """What git answers; None outside of a repository, or without git."""
    try:
        ended = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ended.stdout.strip()


def _print(report: Report, conditions: Mapping[str, Any], seconds: float) -> None:
    commit = (conditions["commit"] or "unknown")[:12] + ("+" if conditions["uncommitted"] else "")
    machine = conditions["accelerator"] or conditions["processor"]
    print(f"## {report.name}\n\n{report.question}\n")
    print(
        f"{machine}, {conditions['threads']} of {conditions['cores']} cores, torch {conditions['torch']}, "
        f"commit {commit}, {seconds:.0f} s: `{conditions['command']}`"
    )
    console = Console(width=400, markup=False, emoji=False, highlight=False)
    for table in report.tables:
        grid = RichTable(*table.headers, box=box.MARKDOWN)
        for row in table.rows:
            grid.add_row(*row)
        print(f"\n{table.title}")
        console.print(grid)
    for target in report.targets:
        print(f"- {target}")
