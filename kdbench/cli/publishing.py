"""`kdbench publish`: a run's results as a folder that can be committed and read without kdbench."""

from __future__ import annotations

from pathlib import Path

from kdbench.analysis import tables
from kdbench.cli.console import out
from kdbench.cli.results import board_of
from kdbench.files import write_atomic
from kdbench.report.publication import publication
from kdbench.store.run_folder import RunFolder


def publish(reference: str, folder: Path, to: Path | None) -> None:
    """Writes README.md, leaderboard.csv, records.jsonl and suite.yaml of a run into `to`, or into
    `<folder>/published/<suite>`."""
    run = RunFolder.open(reference, folder)
    manifest, board, records = run.manifest(), board_of(run), run.records()
    target = to or folder / "published" / manifest.suite
    pages = {
        "README.md": publication(manifest, board, records),
        "leaderboard.csv": tables.to_csv(board),
        "records.jsonl": "".join(record.model_dump_json() + "\n" for record in records),
        "suite.yaml": manifest.suite_source,
    }
    for name, content in pages.items():
        write_atomic(target / name, content)
    out.print(f"published in {target}", markup=False, soft_wrap=True)
