"""The arguments and options that several commands share."""

from __future__ import annotations

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
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
RESULTS = Path("results")
