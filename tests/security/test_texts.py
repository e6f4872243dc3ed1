"""Names and titles from suites, plugins and records: shown letter by letter, never markup, shell, path or secret."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from kdbench.measuring.environment import environment
from kdbench.measuring.record import Record
from kdbench.store.mlflow_entries import Entry, MethodRun, entries, in_markdown
from kdbench.store.mlflow_view import sync
from kdbench.store.run_folder import Manifest

Run = Callable[..., tuple[int, str, str]]

EVIL = "<script>alert(1)</script> [x](javascript:alert(2)) ![x](http://evil/x.png) `code` ```fence``` **b** | a_b_c"


def evil_entries() -> list[Entry]:
    names = dict.fromkeys(("task", "pair", "student", "method"), EVIL)
    record = Record(
        **names, fingerprint="f", status="failed", suite="s@1.0", teachers=(), params={}, family="response", seed=0,
        primary="accuracy", reason=EVIL, error=f"Traceback\n```\n{EVIL}",
    )  # fmt: skip
    run = MethodRun(EVIL, EVIL, EVIL, EVIL, {}, "response", {}, {"verdict": EVIL, "evidence": EVIL}, ("f",))
    return entries("run", _manifest(), [record], [run], {"leaderboard.md": f"| {EVIL} |"}, None)


def _manifest() -> Manifest:
    moment = "2026-11-20T09:59:00.000000+00:00"
    return Manifest(
        name="run",
        suite="s@1.0",
        suite_digest="d",
        suite_source="",
        title=EVIL,
        question=EVIL,
        created=moment,
        updated=moment,
    )


def rendered(markdown: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))


@pytest.mark.parametrize("entry", evil_entries(), ids=lambda entry: entry.role)
def test_a_note_in_mlflow_shows_markup_as_such(entry: Entry) -> None:
    html = rendered(entry.tags["mlflow.note.content"])
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    if entry.role != "report":  # its page is Markdown itself, from which MLflow takes scripts and odd links
        assert set(re.findall(r"<(\w+)", html)) <= {"p", "strong", "pre", "code"}


def test_a_suites_title_in_mlflow_shows_markup_as_such(tmp_path: Path) -> None:
    from kdbench.store.mlflow_client import connected, default_tracking_uri

    uri = default_tracking_uri(tmp_path)
    result = sync(uri, "run", _manifest(), [], [], {})
    with connected(uri) as client:
        html = rendered(client.get_experiment(result.experiment_id).tags["mlflow.note.content"])
    assert "&lt;script&gt;alert(1)" in html
    links = re.findall(r'href="([^"]*)"', html)
    assert links
    assert all(link.startswith("#/experiments/") for link in links), "only our own"
    assert set(re.findall(r"<(\w+)", html)) <= {"p", "strong", "a", "code"}, "the code is our own"


@pytest.mark.parametrize("text", ["plain", "a_b * c", "<b>", "&lt;", "[x](y)", "`x`", "\\", "a|b", "~~x~~"])
def test_markdown_gives_back_the_letters(text: str) -> None:
    import html

    shown = re.sub(r"</?p>", "", rendered(in_markdown(text))).strip()
    assert html.unescape(shown) == text


HOSTILE = ["../../x", "/etc/passwd", "$(touch x)", "; touch x", "a\nb", "<script>", "-rf", "con:"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("option", ["--method", "--name", "suite"])
def test_a_name_from_the_command_line_reaches_no_path(
    kdbench: Run, tiny_suite: Callable[..., Path], tmp_path: Path, name: str, option: str
) -> None:
    text = tiny_suite().read_text(encoding="utf-8").replace("tiny@1.0", repr(f"{name}@1.0"))
    suite = tiny_suite() if option != "suite" else tmp_path / "hostile.yaml"
    if option == "suite":
        suite.write_text(text, encoding="utf-8")
    before = set(tmp_path.rglob("*"))
    also = [f"{option}={name}"] if option != "suite" else []
    status, printed, said = kdbench("run", str(suite), "--out", str(tmp_path / "out"), *also)
    assert (status, printed) == (2, "")
    assert said.startswith("error: ")
    assert set(tmp_path.rglob("*")) == before


PLUGIN = f"""
from kdbench.hookspecs import hookimpl

@hookimpl
def kdbench_methods():
    return {{name: "kdbench_plugins.methods.kd:KD" for name in {HOSTILE!r}}}
"""


def test_nor_does_one_from_a_plugin(kdbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.setenv("KDBENCH_PLUGIN_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for command in (("plugins",), ("plugins", "--json"), ("list", "methods")):
        status, _, said = kdbench(*command)
        assert status == 0, said
    assert {path.name for path in tmp_path.iterdir()} <= {"hostile.py", "__pycache__"}


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "hunter2secret",
    "MLFLOW_TRACKING_PASSWORD": "hunter3secret",
    "HF_TOKEN": "hf_hunter4",
}


def test_secrets_of_the_environment_and_of_addresses_are_nowhere(
    kdbench: Run, tiny_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in what a run writes nor in what it and the commands on it print, errors included."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    uri = "http://ann:hunter5secret@127.0.0.1:9/?token=hunter6secret"
    suite = tiny_suite(tasks="'digits[train_examples=120]'", student="'cnn[width=0.125]'", epochs="1", methods="kd")
    out = ("--out", str(tmp_path / "out"))
    shown = [kdbench("run", str(suite), *out, "--tracking-uri", uri)]
    assert shown[0][0] == 0
    shown += [kdbench(*command, *out) for command in (("records", "--json"), ("report", "-o", "-"), ("publish",))]
    for odd in (
        uri,
        "postgresql://ann:hunter5secret@127.0.0.1:9/x",
        "mysql://ann:hunter5secret@h/x",
        "http://ann:hunter5secret@[::1/",
    ):
        shown += [kdbench(*command, "--tracking-uri", odd, *out) for command in (("sync",), ("ui", "--port", "1"))]
    assert [status for status, *_ in shown[4:]] == [2] * 8
    printed = "".join(part for _, *parts in shown for part in parts)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in ("hunter2", "hunter3", "hunter4", "hunter5", "hunter6"):
        assert secret not in printed
        assert secret.encode() not in written


def test_the_environment_is_recorded_by_allow_list() -> None:
    from kdbench import __version__

    recorded: dict[str, Any] = dict(environment("cpu"))
    assert recorded["kdbench"] == __version__
    known = "python kdbench torch torchvision numpy os os_release processor cores threads memory_gib device accelerator"
    assert list(recorded) == known.split(), "whatever is added here must be no secret, no name and no path"
    assert not {os.environ.get("USER", "-"), platform.node(), str(Path.home())} & set(map(str, recorded.values()))
