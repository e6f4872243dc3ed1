"""A Ray cluster of several nodes, which come and go; some share folders with the driver, some only a store."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kdbench import plugins
from kdbench.errors import BadInput, MissingExtra
from kdbench.execution.executors import Local, executor
from kdbench.execution.limits import Limits
from kdbench.execution.ray_cluster import Ray
from kdbench.execution.work import Work
from kdbench.measuring.record import Record
from kdbench.plan import Cohort
from kdbench.store.trial_files import teacher_files

from ..conftest import Notes
from .conftest import reproduced

MakeWork = Callable[..., Work]
CarryOut = Callable[..., dict[str, Record]]

PATIENT = '''
"""Learns nothing new until somebody opens the gate; with modules of its own, that no other machine has."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from kdbench import Method, hookimpl
{imports}


@dataclass(frozen=True)
class Patient(Method):
    """Waits in the middle of its training."""

    family = "response"

    def losses(self, step):
        while step.progress > 0.5 and not Path(os.environ["KDBENCH_GATE"]).exists():
            time.sleep(0.01)
        return {{"task": weighted(step.task_loss(step.student["logits"]))}}


@hookimpl
def kdbench_methods():
    return {{{name!r}: Patient}}
'''


def test_without_ray_the_extra_is_named(work: MakeWork, carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'kdbench\[ray\]'"):
        carry_out(Ray(), work())


def test_settings_are_read() -> None:
    assert executor("ray[address='10.0.0.1:6379',cpus=4]") == Ray(address="10.0.0.1:6379", cpus=4)
    assert executor("ray[store=s3://a/b,data=gs://c]") == Ray(store="s3://a/b", data="gs://c")


def test_data_at_a_url_need_a_store() -> None:
    with pytest.raises(BadInput, match="data= needs store="):
        executor("ray[data=s3://bucket/data]")


def test_a_store_that_other_machines_cannot_see_is_refused(work: MakeWork, carry_out: CarryOut) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with pytest.raises(BadInput, match="'memory://here' cannot be seen from other machines"):
        carry_out(Ray(store="memory://here"), work())


class Nodes:
    """A head that computes nothing, and nodes that do, each with a home, a cache and data of its own."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
        self._folder, self._cluster = folder, Cluster(initialize_head=True, head_node_args=head)
        self._nodes: dict[Path, Any] = {}

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> None:
        home = self._folder / f"node {len(list(self._folder.iterdir()))}"
        (home / "data").mkdir(parents=True)
        own = {"HOME": str(home), "KDBENCH_CACHE": str(home / "cache"), "KDBENCH_DATA": str(home / "data")}
        self._nodes[home] = self._cluster.add_node(num_cpus=1, env_vars=own)

    def remove(self, home: Path) -> None:
        self._cluster.remove_node(self._nodes.pop(home), allow_graceful=False)

    def at_work_on(self, fingerprint: str) -> Path:
        """The node that trains it at this moment."""
        (found,) = [home for home in self._nodes if list(home.glob(f"cache/ray/units/*/run/trials/{fingerprint}"))]
        return found

    def caches(self, name: str) -> list[Path]:
        """What lies in the caches of all nodes, those that are gone too."""
        return sorted(self._folder.glob(f"*/cache/ray/{name}"))

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    nodes = Nodes(tmp_path_factory.mktemp("cluster"))
    nodes.add()
    yield nodes
    nodes.close()


@dataclass
class Saboteur(Notes):
    """Does something terrible once, when an epoch is over; and keeps where cohorts began."""

    deed: Callable[[Cohort], None] | None = None
    began: list[tuple[Cohort, int]] = field(default_factory=list)

    def cohort_started(self, cohort: Cohort, first_epoch: int) -> None:
        self.began.append((cohort, first_epoch))

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Any) -> None:
        if self.deed is not None and cohort.head.reference is not None:
            deed, self.deed = self.deed, None
            deed(cohort)


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


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Opens for the methods `loose`, a file, and `installed`, a distribution, which import a local module each; only
    this process finds any of them."""
    gate, site = tmp_path / "gate", tmp_path / "site"
    monkeypatch.setenv("KDBENCH_GATE", str(gate))  # as all variables of that beginning, it is set for workers too
    for folder in (tmp_path / "loose", site / "patient-3.1.dist-info", tmp_path / "checkout"):
        folder.mkdir(parents=True)
    (tmp_path / "loose/patience.py").write_text(PATIENT.format(name="loose", imports="from ._own import weighted"))
    (tmp_path / "loose/_own.py").write_text("from lab_losses import weighted\n")
    (tmp_path / "checkout/lab_losses.py").write_text("def weighted(loss):\n    return 0.5 * loss\n")
    (site / "patient.py").write_text(PATIENT.format(name="installed", imports="from lab_losses import weighted"))
    (site / "patient-3.1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: patient\nVersion: 3.1\n")
    (site / "patient-3.1.dist-info/entry_points.txt").write_text("[kdbench]\npatient = patient\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(tmp_path / "checkout")
    monkeypatch.setenv("KDBENCH_PLUGIN_DIR", str(tmp_path / "loose"))
    plugins._discovered.cache_clear()
    yield gate
    plugins._discovered.cache_clear()
    for module in [name for name in sys.modules if name.startswith(("kdbench_loose_loose", "patient", "lab_losses"))]:
        del sys.modules[module]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_killed_task_changes_no_record(work: MakeWork, carry_out: CarryOut, nodes: Nodes, gate: Path) -> None:
    mine = work(methods="loose", epochs="4")
    gate.touch()
    here = carry_out(Local(), mine)
    gate.unlink()
    shutil.rmtree(mine.run.path / "trials")  # the teacher stays

    def kill_the_task(cohort: Cohort) -> None:
        for process in supervisors(mine.out):
            os.kill(process, signal.SIGKILL)
        gate.touch()

    saboteur = Saboteur(deed=kill_the_task)
    there = carry_out(Ray(address=nodes.address), mine, observer=saboteur)
    assert reproduced(there) == reproduced(here)
    assert saboteur.deed is None
    assert sum("its Ray task was lost" in said for said in saboteur.said) == 1, saboteur.said


def draw(folder: Path) -> None:
    """Images of two classes."""
    for split, count in (("train", 40), ("test", 10)):
        for label, colour in (("dark", 40), ("light", 200)):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (colour, number, 99)).save(folder / split / label / f"{number}.png")


@pytest.mark.filterwarnings("ignore")
def test_nodes_that_share_nothing_but_a_store_come_to_the_same_records(
    work: MakeWork, carry_out: CarryOut, nodes: Nodes, gate: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "shapes")
    shutil.copytree(tmp_path / "shapes", tmp_path / "bucket/data/shapes")
    asked = {
        "tasks": "'image_folder[path=shapes]'",
        "methods": "loose, installed",
        "seeds": "2",
        "epochs": "6",
        "recipe": "teachers: fixed",
    }
    gate.touch()
    here = carry_out(Local(), work("here", **asked))
    gate.unlink()
    mine = work("there", **asked)
    nodes.add()

    def replace_the_node(cohort: Cohort) -> None:
        nodes.remove(nodes.at_work_on(cohort.head.fingerprint))
        nodes.add()
        gate.touch()

    saboteur = Saboteur(deed=replace_the_node)
    bucket = (tmp_path / "bucket").as_uri()
    cluster = Ray(address=nodes.address, store=f"{bucket}/store", data=f"{bucket}/data")
    there = carry_out(cluster, mine, observer=saboteur)

    assert reproduced(there) == reproduced(here)
    assert all(mine.run.trial(trial.fingerprint).damage() is None for trial in mine.plan.trials)
    assert any("its Ray task was lost" in said for said in saboteur.said), saboteur.said
    again = [first for cohort, first in saboteur.began if first > 0]
    assert len(again) == 1, "what ran on the lost node goes on from what it pushed"
    fetched = [said for said in saboteur.said if "fetched the teacher" in said]
    assert len(fetched) == len(set(fetched)) == len(nodes.caches("teachers/*-*/record.json")), fetched
    (teacher,) = mine.plan.teachers
    assert teacher_files(mine.out, teacher.fingerprint).damage() is None, "the driver has it too"
    copies = [said for said in saboteur.said if "fetched 100 files from" in said]
    assert len(copies) == len(set(copies)) == len(nodes.caches("data/*/shapes"))
    assert not [path for path in (tmp_path / "bucket/store").rglob("*") if "runs" in path.parts and path.is_file()]


@pytest.mark.filterwarnings("ignore")
def test_what_no_node_can_hold_is_refused(work: MakeWork, nodes: Nodes) -> None:
    with pytest.raises(BadInput, match="no node of the Ray cluster has 4000 CPU"):
        next(Ray(address=nodes.address, cpus=4000).execute(work(), Limits(), Notes()))


@pytest.mark.filterwarnings("ignore")
def test_an_address_without_a_cluster_is_an_error(work: MakeWork) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with pytest.raises(BadInput, match="there is no Ray cluster at '127"):
        next(Ray(address="127.0.0.1:9").execute(work(), Limits(), Notes()))
