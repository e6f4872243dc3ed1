"""ReviewKD against Chen et al. 2021: fusion and context loss written out, and where the weight grows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, mse_loss

from kdbench.testing import check_method, example_step
from kdbench_plugins.methods._fusion import spread
from kdbench_plugins.methods.reviewkd import ReviewKD, context_loss


def full(step):
    return replace(step, progress=1.0)


def normalised(feature, layer):
    """Each example by its own mean and variance over channels and positions."""
    flat = feature.reshape(len(feature), -1)
    mean, variance = flat.mean(1), flat.var(1)
    shape = (-1, *[1] * (feature.ndim - 1))
    scaled = (feature - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + layer.eps)
    gain, bias = (p.detach().numpy().reshape(1, -1, *[1] * (feature.ndim - 2)) for p in layer.parameters())
    return scaled * gain + bias


def nearest(feature, side):
    """A square map [batch, channels, height, width] at side x side, by the index rounded down."""
    old = feature.shape[-1]
    index = [i * old // side for i in range(side)]
    return feature[:, :, index][:, :, :, index]


def convolved(feature, weight):
    """A 3 x 3 convolution, padded by one."""
    padded = np.pad(feature, ((0, 0), (0, 0), (1, 1), (1, 1)))
    side = feature.shape[-1]
    answer = np.zeros((len(feature), len(weight), side, side))
    for row in range(3):
        for column in range(3):
            patch = padded[:, :, row : row + side, column : column + side]
            answer += np.einsum("oc,bchw->bohw", weight[:, :, row, column], patch)
    return answer


def abf(fusion, stage, passed, side):
    """The authors' ABF on square maps: reduce, spread what is passed, weigh both, spread, convolve."""
    own = np.einsum("oc,bchw->bohw", fusion.reduce[0].weight.detach().numpy()[..., 0], stage)
    own = normalised(own, fusion.reduce[1])
    if passed is not None:
        deeper = nearest(passed, stage.shape[-1])
        weight, bias = (p.detach().numpy() for p in fusion.attention[0].parameters())
        both = np.concatenate([own, deeper], axis=1)
        shares = 1 / (1 + np.exp(-(np.einsum("oc,bchw->bohw", weight[..., 0], both) + bias.reshape(1, 2, 1, 1))))
        own = own * shares[:, [0]] + deeper * shares[:, [1]]
    own = nearest(own, side)
    return normalised(convolved(own, fusion.answer[0].weight.detach().numpy()), fusion.answer[1]), own


def hcl(first, second):
    """The authors' loop over 4, 2 and 1 for one pair of square maps."""
    pool = adaptive_avg_pool2d if first.ndim == 4 else adaptive_avg_pool1d
    loss, share, total = mse_loss(first, second), 1.0, 1.0
    for size in (4, 2, 1):
        if size >= first.shape[-1]:
            continue
        share /= 2
        loss = loss + share * mse_loss(pool(first, size), pool(second, size))
        total += share
    return loss / total


def test_it_is_the_authors_review_of_square_stages():
    method = ReviewKD(weight=1.7)
    step = full(example_step(method, batch=3, positions=(6, 6), dtype=torch.float64))
    for parameter in step.auxiliary.parameters():  # gains and biases other than 1 and 0
        parameter.data += 0.1 * torch.linspace(-1, 1, parameter.numel(), dtype=torch.float64).reshape(parameter.shape)
    pooled, *fusions = step.auxiliary

    embedding = step.student["embedding"].detach().numpy()[..., None]
    passed = normalised(
        np.einsum("oc,bcp->bop", pooled.reduce[0].weight.detach().numpy()[..., 0], embedding), pooled.reduce[1]
    )
    answer = np.einsum("oc,bcp->bop", pooled.answer[0].weight.detach().numpy()[..., 1], passed)
    answer = normalised(answer, pooled.answer[1])
    expected = hcl(torch.from_numpy(answer), step.teacher["embedding"][..., None]).item()
    passed = passed[..., None]
    for fusion, name in zip(fusions, ("stage3", "stage2", "stage1"), strict=True):
        goal = step.teacher[name]
        answer, passed = abf(fusion, step.student[name].detach().numpy(), passed, goal.shape[-1])
        expected += hcl(torch.from_numpy(answer), goal).item()

    losses = method.losses(step)
    assert losses["review"].item() == pytest.approx(1.7 * expected, rel=1e-9)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


@pytest.mark.parametrize("shape", [(2, 3, 9, 9), (2, 3, 4, 4), (2, 3, 2, 2), (2, 3, 1, 1), (2, 3, 11), (2, 3, 1)])
def test_the_context_loss_is_the_authors(shape):
    first, second = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(context_loss(first, second), hcl(first, second))


def test_a_context_loss_worked_out_by_hand():
    first = torch.tensor([[[1.0, 3.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    second = torch.zeros(1, 1, 5, dtype=torch.float64)
    # 4 windows: (1, 2), (2, 3), (3, 4), (4, 5); 2 windows: (1..3), (3..5); 1 window: all
    four, two, one = (2**2 + 1.5**2) / 4, (4 / 3) ** 2 / 2, 0.8**2
    assert context_loss(first, second).item() == pytest.approx((10 / 5 + four / 2 + two / 4 + one / 8) / (15 / 8))


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (1.0, 1.0)])
def test_the_weight_grows_and_stays(progress, share):
    method = ReviewKD(warmup=0.2)
    step = example_step(method, dtype=torch.float64)
    whole = method.losses(full(step))["review"]
    torch.testing.assert_close(method.losses(replace(step, progress=progress))["review"], share * whole)


def test_without_warmup_the_weight_is_whole_at_once():
    step = example_step(ReviewKD())
    assert ReviewKD(warmup=0.0).losses(step)["review"].equal(ReviewKD().losses(full(step))["review"])


def test_the_shallowest_answer_learns_from_every_level():
    step = full(example_step(ReviewKD(), dtype=torch.float64))
    shallow = replace(step, teachers=[{**step.teacher}])
    fusions, passed = step.auxiliary, None
    for fusion, name in zip(fusions, ("embedding", "stage3", "stage2", "stage1"), strict=True):
        level = shallow.student[name] if name != "embedding" else shallow.student[name][..., None]
        answer, passed = fusion(level, passed, level.shape[2:])
    answer.square().sum().backward()
    assert all(step.student[name].grad.abs().sum() > 0 for name in ("embedding", "stage1", "stage2", "stage3"))


def test_where_the_numbers_of_levels_differ_the_deepest_are_paired():
    step = full(example_step(ReviewKD(), dtype=torch.float64))
    fewer = {"logits": step.student["logits"], "embedding": step.student["embedding"], "stage1": step.student["stage3"]}
    built = ReviewKD().build_auxiliary(replace(step, students=[fewer]))
    assert [fusion.answer[0].out_channels for fusion in built] == [14, 18]


def test_a_map_is_spread_over_tokens_and_back():
    square = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert spread(square, (8,)).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert spread(torch.arange(2.0).reshape(1, 1, 2), (2, 2)).tolist() == [[[[0, 0], [1, 1]]]]


def test_students_of_maps_and_teachers_of_tokens_are_reviewed_too():
    step = full(example_step(ReviewKD(), dtype=torch.float64))
    tokens = {name: tap.flatten(2) if name.startswith("stage") else tap for name, tap in step.teacher.items()}
    step = replace(step, teachers=[tokens])
    loss = ReviewKD().losses(replace(step, auxiliary=ReviewKD().build_auxiliary(step).double()))["review"]
    loss.backward()
    assert loss.isfinite()
    assert all(step.student[name].grad.abs().sum() > 0 for name in ("embedding", "stage1", "stage2", "stage3"))


def test_it_keeps_the_contract_without_warmup():
    check_method(ReviewKD(warmup=0.0))
