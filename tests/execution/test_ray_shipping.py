"""What other machines lack goes there in one folder: a fresh Python that has it first on its path finds the same
plugins, and no others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.discovery import Selection
from kdbench.execution.shipping import Shipment, pack

PLUGIN = """
from dataclasses import dataclass
from kdbench import Method, hookimpl
{imports}


@dataclass(frozen=True)
class Mine(Method):
    \"\"\"Nothing new.\"\"\"

    family = "response"


@hookimpl
def kdbench_methods():
    return {{{name!r}: Mine}}
"""
ELSEWHERE = """
import json, os
from kdbench.execution.shipping import unpacked_folders
os.environ["KDBENCH_PLUGIN_DIR"] = os.pathsep.join(map(str, unpacked_folders()))
from kdbench.plugins import discover
found = discover()
names = [name for name, each in found.plugins["method"].items() if each.origin.distribution != "kdbench"]
print(json.dumps([[str(each) for each in found.broken], {name: found.provenance("method", name) for name in names}]))
"""


def distribution(site: Path, name: str, source: Path | None = None, imports: str = "") -> None:
    """Installed in `site`; with its module in another folder, as an editable one has."""
    info = site / f"{name}-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(f"[kdbench]\n{name} = {name}.plugin\n")
    package = (source or site) / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "table.csv").write_text("1,2\n")
    (package / "plugin.py").write_text(PLUGIN.format(name=name, imports=imports))


@pytest.fixture
def shipment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shipment:
    """Of an installed distribution, an editable one, one that is not wanted, and two folders of the same name."""
    site, checkout = tmp_path / "site-packages", tmp_path / "checkout"
    distribution(site, "kdbench_plain", imports="import neighbour_of_site")
    distribution(site, "kdbench_editable", source=checkout, imports="import lab_code.deep")
    distribution(site, "kdbench_unwanted")
    (site / "neighbour_of_site.py").write_text("")
    (checkout / "lab_code").mkdir()
    (checkout / "lab_code/__init__.py").write_text("from lab_more import x")
    (checkout / "lab_code/deep.py").write_text("import json, numpy, kdbench, kdbench_plugins")
    (checkout / "lab_more.py").write_text("x = 1")
    (checkout / "lab_unused.py").write_text("")
    for parent in ("a", "b"):
        (tmp_path / parent / "lab/__pycache__").mkdir(parents=True)
        (tmp_path / parent / f"lab/loose_{parent}.py").write_text(
            PLUGIN.format(name=f"loose_{parent}", imports="from ._shared import y")
        )
        (tmp_path / parent / "lab/_shared.py").write_text("y = 2")
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(checkout)
    only = frozenset({"kdbench-plain", "kdbench-editable"})
    folders = (tmp_path / "a/lab", tmp_path / "b/lab")
    return pack(Selection(only=only, folders=folders), tmp_path / "shipped")


def test_only_what_others_lack_is_shipped(shipment: Shipment) -> None:
    shipped = {path.name for path in shipment.folder.iterdir()}
    assert shipped == {
        "kdbench_shipped",
        "kdbench_plain",
        "kdbench_plain-2.0.dist-info",
        "kdbench_editable",
        "kdbench_editable-2.0.dist-info",
        "lab_code",
        "lab_more.py",
    }
    assert (shipment.folder / "kdbench_editable/table.csv").is_file()
    assert not list(shipment.folder.rglob("__pycache__"))


@pytest.mark.usefixtures("given")
def test_it_is_found_elsewhere_as_it_is_here(shipment: Shipment, tmp_path: Path) -> None:
    (tmp_path / "site-packages").rename(tmp_path / "gone")
    (tmp_path / "checkout").rename(tmp_path / "gone too")
    path = os.pathsep.join([str(shipment.folder), os.environ.get("PYTHONPATH", "")])
    alone = {**os.environ, "PYTHONPATH": path, "KDBENCH_PLUGINS": shipment.plugins}
    said = subprocess.run(
        [sys.executable, "-P", "-c", ELSEWHERE], env=alone, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    broken, found = json.loads(said.stdout)
    # its neighbour in site-packages is a package like others, for which the other machine's owner is to care
    assert len(broken) == 1
    assert "neighbour_of_site" in broken[0]
    assert {name: each["distribution"] for name, each in found.items()} == {
        "kdbench_editable": "kdbench_editable",
        "loose_a": "loose_a.py",
        "loose_b": "loose_b.py",
    }
    assert found["kdbench_editable"]["version"] == "2.0"
