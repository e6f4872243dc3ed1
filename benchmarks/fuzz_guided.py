"""`python -m benchmarks.fuzz_guided READER INPUTS SEED FOLDER CORPUS`: a reader's share of `fuzz --engine atheris`.

libFuzzer mutates the bytes that Hypothesis draws from, and keeps in the folder CORPUS those that reach new branches. It
never returns, so that this is a process of its own; its last line on standard output is the tally as JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
from contextlib import ExitStack
from pathlib import Path

INSTRUMENTED = ["kdbench", "kdbench_plugins", "ruamel", "tarfile", "zipfile", "json"]
_SEEDS = 32  # inputs that the corpus begins with
_LENGTH = 2048  # bytes that Hypothesis draws an input from, at most


def look(name: str, inputs: int, number: int, folder: Path, corpus: Path) -> None:
    """Ends the process once the reader has had its inputs."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from .fuzz import Tally, alarmed, feeding, inside
        from .fuzz_targets import TARGETS
    found = Tally()
    test = feeding(TARGETS[name], folder, found, inputs, number).hypothesis.fuzz_one_input

    alarm = ExitStack()

    def one(data: bytes) -> None:
        if not found.inputs:
            alarm.enter_context(alarmed())  # only now: libFuzzer takes the signal for itself when it begins
        test(data)
        if found.inputs >= inputs:
            print(json.dumps(vars(found)), flush=True)
            os._exit(0)

    drawn = random.Random(number)
    for index in range(_SEEDS):
        (corpus / str(index)).write_bytes(drawn.randbytes(_LENGTH))
    options = [f"-max_len={_LENGTH}", "-len_control=0", "-timeout=0", "-rss_limit_mb=0", f"-seed={number + 1}"]
    with inside(folder):
        atheris.Setup([sys.argv[0], *options, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    look(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
