"""Whatever stands in a file that kdbench reads: an answer, or an error meant for people. No traceback, no hang, no file
outside of the folder.

Hypothesis draws the inputs; all 100,000 of them take about ten minutes. With `--engine atheris` libFuzzer has it draw
what reaches new branches, from a corpus that grows as it goes: five times as slow (Linux, extra `fuzz`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from kdbench.errors import BadInput, KdbenchError

from .fuzz_targets import TARGETS, Fuzzed
from .harness import ROOT, Report, Setting, Table, Target, main

SLOW = 5.0  # seconds of CPU that no input may take
HANG = 60.0  # seconds after which one is given up
_KEPT = 160  # characters of an input that went wrong
_SAID = 2000  # characters of the last words of Atheris


@dataclass(frozen=True)
class Fuzzing(Setting):
    """So many inputs in all, shared among the readers by their weights; `engine`: hypothesis or atheris."""

    engine: str = "hypothesis"
    inputs: int = 100_000
    seed: int = 0
    readers: tuple[str, ...] = tuple(TARGETS)


ENGINES = ("hypothesis", "atheris")
QUICK = Fuzzing(inputs=2_000)


class Hung(BaseException):
    """An input that takes too long; no reader may catch it."""


@dataclass
class Tally:
    """What became of a reader's inputs. `faults`: by the place that raised, the error and the first such input."""

    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    slowest_input: str = ""
    seconds: float = 0.0
    outside: int = 0
    faults: dict[str, str] = field(default_factory=dict)


def measure(setting: Fuzzing) -> Report:
    """Feeds every reader its share of the inputs.

    Raises:
        BadInput: there is no such engine here.
    """
    if setting.engine not in ENGINES or (setting.engine == "atheris" and find_spec("atheris") is None):
        hint = f"{' or '.join(ENGINES)}; the latter comes with `pip install atheris`, on Linux"
        raise BadInput(f"no engine {setting.engine!r} here", hint=hint)
    weights = sum(TARGETS[name].weight for name in setting.readers)
    found = {}
    for name in setting.readers:
        target = TARGETS[name]
        inputs = max(1, round(setting.inputs * target.weight / weights))
        guided = setting.engine == "atheris"
        found[name] = guided_tally(name, inputs, setting.seed) if guided else tally(target, inputs, setting.seed)
    rows = [
        (name, str(each.inputs), str(each.refused), f"{1000 * each.slowest:.0f}", f"{each.seconds:.0f}",
         str(each.outside), str(len(each.faults)))
        for name, each in found.items()
    ]  # fmt: skip
    headers = ("reader", "inputs", "refused", "slowest, ms of CPU", "seconds", "files outside", "tracebacks")
    faults = [(name, place, said) for name, each in found.items() for place, said in each.faults.items()]
    tables = [Table("Inputs, those that were refused with a message, and what must not be.", headers, rows)]
    if faults:
        tables.append(Table("Tracebacks, each with its first input.", ("reader", "place", "error"), faults))
    targets = (
        Target("tracebacks", len(faults), 0),
        Target("files outside of the folder", sum(each.outside for each in found.values()), 0),
        Target("the slowest input, CPU", max(each.slowest for each in found.values()), SLOW, "s"),
    )
    samples = {name: vars(each) for name, each in found.items()}
    return Report(
        "fuzz" if setting.engine == "hypothesis" else f"fuzz_{setting.engine}",
        f"Fuzzing with {setting.engine}: {sum(each.inputs for each in found.values())} inputs.",
        tuple(tables),
        targets,
        samples,
    )


def tally(target: Fuzzed, inputs: int, number: int) -> Tally:
    """Feeds one reader `inputs` inputs, the same for the same `number`, in an empty folder within an empty folder."""

    def drawn(folder: Path) -> Tally:
        found = Tally()
        with inside(folder), alarmed():
            feeding(target, folder, found, inputs, number)()
        return found

    return _watched(drawn)


def guided_tally(name: str, inputs: int, number: int) -> Tally:
    """The same with inputs that libFuzzer looks for; in a process of its own, which imports everything instrumented."""

    def looked_for(folder: Path) -> Tally:
        command = [sys.executable, "-m", "benchmarks.fuzz_guided", name, str(inputs), str(number), str(folder)]
        with TemporaryDirectory(prefix="kdbench-corpus-") as corpus:
            ended = subprocess.run([*command, corpus], cwd=ROOT, capture_output=True, text=True)
        if ended.returncode:
            raise KdbenchError(f"Atheris ended with status {ended.returncode}", hint=ended.stderr[-_SAID:])
        return Tally(**json.loads(ended.stdout.splitlines()[-1]))

    return _watched(looked_for)


def _watched(feed: Callable[[Path], Tally]) -> Tally:
    """What `feed` finds, and what it leaves outside of its folder."""
    started = time.perf_counter()
    with TemporaryDirectory() as name:
        around = Path(name)
        folder = around / "inside" / "folder"
        folder.mkdir(parents=True)
        found = feed(folder)
        found.outside = sum(not path.is_relative_to(folder) for path in around.rglob("*")) - 1  # "inside"
    found.seconds = time.perf_counter() - started
    return found


def feeding(target: Fuzzed, folder: Path, found: Tally, inputs: int, number: int) -> Any:
    """Hypothesis's test function, which adds what becomes of each input to `found`."""

    @seed(number)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def feed(value: Any) -> None:
        _feed(target, value, folder, found)

    return feed


def _feed(target: Fuzzed, value: Any, folder: Path, found: Tally) -> None:
    found.inputs += 1
    started = time.process_time()  # however busy the machine is; HANG is by the clock
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        target.read(value, folder)
    except KdbenchError as error:
        found.refused += 1
        if not error.message.strip():
            found.faults.setdefault("a refusal without a word", _shown(error, value))
    except (Exception, Hung) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        found.faults.setdefault(f"{Path(last.filename).name}:{last.lineno}", _shown(error, value))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    spent = time.process_time() - started
    if spent > found.slowest:
        found.slowest, found.slowest_input = spent, repr(value)[:_KEPT]


def _shown(error: BaseException, value: Any) -> str:
    return f"{type(error).__name__}: {error}"[:_KEPT] + f"; input {value!r}"[:_KEPT]


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """With `folder` as the current one, where relative paths lead."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def alarmed() -> Iterator[None]:
    """An input that runs out of time raises where it is."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hung(f"not done after {HANG:.0f} s")

    handler, timer = signal.signal(signal.SIGALRM, ring), signal.getitimer(signal.ITIMER_REAL)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


if __name__ == "__main__":
    main(measure, quick=QUICK, full=Fuzzing())
