"""CRD against Tian et al. 2020 and the authors' code: noise-contrastive terms with every number in the open."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench.testing import check_method, example_step
from kdbench_plugins.methods._memory import Memory
from kdbench_plugins.methods.crd import CRD

METHOD = CRD(weight=0.6, negatives=7, temperature=0.2, momentum=0.3, features=5)
EXAMPLES = 20


def seeded(method, step, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method.losses(step)


def step_with_banks(method=METHOD, indices=(3, 19, 0, 11)):
    step = example_step(method, batch=len(indices), dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for memory in step.auxiliary:
            memory.reach(EXAMPLES)
    return replace(step, indices=torch.tensor(indices))


def drawn(method, examples, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.randint(examples, (method.negatives,)).numpy()


def unit(rows):
    return rows / np.sqrt((rows**2).sum(-1, keepdims=True))


def projected(memory, embedding):
    weight, bias = (p.detach().numpy() for p in (memory.projection.weight, memory.projection.bias))
    return unit(embedding.detach().numpy() @ weight.T + bias)


def authors_loss(anchors, bank, indices, negatives, temperature, z=None):
    """As the authors compute it: scores over Z = mean * examples, against noise of probability 1 / examples."""
    examples, count = len(bank), len(negatives)
    scores = np.empty((len(anchors), 1 + count))
    for i, anchor in enumerate(anchors):
        for j, row in enumerate([indices[i], *negatives]):
            scores[i, j] = np.exp(sum(bank[row] * anchor) / temperature)
    z = scores.mean() * examples if z is None else z
    scores /= z
    noise = count / examples
    total = -np.log(scores[:, 0] / (scores[:, 0] + noise)).sum()
    total -= np.log(noise / (scores[:, 1:] + noise)).sum()
    return total / len(anchors), z


def test_both_anchors_are_the_authors_loss():
    step = step_with_banks()
    student, teacher = step.auxiliary
    own, goal = projected(student, step.student["embedding"]), projected(teacher, step.teacher["embedding"])
    banks = student.bank.numpy().copy(), teacher.bank.numpy().copy()
    rows, others = step.indices.numpy(), drawn(METHOD, EXAMPLES)
    losses = seeded(METHOD, step)
    assert losses.keys() == {"task", "student", "teacher"}
    assert losses["student"].item() == pytest.approx(0.6 * authors_loss(own, banks[1], rows, others, 0.2)[0], rel=1e-10)
    assert losses["teacher"].item() == pytest.approx(
        0.6 * authors_loss(goal, banks[0], rows, others, 0.2)[0], rel=1e-10
    )
    assert losses["task"].equal(step.task_loss(step.student["logits"]))
    for memory, bank, vectors in zip(step.auxiliary, banks, (own, goal), strict=True):
        bank[rows] = unit(0.3 * bank[rows] + 0.7 * vectors)
        np.testing.assert_allclose(memory.bank.numpy(), bank, rtol=1e-12)


def test_the_normaliser_is_that_of_the_first_batch():
    step = step_with_banks()
    own = projected(step.auxiliary[0], step.student["embedding"])
    _, z = authors_loss(own, step.auxiliary[1].bank.numpy(), step.indices.numpy(), drawn(METHOD, EXAMPLES), 0.2)
    seeded(METHOD, step)
    later = replace(step, students=[{name: 3 - tap for name, tap in step.student.items()}])
    own, bank = projected(step.auxiliary[0], later.student["embedding"]), step.auxiliary[1].bank.numpy().copy()
    expected, _ = authors_loss(own, bank, step.indices.numpy(), drawn(METHOD, EXAMPLES, seed=4), 0.2, z)
    assert seeded(METHOD, later, seed=4)["student"].item() == pytest.approx(0.6 * expected, rel=1e-10)


def test_the_defaults_are_the_authors():
    assert CRD() == CRD(weight=0.8, negatives=16384, temperature=0.07, momentum=0.5, features=128)


def test_banks_grow_to_the_largest_index_and_keep_what_they_hold():
    step = replace(example_step(METHOD, batch=2, dtype=torch.float64), indices=torch.tensor([4, 1]))
    seeded(METHOD, step)
    before = [memory.bank.clone() for memory in step.auxiliary]
    assert [len(bank) for bank in before] == [5, 5]
    seeded(METHOD, replace(step, indices=torch.tensor([0, 8])))
    for memory, bank in zip(step.auxiliary, before, strict=True):
        assert len(memory.bank) == 9
        assert memory.bank[1:5].equal(bank[1:])
        torch.testing.assert_close(memory.bank.norm(dim=1), torch.ones(9, dtype=torch.float64))


def test_training_goes_on_from_a_checkpoint():
    step = step_with_banks()
    seeded(METHOD, step)
    fresh = METHOD.build_auxiliary(step).double()
    fresh.load_state_dict(copy.deepcopy(step.auxiliary.state_dict()))
    first, second = seeded(METHOD, step, seed=3), seeded(METHOD, replace(step, auxiliary=fresh), seed=3)
    assert all(loss.equal(second[term]) for term, loss in first.items())
    assert all(mine.bank.equal(other.bank) for mine, other in zip(step.auxiliary, fresh, strict=True))


def test_banks_are_kept_but_not_trained():
    step = step_with_banks()
    sum(seeded(METHOD, step).values()).backward()
    assert {name for name, _ in step.auxiliary.named_parameters()} == {
        f"{n}.projection.{kind}" for n in (0, 1) for kind in ("weight", "bias")
    }
    assert set(step.auxiliary.state_dict()) >= {"0.bank", "0.level", "1.bank", "1.level"}


def test_nothing_overflows_at_low_temperatures():
    method = replace(METHOD, temperature=1e-3)
    losses = seeded(method, example_step(method))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())


def test_an_embedding_of_zeros_gives_finite_gradients():
    memory, embedding = Memory(3, 4), torch.zeros(2, 3, requires_grad=True)
    memory.projection.bias.data.zero_()
    memory(embedding).sum().backward()
    assert embedding.grad.isfinite().all()


def test_examples_that_agree_cost_less_than_examples_that_do_not():
    memory = Memory(4, 4).double()
    memory.bank, memory.level = torch.eye(4).double(), torch.tensor(0.0).double()
    right, wrong = (
        memory.contrast(memory.bank[rows], torch.arange(4), torch.arange(4), 0.1)
        for rows in ([0, 1, 2, 3], [1, 2, 3, 0])
    )
    assert right < wrong


def test_it_keeps_the_contract_with_one_negative():
    check_method(CRD(negatives=1, momentum=0.0))
