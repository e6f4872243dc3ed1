"""Makes `import torchvision` work beside a torch that its native library was not built for.

The torchvision wheel that pip picks is often built for CUDA, or for another torch. Its `_C.so` then does not load,
which torchvision tolerates, only to die two lines later: it registers shape rules for two operators, `nms` and
`qnms`, that the library would have defined (`RuntimeError: operator torchvision::nms does not exist`). The models,
data sets and transforms need none of them. `timm`, `transformers` and `torchmetrics` import torchvision too.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# The operators live only as long as the object that defined them.
_definitions: Any = None


def ensure() -> None:
    """Defines what a torchvision without its native library lacks; call it before anything imports torchvision.

    Does nothing where torchvision is whole, absent, already imported or already mended. The operators that it
    cannot supply (`roi_align`, `torchvision.ops.nms` by that name) go on raising torchvision's own clear error.
    """
    global _definitions
    if _definitions is not None or "torchvision" in sys.modules:
        return
    found = importlib.util.find_spec("torchvision")
    if (
        found is None
        or not found.submodule_search_locations
        or native_library_loads(found.submodule_search_locations[0])
    ):
        return
    import torch

    if hasattr(torch.ops.torchvision, "nms"):  # someone else has met the same bug
        return
    _definitions = torch.library.Library("torchvision", "FRAGMENT")
    _definitions.define(f"nms{_SCHEMA}")
    _definitions.define(f"qnms{_SCHEMA}")
    _definitions.impl("nms", nms, "CPU")


def native_library_loads(folder: str) -> bool:
    """Whether the `_C` library in torchvision's `folder` loads into this torch, asked as torchvision asks.

    Where it does, it stays loaded, and torchvision's own attempt finds it so.
    """
    import torch

    loader = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    found = importlib.machinery.FileFinder(folder, loader).find_spec("_C")
    if found is None or found.origin is None:
        return False
    try:
        torch.ops.load_library(found.origin)
    except OSError:
        return False
    return True


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression: positions of the boxes kept, [kept], best score first.

    `dets` is [boxes, 4] as (x1, y1, x2, y2), `scores` [boxes]. A box is dropped where its intersection over union
    with a better one that was kept exceeds `iou_threshold`; equal scores keep their order.
    """
    import torch

    remaining = scores.argsort(descending=True, stable=True)
    areas = (dets[:, 2] - dets[:, 0]) * (dets[:, 3] - dets[:, 1])
    kept = []
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        kept.append(best)
        upper_left = torch.maximum(dets[best, :2], dets[remaining, :2])
        lower_right = torch.minimum(dets[best, 2:], dets[remaining, 2:])
        overlap = (lower_right - upper_left).clamp(min=0).prod(dim=1)
        # Multiplied out, so that two empty boxes (0 / 0) do not suppress each other.
        remaining = remaining[overlap <= iou_threshold * (areas[best] + areas[remaining] - overlap)]
    return torch.stack(kept) if kept else remaining
