"""Which test examples a costly measurement looks at."""

from __future__ import annotations

import torch
from torch import Tensor


def even_sample(examples: int, most: int) -> Tensor:
    """At most `most` positions below `examples`, evenly spread, sorted: the same for every network."""
    return torch.linspace(0, examples - 1, min(examples, most), dtype=torch.float64).long()
