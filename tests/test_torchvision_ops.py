"""torchvision beside a torch that its native library was not built for."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench import torchvision_ops


def python(code: str) -> None:
    """Runs `code` in a fresh interpreter, where nothing has imported torchvision yet; warnings are errors."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torchvision_imports_after_ensure() -> None:
    python(
        "from kdbench.torchvision_ops import ensure; ensure(); ensure()\n"
        "import torch, torchvision, torchvision.transforms.v2\n"
        "boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]])\n"
        "kept = torch.ops.torchvision.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)\n"
        "assert kept.tolist() == [1, 2], kept\n"
        "assert torchvision.models.resnet18 and torchvision.datasets.CIFAR10\n"
        "ensure()"
    )


def test_a_whole_torchvision_is_left_alone() -> None:
    python(
        "from kdbench import torchvision_ops\n"
        "torchvision_ops.native_library_loads = lambda folder: True\n"
        "torchvision_ops.ensure()\n"
        "import torch\n"
        "assert not hasattr(torch.ops.torchvision, 'nms')\n"
        "torchvision_ops.native_library_loads = lambda folder: False\n"
        "torchvision_ops.ensure()\n"
        "assert hasattr(torch.ops.torchvision, 'nms') and hasattr(torch.ops.torchvision, 'qnms')"
    )


def test_without_torchvision_it_does_not_even_import_torch() -> None:
    python(
        "import importlib.util, sys\n"
        "importlib.util.find_spec = lambda name: None\n"
        "from kdbench.torchvision_ops import ensure; ensure()\n"
        "assert 'torch' not in sys.modules"
    )


def test_a_folder_without_the_library_is_a_torchvision_without_it(tmp_path) -> None:
    assert not torchvision_ops.native_library_loads(str(tmp_path))


def test_a_library_that_does_not_load_is_no_error(tmp_path) -> None:
    (tmp_path / "_C.so").write_bytes(b"not a library")
    assert not torchvision_ops.native_library_loads(str(tmp_path))


def reference_nms(boxes: list[list[int]], scores: list[int], threshold: Fraction) -> list[int]:
    """Box by box, in exact arithmetic: kept unless it overlaps too much with one kept before."""

    def area(box: list[int]) -> int:
        return (box[2] - box[0]) * (box[3] - box[1])

    def overlap(a: list[int], b: list[int]) -> Fraction:
        sides = [max(0, min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis])) for axis in (0, 1)]
        return Fraction(sides[0] * sides[1], area(a) + area(b) - sides[0] * sides[1])

    kept: list[int] = []
    for candidate in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[candidate], boxes[better]) <= threshold for better in kept):
            kept.append(candidate)
    return kept


box = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 6), st.integers(1, 6)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(box, st.integers(0, 5)), max_size=12), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_nms_equals_the_reference(examples: list[tuple[list[int], int]], threshold: float) -> None:
    boxes, scores = [b for b, _ in examples], [s for _, s in examples]
    kept = torchvision_ops.nms(
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), torch.tensor(scores, dtype=torch.float64), threshold
    )
    assert kept.dtype == torch.int64
    assert kept.tolist() == reference_nms(boxes, scores, Fraction(threshold))


@pytest.mark.parametrize(("threshold", "kept"), [(0.3, [1, 2]), (0.34, [1, 0, 2])])
def test_nms_by_hand(threshold: float, kept: list[int]) -> None:
    # The first two boxes share 1 of 3 squares; the third lies apart.
    boxes = torch.tensor([[0.0, 0, 2, 1], [1, 0, 3, 1], [4, 4, 5, 5]])
    assert torchvision_ops.nms(boxes, torch.tensor([0.8, 0.9, 0.1]), threshold).tolist() == kept
