"""The executor `ray`: units as tasks of a Ray cluster."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from kdbench.errors import BadInput, MissingExtra
from kdbench.execution.channels import Channel, Events, FolderChannel
from kdbench.execution.dispatch import Dispatcher
from kdbench.execution.event_log import Event
from kdbench.execution.heartbeat import Beat
from kdbench.execution.limits import Limits
from kdbench.execution.pool import Death
from kdbench.execution.ray_task import call, name_of
from kdbench.execution.store_channel import StoreChannel
from kdbench.execution.units import Unit
from kdbench.execution.work import Job, Work
from kdbench.execution.workplace import Workplace
from kdbench.hyperparameters import Count
from kdbench.measuring.record import Record
from kdbench.training.observer import Observer

if TYPE_CHECKING:
    from ray import ObjectRef

_PATIENCE = 10.0  # seconds for a cluster to answer


@dataclass(frozen=True)
class Ray:
    """A task per cohort and per teacher on the cluster at `address`, by default the one that Ray finds, or else one on
    this machine alone; --out, plugins and data lie where all nodes see them.

    With `store`, the URL of a folder that fsspec can write (s3://bucket/folder, gs://..., file:///...), nodes share
    nothing else: teachers and checkpoints go through it, plugins and the local modules that they import go with the
    tasks, and the driver alone writes --out. With `data`, such a URL too, each node copies what lies there once;
    otherwise it has its own KDBENCH_DATA.

    A task holds `cpus` cores, `memory_gb` (0: whatever there is) and, with --device cuda, one GPU. Nodes may come and
    go: what ran on a lost one goes on elsewhere from its last epoch.
    """

    address: str = ""
    cpus: Count = 1
    memory_gb: Annotated[int, Ge(0)] = 0
    store: str = ""
    data: str = ""

    def __post_init__(self) -> None:
        if self.data and not self.store:
            raise BadInput(
                "--executor ray: data= needs store=", hint="without it, all nodes see the folders of this one"
            )

    def execute(self, work: Work, limits: Limits, observer: Observer) -> Generator[list[Record]]:
        """See `Executor`.

        Raises:
            MissingExtra: Ray is not installed.
            BadInput: there is no cluster at the address, no node of it that could ever run a task, or no such store.
        """
        try:
            import ray
        except ImportError:
            raise MissingExtra("the executor 'ray'", "ray") from None
        mine = not ray.is_initialized()
        with Workplace.of(work.run) as place:
            channel = self._channel(work, place, observer)
            try:
                if mine:
                    self._connect(channel)
                yield from self._execute(work, limits, channel, observer)
            finally:
                if mine:
                    ray.shutdown()

    def _execute(self, work: Work, limits: Limits, channel: Channel, observer: Observer) -> Iterator[list[Record]]:
        wanted = {
            "CPU": float(self.cpus),
            "GPU": float(work.device.type == "cuda"),
            "memory": 1e9 * self.memory_gb,
        }
        _check_possible(wanted)
        pool, over = _RayPool(channel, wanted), False
        try:
            yield channel.open(Job.of(work, limits))
            yield from Dispatcher(work, pool, limits, channel.stop, observer).run()
            over = True
        finally:
            pool.close()
            channel.close(over)

    def _channel(self, work: Work, place: Workplace, observer: Observer) -> Channel:
        return StoreChannel(self.store, self.data, work, place, observer) if self.store else FolderChannel(place)

    def _connect(self, channel: Channel) -> None:
        import ray

        try:
            _reach(self.address)
            ray.init(
                address=self.address or None,
                include_dashboard=None if self.address else False,
                configure_logging=False,
                log_to_driver=False,
                runtime_env=channel.runtime_env(),
            )
        except ray.exceptions.RuntimeEnvSetupError as error:
            raise BadInput(f"the plugins cannot be sent to the Ray cluster: {error}") from None
        except (OSError, ValueError, RuntimeError) as error:
            raise BadInput(f"there is no Ray cluster at '{self.address}': {error}", hint="ray start --head") from None


def _reach(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _check_possible(wanted: dict[str, float]) -> None:
    """A task that no node can hold would wait for ever."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0.0) >= amount for name, amount in wanted.items()) for node in nodes):
        asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
        raise BadInput(f"no node of the Ray cluster has {asked}", hint="ask for less, or add a node that has it")


class _RayPool:
    """As many tasks at once as the cluster has room for at the moment; Ray queues none, so that none can be lost."""

    def __init__(self, channel: Channel, wanted: dict[str, float]) -> None:
        self._channel, self._wanted, self._count = channel, wanted, 0
        self._running: list[_RayAttempt] = []

    @property
    def slots(self) -> int:
        """Grows and shrinks with the cluster."""
        import ray

        there = ray.cluster_resources()
        return max(1, *[int(min(there.get(name, 0.0) / amount for name, amount in self._wanted.items() if amount))])

    def start(self, unit: Unit) -> _RayAttempt:
        """Submits the unit."""
        import ray

        name = f"unit-{self._count}"
        self._count += 1
        function, arguments = self._channel.task(name, unit)
        # a process of its own: what broke one attempt must not break the next
        task = ray.remote(max_calls=1)(call).options(
            num_cpus=self._wanted["CPU"],
            num_gpus=self._wanted["GPU"],
            memory=self._wanted["memory"] or None,
            max_retries=0,  # the dispatcher does that, and counts
            name=f"kdbench {unit}",
        )
        attempt = _RayAttempt(
            unit, task.remote(name_of(function), *arguments), self._channel.events(name, unit), self._running
        )
        self._running.append(attempt)
        return attempt

    def close(self) -> None:
        """Cancels what still waits or runs."""
        for attempt in list(self._running):
            attempt.kill()


class _RayAttempt:
    """A task at work on a unit."""

    def __init__(self, unit: Unit, result: ObjectRef[None], events: Events, running: list[_RayAttempt]) -> None:
        self.unit, self._result, self._events, self._running = unit, result, events, running
        self._over, self._next_look = False, 0.0

    def news(self) -> list[Event]:
        """What it told since the last call; looked for at most a tenth of the time, for a store may be far."""
        started = time.monotonic()
        if started < self._next_look and not self._over:
            return []
        events = self._events.news()
        ended = time.monotonic()
        self._next_look = ended + 9 * (ended - started)
        return events

    def death(self) -> Death | None:
        """None until the task is over."""
        import ray

        ready, _ = ray.wait([self._result], timeout=0)
        if not ready:
            return None
        self._over = True
        try:
            ray.get(self._result)
        except ray.exceptions.RayError as error:
            return Death("killed", f"its Ray task was lost ({type(error).__name__})", said=str(error)[-4000:])
        return Death("killed", "its Ray task ended without a word")

    def beat(self) -> Beat | None:
        """Not seen from here; the task's own supervisor looks at it."""
        return None

    def growth(self) -> int:
        """Not seen from here either."""
        return 0

    def kill(self) -> None:
        """Ends the task's process, and so the worker under it."""
        import ray

        self.close()
        ray.cancel(self._result, force=True)

    def close(self) -> None:
        """Its unit is over."""
        self._running.remove(self)
