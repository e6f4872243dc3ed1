"""The executor `processes`: workers on this machine, each a process that can be ended from outside."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from itertools import count
from math import ceil

import torch

from kdbench.errors import BadInput
from kdbench.execution.dispatch import Dispatcher
from kdbench.execution.event_log import Event, EventReader
from kdbench.execution.heartbeat import Beat, last_beat
from kdbench.execution.limits import Limits
from kdbench.execution.pool import Death
from kdbench.execution.process_group import MARK, ProcessGroup
from kdbench.execution.units import Unit
from kdbench.execution.work import Job, Work
from kdbench.execution.workplace import Workplace
from kdbench.hyperparameters import Count
from kdbench.interpreter import command, import_path
from kdbench.measuring.record import Record
from kdbench.training.observer import Observer

_SAID = 4000  # bytes of a dead worker's last words


@dataclass(frozen=True)
class Processes:
    """Cohorts side by side in `workers` processes of this machine. Each computes with as many threads as this command
    would (OMP_NUM_THREADS), because the last bits depend on them. Several CUDA devices are dealt out in turn; workers
    on the same one count on an even share of its memory.

    Where one device cannot hold a batch, each worker may be so many `ranks`: processes that train a cohort together
    (distributed data parallel), each on a device of its own and with its share of every batch. They come to the results
    of one process but for rounding, and for dropout, whose masks are others; records say so ("ranks").
    """

    workers: Count = 2
    ranks: Count = 1

    def execute(self, work: Work, limits: Limits, observer: Observer) -> Generator[list[Record]]:
        """See `Executor`."""
        if os.name != "posix":
            raise BadInput("the executor 'processes' needs Linux or macOS", hint="--executor local runs anywhere")
        if self.ranks > 1:
            self._check_ranks(work.device)
        with Workplace.of(work.run) as place:
            yield from carry_out_here(work, limits, place, self.workers, observer, ranks=self.ranks)

    def _check_ranks(self, device: torch.device) -> None:
        asked = f"the executor 'processes' with ranks={self.ranks}"
        if not torch.distributed.is_available():
            raise BadInput(f"{asked} needs a torch that was built with torch.distributed")
        if device.type not in ("cpu", "cuda") or device.index is not None:
            raise BadInput(f"{asked} cannot share --device {device}", hint="choose --device cpu or --device cuda")
        if device.type == "cuda" and torch.cuda.device_count() < self.ranks:
            raise BadInput(f"{asked} needs as many CUDA devices; there are {torch.cuda.device_count()}")


def carry_out_here(
    work: Work,
    limits: Limits,
    place: Workplace,
    slots: int,
    observer: Observer,
    only: Unit | None = None,
    ranks: int = 1,
) -> Generator[list[Record]]:
    """Has the work, or one unit of it, done by `slots` workers of this machine, each of so many `ranks`."""
    pool = ProcessPool(place, slots, work.device, ranks)
    place.job.write_text(Job.of(work, limits, pool.sharers).model_dump_json())
    try:
        yield from Dispatcher(work, pool, limits, place.stop, observer, only).run()
    finally:
        pool.close()


class ProcessPool:
    """Worker processes, one to a slot; one that has done its unit is given the next."""

    def __init__(self, place: Workplace, slots: int, device: torch.device, ranks: int = 1) -> None:
        self.slots, self.ranks = slots, ranks
        self._place, self._cards = place, _cards(device)
        self._started = 0
        self._idle: list[_Worker] = []
        self._living: dict[int, _Worker] = {}

    @property
    def sharers(self) -> int:
        """How many processes compute on the device that most of them share."""
        return ceil(self.slots * self.ranks / max(1, len(self._cards)))

    def start(self, unit: Unit) -> _Worker:
        """Gives the unit to an idle worker, or to a new one, which has the cards of the one that it replaces."""
        while self._idle:
            worker = self._idle.pop()
            if worker.give(unit):
                return worker
            worker.kill()
        slot = next(slot for slot in count() if slot not in self._living)
        worker = self._living[slot] = _Worker(self, self._place, self._started, self._variables(slot))
        self._started += 1
        worker.give(unit)
        return worker

    def release(self, worker: _Worker) -> None:
        """Its unit is over."""
        self._idle.append(worker)

    def close(self) -> None:
        """Ends all workers at once; what they stored is kept."""
        for worker in list(self._living.values()):
            worker.kill()

    def forget(self, worker: _Worker) -> None:
        """It has ended."""
        self._living = {slot: each for slot, each in self._living.items() if each is not worker}

    def _variables(self, slot: int) -> dict[str, str]:
        # the same modules as here, and threads that do not burn the cores that other workers compute on
        variables = {"PYTHONPATH": import_path(), "OMP_WAIT_POLICY": "PASSIVE"}
        if self._cards:
            dealt = range(slot * self.ranks, (slot + 1) * self.ranks)
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self._cards[each % len(self._cards)] for each in dealt)
        return {**os.environ, **variables}


def _cards(device: torch.device) -> list[str]:
    """The CUDA devices that workers are given in turn, as CUDA names them; none where all compute on the same one."""
    if device.type != "cuda" or device.index is not None:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(card) for card in range(torch.cuda.device_count())]


class _Worker:
    """A worker process in a session of its own, which the ranks that it starts share; an Attempt at the unit that it
    was given last."""

    def __init__(self, pool: ProcessPool, place: Workplace, number: int, variables: dict[str, str]) -> None:
        self._pool, name = pool, f"worker-{number}"
        self._held: int | None = None
        self._events, self._beats = EventReader(place.folder / f"{name}.events"), place.folder / f"{name}.beat"
        self._log = place.folder / f"{name}.log"
        mark = secrets.token_hex(8)
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command("kdbench.execution.worker", str(place.folder), name, str(pool.ranks)),
                bufsize=0,  # nothing is left to be flushed to one that is gone
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**variables, MARK: mark},
                start_new_session=True,
            )
        self._group = ProcessGroup(self._process.pid, mark)

    def give(self, unit: Unit) -> bool:
        """Whether it still takes one."""
        assert self._process.stdin is not None
        self.unit, self._held = unit, None
        try:
            self._process.stdin.write(json.dumps(unit.fingerprints).encode() + b"\n")
        except BrokenPipeError:
            return False
        return True

    def news(self) -> list[Event]:
        """What it told since the last call."""
        events = self._events.news()
        self._held = next((int(each["held"]) for each in events if each["event"] == "unit_started"), self._held)
        return events

    def death(self) -> Death | None:
        """How the process ended; None while it lives."""
        status = self._process.poll()
        if status is None:
            return None
        beat = self.beat()
        at = beat.method if beat else ""
        if status < 0:
            return Death("killed", f"its worker was killed by {signal.Signals(-status).name}", at, self._said())
        return Death("exit", f"its worker ended with status {status}", at, self._said())

    def beat(self) -> Beat | None:
        """What it is at."""
        return last_beat(self._beats)

    def growth(self) -> int:
        """The bytes of memory that it and its children took since the unit began."""
        return 0 if self._held is None else self._group.usage().resident_bytes - self._held

    def kill(self) -> None:
        """Ends it at once, and everything that it started."""
        self._pool.forget(self)
        self._group.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def close(self) -> None:
        """Back to the others; but what a method started and left behind must not go on beside the next unit."""
        if self._process.poll() is None and self._group.usage().processes == self._pool.ranks:
            self._pool.release(self)
        else:
            self.kill()

    def _said(self) -> str:
        return self._log.read_bytes()[-_SAID:].decode(errors="replace").strip()
