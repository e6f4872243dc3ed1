"""Suite to trials: pairing, fingerprints, teachers, skips."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdbench.data import DataFolders
from kdbench.errors import BadInput, UnknownName
from kdbench.flops import count_flops, traced_macs
from kdbench.hyperparameters import values
from kdbench.plan import Plan
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.suite_file import load_suite

Write = Callable[..., Path]


def planned(path: Path, methods: tuple[str, ...] = (), seeds: int | None = None) -> Plan:
    folder = path.parent
    return make_plan(load_suite(str(path)).with_overrides(methods, seeds), discover(), DataFolders((folder,), folder))


def fingerprints(plan: Plan) -> dict[str, str]:
    return {f"{trial.method_name} {trial.seed}": trial.fingerprint for trial in plan.trials}


def test_crosses_methods_and_seeds_in_cohorts_of_one_seed(tiny_suite: Write) -> None:
    plan = planned(tiny_suite(methods="kd, rkd", seeds="3"))
    assert [len(cohort.trials) for cohort in plan.cohorts] == [3, 3, 3]
    assert [{trial.seed for trial in cohort.trials} for cohort in plan.cohorts] == [{0}, {1}, {2}]
    assert len(set(fingerprints(plan).values())) == 9


def test_a_fingerprint_does_not_depend_on_company(tiny_suite: Write) -> None:
    alone = fingerprints(planned(tiny_suite(methods="kd")))
    together = fingerprints(planned(tiny_suite(methods="kd, rkd, born_again", seeds="2")))
    assert alone.items() <= together.items()


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": "3"},
        {"student": "'cnn[width=0.3]'"},
        {"teachers": "'cnn[width=0.6]'"},
        {"tasks": "'digits[train_examples=201]'"},
        {"methods": "'kd[temperature=3]'"},
        {"recipe": "  weight_decay: 1e-3"},
        {"recipe": "teacher_recipe: {epochs: 3}"},
        {"recipe": "validation_fraction: 0.2"},
        {"recipe": "teachers: fixed", "seeds": "[1]"},
    ],
    ids=str,
)
def test_whatever_changes_the_result_changes_the_fingerprint(tiny_suite: Write, changes: dict[str, str]) -> None:
    before = planned(tiny_suite(seeds=changes.get("seeds", "1")))
    after = planned(tiny_suite("after.yaml", **changes))
    name = f"kd {next(before.trials).seed}"
    assert fingerprints(before)[name] != fingerprints(after)[name]


def test_prose_and_default_values_written_out_change_nothing(tiny_suite: Write) -> None:
    before = planned(tiny_suite())
    after = planned(tiny_suite("after.yaml", methods="'kd[temperature=4]'", recipe="departures: [none]"))
    assert fingerprints(before) == fingerprints(after)


def test_teachers_per_seed_or_fixed(tiny_suite: Write) -> None:
    per_seed = planned(tiny_suite(seeds="2"))
    fixed = planned(tiny_suite("fixed.yaml", seeds="2", recipe="teachers: fixed"))
    assert [len(plan.teachers) for plan in (per_seed, fixed)] == [2, 1]


def test_an_ensemble_gets_different_teachers_of_one_architecture(tiny_suite: Write) -> None:
    plan = planned(tiny_suite(methods="ensemble"))
    (trial,) = (trial for trial in plan.trials if trial.method_name == "ensemble")
    assert [teacher.student for teacher in trial.teachers] == ["cnn[width=0.5]", "cnn[width=0.5]"]
    assert len({teacher.fingerprint for teacher in trial.teachers}) == 2
    assert trial.reference is trial.teachers[0] or trial.reference.fingerprint == trial.teachers[0].fingerprint


def test_born_again_networks_learn_from_their_own_kind(tiny_suite: Write) -> None:
    plan = planned(tiny_suite(methods="'born_again[generations=3]'"))
    (trial,) = (trial for trial in plan.trials if trial.method_name == "born_again")
    chain = []
    while trial.teachers:
        (trial,) = trial.teachers
        chain.append((trial.student, trial.method_name, trial.stream))
    assert chain == [
        ("cnn[width=0.25]", "born_again", "generation 2 0"),
        ("cnn[width=0.25]", "born_again", "generation 1 0"),
        ("cnn[width=0.25]", "teacher", "generation 0 0"),
    ]
    names = [teacher.stream for teacher in plan.teachers]
    assert names.index("generation 0 0") < names.index("generation 1 0") < names.index("generation 2 0")


def test_what_cannot_run_is_skipped_with_its_reason(tiny_suite: Write) -> None:
    plan = planned(
        tiny_suite(
            methods="ensemble, self_distillation, 'fitnets[hint=stage9]'",
            teachers="'cnn[width=0.5]'",
            student="'cnn[width=0.25,stages=1]'",
        )
    )
    reasons = {skipped.trial.method_name: skipped.reason for skipped in plan.skipped}
    assert reasons == {
        "ensemble": "it learns from several teachers and the pair has one (cnn[width=0.5])",
        "self_distillation": "cnn[stages=1,width=0.25] has no tap 'stage2' (it has embedding, logits, stage1)",
        "fitnets": "cnn[stages=1,width=0.25] has no tap 'stage2' (it has embedding, logits, stage1)",
    }
    assert [trial.method_name for trial in plan.trials] == ["scratch"]


def test_the_validation_split_is_the_same_for_every_seed_and_disjoint(tiny_suite: Write) -> None:
    plan = planned(tiny_suite())
    (loaded,) = plan.tasks.values()
    assert loaded.data.validation is not None
    assert len(loaded.data.train) == 180
    assert len(loaded.data.validation) == 20
    assert planned(tiny_suite()).tasks[loaded.name].digest == loaded.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": "kd, kdd"}, "tiny.yaml:8: methods[1]: unknown method 'kdd'"),
        ({"tasks": "digit"}, "tiny.yaml:4: tasks[0]: unknown task 'digit'"),
        ({"student": "resnet9"}, "tiny.yaml:7: pairs[0].student: unknown architecture 'resnet9'"),
        ({"methods": "'kd[heat=3]'"}, "tiny.yaml:8: methods[0]: method 'kd' has no parameter 'heat'"),
        ({"recipe": "  augmentation: [mixdown]"}, "tiny.yaml:16: recipe.augmentation[0]: unknown augmentation"),
    ],
    ids=str,
)
def test_errors_come_before_any_training_and_name_line_and_key(
    tiny_suite: Write, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        planned(tiny_suite(**changes))
    assert message in caught.value.message


def test_errors_of_the_command_line_name_no_line(tiny_suite: Write) -> None:
    with pytest.raises(UnknownName, match=r"^unknown method 'kdd'"):
        planned(tiny_suite(), ("kdd",))


def test_networks_that_do_not_fit_a_task_are_skipped_and_nothing_left_to_run_is_an_error(tiny_suite: Write) -> None:
    suite = tiny_suite(student="'torchvision:alexnet'")
    with pytest.raises(BadInput) as caught:
        planned(suite)
    assert caught.value.message == "nothing of this can run"
    assert "kd: torchvision:alexnet does not fit digits" in str(caught.value.hint)


def test_margins_are_of_metrics_that_rank(tiny_suite: Write) -> None:
    path = tiny_suite(recipe="equivalence_margin: {accuracy: 0.01}")
    assert planned(path).suite.equivalence_margin == {"accuracy": 0.01}
    path.write_text(path.read_text().replace("accuracy:", "acuracy:"))
    with pytest.raises(BadInput, match=r"no task of tiny@1.0 is ranked by 'acuracy'\ndid you mean 'accuracy'\?"):
        planned(path)


def test_controls_are_added_at_the_settings_of_what_they_control(tiny_suite: Write) -> None:
    plan = planned(
        tiny_suite(methods="'kd[temperature=2,hard_weight=0.5]', born_again, dml", controls="scratch, label_smoothing",
                   add_controls="true")
    )  # fmt: skip
    methods = {trial.method_name: trial.method for trial in plan.trials}
    assert {"longer_scratch", "shuffled_teacher", "class_mean_teacher", "untrained_teacher"} <= methods.keys()
    assert {"independent_student", "independent_pair"} <= methods.keys()
    assert "deep_supervision" not in methods, "born_again names its own controls, which are without it"
    placebo = values(methods["shuffled_teacher"])
    assert (placebo["temperature"], placebo["hard_weight"], placebo["soft_weight"]) == (2.0, 0.5, 0.9)
    trials = {trial.method_name: trial for trial in plan.trials}
    assert trials["born_again"].controls == ("label_smoothing", "longer_scratch")
    assert set(trials["kd"].controls) == {
        *("label_smoothing", "longer_scratch", "shuffled_teacher", "class_mean_teacher", "untrained_teacher")
    }
    assert trials["kd"].fidelity_controls == ("independent_student",)
    assert trials["scratch"].controls == ()
    assert [trial.method_name for trial in plan.trials].count("label_smoothing") == 1


def test_longer_scratch_has_the_epochs_that_cost_what_distilling_costs(tiny_suite: Write) -> None:
    plan = planned(tiny_suite(controls="scratch, longer_scratch", teachers="'cnn[width=1]'", epochs="10"))
    trials = {trial.method_name: trial for trial in plan.trials}
    spec = plan.tasks[trials["kd"].task].data.spec
    teacher, student = (plan.architectures[name].build(spec) for name in ("cnn[width=1]", "cnn[width=0.25]"))
    images = torch.zeros(4, *spec.input_shape)
    extra = 2 * traced_macs(teacher.eval(), images) / count_flops(lambda: student(images).sum().backward())
    assert trials["longer_scratch"].recipe.epochs == math.ceil(10 * (1 + extra) - 1e-9)
    assert len(plan.cohorts) == 2, "other epochs are other batches"


def test_parts_of_the_training_data_are_boards_of_their_own(tiny_suite: Write) -> None:
    plan = planned(tiny_suite(seeds="2", recipe="train_fractions: [0.1, 0.5, 1.0]"))
    names = ["digits[train_examples=200] at 10 %", "digits[train_examples=200] at 50 %", "digits[train_examples=200]"]
    assert list(plan.tasks) == names
    assert {task.data_set for task in plan.tasks.values()} == {names[2]}
    assert {trial.task: trial.recipe.epochs for trial in plan.trials} == dict(zip(names, (20, 4, 2), strict=True))
    assert {trial.teachers[0].task for trial in plan.trials if trial.task == names[0] and trial.teachers} == {names[0]}
    assert len({trial.fingerprint for trial in plan.trials}) == 12

    seen = {(name, seed): plan.tasks[name].seen(seed).data.train for name in names for seed in (0, 1)}
    assert [len(seen[name, 0]) for name in names] == [18, 90, 180]
    content = {key: {tuple(image.flatten().tolist()) for image in split.inputs} for key, split in seen.items()}
    assert content[names[0], 0] < content[names[1], 0] < content[names[2], 0]
    assert content[names[1], 0] != content[names[1], 1]


def test_a_teachers_compression_is_a_network_of_its_architecture(tiny_suite: Write) -> None:
    plan = planned(tiny_suite(controls="scratch, int8, magnitude_pruning", recipe="teacher_recipe: {batch_size: 16}"))
    trials = {trial.method_name: trial for trial in plan.trials}
    assert trials["int8"].student == trials["magnitude_pruning"].student == "cnn[width=0.5]"
    assert (trials["int8"].recipe.epochs, trials["magnitude_pruning"].recipe.epochs) == (0, 2)
    assert trials["magnitude_pruning"].recipe.batch_size == 16
    assert trials["kd"].pair == trials["int8"].pair
