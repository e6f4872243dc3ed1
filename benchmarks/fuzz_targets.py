"""What is fuzzed: every reader of something that others wrote, and inputs near to what it expects."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from ruamel.yaml import YAML

from kdbench.analysis.leaderboard import leaderboard
from kdbench.archives import unpack
from kdbench.discovery import Origin
from kdbench.errors import MissingData
from kdbench.hookspecs import hookimpl
from kdbench.measuring.record import Record
from kdbench.plugins import KINDS, Kind, Registry, collect, discover
from kdbench.spec import Spec
from kdbench.store.run_folder import Manifest, RunFolder
from kdbench.store.trial_files import TrialFiles
from kdbench.suite import Suite
from kdbench.suite_file import packaged_suites, parse_suite

from .mutations import MARKS, SCALARS, changed, mangled, nested

_QUICKSTART = packaged_suites()["quickstart"].read_text(encoding="utf-8")


@dataclass(frozen=True)
class Fuzzed:
    """A reader, which may raise nothing but KdbenchError; `weight`: its share of the inputs, the less the slower."""

    inputs: SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    weight: int


# --- suites and specs -------------------------------------------------------------------------------------------------


def _as_yaml(content: Any) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(content, stream)
    return stream.getvalue()


def _suites() -> SearchStrategy[str]:
    keys = st.sampled_from([*Suite.model_fields, "name", "epochs", "teacher", "student", "<<", ""]) | st.text(
        max_size=4
    )
    content = YAML(typ="safe", pure=True).load(_QUICKSTART)
    return (
        MARKS
        | st.text(max_size=200)
        | mangled(_QUICKSTART.encode()).map(lambda data: data.decode("utf-8", "replace"))
        | changed(content, keys).map(_as_yaml)
    )


def _read_suite(text: str, folder: Path) -> object:
    return parse_suite(text, "fuzz.yaml").digest


@cache
def _registry() -> Registry:
    return discover()


def _specs() -> SearchStrategy[Any]:
    return st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), _specs_of(kind)))


def _specs_of(kind: Kind) -> SearchStrategy[Any]:
    names = st.sampled_from(sorted(_registry().plugins[kind]))
    keys = st.sampled_from(["temperature", "weight", "width", "train_examples", "variant"]) | st.text(max_size=5)
    argument = st.tuples(keys, SCALARS.map(str)).map("=".join)
    written = st.tuples(names, st.lists(argument | MARKS, max_size=2).map(",".join)).map(
        lambda parts: "{}[{}]".format(*parts)
    )
    mapping = st.tuples(names, st.dictionaries(keys, SCALARS, max_size=2)).map(
        lambda parts: {"name": parts[0], **parts[1]}
    )
    return names | written | mapping | MARKS | st.dictionaries(keys, nested(keys), max_size=4) | SCALARS


def _read_spec(asked: tuple[Any, Any], folder: Path) -> object:
    kind, text = asked
    return _registry().create(kind, Spec.parse(text))


# --- records and manifests --------------------------------------------------------------------------------------------


def _record() -> dict[str, Any]:
    names = {"task": "digits", "pair": "a -> b", "student": "b", "method": "kd", "family": "response"}
    return Record(
        **names, fingerprint="f", status="done", suite="s@1.0", teachers=("a",), params={"temperature": 4.0}, seed=0,
        primary="accuracy", metrics={"accuracy": 0.5, "teacher_accuracy": 0.75, "ece": 0.1},
        measurements={"training_seconds": 1.5}, curves={"loss": [2.0, 1.0]},
        provenance={"started": "2026-11-20T10:00:00+00:00", "environment": {"os": "Linux"}},
    ).model_dump(mode="json")  # fmt: skip


def _manifest() -> dict[str, Any]:
    moment = "2026-11-20T09:59:00+00:00"
    return Manifest(
        name="run", suite="s@1.0", suite_digest="d", suite_source="", created=moment, updated=moment,
        trials={"digits|a -> b|kd|0": "f"},
    ).model_dump(mode="json")  # fmt: skip


def _json_near(content: dict[str, Any]) -> SearchStrategy[bytes]:
    keys = st.sampled_from([*content, *content.get("metrics", {})]) | st.text(max_size=4)
    return mangled(json.dumps(content).encode()) | changed(content, keys).map(lambda value: json.dumps(value).encode())


def _read_record(content: bytes, folder: Path) -> object:
    (folder / "record.json").write_bytes(content)
    record = TrialFiles(folder).record()
    return leaderboard([record]) if record else None


def _read_manifest(content: bytes, folder: Path) -> object:
    (folder / "manifest.json").write_bytes(content)
    return RunFolder(folder).records()


def _tensors() -> SearchStrategy[bytes]:
    import torch
    from safetensors.torch import save

    return mangled(save({"logits": torch.ones(2, 3), "influences": torch.zeros(2)})) | st.binary(max_size=80)


def _read_tensors(content: bytes, folder: Path) -> object:
    for name in ("student", "predictions"):
        (folder / f"{name}.safetensors").write_bytes(content)
    files = TrialFiles(folder)
    return files.weights(), files.predictions()


# --- plugins ----------------------------------------------------------------------------------------------------------


def _offers() -> SearchStrategy[Any]:
    names = st.sampled_from(["kd", "mine", "../x", "<b>", ""]) | st.text(max_size=5)
    targets = st.sampled_from(["kdbench_plugins.methods.kd:KD", "no.where:X", "json:dumps", "a:b[", ":", "x"]) | SCALARS
    return st.dictionaries(names, targets | st.just(dict), max_size=3) | nested(names)


def _metadata() -> SearchStrategy[Any]:
    return st.tuples(
        st.fixed_dictionaries({f"kdbench_{kind}s": _offers() for kind in KINDS}),
        st.just(1) | SCALARS,  # kdbench_api
        st.sampled_from(["fuzzed_plugin", "fuzzed_plugin:missing", "no.such.module", "", ":", "json"])
        | st.text(max_size=6),
    )


def _read_plugin(metadata: tuple[dict[str, Any], Any, str], folder: Path) -> object:
    """Loads a module whose hooks return anything, under an entry point that says anything."""
    offers, api, value = metadata
    module = ModuleType("fuzzed_plugin")
    module.kdbench_api = api  # type: ignore[attr-defined]
    for hook, offer in offers.items():
        setattr(module, hook, hookimpl(_returning(offer)))
    sys.modules["fuzzed_plugin"] = module
    registry = collect([(Origin("fuzz", "0", value), EntryPoint("fuzz", value, "kdbench"))])
    assert all(str(broken.error) for broken in registry.broken), "a broken plugin without a word"
    for name in registry.plugins["method"]:
        registry.create("method", Spec(name))
    return registry


def _returning(value: Any) -> Callable[[], Any]:
    return lambda: value


# --- archives ---------------------------------------------------------------------------------------------------------


_NAMES = st.sampled_from(
    ["set/a", "set", "../x", "/x", "set/../../x", "C:x", "a\\b", ".", "", "set/a/b", "x" * 300, "../folder/x"]
) | st.text(alphabet="ab./\\: ~é\n", max_size=8)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"V"])


@st.composite
def _tar(draw: st.DrawFn) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, content, link in draw(
            st.lists(st.tuples(_NAMES, _KINDS, st.binary(max_size=20), _NAMES), max_size=4)
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    whole = stream.getvalue()
    return gzip.compress(draw(mangled(whole)) if draw(st.booleans()) else whole, 1)


@st.composite
def _zip(draw: st.DrawFn) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(stream, "w") as archive:  # names given twice
        for name, content, mode in draw(
            st.lists(st.tuples(_NAMES, st.binary(max_size=20), st.integers(0, 2**16 - 1)), max_size=4)
        ):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    whole = stream.getvalue()
    return draw(mangled(whole)) if draw(st.booleans()) else whole


def _archives() -> SearchStrategy[bytes]:
    return _zip() | _tar() | _tar().flatmap(mangled) | st.binary(max_size=60).map(lambda data: b"PK\x03\x04" + data)


def _read_archive(content: bytes, folder: Path) -> object:
    archive, target = folder / "set.archive", folder / "target"
    archive.write_bytes(content)
    shutil.rmtree(target, ignore_errors=True)
    try:
        unpack(archive, target)
    except OSError as error:  # a name that no file system takes; `DataFolders` says it
        raise MissingData(f"{archive} cannot be unpacked: {error}") from error
    assert all(path.is_file() or path.is_dir() for path in target.rglob("*")), "something that is no file"
    assert not any(path.is_symlink() for path in target.rglob("*")), "a link"
    return target


TARGETS = {
    "suites": Fuzzed(_suites(), _read_suite, 20),
    "specs": Fuzzed(_specs(), _read_spec, 25),
    "records": Fuzzed(_json_near(_record()), _read_record, 15),
    "manifests": Fuzzed(_json_near(_manifest()), _read_manifest, 10),
    "weights and predictions": Fuzzed(_tensors(), _read_tensors, 10),
    "plugin metadata": Fuzzed(_metadata(), _read_plugin, 10),
    "archives": Fuzzed(_archives(), _read_archive, 10),
}
