"""The command line from end to end on a tiny suite: what a person types, reads and gets back as exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdbench.cli import main
from kdbench.measuring.record import Record

Write = Callable[..., Path]


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


@pytest.fixture
def kdbench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs a command in this process, as `main` would."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["kdbench", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        said = capfd.readouterr()
        return Ended(status, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, suite_text: Callable[..., str]) -> Path:
    """A folder with one finished run called `first`: all nine methods, two seeds."""
    folder = tmp_path_factory.mktemp("finished")
    suite = folder / "tiny.yaml"
    methods = "kd, fitnets, attention_transfer, rkd, self_distillation, born_again, ensemble"
    text = suite_text(methods=methods, controls="scratch, label_smoothing", seeds="2")
    suite.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "kdbench", "run", str(suite), "--out", str(folder), "--name", "first"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (folder / "output.txt").write_text(ended.stdout, encoding="utf-8")
    return folder


def records(kdbench: Callable[..., Ended], out: Path, name: str) -> dict[str, dict]:
    lines = kdbench("records", name, "--out", out, "--json").out.splitlines()
    return {f"{record['method']} {record['seed']}": record for record in map(json.loads, lines)}


def test_a_run_ends_with_leaderboard_and_verdict(finished: Path) -> None:
    printed = (finished / "output.txt").read_text(encoding="utf-8")
    for expected in ("teacher", "attention_transfer", "label_smoothing", "scratch", "Verdict", "baseline"):
        assert expected in printed


def test_records_hold_every_number_that_is_promised(kdbench: Callable[..., Ended], finished: Path) -> None:
    found = records(kdbench, finished, "first")
    assert len(found) == 18
    for record in found.values():
        assert record["status"] == "done"
        metrics = {
            "accuracy", "top5_accuracy", "macro_f1", "nll", "ece", "brier", "agreement", "teacher_kl", "parameters",
            "macs", "flops", "file_bytes", "training_flops", "teacher_flops", "teacher_accuracy",
            "validation_accuracy", "macs_disagreement", "own_teacher_accuracy", "nonzero_parameters",
            "teacher_parameters", "teacher_macs", "teacher_file_bytes", "agreement_teacher_right",
            "teacher_kl_teacher_right", "agreement_teacher_wrong", "teacher_kl_teacher_wrong", "cka", "cka_stage1",
            "cka_stage2", "cka_stage3", "relation_correlation", "saliency_agreement", "corrupted_accuracy",
            "corrupted_accuracy/gaussian_noise", "corrupted_accuracy/gaussian_blur", "corrupted_accuracy/contrast",
            "corrupted_accuracy/jpeg", "best_validation_accuracy", "best_on_test_accuracy", "optimism",
            "selection_epochs",
        }  # fmt: skip
        assert set(record["metrics"]) == metrics
        assert record["metrics"]["flops"] == 2 * record["metrics"]["macs"] > 0
        assert record["metrics"]["macs_disagreement"] == 0
        measured = {
            "latency_ms_p50", "latency_ms_p95", "throughput_per_s", "throughput_batch", "threads", "peak_memory_bytes",
            "training_seconds", "teacher_seconds", "shared_seconds", "teacher_latency_ms_p50",
            "teacher_peak_memory_bytes",
        }  # fmt: skip
        assert set(record["measurements"]) == measured
    assert found["scratch 0"]["metrics"]["teacher_flops"] == 0 < found["kd 0"]["metrics"]["teacher_flops"]
    assert found["ensemble 0"]["metrics"]["teacher_flops"] == 2 * found["kd 0"]["metrics"]["teacher_flops"]
    # the deployed student is the same network for every method, exits and regressors thrown away
    assert len({record["metrics"]["parameters"] for record in found.values()}) == 1


def test_again_runs_nothing_and_changes_nothing(kdbench: Callable[..., Ended], finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("record.json")}
    ended = kdbench("run", finished / "tiny.yaml", "--out", finished, "--name", "first")
    assert ended.status == 0
    assert "epoch" not in ended.err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("record.json")} == before


def test_alone_equals_together(kdbench: Callable[..., Ended], finished: Path) -> None:
    alone = ["run", finished / "tiny.yaml", "--out", finished, "--name", "alone", "--method", "rkd"]
    assert kdbench(*alone).status == 0
    together = records(kdbench, finished, "first")
    found = records(kdbench, finished, "alone")
    assert set(found) == {"rkd 0", "rkd 1", "scratch 0", "scratch 1", "label_smoothing 0", "label_smoothing 1"}
    for name, record in found.items():
        assert record["fingerprint"] == together[name]["fingerprint"]
        assert record["metrics"] == together[name]["metrics"], name


def test_killed_equals_unharmed(kdbench: Callable[..., Ended], finished: Path, tmp_path: Path) -> None:
    """`kill -9` while students are in training, then the same command again."""
    command = ["run", str(finished / "tiny.yaml"), "--out", str(tmp_path), "--name", "killed", "--seeds", "1"]
    process = subprocess.Popen([sys.executable, "-m", "kdbench", *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("killed/trials/*/checkpoint.safetensors")) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert kdbench(*command).status == 0
    unharmed = records(kdbench, finished, "first")
    for name, record in records(kdbench, tmp_path, "killed").items():
        assert record["metrics"] == unharmed[name]["metrics"], name


def test_ctrl_c_says_that_nothing_is_lost(tiny_suite: Write, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kdbench", "run", str(tiny_suite(epochs="500")), "--out", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not list(tmp_path.rglob("checkpoint.safetensors")) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.splitlines()[-2:] == [
        "error: stopped",
        "everything finished is kept; the same command goes on from here",
    ]


def test_adding_a_method_keeps_the_others(kdbench: Callable[..., Ended], finished: Path) -> None:
    ended = kdbench(
        "run", finished / "tiny.yaml", "--out", finished, "--name", "first", "--method", "kd[temperature=2]"
    )
    assert ended.status == 0
    board = json.loads(kdbench("leaderboard", "first", "--out", finished, "--json").out)["boards"][0]
    assert {"kd[temperature=2.0]", "kd[temperature=4.0]", "rkd"} <= {row["label"] for row in board["rows"]}


def test_every_form_of_the_leaderboard_and_the_verdict(kdbench: Callable[..., Ended], finished: Path) -> None:
    assert "scratch" in kdbench("leaderboard", "first", "--out", finished).out
    assert kdbench("leaderboard", "first", "--out", finished, "--csv").out.startswith("suite,task,pair")
    assert "| # | method" in kdbench("leaderboard", "first", "--out", finished, "--markdown").out
    verdicts = json.loads(kdbench("verdict", "first", "--out", finished, "--json").out)
    assert verdicts["suite"] == "tiny@1.0"
    assert "Does knowledge distillation" in kdbench("verdict", "first", "--out", finished).out
    assert kdbench("leaderboard", "first", "--out", finished, "--csv", "--json").status == 2


def test_a_published_run_can_be_read_without_kdbench(kdbench: Callable[..., Ended], finished: Path) -> None:
    ended = kdbench("publish", "first", "--out", finished)
    assert ended.status == 0, ended.err
    (folder,) = (finished / "published" / "tiny@1.0").iterdir()
    assert str(folder) in ended.out
    assert "<!doctype html>" in (folder / "report.html").read_text(encoding="utf-8")
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "report.html", "leaderboard.csv", "records.jsonl", "suite.yaml", "provenance.json")
    }
    page = (folder / "README.md").read_text(encoding="utf-8")
    for line in kdbench("leaderboard", "first", "--out", finished, "--markdown").out.strip().splitlines():
        assert line in page
    evidence = json.loads(kdbench("verdict", "first", "--out", finished, "--json").out)
    assert evidence["headline"] in page
    assert all(f"| {each['verdict']} | {each['evidence']} |" in page for each in evidence["verdicts"])
    versions = Record.model_validate_json((folder / "records.jsonl").read_text(encoding="utf-8").splitlines()[0])
    environment = versions.provenance["environment"]
    assert f"torch {environment['torch']}" in page
    assert "minutes in" in page
    assert (folder / "leaderboard.csv").read_text(encoding="utf-8").startswith("suite,task,pair,")
    assert (folder / "suite.yaml").read_text(encoding="utf-8") == (finished / "tiny.yaml").read_text(encoding="utf-8")
    assert kdbench("leaderboard", "published", "--out", finished).status == 2

    index = (finished / "README.md").read_text(encoding="utf-8")
    trials = len((folder / "records.jsonl").read_text(encoding="utf-8").splitlines())
    assert f"| [{folder.name}](published/tiny@1.0/{folder.name}/README.md) | {trials}, 2 seeds | " in index
    (finished / "README.md").write_text(f"# Mine\n\n{index}\nThe end.\n", encoding="utf-8")
    assert kdbench("publish", "first", "--out", finished, "--name", "again").status == 0
    index = (finished / "README.md").read_text(encoding="utf-8")
    assert index.startswith("# Mine")
    assert index.endswith("The end.\n")
    assert "[again]" in index
    assert index.count("| suite |") == 1
    assert kdbench("publish", "first", "--out", finished, "--name", "../away").status == 2
    assert kdbench("publish", "first", "--out", finished, "--name", "a", "--to", finished / "b").status == 2


def test_sync_is_idempotent(kdbench: Callable[..., Ended], finished: Path) -> None:
    kdbench("sync", "first", "--out", finished)
    again = kdbench("sync", "first", "--out", finished)
    assert again.status == 0
    assert "0 runs created, 0 updated" in again.out


def test_plan_says_what_is_cached_skipped_and_left(kdbench: Callable[..., Ended], finished: Path) -> None:
    cached = kdbench("plan", finished / "tiny.yaml", "--out", finished, "--name", "first")
    assert "18 cached" in cached.out
    assert "0 to run" in cached.out
    text = (finished / "tiny.yaml").read_text(encoding="utf-8")
    longer = finished / "longer.yaml"
    longer.write_text(text.replace("epochs: 2", "epochs: 3"), encoding="utf-8")
    changed = kdbench("plan", longer, "--out", finished, "--name", "first")
    assert "18 to run\n18 of them had a record" in changed.out
    fresh = kdbench(
        "plan", finished / "tiny.yaml", "--out", finished, "--name", "none", "--method", "fitnets[hint=stage9]"
    )
    assert "has no tap 'stage9'" in fresh.out
    assert "4 to run" in fresh.out
    assert "FLOPs" in fresh.out
    assert not (finished / "none").exists()


def test_a_failing_trial_ends_with_status_1_and_stays_on_the_board(
    kdbench: Callable[..., Ended], tiny_suite: Write, tmp_path: Path
) -> None:
    suite = tiny_suite(methods="kd, 'attention_transfer[weight=1e30]'")
    ended = kdbench("run", suite, "--out", tmp_path)
    assert ended.status == 1
    assert "diverged" in ended.err
    found = records(kdbench, tmp_path, "latest")
    assert found["attention_transfer 0"]["status"] == "diverged"
    assert "nan" in found["attention_transfer 0"]["reason"]
    board = json.loads(kdbench("leaderboard", "--out", tmp_path, "--json").out)["boards"][0]
    assert {row["label"]: row["ranked"] for row in board["rows"]}["attention_transfer"] is False


def test_an_unreachable_tracking_server_fails_no_trial(
    kdbench: Callable[..., Ended], tiny_suite: Write, tmp_path: Path
) -> None:
    ended = kdbench("run", tiny_suite(), "--out", tmp_path, "--tracking-uri", "http://user:secret@127.0.0.1:9")
    assert ended.status == 0
    assert "was not updated" in ended.err
    assert "kdbench sync" in ended.err
    assert "secret" not in ended.err
    assert kdbench("sync", "--out", tmp_path).status == 0


BAD = {
    "unknown suite": (["run", "quikstart"], "did you mean 'quickstart'?"),
    "unknown method": (["run", "SUITE", "--method", "fitnetss"], "did you mean 'fitnets'?"),
    "unknown parameter": (["run", "SUITE", "--method", "kd[temprature=1]"], "did you mean 'temperature'?"),
    "NaN": (["run", "SUITE", "--method", "kd[temperature=nan]"], "finite"),
    "no seeds": (["run", "SUITE", "--seeds", "0"], "--seeds 0"),
    "no such file": (["run", "./nowhere.yaml"], "nowhere.yaml"),
    "no such device": (["run", "SUITE", "--device", "tpu"], "choices: auto, cpu, cuda, mps"),
    "name with a path": (["run", "SUITE", "--name", "../x"], "a run cannot be named"),
    "unknown run": (["verdict", "nothing"], "unknown run 'nothing'"),
    "unknown flag": (["run", "SUITE", "--methods", "kd"], "No such option"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input_is_one_message_and_status_2(
    kdbench: Callable[..., Ended], tiny_suite: Write, tmp_path: Path, case: str
) -> None:
    arguments, expected = BAD[case]
    suite = str(tiny_suite())
    filled = [suite if argument == "SUITE" else argument for argument in arguments]
    ended = kdbench(*filled, *([] if case == "unknown flag" else ["--out", tmp_path / "out"]))
    assert ended.status == 2
    assert expected in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out").exists()


def test_a_fault_of_kdbench_itself_is_told_apart(
    kdbench: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdbench.cli import listing

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(listing, "show_list", broken)
    ended = kdbench("list")
    assert ended.status == 70
    assert "ZeroDivisionError" in ended.err
    assert "--debug" in ended.err
