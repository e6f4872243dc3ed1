"""Whatever a stranger's plugin does, kdbench goes on and `kdbench plugins` names the culprit."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from kdbench import plugins
from kdbench.cli.options import global_options_first
from kdbench.data import DataFolders
from kdbench.discovery import Selection, candidates
from kdbench.errors import BadInput, BrokenPlugin
from kdbench.planner import make_plan
from kdbench.plugins import Registry, collect
from kdbench.provenance import source_digest
from kdbench.suite_file import load_suite

Install = Callable[..., None]
Kdbench = Callable[..., tuple[int, str, str]]

HOOK = "from kdbench import hookimpl\n@hookimpl\n"
GOOD = f"{HOOK}def kdbench_methods():\n    return {{'mine': 'kdbench_good:Mine'}}\n"
UNPRINTABLE = "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\nraise Odd\n"
# What a module holds, and what `kdbench plugins` says of it: the error, and the advice.
BROKEN = {
    "import error": ("from os import nothing_there\n", "ImportError: cannot import name 'nothing_there'", ""),
    "missing dependency": (
        "import nothing_of_this_name\n",
        "ModuleNotFoundError: No module named 'nothing_of_this_name'",
        "a dependency is missing: `pip install kdbench-bad` brings those that it declares",
    ),
    "syntax error": ("x = 1\ndef (:\n", "kdbench_bad.py, line 2)", ""),
    "newer API": (
        "kdbench_api = 7\n",
        "asks for version 7 of the plugin API",
        "it needs a newer kdbench: pip install --upgrade 'kdbench>=9.1'",
    ),
    "newer API, and a name that is not there yet": (
        "kdbench_api = 7\nfrom kdbench import Novelty\n",
        "asks for version 7 of the plugin API",
        "it needs a newer kdbench: pip install --upgrade 'kdbench>=9.1'",
    ),
    "no API version": ("kdbench_api = '1'\n", "kdbench_api = '1' is no version", "this kdbench has version 1"),
    "name clash": (
        f"{HOOK}def kdbench_methods():\n    return {{'kd': 'kdbench_bad:KD'}}\n",
        "method 'kd' is already the name of one by kdbench ",
        "its other names can be used",
    ),
    "hook typo": (
        f"{HOOK}def kdbench_method():\n    return {{}}\n",
        "unknown hook 'kdbench_method'",
        "the hooks are kdbench_methods, kdbench_tasks, kdbench_architectures",
    ),
    "raising hook": (
        f"{HOOK}def kdbench_tasks():\n    raise RuntimeError('no [bold]luck[/]')\n",
        "RuntimeError: no [bold]luck[/]",
        "",
    ),
    "exiting hook": (f"{HOOK}def kdbench_tasks():\n    raise SystemExit(3)\n", "SystemExit: 3", ""),
    "exit at import": ("import sys\nsys.exit('bye')\n", "SystemExit: bye", ""),
    "endless loop": (
        "while True:\n    pass\n",
        "TimeoutError: not done after 0.2 s without a further import",
        "is it only slow? KDBENCH_PLUGIN_TIMEOUT=60 waits longer",
    ),
    "wrong answer": (
        f"{HOOK}def kdbench_tasks():\n    return {{'a': 3}}\n",
        "kdbench_tasks returned 3 for 'a'",
        'a plugin is a class, "module:Class" or "module:Class[key=value]"',
    ),
    "error without a text": (UNPRINTABLE, "Odd", ""),
    "endless text": ("raise ValueError('long ' * 100_000)\n", "ValueError: long long", ""),
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts fake distributions on the path: kdbench-NAME 1.2 with the module kdbench_NAME, asking for kdbench>=9.1."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    for variable in ("KDBENCH_PLUGINS", "KDBENCH_PLUGIN_DIR", "KDBENCH_STRICT"):
        monkeypatch.setenv(variable, "")  # so that what a command sets is taken back
        monkeypatch.delenv(variable)
    monkeypatch.setenv("KDBENCH_PLUGIN_TIMEOUT", "10")
    monkeypatch.setenv("COLUMNS", "200")

    def installed(**sources: str) -> None:
        for name, source in sources.items():
            info = site / f"kdbench_{name}-1.2.dist-info"
            info.mkdir()
            metadata = (
                "Metadata-Version: 2.1\nName: kdbench-{}\nVersion: 1.2\nRequires-Dist: kdbench>=9.1; extra == 'x'\n"
            )
            (info / "METADATA").write_text(metadata.format(name), encoding="utf-8")
            (info / "entry_points.txt").write_text(f"[kdbench]\n{name} = kdbench_{name}\n", encoding="utf-8")
            (site / f"kdbench_{name}.py").write_text(source, encoding="utf-8")

    plugins._discovered.cache_clear()  # what an earlier test of this process found
    yield installed
    plugins._discovered.cache_clear()
    for module in [name for name in sys.modules if name.startswith(("kdbench_bad", "kdbench_good", "kdbench_loose"))]:
        del sys.modules[module]


def loose(folder: Path, **sources: str) -> Registry:
    """The registry with a folder of loose files, written anew."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    source_digest.cache_clear()
    return collect(candidates(Selection(folders=(folder,))))


@pytest.mark.parametrize("case", BROKEN, ids=str)
def test_the_culprit_is_named_and_the_rest_works(
    install: Install, kdbench: Kdbench, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    source, error, advice = BROKEN[case]
    install(bad=source, good=GOOD)
    if case == "endless loop":
        monkeypatch.setenv("KDBENCH_PLUGIN_TIMEOUT", "0.2")

    status, shown, _ = kdbench("plugins")
    assert status == 0
    assert "broken kdbench-bad 1.2 (kdbench_bad)\n" in shown
    assert error in shown
    assert advice in shown
    assert "to be rid of it: pip uninstall kdbench-bad\n" in shown

    status, written, _ = kdbench("plugins", "--json")
    found = json.loads(written)
    (broken,) = found["broken"]
    assert status == 0
    assert (broken["distribution"], broken["version"], broken["advice"]) == ("kdbench-bad", "1.2", advice)
    assert broken["removal"] == "pip uninstall kdbench-bad"
    assert error in broken["error"]
    assert len(broken["error"]) < 600
    assert {"kdbench", "kdbench-good"} <= {each["distribution"] for each in found["working"]}
    assert "mine" in kdbench("list", "methods")[1]


@pytest.mark.parametrize("case", ["import error", "raising hook", "name clash"])
def test_strict_fails_and_names_the_plugin(install: Install, kdbench: Kdbench, case: str) -> None:
    source, error, _ = BROKEN[case]
    install(bad=source)
    status, shown, said = kdbench("list", "methods", "--strict")
    assert status == 2
    assert not shown
    assert f"plugin kdbench-bad 1.2 is broken: {error}" in said
    assert "pip uninstall kdbench-bad" in said


def test_strict_raises_what_the_plugin_raised(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(bad=BROKEN["raising hook"][0])
    monkeypatch.setenv("KDBENCH_STRICT", "1")
    with pytest.raises(BrokenPlugin, match="kdbench-bad") as caught:
        plugins.discover()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_what_a_plugin_prints_is_a_note(install: Install, kdbench: Kdbench) -> None:
    install(good="import sys\nprint('chat ' * 100_000)\nprint('oh', file=sys.stderr)\n" + GOOD)
    _, written, said = kdbench("plugins", "--json")
    (note,) = json.loads(written)["notes"]
    assert not said
    assert note["note"].startswith("printed 500,004 bytes while it was loaded: chat chat")
    assert len(note["note"]) < 300
    assert "note kdbench-good 1.2: printed 500,004 bytes" in kdbench("plugins")[1]


def test_a_log_handler_made_at_import_still_logs_afterwards(install: Install, kdbench: Kdbench) -> None:
    source = "import logging, sys\nhandler = logging.StreamHandler(sys.stdout)\n"
    install(good=source + GOOD)
    kdbench("plugins")
    handler = sys.modules["kdbench_good"].handler
    with redirect_stderr(io.StringIO()) as seen:
        handler.stream.write("later\n")
    assert seen.getvalue() == "later\n"


def test_a_plugin_without_a_hook_gets_a_note(install: Install, kdbench: Kdbench) -> None:
    install(good=GOOD.replace("@hookimpl\n", ""))
    assert "note kdbench-good 1.2: implements no hook; is @hookimpl missing?" in kdbench("plugins")[1]


def test_a_distribution_without_metadata_is_no_end(install: Install, kdbench: Kdbench, tmp_path: Path) -> None:
    install(bad="import nothing_of_this_name\n")
    (tmp_path / "site/kdbench_bad-1.2.dist-info/METADATA").unlink()
    status, shown, _ = kdbench("plugins")
    assert status == 0
    assert "(kdbench_bad)" in shown


def test_nor_is_it_with_the_backport_of_metadata(install: Install, kdbench: Kdbench, tmp_path: Path) -> None:
    """Some libraries bring it, and it takes the place of Python's own finder."""
    pytest.importorskip("importlib_metadata")
    test_a_distribution_without_metadata_is_no_end(install, kdbench, tmp_path)


def test_a_lazy_target_that_cannot_be_read_is_listed_and_fails_when_asked_for(
    install: Install, kdbench: Kdbench, tmp_path: Path
) -> None:
    install(good=GOOD.replace("kdbench_good:Mine", "kdbench_bad_part:Mine"))
    (tmp_path / "site/kdbench_bad_part.py").write_text("import sys\nsys.exit(1)\ndef (:\n", encoding="utf-8")
    assert "mine" in kdbench("list", "methods")[1]
    with pytest.raises(BrokenPlugin, match=r"method 'mine' of kdbench-good 1\.2 does not load: SyntaxError"):
        plugins.discover().plugins["method"]["mine"].load()
    (tmp_path / "site/kdbench_bad_part.py").write_text("import sys\nsys.exit('bye')\n", encoding="utf-8")
    with pytest.raises(BrokenPlugin, match="does not load: SystemExit: bye"):
        plugins.discover().plugins["method"]["mine"].load()


def test_kdbench_ends_though_an_import_does_not(install: Install, tmp_path: Path) -> None:
    talks = "import time\nwhile True:\n    print('on and on')\n    time.sleep(0.001)\n"
    install(asleep="import time\ntime.sleep(3600)\n", bad=talks, good=GOOD)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "KDBENCH_PLUGIN_TIMEOUT": "0.2"}
    command = [sys.executable, "-m", "kdbench", "plugins"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "kdbench-good 1.2" in ended.stdout
    for name in ("asleep", "bad"):
        assert f"broken kdbench-{name} 1.2 (kdbench_{name})\n  TimeoutError: not done after 0.2 s" in ended.stdout
    assert "note kdbench-bad 1.2: printed" in ended.stdout
    assert not ended.stderr


def test_help_imports_no_plugin(install: Install, kdbench: Kdbench, tmp_path: Path) -> None:
    marker = tmp_path / "imported"
    install(good=f"open({str(marker)!r}, 'w').close()\n" + GOOD)
    for arguments in (["--help"], ["run", "--help"], ["--strict", "plugins", "--help"]):
        assert kdbench(*arguments)[0] == 0
    assert not marker.exists()
    kdbench("plugins")
    assert marker.exists()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (None, {"kdbench", "kdbench-bad", "kdbench-good"}),
        ("", {"kdbench"}),
        ("KDBENCH_Good", {"kdbench", "kdbench-good"}),
        (" good , bad ", {"kdbench", "kdbench-bad", "kdbench-good"}),
        ("kdbench", {"kdbench"}),
    ],
)
def test_kdbench_plugins_restricts(install: Install, written: str | None, expected: set[str]) -> None:
    install(good=GOOD, bad="import nothing_of_this_name\n")
    environment = {} if written is None else {"KDBENCH_PLUGINS": written}
    found = candidates(Selection.from_environment(environment))
    assert {origin.distribution for origin, _ in found} == expected


def test_a_restriction_to_what_is_not_there_is_refused(
    install: Install, kdbench: Kdbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(good=GOOD)
    monkeypatch.setenv("KDBENCH_PLUGINS", "kdbench-god")
    status, _, said = kdbench("plugins")
    assert status == 2
    assert "KDBENCH_PLUGINS names 'kdbench-god', and no such plugin is installed" in said
    assert "did you mean 'kdbench-good'" in said


@pytest.mark.parametrize("written", ["soon", "0", "-1", "nan"])
def test_a_time_out_is_a_number_of_seconds(written: str) -> None:
    with pytest.raises(BadInput, match="KDBENCH_PLUGIN_TIMEOUT"):
        Selection.from_environment({"KDBENCH_PLUGIN_TIMEOUT": written})


LOOSE = f"""
from dataclasses import dataclass
from typing import ClassVar
from kdbench import Method, soft_loss
from ._part import HALF

@dataclass(frozen=True)
class Mine(Method):
    '''Mine alone.'''
    family: ClassVar[str] = "response"
    weight: float = 1.0

    def losses(self, step):
        soft = soft_loss(step.student["logits"], step.teacher["logits"], 4.0)
        return {{"soft": HALF * self.weight * soft}}

{HOOK}def kdbench_methods():
    return {{"mine": Mine, "mine_twice": f"{{__name__}}:Mine[weight=2]"}}
"""


def test_loose_files_are_plugins_and_isolated_alike(install: Install, kdbench: Kdbench, tmp_path: Path) -> None:
    folder = tmp_path / "my folder"
    folder.mkdir()
    for name, source in {"mine": LOOSE, "_part": "HALF = 0.5\n", "bad": "def (:\n", "json": GOOD}.items():
        (folder / f"{name}.py").write_text(source.replace("'mine'", "'other'"), encoding="utf-8")
    _, written, _ = kdbench("plugins", "--json", "--plugin-dir", str(folder))
    found = json.loads(written)
    working = {each["file"]: each["methods"] for each in found["working"]}
    assert working[str(folder / "mine.py")] == ["mine", "mine_twice"]
    assert working[str(folder / "json.py")] == ["other"]  # hides nobody's json
    (broken,) = found["broken"]
    assert broken["file"] == str(folder / "bad.py")
    assert broken["removal"] == f"move bad.py out of {folder}, or leave out --plugin-dir"
    status, shown, _ = kdbench("plugins", f"--plugin-dir={folder}")
    assert status == 0
    assert f"broken {folder / 'bad.py'} (" in shown
    assert "Mine alone." in kdbench("--plugin-dir", str(folder), "list", "methods")[1]


def test_two_folders_of_one_name_do_not_mix(install: Install, tmp_path: Path) -> None:
    for number in (1, 2):
        loose(tmp_path / str(number) / "mine", _part=f"HALF = {number}\n", **{f"m{number}": LOOSE})
    folders = (tmp_path / "1/mine", tmp_path / "2/mine")
    found = [origin for origin, _ in candidates(Selection(folders=folders)) if origin.file]
    assert [origin.file for origin in found] == [tmp_path / "1/mine/m1.py", tmp_path / "2/mine/m2.py"]
    registry = collect(candidates(Selection(folders=folders)))
    module = sys.modules[found[1].module]
    assert module.HALF == 2
    assert "already the name of one by" in registry.broken[0].error  # both bring `mine`


def test_a_folder_that_is_not_there_is_refused(install: Install, kdbench: Kdbench, tmp_path: Path) -> None:
    status, _, said = kdbench("list", "--plugin-dir", str(tmp_path / "nowhere"))
    assert status == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in said


def test_editing_a_loose_file_changes_fingerprints(
    install: Install, tiny_suite: Callable[..., Path], tmp_path: Path
) -> None:
    suite = load_suite(str(tiny_suite(methods="mine")))
    folder, data = tmp_path / "mine", DataFolders((tmp_path,), tmp_path)

    def fingerprints(folder: Path = folder, **sources: str) -> dict[str, str]:
        plan = make_plan(suite, loose(folder, **sources), data)
        return {trial.method_name: trial.fingerprint for trial in plan.trials}

    first = fingerprints(mine=LOOSE, _part="HALF = 0.5\n")
    assert fingerprints(mine=LOOSE + "\n# said in passing\n") == first
    shutil.copytree(folder, tmp_path / "elsewhere/mine")
    assert fingerprints(tmp_path / "elsewhere/mine") == first
    for changes in ({"mine": LOOSE.replace("4.0", "5.0")}, {"mine": LOOSE, "_part": "HALF = 0.25\n"}):
        changed = fingerprints(**changes)
        assert changed["mine"] != first["mine"]
        assert changed["scratch"] == first["scratch"]


def test_global_options_may_stand_anywhere() -> None:
    first = global_options_first(["list", "--plugin-dir", "a", "tasks", "--strict", "--plugin-dir=b", "--", "--debug"])
    assert first == ["--plugin-dir", "a", "--strict", "--plugin-dir=b", "list", "tasks", "--", "--debug"]
    assert global_options_first(["list", "--plugin-dir"]) == ["--plugin-dir", "list"]
