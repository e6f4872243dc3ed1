"""Methods that leave their process group and their parent: what they hold is counted, and nothing of it is left."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.execution import process_group
from kdbench.execution.limits import Limits
from kdbench.execution.process_group import MARK, ProcessGroup
from kdbench.execution.processes import Processes
from kdbench.execution.work import Work
from kdbench.measuring.record import Record

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc to look at")

DAEMON = '''
import os
import sys
import time
from pathlib import Path


def daemon(act):
    """Has a grandchild in a session of its own act, and returns once that has written down who it is: man 7 daemon."""
    place = Path(os.environ["ESCAPED"], str(time.monotonic_ns()))
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            place.with_suffix(".draft").write_text(str(os.getpid()))
            place.with_suffix(".draft").rename(place)
            act()
        os._exit(0)
    os.wait()
    while not place.exists():
        time.sleep(0.01)


def sleep():
    time.sleep(600)


def exec_without_variables():
    os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], {})
'''

LEADER = (
    DAEMON
    + """
from kdbench.execution.process_group import ProcessGroup, adopt_orphans

adopt_orphans()
for name in sys.argv[1:]:
    daemon(globals()[name])
print("begun", flush=True)
time.sleep(600)
"""
)

METHOD = '''
from dataclasses import dataclass
from kdbench import Method, hookimpl


def hoard():
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1 << 20)) * 32)
        time.sleep(0.02)


class Escapes(Method):
    """Leaves behind one that takes more and more memory, and one that sleeps."""

    family = "response"

    def losses(self, step):
        if step.progress == 0:
            daemon(exec_without_variables)
            daemon(hoard)
            time.sleep(600)
        return {"task": step.task_loss(step.student["logits"])}


@hookimpl
def kdbench_methods():
    return {"escapes": Escapes}
'''


@pytest.fixture
def escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which each process that escaped writes its number."""
    (tmp_path / "escaped").mkdir()
    monkeypatch.setenv("ESCAPED", str(tmp_path / "escaped"))
    return tmp_path / "escaped"


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps")
def test_where_there_is_no_proc_ps_tells_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of those that did not lose their parent."""
    command = [sys.executable, "-c", "import os, time; os.fork(); os.write(1, b'x'); time.sleep(600)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as leader:
        group = ProcessGroup(leader.pid, "")
        try:
            assert leader.stdout is not None
            assert leader.stdout.read(2) == b"xx"
            found = group.usage()
            assert found.processes == 2
            monkeypatch.setattr(process_group, "_PROC", tmp_path / "nothing")
            assert group.usage().processes == 2
            assert group.usage().resident_bytes > 2 << 20
        finally:
            group.kill()
        assert leader.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("names", "killed"), [(["sleep", "exec_without_variables"], False), (["sleep", "sleep"], True)]
)
def test_all_are_counted_and_ended(names: list[str], killed: bool, escaped: Path) -> None:
    """Also after the leader's death those that kept its variables."""
    mark = secrets.token_hex(8)
    command = [sys.executable, "-c", LEADER, *names]
    with subprocess.Popen(
        command, env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == b"begun\n"
        group = ProcessGroup(leader.pid, mark)
        if killed:
            leader.send_signal(signal.SIGKILL)
            leader.wait()
        found = group.usage()
        assert found.processes == len(names) + (not killed)
        assert found.resident_bytes > found.processes << 20
        group.kill()
    assert group.usage().processes == 0
    assert len(list(escaped.iterdir())) == len(names)
    assert not any(lives(int(path.read_text())) for path in escaped.iterdir())
    group.kill()  # there is none to end, and none to worry about


def test_nothing_is_left_of_a_method_that_hoards_in_hiding(
    work: Callable[..., Work],
    carry_out: Callable[..., dict[str, Record]],
    escaped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "escaping.py").write_text(DAEMON + METHOD, encoding="utf-8")
    monkeypatch.setenv("KDBENCH_PLUGIN_DIR", str(tmp_path / "plugins"))
    found = carry_out(Processes(workers=1), work(methods="escapes", epochs="1"), Limits(trial_memory=0.3))
    assert found["escapes 0"].reason == "it took more than the 0.3 GB that --trial-memory allows"
    assert found["scratch 0"].status == "done"
    numbers = [int(path.read_text()) for path in escaped.iterdir()]
    assert len(numbers) >= 2
    assert not any(map(lives, numbers))


def lives(number: int) -> bool:
    """Whether the process is there; one that was killed may take the kernel a moment to be rid of."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":  # of nobody who would look after it: this container has no init
            return False
        time.sleep(0.01)
    os.kill(number, 9)
    return True
