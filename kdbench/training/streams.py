"""Side streams: the students of a cohort advanced on CUDA streams of their own, so that their kernels may overlap.

Off unless asked for: not measured, no card at hand. The kernels are those of one stream, with the same inputs, so that
a student alone and one in company still come to the same bits. (cuBLAS promises that on several streams only where each
has a workspace of its own, "Results reproducibility" in https://docs.nvidia.com/cuda/cublas/; torch gives it one.)

What makes it safe, by https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams and the notes on
`torch.Tensor.record_stream`:

* What is freed on the host may be allocated again at once, but only on the stream that it was allocated on, where work
  goes in order; two streams are in order only where one waits for the other. So in `SideStreams.parted` every side
  stream first waits for the main one, which has made batch and teachers' answers; and in the end, whatever happened,
  the main one waits for every side stream.
* Batch and answers are allocated on the main stream and read on the others. They are held until the main stream has
  been told to wait, and nothing is allocated on it meanwhile: what takes their place is written after all have read
  them. Those notes call that sufficient, without `record_stream`, which makes the moment of reuse a matter of luck.
* Whatever a student owns (weights, buffers, memory banks, gradients, the optimiser's slots, sums of losses) is
  allocated, written and freed on its one stream, on which it is admitted too. Backward passes run on the streams of
  their forward passes. Validation, checkpoints and deployment read it on the main stream, after that has waited; and if
  it is freed then, its place is next taken in `parted`, where its stream waits for that reading.
* Students share nothing else that is computed on the device, but what a task may remember of a batch: that is made on
  the main stream (`_Loop._batches`). A plugin that remembered tensors otherwise, or replayed one captured CUDA graph
  for several students, would have to order that itself.

A stream does not lend memory that it has freed to others: `CohortMemory.peak` counts that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import cycle
from typing import Any

import torch

from kdbench.plan import Trial


class SideStreams:
    """At most so many, dealt out to trials in turn: each has the same one all the time. On any device but CUDA, and for
    one stream or one trial, there are none, and everything stays where it is."""

    def __init__(self, device: torch.device, most: int, trials: Sequence[Trial]) -> None:
        count = min(most, len(trials)) if device.type == "cuda" else 1
        self._device = device
        self._streams = [torch.cuda.Stream(device) for _ in range(count)] if count > 1 else []
        self._own = dict(zip(trials, cycle(self._streams), strict=False))

    def __bool__(self) -> bool:
        return bool(self._streams)

    def of(self, trial: Trial) -> AbstractContextManager[Any]:
        """Has a block's kernels run on the trial's stream; only within `parted`."""
        return torch.cuda.stream(self._own[trial]) if self._streams else nullcontext()

    def parted(self) -> AbstractContextManager[None]:
        """A block in which streams go their own ways, from what the main one has done so far; afterwards, also where it
        raises, the main one goes on from what all have done."""
        return self._parted() if self._streams else nullcontext()

    @contextmanager
    def _parted(self) -> Iterator[None]:
        main = torch.cuda.current_stream(self._device)
        for stream in self._streams:
            stream.wait_stream(main)
        try:
            yield
        finally:
            for stream in self._streams:
                main.wait_stream(stream)
