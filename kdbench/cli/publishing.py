"""`kdbench publish`: a run's results as a folder that can be committed and read without kdbench."""

from __future__ import annotations

from pathlib import Path

from kdbench.analysis import tables
from kdbench.analysis.claims import claims
from kdbench.cli.console import out
from kdbench.cli.reporting import report
from kdbench.cli.results import board_of
from kdbench.errors import BadInput
from kdbench.files import write_atomic
from kdbench.report.publication import publication
from kdbench.report.published import Published, read_published, with_index
from kdbench.store.run_folder import RunFolder, check_name

_INDEX = "README.md"


def publish(reference: str, folder: Path, name: str | None, to: Path | None) -> None:
    """Writes a run's page, report, leaderboard, records (without weights), suite, provenance and, in the tuned track,
    what was chosen into `to`; or into `<folder>/published/<suite>/<name>`, and lists that in `<folder>/README.md`.

    Raises:
        BadInput: the name is no plain folder name, or is given beside a folder of one's own.
    """
    if name and to:
        raise BadInput("choose one of --name and --to", hint="--to is a folder of your own, outside of the index")
    run = RunFolder.open(reference, folder)
    manifest, board, records = run.manifest(), board_of(run), run.records()
    entry = Published.of(manifest, board, records, name)
    check_name(entry.name)
    target = to or folder / "published" / manifest.suite / entry.name
    pages = {
        "README.md": publication(manifest, board, records, claims(board)),
        "report.html": report(run, board),
        "leaderboard.csv": tables.to_csv(board),
        "records.jsonl": "".join(record.model_dump_json() + "\n" for record in records),
        "suite.yaml": manifest.suite_source,
        "provenance.json": entry.model_dump_json(indent=1) + "\n",
    }
    choices = run.path / "tuning" / "choices.json"
    if manifest.tuning_trials and choices.is_file():
        pages["choices.json"] = choices.read_text(encoding="utf-8")
    for page, content in pages.items():
        write_atomic(target / page, content)
    out.print(f"published in {target}", markup=False, soft_wrap=True)
    if to is None:
        index = folder / _INDEX
        before = index.read_text(encoding="utf-8") if index.is_file() else ""
        write_atomic(index, with_index(before, read_published(folder / "published")))
        out.print(f"listed in {index}", markup=False, soft_wrap=True)
