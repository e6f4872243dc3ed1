"""The commands and their flags.

Heavy imports happen inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli.datasets import data
from kdbench.cli.options import (
    RESULTS,
    CohortMemoryOption,
    DeviceOption,
    ExecutorOption,
    JsonOption,
    MaxHoursOption,
    MethodOption,
    OutOption,
    PluginDirOption,
    ProfileOption,
    RunArgument,
    SeedsOption,
    StreamsOption,
    StrictOption,
    SuiteArgument,
    TraceOption,
    TrackingOption,
    TrackOption,
    TrialMemoryOption,
    TrialMinutesOption,
    TrialsOption,
    choose_plugins,
)
from kdbench.cli.scaffolding import new
from kdbench.errors import BadInput

app = typer.Typer(
    name="kdbench",
    help="Does knowledge distillation really work here? A controlled benchmark: paired seeds, controls, a verdict.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(data, name="data")
app.add_typer(new, name="new")


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    strict: StrictOption = False,
    plugin_dir: PluginDirOption = None,
) -> None:
    """Sets what holds for every command; `main` has already read --debug."""
    choose_plugins(strict, plugin_dir or [])


@app.command()
def run(
    suite: SuiteArgument,
    method: MethodOption = None,
    seeds: SeedsOption = None,
    track: TrackOption = "fixed",
    tuning_trials: TrialsOption = None,
    out: OutOption = RESULTS,
    name: Annotated[
        str | None, typer.Option("--name", metavar="RUN", help="The run's name; default: the suite's.")
    ] = None,
    device: DeviceOption = "auto",
    executor: ExecutorOption = "local",
    trial_minutes: TrialMinutesOption = None,
    trial_memory: TrialMemoryOption = None,
    cohort_memory: CohortMemoryOption = None,
    streams: StreamsOption = 1,
    max_hours: MaxHoursOption = None,
    tracking_uri: TrackingOption = None,
    profile: ProfileOption = False,
    trace: TraceOption = None,
) -> None:
    """Train, measure, rank and judge; the same command again runs only what is missing."""
    from kdbench.cli.choosing import requested_trials
    from kdbench.cli.profiling import profile_of
    from kdbench.cli.running import requested_means, run_suite
    from kdbench.execution.limits import Limits
    from kdbench.training.device import resolve_device

    trials, target = requested_trials(track, tuning_trials), resolve_device(device)
    limits = Limits(trial_minutes, trial_memory, max_hours, cohort_memory, streams)
    limits.check(target)
    means = requested_means(executor, limits, profile or trace is not None)
    with profile_of(target, profile, trace):
        status = run_suite(suite, method or [], seeds, trials, out, name, target, means, tracking_uri)
    raise typer.Exit(status)


@app.command()
def plan(
    suite: SuiteArgument,
    method: MethodOption = None,
    seeds: SeedsOption = None,
    track: TrackOption = "fixed",
    tuning_trials: TrialsOption = None,
    out: OutOption = RESULTS,
    name: Annotated[
        str | None, typer.Option("--name", metavar="RUN", help="The run whose records count as cached.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Show trials, cohorts, what is skipped and why, what is cached, and the estimated FLOPs and time."""
    from kdbench.cli.choosing import requested_trials
    from kdbench.cli.planning import show_plan

    show_plan(suite, method or [], seeds, requested_trials(track, tuning_trials), out, name, device)


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(metavar="[suites|methods|tasks|architectures]")] = "all",
    json: JsonOption = False,
) -> None:
    """List suites and plugins."""
    from kdbench.cli.listing import show_list

    show_list(what, json)


@app.command()
def plugins(json: JsonOption = False) -> None:
    """List the installed plugin packages, and the broken ones with their errors."""
    from kdbench.cli.listing import show_plugins

    show_plugins(json)


@app.command()
def check(
    methods: Annotated[
        list[str] | None, typer.Argument(metavar="[METHOD...]", help="All, where none is named.")
    ] = None,
    checks: Annotated[bool, typer.Option("--list", help="List the checks with their reasons, and run none.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A markdown table of checks by methods.")] = False,
) -> None:
    """Check that methods keep the plugin contract; exits 1 where one does not."""
    from kdbench.cli.checking import check as run_check
    from kdbench.cli.checking import list_checks

    if checks:
        return list_checks()
    raise typer.Exit(run_check(methods or [], markdown))


@app.command()
def records(
    run: RunArgument = "latest",
    out: OutOption = RESULTS,
    json: JsonOption = False,
    samples: Annotated[
        bool, typer.Option("--samples", help="What each student answers to a few test examples.")
    ] = False,
) -> None:
    """Print every trial's record; with --json one object per line."""
    from kdbench.cli.results import show_records

    show_records(run, out, json, samples)


@app.command()
def leaderboard(
    run: RunArgument = "latest",
    out: OutOption = RESULTS,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, full precision.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A markdown table.")] = False,
) -> None:
    """Print a run's leaderboard."""
    from kdbench.cli.results import show_leaderboard

    if json + csv + markdown > 1:
        raise BadInput("choose one of --json, --csv and --markdown")
    show_leaderboard(run, out, "json" if json else "csv" if csv else "markdown" if markdown else "terminal")


@app.command()
def verdict(
    run: RunArgument = "latest",
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="METHOD:CONDITION,...",
            help="A gate: exit 0 if met, else 1, e.g. 'kd:accuracy_drop<=0.01,latency_ratio<=0.5'; repeatable.",
        ),
    ] = None,
    confident: Annotated[
        bool, typer.Option("--confident", help="Judge --require by the worse end of the 95 % interval.")
    ] = False,
    out: OutOption = RESULTS,
    json: JsonOption = False,
) -> None:
    """Print a run's verdict with its evidence and the claims it bears on, or check it against requirements."""
    if confident and not require:
        raise BadInput("--confident says how to judge --require, and there is none")
    if require:
        from kdbench.cli.gating import show_checks

        raise typer.Exit(show_checks(run, out, require, confident, json))
    from kdbench.cli.results import show_verdict

    show_verdict(run, out, json)


@app.command()
def compare(
    old: Annotated[str, typer.Argument(metavar="RUN_A", help="The run before: a name or a folder.")],
    new: Annotated[str, typer.Argument(metavar="RUN_B", help="The run after.")],
    out: OutOption = RESULTS,
    json: JsonOption = False,
) -> None:
    """Show what changed from one run of a suite to another: scores with intervals, verdicts, costs."""
    from kdbench.cli.comparing import show_comparison

    show_comparison(old, new, out, json)


@app.command()
def report(
    run: RunArgument = "latest",
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: report.html in the run's folder; - prints it."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="[html|markdown|latex]", help="A page to read, or tables for a paper.")
    ] = "html",
    out: OutOption = RESULTS,
) -> None:
    """Write a run's report: one file with verdict, leaderboard, figures, claims, costs and provenance."""
    from kdbench.cli.reporting import write_report

    write_report(run, out, to, form)


@app.command()
def publish(
    run: RunArgument = "latest",
    out: OutOption = RESULTS,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What to call it; by default the day it was run.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="A folder; <out>/published/<suite>/<name> by default.")
    ] = None,
) -> None:
    """Write a run's report, leaderboard, records and provenance into a folder to be committed, and into the index."""
    from kdbench.cli.publishing import publish as write

    write(run, out, name, to)


@app.command()
def sync(run: RunArgument = "latest", out: OutOption = RESULTS, tracking_uri: TrackingOption = None) -> None:
    """Bring MLflow up to date with a run's records; may be repeated."""
    from kdbench.cli.tracking import sync_run

    sync_run(run, out, tracking_uri)


@app.command()
def ui(
    host: Annotated[
        str, typer.Option("--host", metavar="H", help="The address to listen on; other than the default others see it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="P", min=1, max=65535)] = 5000,
    out: OutOption = RESULTS,
    tracking_uri: TrackingOption = None,
) -> None:
    """Serve MLflow and print the link to the leaderboard."""
    from kdbench.cli.tracking import serve_ui

    serve_ui(host, port, out, tracking_uri)


@app.command()
def doctor(json: JsonOption = False) -> None:
    """Show versions, devices, threads, plugins, data found, and what is missing and how to get it."""
    from kdbench.cli.doctor import show_doctor

    show_doctor(json)
