"""Nothing that is read can run: no source line that would let it, and malicious files in place of every file."""

from __future__ import annotations

import ast
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from kdbench.errors import StoreError, SuiteError
from kdbench.measuring.record import Record
from kdbench.store.run_folder import RunFolder
from kdbench.store.trial_files import TrialFiles
from kdbench.training.checkpoints import Snapshot
from kdbench.training.stored_answers import _opened
from kdbench.yaml_source import read_yaml

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(
    path for folder in ("kdbench", "plugins", "benchmarks", ".ci") for path in (ROOT / folder).rglob("*.py")
)

# The one that reads what others pickled, in which nothing can run: tests/security/test_pickled_data.py.
HARMLESS = {"plugins/tasks/_cifar_files.py": ["imports pickle"]}
UNPICKLING = {"pickle", "dill", "joblib", "shelve", "cloudpickle", "marshal"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"}
READERS = {"pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}


def dangers(tree: ast.AST) -> Iterator[str]:
    """What in the source could run what it reads, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{node.lineno}: imports {name}" for name in names if name.partition(".")[0] in UNPICKLING)
        if isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {what}" for what in _of_call(node))


def _of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in BUILTINS | SHELLS | READERS:
        yield f"calls {name}"
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if given.get("weights_only") == "False" or given.get("trust_remote_code", "False") != "False":
        yield "takes code with weights"
    if given.get("allow_pickle", "False") != "False":
        yield "numpy may unpickle"
    if given.get("shell", "False") != "False":
        yield "starts a shell"
    if name == "YAML" and given.get("typ") not in ("'safe'", "'rt'"):
        yield "YAML that makes objects"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_line_could_run_what_it_reads(path: Path) -> None:
    found = [what.partition(": ")[2] for what in dangers(ast.parse(path.read_text(encoding="utf-8")))]
    assert found == HARMLESS.get(path.relative_to(ROOT).as_posix(), [])


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from joblib import load", "eval(text)", "exec(text)", "os.system(text)"),
        *("torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)"),
        *("subprocess.run(text, shell=True)", "YAML(typ='unsafe').load(text)", "yaml.load(text)"),
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_and_the_search_finds_it(line: str) -> None:
    assert list(dangers(ast.parse(line)))


@dataclass
class Trap:
    """Unpickled, it makes a folder."""

    path: str

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Callable[[Path, bool], None]]:
    """Puts a malicious pickle, as itself or as `torch.save` packs it, in place of a file; it must not have run."""
    sprung = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(str(sprung))))
    sprung.rmdir()  # it does work

    def put(path: Path, packed: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if packed:
            torch.save(Trap(str(sprung)), path)
        else:
            path.write_bytes(pickle.dumps(Trap(str(sprung))))

    yield put
    assert not sprung.exists(), "the file ran"


def _finished_trial(folder: Path) -> TrialFiles:
    files = TrialFiles(folder)
    names = dict.fromkeys(("suite", "task", "pair", "student", "method", "family", "primary"), "x")
    files.save(Record(fingerprint="f", status="skipped", teachers=(), params={}, seed=0, **names))
    return files


def _damage(folder: Path) -> None:
    if (damage := TrialFiles(folder).damage()) is not None:
        raise damage


READ: dict[str, Callable[[Path], object]] = {
    "student.safetensors": lambda path: TrialFiles(path.parent).weights(),
    "predictions.safetensors": lambda path: TrialFiles(path.parent).predictions(),
    "record.json": lambda path: TrialFiles(path.parent).record(),
    "SHA256SUMS": lambda path: _damage(path.parent),
    "manifest.json": lambda path: RunFolder(path.parent).manifest(),
    "checkpoint.safetensors": lambda path: Snapshot(path).weights(),
    "suite.yaml": read_yaml,
}


@pytest.mark.parametrize("packed", [False, True], ids=["pickle", "torch.save"])
@pytest.mark.parametrize("name", READ)
def test_a_malicious_pickle_does_not_run(
    trap: Callable[[Path, bool], None], tmp_path: Path, name: str, packed: bool
) -> None:
    path = tmp_path / "folder" / name
    if name == "SHA256SUMS":
        shutil.copytree(_finished_trial(tmp_path / "made").folder, path.parent)
    trap(path, packed)
    with pytest.raises((StoreError, SuiteError)):
        READ[name](path)


@pytest.mark.parametrize("packed", [False, True], ids=["pickle", "torch.save"])
@pytest.mark.parametrize("name", ["logits.npy", "seconds.json"])
def test_nor_does_one_among_stored_answers(
    trap: Callable[[Path, bool], None], tmp_path: Path, name: str, packed: bool
) -> None:
    folder = tmp_path / "answers"
    trap(folder / name, packed)
    with pytest.raises((OSError, EOFError, ValueError)):
        _opened(folder, ["logits"])
