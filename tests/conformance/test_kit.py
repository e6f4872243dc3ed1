"""The kit as its users meet it: what it says, what it skips, and what a method may declare."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from kdbench import Loop, Method, Needs, NotApplicable, OwnLoop, soft_loss
from kdbench.testing import CHECKS, Check, Outcome, check_method, parametrize_with_checks, run_checks

BY_NAME = {check.name: check for check in CHECKS}


def outcome(method: Method, name: str) -> Outcome:
    return next(outcome for outcome in run_checks(method) if outcome.check.name == name)


def test_a_failure_says_which_check_how_what_else_and_where_to_read_on(animal: Callable[[str], Method]) -> None:
    said = (
        r"^Float32: float32: float32, progress 0: raised RuntimeError: .*; "
        r"it fails too: bfloat16, autocast \(https://.*#float32\)$"
    )
    with pytest.raises(AssertionError, match=said):
        check_method(animal("float32"))


def test_what_is_no_method_is_not_checked() -> None:
    with pytest.raises(AssertionError, match=r"int: it must derive from kdbench\.Method"):
        check_method(3)


@pytest.mark.parametrize(
    ("check", "reason", "wrong"),
    [
        ("scalar_terms", "'match' must be a tensor", lambda step, right: 0.0),
        ("finite_terms", "an ordinary batch, .*'match' must be finite, and is nan", lambda step, right: right * np.nan),
        ("batch_of_one", "'match' must be finite", lambda step, right: right / (len(step.indices) - 1)),
        ("reaches_students", "student 0 stage1", lambda step, right: right.detach()),
        ("teacher_untouched", "stage1 must not be", lambda step, right: (step.teacher["stage1"].mul_(1), right)[1]),
        ("teacher_untouched", "not be modified", lambda step, right: (step.teacher["stage1"].data.mul_(2), right)[1]),
        ("random_state", "NumPy's random state must not", lambda step, right: (np.random.rand(), right)[1]),
        ("random_state", "Python's random state must not", lambda step, right: (random.random(), right)[1]),
    ],
)
def test_other_ways_to_break_a_check(
    check: str, reason: str, wrong: Callable[..., Any], with_match: Callable[..., Method]
) -> None:
    with pytest.raises(AssertionError, match=reason):
        BY_NAME[check].run(with_match(wrong))


def test_a_loss_that_remembers_is_found(with_match: Callable[..., Method]) -> None:
    calls: list[None] = []
    with pytest.raises(AssertionError, match="same under the same seed"):
        BY_NAME["deterministic"].run(with_match(lambda step, right: right + len(calls.append(None) or calls)))


def test_drawing_from_torchs_generator_is_allowed(with_match: Callable[..., Method]) -> None:
    check_method(with_match(lambda step, right: right * (1 + torch.rand(()))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"paper": ""}, "must name its paper"),
        ({"paper": "Nobody, unpublished"}, "must say author and year"),
        ({"__doc__": "Imitates"}, "ends in a full stop"),
        ({"__doc__": "Imitates.\n\nSound et al. 2026: what the teacher does."}, "must say what is computed"),
        ({"__doc__": f"{'Imitates ' * 20}."}, "more than 100 characters"),
    ],
)
def test_documented(change: dict[str, str], said: str, changed: Callable[..., Method]) -> None:
    with pytest.raises(AssertionError, match=said):
        BY_NAME["documented"].run(changed(**change))


@pytest.mark.parametrize(
    "formula", ["Equation 3.", "See algorithm 1.", "CE + weight * MSE.", "KL(teacher || student).", "Section 2."]
)
def test_what_counts_as_saying_what_is_computed(formula: str, changed: Callable[..., Method]) -> None:
    BY_NAME["documented"].run(changed(__doc__=f"Imitates.\n\nSound et al. 2026. {formula}"))


def test_a_method_with_something_to_tune_declares_a_search_space(changed: Callable[..., Method]) -> None:
    with pytest.raises(AssertionError, match="it has weight, and no search space"):
        BY_NAME["search_space"].run(changed(search_space={}))
    BY_NAME["search_space"].run(changed(search_space={}, family="control"))


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (Needs(student="logits"), "student='logits': input should be a valid tuple"),
        (Needs(teacher_training="never"), "teacher_training='never': input should be 'full' or 'none'"),
        (Needs(teachers=0), "it asks for taps of a teacher, and for no teacher"),
        (Needs(students=0), "it trains no student"),
        (Needs(teacher=(), teachers=0, targets="teacher"), "it trains on its teacher's targets, and has no teacher"),
    ],
)
def test_needs_that_nobody_can_meet(needs: Needs, said: str, changed: Callable[..., Method]) -> None:
    with pytest.raises(AssertionError, match=said):
        BY_NAME["known_needs"].run(changed(needs=needs))


def test_refusing_answers_is_an_answer(changed: Callable[..., Method]) -> None:
    def refuse(self: Method, example: Any) -> None:
        if len(example.student["logits"]) != len(example.indices):
            raise NotApplicable("one answer per example, please")

    method = changed("softens", build_auxiliary=refuse)
    assert outcome(method, "several_answers") == Outcome(
        BY_NAME["several_answers"], "skipped", "one answer per example, please"
    )
    assert outcome(method, "batch_of_one").status == "ok"


def test_a_method_for_sequences_may_refuse_maps_but_not_everything(changed: Callable[..., Method]) -> None:
    def refuse_maps(self: Method, example: Any) -> None:
        if example.student["stage1"].ndim == 4:
            raise NotApplicable("no maps")

    def refuse_all(self: Method, example: Any) -> None:
        raise NotApplicable("never")

    asks = {"needs": property(lambda self: Needs(student=("logits", "stage1")))}
    assert {each.status for each in run_checks(changed("softens", build_auxiliary=refuse_maps, **asks))} <= {
        "ok",
        "skipped",
    }
    with pytest.raises(AssertionError, match="it refuses an ordinary batch: never"):
        BY_NAME["scalar_terms"].run(changed("softens", build_auxiliary=refuse_all, **asks))


@dataclass(frozen=True)
class Owner(OwnLoop):
    """Asks its student itself."""

    times: ClassVar[float] = 1.0

    def loop_losses(self, loop: Loop) -> dict[str, torch.Tensor]:
        return {"task": self.times * loop.task_loss(loop.students[0](loop.batch)["logits"], loop.batch)}


def test_what_owns_its_loop_is_checked_too() -> None:
    @dataclass(frozen=True)
    class Endless(Owner):
        """Asks its student itself, and loses everything."""

        times = np.inf

    check_method(Owner())
    with pytest.raises(AssertionError, match="the term 'task' must be finite, and is inf"):
        check_method(Endless())


def test_a_coupling_that_is_declared_must_be_there(changed: Callable[..., Method]) -> None:
    with pytest.raises(AssertionError, match="it declares batch_coupled, and"):
        BY_NAME["batch_coupling"].run(changed(batch_coupled=True))


class TestExpectedFailures:
    """`expected_failed_checks`, honoured as in scikit-learn."""

    def cooled(self, changed: Callable[..., Method], expected: dict[str, str], power: int = 0) -> Method:
        def soft(self: Any, student: Any, teacher: Any) -> Any:
            return soft_loss(student, teacher, self.temperature) / self.temperature ** (2 - power)

        return changed("softens", soft=soft, expected_failed_checks=expected)

    def test_an_expected_failure_is_none(self, changed: Callable[..., Method]) -> None:
        method = self.cooled(changed, {"temperature_scaling": "as published"})
        check_method(method)
        assert outcome(method, "temperature_scaling").status == "expected"
        assert outcome(method, "temperature_scaling").message == "as published"

    def test_one_that_passes_is_a_failure(self, changed: Callable[..., Method]) -> None:
        with pytest.raises(AssertionError, match="it passes, though it is expected to fail: as published"):
            check_method(self.cooled(changed, {"temperature_scaling": "as published"}, power=2))

    @pytest.mark.parametrize(
        ("expected", "said"),
        [({"temperature": "why"}, "'temperature' is no check"), ({"temperature_scaling": " "}, "needs its reason")],
    )
    def test_names_and_reasons_are_checked(
        self, expected: dict[str, str], said: str, changed: Callable[..., Method]
    ) -> None:
        with pytest.raises(AssertionError, match=said):
            check_method(self.cooled(changed, expected))
        with pytest.raises(AssertionError, match=said):
            parametrize_with_checks(self.cooled(changed, expected))

    def test_as_tests_of_their_own_they_are_strict_xfails(self, changed: Callable[..., Method]) -> None:
        method = self.cooled(changed, {"temperature_scaling": "as published"})
        mark = parametrize_with_checks(method).mark
        names, parameters = mark.args
        assert names == ("method", "check")
        assert [parameter.values[1] for parameter in parameters] == list(CHECKS)
        assert {parameter.values[0] for parameter in parameters} == {method}
        marked = {parameter.id: parameter.marks for parameter in parameters if parameter.marks}
        ((name, (xfail,)),) = marked.items()
        assert name == "Changed-temperature_scaling"
        assert xfail.kwargs == {"reason": "as published", "strict": True, "raises": AssertionError}


def test_every_check_says_why_and_where(recwarn: pytest.WarningsRecorder) -> None:
    for check in CHECKS:
        assert isinstance(check, Check)
        assert check.reason.endswith(".")
        assert len(check.reason) <= 120
        assert check.link.endswith(f"plugins/README.md#{check.name}")


@dataclass(frozen=True)
class Undocumented(Method):
    family: ClassVar = "control"


def test_the_docstring_that_dataclass_makes_up_is_none() -> None:
    with pytest.raises(AssertionError, match="has no docstring"):
        BY_NAME["documented"].run(Undocumented())
