"""Quality, calibration and fidelity against values worked out by hand or in numpy, in float64."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdbench.errors import BrokenPlugin
from kdbench.measuring.calibration import calibration
from kdbench.measuring.fidelity import fidelity
from kdbench.measuring.quality import scores
from kdbench.task import Metric

LOGITS = torch.tensor([[2.0, -1.0, 0.3], [0.1, 0.2, 0.0], [-3.0, 1.0, 4.0], [1.5, 1.0, -2.0], [0.0, 3.0, 2.5]])
TARGETS = torch.tensor([0, 2, 2, 1, 1])
TEACHER = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 5.0], [-1.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.5, 0.6, 0.4]])


def softmax(logits: torch.Tensor) -> np.ndarray:
    exponentials = np.exp(logits.numpy().astype(np.float64))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def with_probabilities(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Guo et al. (2017), eq. 5: sum over bins of |accuracy - confidence|, weighted by the bin's share."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    bins = np.minimum(np.searchsorted(np.linspace(0, 1, 16), confidence, side="right") - 1, 14)
    error = 0.0
    for b in range(15):
        members = bins == b
        if members.any():
            error += members.mean() * abs(right[members].mean() - confidence[members].mean())
    return error


def test_score_gives_each_metric_the_whole_split():
    seen = []

    def count(logits, targets):
        seen.append((logits.shape, targets.shape))
        return torch.tensor(7)

    answers = {"logits": LOGITS, "targets": TARGETS}
    found = scores([Metric("a", count), Metric("b", lambda logits: 0.25, reads=("logits",))], answers)
    assert found == {"a": 7.0, "b": 0.25}
    assert type(found["a"]) is float
    assert seen == [((5, 3), (5,))]


def test_two_metrics_of_one_name_are_refused():
    metric = Metric("accuracy", lambda logits, targets: 1.0)
    with pytest.raises(BrokenPlugin, match="accuracy"):
        scores([metric, metric], {"logits": LOGITS, "targets": TARGETS})


def test_nll_and_brier_match_numpy():
    probabilities = softmax(LOGITS)
    truth = np.eye(3)[TARGETS.numpy()]
    measured = calibration(LOGITS, TARGETS)
    assert measured["nll"] == pytest.approx(-np.log((probabilities * truth).sum(axis=1)).mean(), rel=1e-12)
    assert measured["brier"] == pytest.approx(((probabilities - truth) ** 2).sum(axis=1).mean(), rel=1e-12)
    assert measured["ece"] == pytest.approx(expected_calibration_error(probabilities, TARGETS.numpy()), rel=1e-12)


def test_brier_by_hand_is_summed_over_classes_for_two_classes_too():
    logits = with_probabilities([0.8, 0.2], [0.4, 0.6])
    assert calibration(logits, torch.tensor([0, 0]))["brier"] == pytest.approx((0.04 + 0.04 + 0.36 + 0.36) / 2)


def test_a_uniform_predictor():
    measured = calibration(torch.zeros(8, 4), torch.arange(8) % 4)
    assert measured["nll"] == pytest.approx(math.log(4), rel=1e-12)
    assert measured["brier"] == pytest.approx(0.75**2 + 3 * 0.25**2, rel=1e-12)
    assert measured["ece"] == pytest.approx(0.0, abs=1e-12)


def test_a_perfectly_calibrated_predictor_has_no_calibration_error():
    logits = with_probabilities(*[[0.75, 0.25]] * 4, *[[0.4, 0.6]] * 5)
    targets = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0, 0])
    assert calibration(logits, targets)["ece"] == pytest.approx(0.0, abs=1e-12)


def test_a_constant_predictor_errs_by_its_overconfidence():
    logits = with_probabilities(*[[0.9, 0.1]] * 10)
    assert calibration(logits, torch.arange(10) % 2)["ece"] == pytest.approx(0.4, rel=1e-12)


def test_certainty_falls_into_the_last_bin():
    """Confidences 1 (wrong) and 0.99 (right) share a bin: |1/2 - 0.995|; apart they would give 0.505."""
    logits = torch.cat([torch.tensor([[100.0, 0.0]], dtype=torch.float64), with_probabilities([0.99, 0.01])])
    assert logits.softmax(dim=1)[0, 0] == 1
    assert calibration(logits, torch.tensor([1, 0]))["ece"] == pytest.approx(0.495, rel=1e-12)


def test_far_tails_stay_exact():
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    measured = calibration(logits, torch.tensor([1, 1]))
    assert measured["nll"] == pytest.approx(500.0, rel=1e-12)
    assert measured["brier"] == pytest.approx(1.0, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (13, 4), elements=st.floats(-8, 8, width=32)),
    arrays(np.int64, 13, elements=st.integers(0, 3)),
    st.randoms(use_true_random=False),
)
def test_calibration_matches_the_definitions_in_any_order(logits, targets, random):
    order = list(range(13))
    random.shuffle(order)
    measured = calibration(torch.from_numpy(logits), torch.from_numpy(targets))
    shuffled = calibration(torch.from_numpy(logits[order]), torch.from_numpy(targets[order]))
    probabilities = torch.from_numpy(logits).double().softmax(dim=1).numpy()
    assert measured == pytest.approx(shuffled, rel=1e-9, abs=1e-12)
    assert measured["ece"] == pytest.approx(expected_calibration_error(probabilities, targets), rel=1e-9, abs=1e-12)
    assert 0 <= measured["ece"] <= 1
    assert 0 <= measured["brier"] <= 2


def test_targets_may_be_bytes():
    assert calibration(LOGITS, TARGETS.to(torch.uint8)) == calibration(LOGITS, TARGETS)


def test_fidelity_matches_numpy():
    student, teacher = softmax(LOGITS), softmax(TEACHER)
    measured = fidelity(LOGITS, TEACHER)
    assert measured["agreement"] == 3 / 5
    assert measured["teacher_kl"] == pytest.approx((teacher * np.log(teacher / student)).sum(axis=1).mean(), rel=1e-12)
    assert measured["teacher_kl"] != pytest.approx(fidelity(TEACHER, LOGITS)["teacher_kl"], rel=1e-3)


def test_fidelity_weighs_examples_not_batches():
    """With batches of 4 and 1, the mean of the batches' means would count the last example four times."""
    batches = [fidelity(LOGITS[part], TEACHER[part]) for part in (slice(0, 4), slice(4, 5))]
    whole = fidelity(LOGITS, TEACHER)
    for name, value in whole.items():
        assert value == pytest.approx((4 * batches[0][name] + batches[1][name]) / 5, rel=1e-12)
        assert value != pytest.approx((batches[0][name] + batches[1][name]) / 2, rel=1e-3)


def test_a_student_is_faithful_to_itself():
    assert fidelity(TEACHER, TEACHER) == {"agreement": 1.0, "teacher_kl": 0.0}


def test_fidelity_ignores_a_constant_added_to_all_logits():
    assert fidelity(LOGITS + 3, TEACHER - 2)["teacher_kl"] == pytest.approx(
        fidelity(LOGITS, TEACHER)["teacher_kl"], rel=1e-6
    )


@pytest.mark.parametrize("other", [TEACHER[:1], TEACHER[:, :2]])
def test_answers_of_other_shapes_are_refused(other):
    with pytest.raises(ValueError, match=r"\(5, 3\)"):
        fidelity(LOGITS, other)


def test_inputs_are_left_as_they_were():
    logits = LOGITS.clone().requires_grad_()
    calibration(logits, TARGETS)
    fidelity(logits, TEACHER)
    assert logits.requires_grad
    assert logits.dtype == torch.float32
    assert torch.equal(logits, LOGITS)


def test_a_record_holds_likeness_robustness_and_the_teachers_cost(tiny_suite, kdbench, tmp_path):
    """Of a student and its teacher, which are the same architecture here."""
    suite = tiny_suite(teachers="'cnn[width=0.25]'", methods="kd", epochs="1")
    assert kdbench("run", str(suite), "--out", str(tmp_path / "out"), "--name", "run")[0] == 0
    found = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("record.json")]
    (kd,) = (record for record in found if record["method"] == "kd")
    (teacher,) = (record for record in found if record["method"] == "teacher")
    metrics = kd["metrics"]
    for name in ("cka_stage1", "cka_stage2", "cka_stage3", "cka", "relation_correlation", "saliency_agreement"):
        assert -1 <= metrics[name] <= 1
        assert name not in teacher["metrics"]
    right = metrics["teacher_accuracy"]
    assert metrics["agreement"] == pytest.approx(
        right * metrics["agreement_teacher_right"] + (1 - right) * metrics["agreement_teacher_wrong"]
    )
    kinds = [metrics[f"corrupted_accuracy/{kind}"] for kind in ("gaussian_noise", "gaussian_blur", "contrast", "jpeg")]
    assert metrics["corrupted_accuracy"] == pytest.approx(sum(kinds) / 4)
    assert 0 < teacher["metrics"]["corrupted_accuracy"] < 1
    for name in ("parameters", "macs", "file_bytes"):
        assert metrics[f"teacher_{name}"] == teacher["metrics"][name] == metrics[name]
    assert kd["measurements"]["teacher_latency_ms_p50"] > 0
    assert kd["measurements"]["teacher_peak_memory_bytes"] == teacher["measurements"]["peak_memory_bytes"]
    curve = zip(*(kd["calibration_curve"][name] for name in ("share", "accuracy", "confidence")), strict=True)
    assert sum(share * abs(right - sure) for share, right, sure in curve) == pytest.approx(metrics["ece"], rel=1e-9)
