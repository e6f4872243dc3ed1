"""What a network answers over a whole split: rows for comparisons, sums per example for scores, and their storage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kdbench import IGNORED, Data, DataSpec, Task, TensorSplit, share
from kdbench.metrics import perplexity, position_answers
from kdbench.plan import LoadedTask
from kdbench.training import prediction
from kdbench.training.prediction import Predictions, predict

CPU = torch.device("cpu")
CLASSES, LENGTH = 4, 7


class Numbering(nn.Module):
    """Answers with the number of each position in the split, times `factor`, as the logit of the first class."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([self.factor * inputs, inputs * 0, inputs * 0, inputs * 0], dim=1).float()


@pytest.mark.parametrize("kept", [1 << 23, 600, 90])
def test_rows_of_teacher_and_student_are_the_same_positions(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(prediction, "KEPT_NUMBERS", kept)
    generator = torch.Generator().manual_seed(5)
    targets = torch.randint(0, CLASSES, (100, LENGTH), generator=generator)
    targets[torch.rand(100, LENGTH, generator=generator) < 0.4] = IGNORED
    split = TensorSplit(torch.arange(100 * LENGTH).reshape(100, LENGTH), targets)
    spec = DataSpec((LENGTH,), CLASSES, positions=(LENGTH,))
    loaded = LoadedTask("numbers", Task(), Data(spec, split, split, split), "")
    student, teacher = (predict(Numbering(factor), split, loaded, CPU) for factor in (1.0, 3.0))
    valid = (targets != IGNORED).flatten().nonzero().flatten()
    numbers = student.logits[:, 0].long()
    assert teacher.logits[:, 0].equal(3 * student.logits[:, 0])
    assert student.labels is not None
    assert student.labels.equal(targets.flatten()[numbers])
    assert torch.isin(numbers, valid).all()
    assert numbers.equal(numbers.sort().values)
    part = min(1.0, kept / (targets.numel() * CLASSES))
    assert len(numbers) == pytest.approx(part * len(valid), rel=0.5 if part < 1 else 0)
    assert len(student.answers["nll"]) == 100  # answers are of all positions, whatever is kept of the rows


TENSORS = st.builds(
    lambda shape, dtype, seed: (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 9).to(dtype),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool]),
    st.integers(0, 99),
)
NAMES = st.sampled_from(["logits", "targets", "nll", "errors", "boxes"])


@given(st.dictionaries(NAMES, TENSORS), TENSORS, st.none() | TENSORS, st.booleans(), st.booleans())
def test_predictions_survive_storage(
    answers: dict[str, Tensor], logits: Tensor, labels: Tensor | None, own: bool, true: bool
) -> None:
    logits = answers.get("logits", logits) if own else logits
    labels = answers.get("targets", labels) if true else labels
    before = Predictions(answers, logits, labels)
    stored = safetensors.torch.save({name: tensor.clone() for name, tensor in before.tensors().items()})
    after = Predictions.of(safetensors.numpy.load(stored))
    assert after.answers.keys() == answers.keys()
    for name, tensor in answers.items():
        assert identical(after.answers[name], tensor)
    assert identical(after.logits, logits)
    assert (after.labels is None) == (labels is None)
    assert labels is None or identical(after.labels, labels)


def identical(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and first.equal(second)


def test_logits_that_are_an_answer_are_stored_once() -> None:
    logits = torch.randn(3, 2)
    assert Predictions({"logits": logits, "targets": torch.zeros(3)}, logits.clone(), None).tensors().keys() == {
        "logits",
        "targets",
    }


def test_perplexity_and_accuracy_match_numpy() -> None:
    rng = np.random.default_rng(0)
    output, targets = rng.normal(size=(4, 5, 2, 3)), rng.integers(0, 5, (4, 2, 3))
    targets[1, 0, 2] = targets[3] = IGNORED
    nll, right, count = 0.0, 0, 0
    for example, row, column in np.ndindex(4, 2, 3):
        target = targets[example, row, column]
        if target != IGNORED:
            logits = output[example, :, row, column]
            nll -= logits[target] - np.log(np.exp(logits).sum())
            right += int(logits.argmax() == target)
            count += 1
    answers = position_answers(torch.from_numpy(output), torch.from_numpy(targets))
    assert {tensor.dtype for tensor in answers.values()} == {torch.float64}
    assert answers["positions"].tolist() == [6, 5, 6, 0]
    assert perplexity(answers["nll"], answers["positions"]) == pytest.approx(np.exp(nll / count), rel=1e-12)
    assert share(answers["correct"], answers["positions"]) == right / count


def test_the_batch_of_a_prediction_is_small_where_answers_are_large() -> None:
    def size(**changes: Any) -> int:
        return prediction.evaluation_batch(replace(DataSpec((3,), 10), **changes))

    assert size() == 256
    assert size(positions=(100,)) == 32
    assert size(positions=(480, 360), classes=12) == 16
    assert size(positions=(4096, 4096), classes=21) == 1
