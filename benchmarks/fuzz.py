"""Whatever stands in a file that kdbench reads: an answer, or an error meant for people. No traceback, no hang, no file
outside of the folder.

Hypothesis draws the inputs. All 100,000 of them take about ten minutes.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from kdbench.errors import KdbenchError

from .fuzz_targets import TARGETS, Fuzzed
from .harness import Report, Setting, Table, Target, main

SLOW = 5.0  # seconds of CPU that no input may take
HANG = 60.0  # seconds after which one is given up
_KEPT = 160  # characters of an input that went wrong


@dataclass(frozen=True)
class Fuzzing(Setting):
    """So many inputs in all, shared among the readers by their weights."""

    inputs: int = 100_000
    seed: int = 0
    readers: tuple[str, ...] = tuple(TARGETS)


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
    """Feeds every reader its share of the inputs."""
    weights = sum(TARGETS[name].weight for name in setting.readers)
    found = {
        name: tally(TARGETS[name], max(1, round(setting.inputs * TARGETS[name].weight / weights)), setting.seed)
        for name in setting.readers
    }
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
        "fuzz", f"Fuzzing: {sum(each.inputs for each in found.values())} inputs.", tuple(tables), targets, samples
    )


def tally(target: Fuzzed, inputs: int, number: int) -> Tally:
    """Feeds one reader `inputs` inputs, the same for the same `number`, in an empty folder within an empty folder."""
    found = Tally()
    started = time.perf_counter()
    with TemporaryDirectory() as name:
        around = Path(name)
        folder = around / "inside" / "folder"
        folder.mkdir(parents=True)

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

        with _inside(folder), _alarmed():
            feed()
        found.outside = sum(not path.is_relative_to(folder) for path in around.rglob("*")) - 1  # "inside"
    found.seconds = time.perf_counter() - started
    return found


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
def _inside(folder: Path) -> Iterator[None]:
    """With `folder` as the current one, where relative paths lead."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _alarmed() -> Iterator[None]:
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
