"""Checks of where the gradients of a loss go, and where they must not."""

from __future__ import annotations

from torch import Tensor

from kdbench.method import Method, Step
from kdbench.testing.check import check, named
from kdbench.testing.losses import EXTREMES
from kdbench.testing.situations import (
    ORDINARY,
    PROGRESS,
    assert_finite_gradients,
    backward,
    leaves,
    total,
    trained,
)

# Families that promise to reach every student tap they ask for; of the others only the logits must be reached.
_REACHES_ALL_TAPS = ("feature", "relation")


@check
def reaches_students(method: Method) -> None:
    """A student, or a tap, that no gradient reaches learns nothing, and nobody notices."""
    everything = method.family in _REACHES_ALL_TAPS
    unreached = _unreached(method, "student")
    expected = {origin for origin in unreached if everything or origin.endswith("logits")}
    assert not expected, f"no gradient ever reaches {', '.join(sorted(expected))}"


@check
def reaches_auxiliary(method: Method) -> None:
    """An auxiliary parameter that no gradient reaches stays as it was drawn."""
    unreached = _unreached(method, "auxiliary")
    assert not unreached, f"no gradient ever reaches {', '.join(sorted(unreached))}"


@check
def registered_parameters(method: Method) -> None:
    """A parameter in use that its module does not know of is never trained, moved or stored."""
    for progress in PROGRESS:
        step = ORDINARY.step(method, progress)
        loss = total(ORDINARY.losses(method, step))
        known = {id(leaf) for leaf in trained(step).values()}
        known |= {id(tensor) for taps in step.teachers for tensor in taps.values()}  # another check's
        strangers = [leaf for leaf in leaves(loss) if id(leaf) not in known]
        assert not strangers, (
            f"progress {progress:g}: a parameter in use, of shape {tuple(strangers[0].shape)}, is not registered in "
            "the auxiliary module, so it is never trained"
        )


@check
def finite_gradients(method: Method) -> None:
    """An infinite slope at a finite loss, as of a square root at 0, ends a trial as well."""
    for name, extreme in EXTREMES.items():
        for progress in PROGRESS:
            with named(f"{name}, progress {progress:g}"):
                step = extreme(ORDINARY.step(method, progress))
                loss = total(ORDINARY.losses(method, step))
                if loss.isfinite() and loss.requires_grad:  # what is not finite itself is another check's
                    loss.backward()
                    assert_finite_gradients(step)


@check
def no_gradient_to_teacher(method: Method) -> None:
    """A teacher is frozen: its tensors are shared by all trials, and a gradient through them is cost without use."""
    for progress in PROGRESS:
        step = ORDINARY.step(method, progress)
        backward(ORDINARY.losses(method, step))
        for tap, tensor in _teacher_tensors(step):
            touched = tensor.requires_grad or tensor.grad is not None
            assert not touched, f"progress {progress:g}: the teacher's {tap} must not be given a gradient"


@check
def teacher_untouched(method: Method) -> None:
    """What a method writes into its teacher's answers, every other trial of the cohort reads."""
    for progress in PROGRESS:
        step = ORDINARY.step(method, progress)
        before = [(tap, tensor, tensor._version, tensor.clone()) for tap, tensor in _teacher_tensors(step)]
        backward(ORDINARY.losses(method, step))
        for tap, tensor, version, values in before:
            # The version misses writes through .data; the values miss writes of what was there already.
            unmodified = tensor._version == version and tensor.equal(values)
            assert unmodified, f"progress {progress:g}: the teacher's {tap} must not be modified"


CHECKS = (
    reaches_students,
    reaches_auxiliary,
    registered_parameters,
    finite_gradients,
    no_gradient_to_teacher,
    teacher_untouched,
)


def _unreached(method: Method, whose: str) -> set[str]:
    """Of what is trained, what no gradient reaches at any point of training."""
    reached: set[str] = set()
    all_trained: set[str] = set()
    for progress in PROGRESS:
        step = ORDINARY.step(method, progress)
        backward(ORDINARY.losses(method, step))
        own = {origin: leaf for origin, leaf in trained(step).items() if origin.startswith(whose)}
        all_trained |= own.keys()
        reached |= {origin for origin, leaf in own.items() if leaf.grad is not None and bool(leaf.grad.any())}
    return all_trained - reached


def _teacher_tensors(step: Step) -> list[tuple[str, Tensor]]:
    return [(tap, tensor) for taps in step.teachers for tap, tensor in taps.items()]
