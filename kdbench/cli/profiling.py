"""`kdbench run --profile`: where the time went, on standard output, and as a trace where one is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from kdbench.cli.console import err, out
from kdbench.profiling import TRACED, Profile, profiled
from kdbench.report.time_spent import methods_table, phases_table


@contextmanager
def profile_of(device: torch.device, asked: bool, trace: Path | None) -> Iterator[None]:
    """Profiles a block and prints its tables, if `asked`; writes its spans to `trace`.

    Raises:
        StoreError: the trace cannot be written; it is tried after everything else.
    """
    if not asked and trace is None:
        yield
        return
    synchronize = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type)
    with profiled(Profile(traced=trace is not None, synchronize=synchronize)) as profile:
        yield
    out.print()
    out.print(phases_table(profile))
    out.print()
    out.print(methods_table(profile))
    if trace is not None:
        profile.write_trace(trace)
        err.print(f"trace: {trace} (open it in ui.perfetto.dev or chrome://tracing)", markup=False, soft_wrap=True)
        if profile.untraced:
            err.print(f"the trace ends after {TRACED:,} spans; {profile.untraced:,} came later", markup=False)
