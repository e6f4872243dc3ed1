"""YAML with line numbers: what is read, and the one message for each way a file can be no suite."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from kdbench.errors import SuiteError
from kdbench.yaml_source import MAX_BYTES, MAX_DEPTH, key_text, parse_yaml, read_yaml

NESTED = """\
recipe:
  epochs: 3

  # a comment
  learning_rate: 1e-4
pairs:
  - teacher: a
    student: b
  - {teacher: c}
"""


def refusal(text: str) -> str:
    with pytest.raises(SuiteError) as caught:
        parse_yaml(text, "s.yaml")
    return str(caught.value)


def test_content_and_lines() -> None:
    source = parse_yaml(NESTED, "s.yaml")
    assert source.data == {
        "recipe": {"epochs": 3, "learning_rate": 1e-4},
        "pairs": [{"teacher": "a", "student": "b"}, {"teacher": "c"}],
    }
    assert source.text == NESTED
    assert source.lines == {
        (): 1,
        ("recipe",): 1,
        ("recipe", "epochs"): 2,
        ("recipe", "learning_rate"): 5,
        ("pairs",): 6,
        ("pairs", 0): 7,
        ("pairs", 0, "teacher"): 7,
        ("pairs", 0, "student"): 8,
        ("pairs", 1): 9,
        ("pairs", 1, "teacher"): 9,
    }


@pytest.mark.parametrize(
    ("key", "line"),
    [(("pairs", 0, "student"), 8), (("pairs", 1, "student"), 9), (("recipe", "gamma"), 1), (("nothing", "here"), 1)],
)
def test_what_was_not_written_is_placed_at_the_section_around_it(key: tuple[str | int, ...], line: int) -> None:
    assert parse_yaml(NESTED, "s.yaml").line(key) == line


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 0.0001),
        ("5E3", 5000.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("+.inf", math.inf),
        ("-.INF", -math.inf),
        ("12", 12),
        ("010", 10),
        ("0o10", 8),
        ("0xff", 255),
        ("-7", -7),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("off", "off"),
        ("null", None),
        ("~", None),
        ("", None),
        ("1_000", "1_000"),
        ("2026-11-21", "2026-11-21"),
        ("12:30", "12:30"),
        ("nan", "nan"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("kd[temperature=2,hard_weight=1]", "kd[temperature=2,hard_weight=1]"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    read = parse_yaml(f"key: {written}\n", "s.yaml").data["key"]
    assert read == value
    assert type(read) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(parse_yaml("key: .nan", "s.yaml").data["key"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml:1: the file is empty"),
        ("# only a comment\n\n", "s.yaml:1: the file is empty"),
        ("---\n", "s.yaml:1: the file is empty"),
        ("- kd\n- rkd\n", "s.yaml:1: the top level must be a mapping ('key: value' lines)"),
        ("\nhello world\n", "s.yaml:2: the top level must be a mapping ('key: value' lines)"),
        ("a: 1\n---\nb: 2\n", "s.yaml:2: a second document begins here ('---'); a suite file holds one"),
        ("r:\n  a: 1\n  b: 2\n  a: 3\n", "s.yaml:4: r.a: given twice (first on line 2)"),
        ("a: 1\n'a': 1\n", "s.yaml:2: a: given twice (first on line 1)"),
        ("p:\n  - {x: 1, x: 2}\n", "s.yaml:2: p[0].x: given twice (first on line 2)"),
        ("a: 1\n? [b]\n: 2\n", "s.yaml:2: a key must be a plain word"),
        ("a: 1\nb: &x 2\n", "s.yaml:2: b: anchors (&) and aliases (*) are refused here; write the value out"),
        ("a:\n  b: *x\n", "s.yaml:2: a.b: anchors (&) and aliases (*) are refused here; write the value out"),
        ("&x a: 1\n", "s.yaml:1: anchors (&) and aliases (*) are refused here; write the value out"),
        ("a: !!python/object:os.system x\n", "s.yaml:1: a: tags (!) are refused here; write the plain value"),
        ("!!str a: 1\n", "s.yaml:1: tags (!) are refused here; write the plain value"),
        ("a: " + "9" * 101, "s.yaml:1: a: a number of more than 100 digits"),
        ("a: 1\nb: \x00\n", "s.yaml:2: not YAML: contains the control character '\\x00'"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("recipe:\n\tepochs: 3\n", "s.yaml:2: a tab is used for indentation (after 'recipe')"),
        ("recipe:\n  epochs: 3\n\tbatch_size: 4\n", "s.yaml:3: a tab is used for indentation (after 'recipe.epochs')"),
        ("recipe:\n  \tepochs: 3\n", "s.yaml:2: a tab is used for indentation (after 'recipe')"),
        ("methods:\n  - kd\n\t- rkd\n", "s.yaml:3: a tab is used for indentation (after 'methods[0]')"),
    ],
)
def test_a_tab_is_named(text: str, place: str) -> None:
    assert refusal(text) == f"{place}\nYAML takes only spaces: replace the tab by spaces"


@pytest.mark.parametrize(
    ("text", "place", "advice"),
    [
        ("title: a: b\n", "s.yaml:1: not YAML: ", "quote text that contains ': '"),
        (
            "m:\n  - ok[a=1]\nt: [kd[a=1]]\n",
            "s.yaml:3: not YAML: ",
            'quote a name with brackets inside [ ] or { }: ["kd[',
        ),
        ("r:\n    epochs: 1\n  gamma: 1\n", "s.yaml:3: not YAML: ", "begin in the same column"),
        ("r:\n  - 'kd\nb: 1\n", "in what began on line 2", "a quote is not closed"),
        ("r: [1,\nb: 2\n", "in what began on line 1", "a bracket is not closed"),
        ("a: @x\n", "s.yaml:1: not YAML: ", "quote text that begins with a special character"),
        ("a: 1\nb\nc: 2\n", "s.yaml:3: not YAML: ", "a key is written 'key: value'"),
        ("a:\t1\n\tb: 2\n", "s.yaml:", "replace the tab by spaces"),
    ],
)
def test_bad_syntax_comes_with_advice(text: str, place: str, advice: str) -> None:
    message = refusal(text)
    assert place in message
    assert advice in message


@pytest.mark.parametrize("text", ["%YAML 1.3\n---\na: 1\n", "%YAML 2.0\n---\na: 1\n", 'a: "\\UFFFFFFFF"\n'])
def test_what_the_parser_itself_trips_over(text: str) -> None:
    assert refusal(text).startswith("s.yaml:1: not YAML: ")


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ("{a: ", "}"), ("\n- ", "")])
def test_depth_is_limited(open_: str, close: str) -> None:
    def nested(levels: int) -> str:
        if open_ == "\n- ":
            return "k:\n" + "".join("  " * level + "-\n" for level in range(levels)) + "  " * levels + "x\n"
        return f"k: {open_ * levels}x{close * levels}\n"

    assert parse_yaml(nested(MAX_DEPTH - 1), "s.yaml").data["k"]
    assert f"nested deeper than {MAX_DEPTH} levels" in refusal(nested(MAX_DEPTH))
    assert f"nested deeper than {MAX_DEPTH} levels" in refusal(nested(2000))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (("recipe", "epochs"), "recipe.epochs"),
        (("pairs", 0, "student"), "pairs[0].student"),
        (("a\nb",), "'a\\nb'"),
        ((), ""),
    ],
)
def test_keys_are_written_as_people_do(key: tuple[str | int, ...], text: str) -> None:
    assert key_text(key) == text


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"\xef\xbb\xbftitle: caf\xc3\xa9\r\nseeds: 2\r\n")
    source = read_yaml(path)
    assert source.data == {"title": "café", "seeds": 2}
    assert source.at(("seeds",), "is odd") == f"{path}:2: seeds: is odd"


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.yaml"

    def message(path: Path) -> str:
        with pytest.raises(SuiteError) as caught:
            read_yaml(path)
        return str(caught.value)

    assert message(path) == f"{path}: no such file"
    assert message(tmp_path) == f"{tmp_path}: is a folder, not a suite file"
    path.write_bytes(b"a: 1\nb: \xe9t\xe9\n")
    assert message(path) == f"{path}:2: is not UTF-8 text\nsave the file as UTF-8"
    assert message(path / "below.yaml") == f"{path / 'below.yaml'}: cannot be read: Not a directory"
    assert message(tmp_path / "a\0b").endswith("cannot be read: embedded null byte")
    path.write_text("# " + "x" * MAX_BYTES)
    assert message(path) == f"{path}: is larger than 256 KiB, so it is hardly a suite file"

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # permissions do not stop the superuser, as whom tests may run
    assert message(path) == f"{path}: cannot be read: Permission denied"
