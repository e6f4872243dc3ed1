"""The arguments and options that several commands share, and what becomes of the global ones."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="A suite's name (see `kdbench list`) or the path of one.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="'latest', a run's name, or its folder.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder of all runs.")]
MethodOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method", metavar="NAME[key=value,...]", help="Run these instead of the suite's methods; repeatable."
    ),
]
SeedsOption = Annotated[
    int | None, typer.Option("--seeds", metavar="N", help="Run seeds 0..N-1 instead of the suite's.")
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="D", help="auto, cpu, cuda or mps.")]
TrackingOption = Annotated[
    str | None,
    typer.Option("--tracking-uri", metavar="URI", help="MLflow's server or database; default: DIR/mlflow.db."),
]
TrackOption = Annotated[
    str,
    typer.Option(
        "--track",
        metavar="[fixed|tuned]",
        help="The suite's own configurations, or the best of equally many tries for every method and control.",
    ),
]
TrialsOption = Annotated[
    int | None,
    typer.Option("--tuning-trials", metavar="N", help="How many tries, on validation; default: 10. Tuned track only."),
]
ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME[key=value,...]",
        help=r"Where cohorts are trained: local (this process), processes\[workers=N,ranks=R], "
        r"ray\[address=A,store=URL], slurm\[partition=P].",
    ),
]
TrialMinutesOption = Annotated[
    float | None,
    typer.Option("--trial-minutes", metavar="M", help="A trial whose own steps take longer fails; the others go on."),
]
TrialMemoryOption = Annotated[
    float | None, typer.Option("--trial-memory", metavar="GB", help="A trial that takes more memory fails.")
]
CohortMemoryOption = Annotated[
    float | None,
    typer.Option(
        "--cohort-memory",
        metavar="GB",
        help="Students that would take more together are trained in several parts; default: what a GPU has free.",
    ),
]
StreamsOption = Annotated[
    int,
    typer.Option(
        "--streams",
        metavar="N",
        help="Advance students on N CUDA streams at once; changes no result (gain not measured).",
    ),
]
MaxHoursOption = Annotated[
    float | None,
    typer.Option("--max-hours", metavar="H", help="Stop then, at the end of an epoch; the same command goes on."),
]
ProfileOption = Annotated[bool, typer.Option("--profile", help="Say at the end where the time went.")]
TraceOption = Annotated[
    Path | None,
    typer.Option("--trace", metavar="FILE", help="Write the run's course to FILE, as a Chrome trace; with --profile."),
]
StrictOption = Annotated[bool, typer.Option("--strict", help="A broken plugin is an error, not a note.")]
PluginDirOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin-dir", metavar="DIR", help="Load the plugins in DIR's *.py files too; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
RESULTS = Path("results")

_VALUES_OF_GLOBAL = {"--debug": 0, "--strict": 0, "--plugin-dir": 1}


def global_options_first(arguments: list[str]) -> list[str]:
    """The arguments with those of every command before its name, so that they may stand anywhere."""
    first: list[str] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        if word == "--":
            others += [word, *words]
        elif name in _VALUES_OF_GLOBAL:
            first += [word, *islice(words, 0 if equals else _VALUES_OF_GLOBAL[name])]
        else:
            others.append(word)
    return first + others


def choose_plugins(strict: bool, folders: list[Path]) -> None:
    """Hands --strict and --plugin-dir to discovery through the environment, so that child processes agree."""
    if strict:
        os.environ["KDBENCH_STRICT"] = "1"
    if folders:
        also = filter(None, [os.environ.get("KDBENCH_PLUGIN_DIR")])
        os.environ["KDBENCH_PLUGIN_DIR"] = os.pathsep.join([*map(str, folders), *also])
