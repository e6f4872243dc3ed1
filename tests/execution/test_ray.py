"""A Ray cluster of several nodes, which come and go."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kdbench.errors import BadInput, MissingExtra
from kdbench.execution.executors import Local, executor
from kdbench.execution.limits import Limits
from kdbench.execution.ray_cluster import Ray
from kdbench.execution.work import Work
from kdbench.measuring.record import Record
from kdbench.plan import Cohort

from .conftest import Notes, reproduced

MakeWork = Callable[..., Work]
CarryOut = Callable[..., dict[str, Record]]


def test_without_ray_the_extra_is_named(work: MakeWork, carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'kdbench\[ray\]'"):
        carry_out(Ray(), work())


def test_settings_are_read() -> None:
    assert executor("ray[address='10.0.0.1:6379',cpus=4]") == Ray(address="10.0.0.1:6379", cpus=4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that computes nothing, and one node that does."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from ray.cluster_utils import Cluster

    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def supervisors(out: Path) -> set[int]:
    """The processes above the workers of a run: Ray's own."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"kdbench.execution.worker\0" + os.fsencode(out) in (entry / "cmdline").read_bytes():
                found.add(int((entry / "stat").read_text().rpartition(")")[2].split()[1]))
        except OSError:
            continue
    return found


def kill_the_task(cluster: Any, out: Path) -> None:
    for process in supervisors(out):
        os.kill(process, signal.SIGKILL)


def replace_the_node(cluster: Any, out: Path) -> None:
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=1)


class Saboteur(Notes):
    """Does something terrible once, when an epoch is over."""

    deed: Callable[[], None] | None

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Any) -> None:
        if self.deed is not None:
            deed, self.deed = self.deed, None
            deed()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize("deed", [kill_the_task, replace_the_node])
def test_what_becomes_of_tasks_and_nodes_changes_no_record(
    deed: Callable[[Any, Path], None], work: MakeWork, carry_out: CarryOut, cluster: Any
) -> None:
    mine = work(epochs="60", recipe="teacher_recipe: {epochs: 1}")
    here = carry_out(Local(), mine)
    shutil.rmtree(mine.run.path / "trials")  # the teacher stays
    saboteur = Saboteur()
    saboteur.deed = partial(deed, cluster, mine.out)
    there = carry_out(Ray(address=cluster.address), mine, observer=saboteur)
    assert reproduced(there) == reproduced(here)
    assert saboteur.deed is None
    assert sum("its Ray task was lost" in said for said in saboteur.said) == 1, saboteur.said


@pytest.mark.filterwarnings("ignore")
def test_what_no_node_can_hold_is_refused(work: MakeWork, cluster: Any) -> None:
    with pytest.raises(BadInput, match="no node of the Ray cluster has 4000 CPU"):
        next(Ray(address=cluster.address, cpus=4000).execute(work(), Limits(), Notes()))


@pytest.mark.filterwarnings("ignore")
def test_an_address_without_a_cluster_is_an_error(work: MakeWork) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with pytest.raises(BadInput, match="there is no Ray cluster at '127"):
        next(Ray(address="127.0.0.1:9").execute(work(), Limits(), Notes()))
