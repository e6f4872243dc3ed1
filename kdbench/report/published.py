"""Published: what is known of each published leaderboard, and the index that lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kdbench.analysis.board import Leaderboard
from kdbench.analysis.headline import answer
from kdbench.analysis.tables import pipes
from kdbench.errors import StoreError
from kdbench.measuring.record import Record
from kdbench.store.run_folder import Manifest

_BEGIN = "<!-- published: written by `kdbench publish` -->"
_END = "<!-- /published -->"
_BETWEEN = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
_HEADING = "## Published leaderboards"


class Published(BaseModel):
    """One published run, as `provenance.json` holds it.

    Attributes:
        suite, suite_digest, title: the suite's; `name`: of the publication, its folder's.
        track: "fixed" or "tuned", with the number of trials, in words.
        finished: the day on which its last trial ended, ISO 8601.
        answers: the answer of each board, in words, by "task: pair".
        trials, seeds: how many trials ended, and on which seeds.
        data, engine: digests of each task's data, and of the engine's source.
        environments: versions and machines that trials ran with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    suite_digest: str
    title: str
    name: str
    track: str
    finished: str
    answers: dict[str, str]
    trials: int
    seeds: tuple[int, ...]
    data: dict[str, str]
    engine: tuple[str, ...]
    environments: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, manifest: Manifest, leaderboard: Leaderboard, records: Sequence[Record], name: str | None) -> Published:
        """The publication of a run; without a name it is called by its day."""
        days = [record.provenance["finished"][:10] for record in records if "finished" in record.provenance]
        day = max(days, default=manifest.updated[:10])
        environments: list[dict[str, Any]] = []
        for record in records:
            environment = record.provenance.get("environment", {})
            if environment and environment not in environments:
                environments.append(environment)
        return cls(
            suite=manifest.suite,
            suite_digest=manifest.suite_digest,
            title=manifest.title or manifest.suite,
            name=name or (f"{day}-tuned" if manifest.tuning_trials else day),
            track=manifest.track,
            finished=day,
            answers={f"{board.task}: {board.pair}": answer(board) for board in leaderboard.boards},
            trials=len(records),
            seeds=tuple(sorted({record.seed for record in records})),
            data={record.task: record.provenance.get("data", "") for record in records},
            engine=tuple(sorted({record.provenance.get("engine", "") for record in records})),
            environments=tuple(environments),
        )


def read_published(folder: Path) -> list[Published]:
    """Every publication below `folder`, by suite and name.

    Raises:
        StoreError: one of them cannot be read.
    """
    found = []
    for path in sorted(folder.glob("*/*/provenance.json")):
        try:
            found.append(Published.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            raise StoreError(f"{path} is damaged", hint="publish that run again, or delete its folder") from error
    return found


def with_index(page: str, published: Sequence[Published]) -> str:
    """The page of the results' folder with the table of all publications in its place, or at its end."""
    table = pipes(["suite", "published", "trials", "answer"], [_line(each) for each in published])
    block = f"{_BEGIN}\n{table}\n{_END}"
    if _BETWEEN.search(page):
        return _BETWEEN.sub(lambda _: block, page)
    return f"{page.rstrip()}\n\n{_HEADING}\n\n{block}\n".lstrip()


def _line(entry: Published) -> list[str]:
    link = f"[{entry.name}](published/{entry.suite}/{entry.name}/README.md)"
    said = "; ".join(f"{board}: {text}" if len(entry.answers) > 1 else text for board, text in entry.answers.items())
    title = f"{entry.title} (`{entry.suite}`; {entry.track.partition(':')[0]})"
    return [title, link, f"{entry.trials}, {len(entry.seeds)} seeds", said]
