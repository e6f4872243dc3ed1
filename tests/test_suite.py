"""Suites: what a file means, what the command line may change of it, and one clear line for each mistake."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kdbench.errors import BadInput, SuiteError, UnknownName
from kdbench.recipe import Pair, Recipe, TeacherRecipe
from kdbench.spec import Spec
from kdbench.suite import MAX_SEEDS, Suite
from kdbench.suite_file import list_suites, load_suite, packaged_suites, parse_suite

FULL = """\
kdbench: 1
suite: example@2.7
title: An example
question: Does it?
tasks:
  - digits
  - {name: image_folder, path: a b, limit: 3}
pairs:
  - teacher: cnn[width=4]
    student: cnn
  - teacher: ["cnn[width=2]", {name: resnet, depth: 20}]
    student: "cnn[width=0.5]"
controls: [label_smoothing]
methods:
  - kd[temperature=2]
  - name: fitnets
    stages: joint
    weight: 3
  - rkd
seeds: [3, 0, 8]
teachers: fixed
recipe:
  epochs: 20
  learning_rate: 1e-4
  optimizer: adamw
  milestones: [0.5, 0.9]
  clip_grad_norm: 1
  augmentation: ["crop[padding=4]", flip]
teacher_recipe:
  epochs: 40
validation_fraction: 0.2
equivalence_margin: 0.01
departures:
  - one seed less
"""
MINIMAL = "suite: m@1.0\ntasks: [digits]\npairs:\n  - {teacher: big, student: small}\nrecipe: {epochs: 1}\n"


def refusal(text: str) -> str:
    with pytest.raises(SuiteError) as caught:
        parse_suite(text, "s.yaml")
    return str(caught.value)


def with_methods(*methods: str) -> Suite:
    return parse_suite(
        MINIMAL + "controls: ['label_smoothing[smoothing=0.2]']\nmethods:\n" + "".join(f"  - {m}\n" for m in methods)
    )


def names(suite: Suite) -> list[str]:
    return [str(method) for method in suite.methods]


def test_everything_a_file_can_say() -> None:
    suite = parse_suite(FULL, "s.yaml")
    assert (suite.id, suite.name, suite.major, suite.minor) == ("example@2.7", "example", 2, 7)
    assert (suite.title, suite.question) == ("An example", "Does it?")
    assert suite.tasks == (Spec("digits"), Spec("image_folder", {"path": "a b", "limit": 3}))
    assert suite.pairs == (
        Pair(teacher=("cnn[width=4]",), student="cnn"),
        Pair(teacher=("cnn[width=2]", "resnet[depth=20]"), student="cnn[width=0.5]"),
    )
    assert suite.controls == (Spec("scratch"), Spec("label_smoothing"))
    assert suite.methods == (
        Spec("kd", {"temperature": "2"}),
        Spec("fitnets", {"stages": "joint", "weight": 3}),
        Spec("rkd"),
    )
    assert (suite.seeds, suite.teachers) == ((3, 0, 8), "fixed")
    recipe = {
        "epochs": 20,
        "learning_rate": 1e-4,
        "optimizer": "adamw",
        "milestones": (0.5, 0.9),
        "clip_grad_norm": 1.0,
        "augmentation": ("crop[padding=4]", "flip"),
    }
    assert suite.recipe == Recipe.model_validate(recipe)
    assert suite.teacher_recipe == TeacherRecipe.model_validate({**recipe, "epochs": 40})
    assert (suite.validation_fraction, suite.equivalence_margin) == (0.2, 0.01)
    assert suite.departures == ("one seed less",)
    assert (suite.source, suite.path) == (FULL, None)


def test_the_least_a_file_must_say() -> None:
    suite = parse_suite(MINIMAL)
    assert suite.question == "Does knowledge distillation really work here?"
    assert suite.controls == (Spec("scratch"),)
    assert suite.methods == ()
    assert (suite.seeds, suite.teachers) == ((0, 1, 2), "per-seed")
    assert suite.pairs[0].teacher == ("big",)
    assert suite.recipe == Recipe(epochs=1)
    assert suite.teacher_recipe == TeacherRecipe(epochs=1)
    assert (suite.validation_fraction, suite.equivalence_margin) == (0.1, None)


def test_a_number_of_seeds_counts_from_zero() -> None:
    assert parse_suite(MINIMAL + "seeds: 4\n").seeds == (0, 1, 2, 3)


def test_the_baseline_is_not_added_twice() -> None:
    assert parse_suite(MINIMAL + "controls: [label_smoothing, scratch]\n").controls == (
        Spec("label_smoothing"),
        Spec("scratch"),
    )


def test_a_suite_is_a_value() -> None:
    suite = parse_suite(FULL)
    with pytest.raises(ValueError, match="frozen"):
        suite.title = "another"  # type: ignore[misc]
    for twin in (copy.deepcopy(suite), suite.with_overrides()):
        assert twin == suite
        assert (twin.source, twin.digest) == (FULL, suite.digest)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 20", "epochs: -20", "s.yaml:23: recipe.epochs: must be at least 1, not -20"),
        ("epochs: 20", "epochs: 2.5", "s.yaml:23: recipe.epochs: must be a whole number, not 2.5"),
        ("epochs: 20", "epochs: '20'", "s.yaml:23: recipe.epochs: must be a whole number, not '20'"),
        ("epochs: 20", "epochs: true", "s.yaml:23: recipe.epochs: must be a whole number, not True"),
        ("epochs: 20", "epochs:", "s.yaml:23: recipe.epochs: must be a whole number, but is empty"),
        ("  epochs: 20\n", "", "s.yaml:22: recipe.epochs: is missing"),
        ("1e-4", ".nan", "s.yaml:24: recipe.learning_rate: must be a finite number, not nan"),
        ("1e-4", "nan", "s.yaml:24: recipe.learning_rate: must be a number, not 'nan'"),
        ("1e-4", "-.inf", "s.yaml:24: recipe.learning_rate: must be a finite number, not -inf"),
        ("1e-4", "-0.1", "s.yaml:24: recipe.learning_rate: must be greater than 0, not -0.1"),
        ("1e-4", "[1]", "s.yaml:24: recipe.learning_rate: must be a number, not [1]"),
        ("learning_rate", "learning_rat", "s.yaml:24: recipe.learning_rat: unknown key; did you mean 'learning_rate'?"),
        ("adamw", "adam", "s.yaml:25: recipe.optimizer: must be 'sgd' or 'adamw', not 'adam'"),
        ("0.9]", "1.5]", "s.yaml:26: recipe.milestones[1]: must be less than 1, not 1.5"),
        ("0.9]", "0.1]", "s.yaml:26: recipe.milestones: must increase from one to the next"),
        ("[0.5, 0.9]", "0.5", "s.yaml:26: recipe.milestones: must be a list, not 0.5"),
        ("clip_grad_norm: 1", "clip_grad_norm: 0", "s.yaml:27: recipe.clip_grad_norm: must be greater than 0, not 0"),
        ("clip_grad_norm: 1", "gamma: 2", "s.yaml:27: recipe.gamma: must be at most 1, not 2"),
        ("clip_grad_norm: 1", "nesterov: yes", "s.yaml:27: recipe.nesterov: must be true or false, not 'yes'"),
        ("clip_grad_norm: 1", "momentum: 0\n  nesterov: true", "s.yaml:28: recipe.nesterov: needs a momentum above 0"),
        (
            "padding=4]",
            "padding=4",
            "s.yaml:28: recipe.augmentation[0]: cannot read 'crop[padding=4'; "
            "write NAME or NAME[key=value,...], e.g. kd[temperature=2]",
        ),
        ("epochs: 40", "epochs: -1", "s.yaml:30: teacher_recipe.epochs: must be at least 0, not -1"),
        ("epochs: 40", "epoch: 40", "s.yaml:30: teacher_recipe.epoch: unknown key; did you mean 'epochs'?"),
        (
            "teacher_recipe:",
            "teacher_recipes:",
            "s.yaml:29: teacher_recipes: unknown key; did you mean 'teacher_recipe'",
        ),
        (
            "validation_fraction: 0.2",
            "validation_fraction: 0.5",
            "s.yaml:31: validation_fraction: must be less than 0.5",
        ),
        ("margin: 0.01", "margin: 0", "s.yaml:32: equivalence_margin: must be greater than 0, not 0"),
        ("margin: 0.01", "margin: {wer: 0}", "s.yaml:32: equivalence_margin: must be greater than 0, not 0"),
        (
            "margin: 0.01",
            "margin: small",
            "s.yaml:32: equivalence_margin: must be a number, or one for each metric, not",
        ),
        ("departures:\n  - one seed less\n", "departures: none\n", "s.yaml:33: departures: must be a list, not 'none'"),
        ("  - one seed less\n", "  - 1\n", "s.yaml:34: departures[0]: must be text, not 1"),
        ("example@2.7", "example", "s.yaml:2: suite: must be name@major.minor, e.g. quickstart@1.0, not 'example'"),
        ("example@2.7", "2.7", "s.yaml:2: suite: must be text, not 2.7"),
        ("suite: example@2.7\n", "", "s.yaml:1: suite: is missing"),
        ("title: An example", "title: [x]", "s.yaml:3: title: must be text, not ['x']"),
        ("  - digits\n", "  - 5\n", "s.yaml:6: tasks[0]: cannot read 5; write NAME or NAME[key=value,...]"),
        ("  - digits\n", "  - digits\n  - digits\n", "s.yaml:5: tasks: lists 'digits' twice"),
        ("name: image_folder", "nam: image_folder", "s.yaml:7: tasks[1]: a mapping needs a plain 'name'"),
        ("    student: cnn\n", "", "s.yaml:9: pairs[0].student: is missing"),
        ("teacher: cnn[width=4]", "teacher: cnn[width", "s.yaml:9: pairs[0].teacher[0]: cannot read 'cnn[width'"),
        ("teacher: cnn[width=4]", "teacher: []", "s.yaml:9: pairs[0].teacher: must have at least one entry"),
        ("teacher: cnn[width=4]", "teacher: 5", "s.yaml:9: pairs[0].teacher: must be a list, not 5"),
        (
            "  - rkd",
            "  - kd[published]",
            "s.yaml:19: methods[2]: cannot read 'published' in 'kd[published]'; write key=",
        ),
        ("  - rkd", "  - {name: kd, temperature: 2}", "s.yaml:14: methods: lists 'kd[temperature=2]' twice"),
        ("  - rkd", "  - scratch", "s.yaml:14: methods: 'scratch' is a control already; list it once"),
        ("[3, 0, 8]", "0", "s.yaml:20: seeds: must be 1 to 10000 seeds, not 0"),
        ("[3, 0, 8]", "-2", "s.yaml:20: seeds: must be 1 to 10000 seeds, not -2"),
        ("[3, 0, 8]", "999999999999", "s.yaml:20: seeds: must be 1 to 10000 seeds, not 999999999999"),
        ("[3, 0, 8]", "three", "s.yaml:20: seeds: must be a number of seeds or a list of them, not 'three'"),
        ("[3, 0, 8]", "true", "s.yaml:20: seeds: must be a number of seeds or a list of them, not True"),
        ("[3, 0, 8]", "[3, -1]", "s.yaml:20: seeds[1]: must be at least 0, not -1"),
        ("[3, 0, 8]", "[3, 3]", "s.yaml:20: seeds: lists '3' twice"),
        ("[3, 0, 8]", "[]", "s.yaml:20: seeds: must have at least one entry"),
        ("teachers: fixed", "teachers: each", "s.yaml:21: teachers: must be 'per-seed' or 'fixed', not 'each'"),
        ("kdbench: 1", "kdbench: 2", "s.yaml:1: kdbench: this kdbench reads suites of version 1, not 2"),
        ("kdbench: 1", "kdbench: true", "s.yaml:1: kdbench: this kdbench reads suites of version 1, not True"),
        ("kdbench: 1", "kdbench: '1'", "s.yaml:1: kdbench: this kdbench reads suites of version 1, not '1'"),
        ("title: An example", "title: a\ntitle: b", "s.yaml:4: title: given twice (first on line 3)"),
        ("  epochs: 20", "\tepochs: 20", "s.yaml:23: a tab is used for indentation (after 'recipe')"),
    ],
)
def test_one_mistake_is_one_line(old: str, new: str, message: str) -> None:
    assert FULL.count(old) == 1, "the mistake must be made in one place"
    found = refusal(FULL.replace(old, new))
    assert found.startswith(message)
    assert "problems" not in found


def test_all_mistakes_of_a_file_are_told_in_order() -> None:
    text = MINIMAL.replace("{epochs: 1}", "{epochs: 0, gama: 1}") + "sedes: 3\nteacher_recipe: {momentum: 1}\n"
    assert refusal(text).splitlines() == [
        "s.yaml: 4 problems",
        "s.yaml:5: recipe.epochs: must be at least 1, not 0",
        "s.yaml:5: recipe.gama: unknown key; did you mean 'gamma'?",
        "s.yaml:6: sedes: unknown key; did you mean 'seeds'?",
        "s.yaml:7: teacher_recipe.momentum: must be less than 1, not 1",
    ]


def test_a_misspelt_required_key_is_missing_and_unknown() -> None:
    assert refusal(MINIMAL.replace("student:", "students:")).splitlines() == [
        "s.yaml: 2 problems",
        "s.yaml:4: pairs[0].student: is missing",
        "s.yaml:4: pairs[0].students: unknown key; did you mean 'student'?",
    ]


def test_a_file_for_another_version_gets_no_other_complaint() -> None:
    assert refusal("sweet: x\nkdbench: 3\n") == "s.yaml:2: kdbench: this kdbench reads suites of version 1, not 3"


@pytest.mark.parametrize("old", ["recipe: {epochs: 1}\n", "tasks: [digits]\n"])
def test_required_sections(old: str) -> None:
    key = old.partition(":")[0]
    assert refusal(MINIMAL.replace(old, "")) == f"s.yaml:1: {key}: is missing"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([], ["kd[temperature=2,hard_weight=0]", "rkd"]),
        (["kd"], ["kd[temperature=2,hard_weight=0]"]),
        (["rkd", "kd"], ["rkd", "kd[temperature=2,hard_weight=0]"]),
        (["kd[temperature=8]"], ["kd[temperature=8,hard_weight=0]"]),
        (["kd[soft_weight=1]"], ["kd[temperature=2,hard_weight=0,soft_weight=1]"]),
        (["kd[published]"], ["kd"]),
        (["kd[published,temperature=8]"], ["kd[temperature=8]"]),
        (["kd", "kd[published]", "crd[nce=1]"], ["kd[temperature=2,hard_weight=0]", "kd", "crd[nce=1]"]),
        (["scratch"], []),
        (["label_smoothing", "rkd"], ["rkd"]),
        (["label_smoothing[published]"], ["label_smoothing"]),
        (["label_smoothing[extra=1]"], ["label_smoothing[smoothing=0.2,extra=1]"]),
    ],
)
def test_methods_from_the_command_line(asked: list[str], expected: list[str]) -> None:
    suite = with_methods("kd[temperature=2,hard_weight=0]", "rkd")
    changed = suite.with_overrides(methods=asked)
    assert names(changed) == expected
    assert [str(control) for control in changed.controls] == ["scratch", "label_smoothing[smoothing=0.2]"]
    assert changed.seeds == suite.seeds
    assert not any(method.flags for method in changed.methods)


def test_a_method_listed_twice_is_taken_twice() -> None:
    suite = with_methods("kd[temperature=2]", "kd[temperature=4,soft_weight=1]")
    assert names(suite.with_overrides(["kd"])) == ["kd[temperature=2]", "kd[temperature=4,soft_weight=1]"]
    assert names(suite.with_overrides(["kd[temperature=8]"])) == [
        "kd[temperature=8]",
        "kd[temperature=8,soft_weight=1]",
    ]
    assert names(with_methods("kd[t=2]", "kd[t=4]").with_overrides(["kd[t=8]"])) == ["kd[t=8]"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["kd", "kd"], "--method kd: 'kd[temperature=2]' is asked for twice"),
        (["kd", "kd[published,temperature=2]"], "'kd[temperature=2]' is asked for twice"),
        (["kd[tuned]"], "--method kd[tuned]: unknown flag 'tuned'"),
        (["kd[temperature"], "cannot read 'kd[temperature'"),
        ([""], "cannot read ''"),
    ],
)
def test_methods_that_cannot_be_asked_for(asked: list[str], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        with_methods("kd[temperature=2]").with_overrides(asked)
    assert message in caught.value.message


def test_seeds_from_the_command_line() -> None:
    suite = parse_suite(FULL)
    assert suite.with_overrides(seeds=2).seeds == (0, 1)
    assert suite.with_overrides(seeds=2).methods == suite.methods
    for wrong in (0, -1, MAX_SEEDS + 1):
        with pytest.raises(BadInput, match=f"--seeds {wrong}: must be 1 to {MAX_SEEDS}"):
            suite.with_overrides(seeds=wrong)


def reordered() -> str:
    blocks: list[str] = []
    for line in FULL.splitlines(keepends=True):
        if line[0].isspace():
            blocks[-1] += line
        else:
            blocks.append(line)
    return "# another comment\n" + "\n".join(reversed(blocks))


@pytest.mark.parametrize(
    "text",
    [
        reordered(),
        FULL.replace("  epochs: 20\n  learning_rate: 1e-4\n", "  learning_rate: 0.0001 # slow\n\n  epochs: 20\n"),
        FULL.replace("path: a b, limit: 3", "limit: 3, path: a b"),
        FULL.replace("{name: resnet, depth: 20}", "'resnet[ depth=20 ]'"),
        FULL.replace("  - rkd\n", "  - rkd\n  - crd\n"),
        FULL.replace("seeds: [3, 0, 8]", "seeds: 5"),
        FULL.replace("teacher_recipe:\n", "teacher_recipe:\n  optimizer: adamw\n"),
        FULL.replace("  epochs: 20\n", "  epochs: 20\n  batch_size: 64\n"),
        FULL.replace("title: An example", "title: Another wording"),
    ],
)
def test_the_digest_keeps(text: str) -> None:
    assert text != FULL
    assert parse_suite(text).digest == parse_suite(FULL).digest


def test_the_digest_does_not_notice_the_command_line() -> None:
    suite = parse_suite(FULL)
    assert suite.with_overrides(["crd"], 1).digest == suite.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 20", "epochs: 21"),
        ("epochs: 40", "epochs: 41"),
        ("example@2.7", "example@2.8"),
        ("limit: 3", "limit: 4"),
        ("student: cnn\n", "student: cnn[width=3]\n"),
        ("teacher: cnn[width=4]", "teacher: cnn[width=5]"),
        ("[label_smoothing]", "['label_smoothing[smoothing=0.2]']"),
        ("teachers: fixed", "teachers: per-seed"),
        ("flip]", "]"),
        ("validation_fraction: 0.2", "validation_fraction: 0.1"),
        ("equivalence_margin: 0.01", "equivalence_margin: 0.02"),
    ],
)
def test_the_digest_changes(old: str, new: str) -> None:
    assert FULL.count(old) == 1
    assert parse_suite(FULL.replace(old, new)).digest != parse_suite(FULL).digest


def test_packaged_suites_load() -> None:
    assert {"quickstart", "cifar10-jpeg"} <= packaged_suites().keys()
    for name, path in packaged_suites().items():
        suite = load_suite(name)
        assert suite.name == name, "a packaged suite is found by its name"
        assert suite.path == path
        assert suite.source == path.read_text(encoding="utf-8")
        assert suite.title
        assert load_suite(suite.id) == load_suite(f"{name}@{suite.major}") == load_suite(path) == suite


def test_listing() -> None:
    by_name = {summary.name: summary for summary in list_suites()}
    assert by_name.keys() == packaged_suites().keys()
    quickstart = by_name["quickstart"]
    assert (quickstart.id, quickstart.tasks, quickstart.pairs, quickstart.methods) == (
        load_suite("quickstart").id,
        ("digits",),
        1,
        7,
    )


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        ("quikstart", UnknownName, "unknown suite 'quikstart'\ndid you mean 'quickstart'?"),
        ("quikstart@1.0", UnknownName, "unknown suite 'quikstart'\ndid you mean 'quickstart'?"),
        ("", UnknownName, "unknown suite ''"),
        ("quickstart@999", BadInput, "there is no quickstart@999 here\nthis kdbench brings quickstart@"),
        ("quickstart@1.999", BadInput, "there is no quickstart@1.999 here\nthis kdbench brings quickstart@"),
        ("quickstart@new", BadInput, "cannot read the version of 'quickstart@new'"),
        ("quickstart@1.0.0", BadInput, "cannot read the version of 'quickstart@1.0.0'"),
        ("missing.yaml", SuiteError, "missing.yaml: no such file"),
        ("./missing", SuiteError, "missing: no such file"),
    ],
)
def test_suites_that_are_not_there(
    reference: str, kind: type[BadInput], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        load_suite(reference)
    assert str(caught.value).startswith(message)


def test_names_and_paths_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yaml", "mine.yml", "mine"):
        Path(name).write_text(MINIMAL, encoding="utf-8")
        suite = load_suite(name)
        assert (suite.id, suite.path) == ("m@1.0", Path(name))
    Path("quickstart").mkdir()  # such as a results folder: it must not hide the packaged suite
    assert load_suite("quickstart").name == "quickstart"
    with pytest.raises(SuiteError, match="quickstart: is a folder, not a suite file"):
        load_suite(Path("quickstart"))


def test_listing_needs_no_torch() -> None:
    check = "import sys; from kdbench.suite_file import list_suites; list_suites(); print('torch' in sys.modules)"
    shown: Any = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


OWN_RECIPES = """
suite: m@1.0
tasks: [digits, "fashion_mnist[train_examples=100]"]
pairs:
  - {teacher: big, student: small}
  - teacher: tall
    student: short
    tasks: digits
    recipe: {epochs: 3}
    teacher_recipe: {batch_size: 16}
recipe: {epochs: 1, learning_rate: 0.5}
teacher_recipe: {learning_rate: 0.1}
"""


def test_a_pair_may_have_tasks_and_recipes_of_its_own() -> None:
    common, own = parse_suite(OWN_RECIPES, "s.yaml").pairs
    assert (common.recipe, common.teacher_recipe) == (None, None)
    assert [common.serves(task) for task in ("digits", "fashion_mnist[train_examples=100]")] == [True, True]
    assert [own.serves(task) for task in ("digits", "fashion_mnist[train_examples=100]")] == [True, False]
    assert own.recipe == Recipe(epochs=3, learning_rate=0.5)
    reordered = OWN_RECIPES.replace("digits", "'d[b=1,a=2]'")
    assert parse_suite(reordered, "s.yaml").pairs[1].serves("d[b=1,a=2]")
    assert own.teacher_recipe == TeacherRecipe(epochs=3, learning_rate=0.1, batch_size=16)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tasks: digits\n", "tasks: cola\n", "tall -> short is for the task 'cola', which the suite does not list"),
        (
            "recipe: {epochs: 3}",
            "recipe: {epoch: 3}",
            "s.yaml:9: pairs[1].recipe.epoch: unknown key; did you mean 'epochs'",
        ),
        (
            "{batch_size: 16}",
            "{batch_size: 1}",
            "s.yaml:10: pairs[1].teacher_recipe.batch_size: must be at least 2, not 1",
        ),
        ("recipe: {epochs: 3}", "recipe: 3", "s.yaml:9: pairs[1].recipe: must be a mapping"),
    ],
)
def test_mistakes_in_a_pairs_own_recipe_are_located_once(old: str, new: str, message: str) -> None:
    with pytest.raises(SuiteError) as error:
        parse_suite(OWN_RECIPES.replace(old, new), "s.yaml")
    assert message in str(error.value)
    assert "problems" not in str(error.value)
