"""Options of the stages: what is taken, what is made of it, what is refused, and which ones decide an output."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import pytest

from trl_rrtf import ConfigError
from trl_rrtf.options import (
    Range,
    build,
    check_choice,
    check_choices,
    check_options,
    check_paths,
    check_range,
    in_section,
    option,
    read_yaml,
    settings_of,
)


@dataclass
class Config:
    """One option of each kind."""

    input: str = option("What is read.", is_input=True, aliases=("--problems",))
    output: str = option("What is written.", default="out.jsonl", is_output=True, decides_output=False)
    rate: float = option("A number.", default=0.5, above=0, at_most=1)
    number: int = option("A whole number.", default=2, at_least=1)
    maybe: int | None = option("A whole number, or none.", default=None, below=10)
    flag: bool = option("A truth value.", default=False)
    style: str = option("A choice.", default="chat", choices=("chat", "paper"))
    names: list[str] = option("Texts.", default_factory=list, choices=("a", "b"))
    temperatures: list[float] = option("Numbers.", default_factory=list, at_least=0)
    stops: list[str] | None = option("Texts, or none.", default=None)
    workers: int | None = option("Side by side.", default=None, at_least=1, decides_output=False)
    elsewhere: float = field(default=1e-3, metadata={"help": "An option that another library declared."})
    theirs: dict | str = field(default_factory=dict)

    def __post_init__(self):
        check_options(self)


def config(**options):
    return Config(**{"input": "in.jsonl", **options})


def test_what_is_right_is_left_as_it_is():
    options = {
        "rate": 1.0,
        "number": 7,
        "maybe": -3,
        "flag": True,
        "style": "paper",
        "names": ["b", "a"],
        "temperatures": [0.0, 1.5],
        "stops": ["x"],
        "theirs": {"any": ["thing"]},
    }
    made = config(**options)
    assert {name: getattr(made, name) for name in options} == options
    assert config(maybe=None, stops=None) == config()


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("rate", "2e-1", 0.2),
        ("rate", "1", 1.0),
        ("number", "12", 12),
        ("maybe", "-4", -4),
        ("temperatures", ["0.5", 1], [0.5, 1]),
        ("temperatures", (0.5,), [0.5]),
        ("elsewhere", "2e-4", 2e-4),
        ("number", numpy.int64(3), 3),
        ("rate", numpy.float32(0.5), 0.5),
        ("input", Path("sub") / "in.jsonl", "sub/in.jsonl"),
    ],
)
def test_numbers_as_text_and_the_like_are_converted(name, given, expected):
    made = getattr(config(**{name: given}), name)
    assert made == expected
    assert json.loads(json.dumps(made)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": "fast"}, "`rate`: expected a number, got str 'fast'"),
        ({"rate": True}, "`rate`: expected a number, got bool True"),
        ({"rate": [0.5]}, "`rate`: expected a number, got list [0.5]"),
        ({"rate": None}, "`rate`: got nothing; give a number, or leave the option out"),
        ({"rate": 0}, "`rate`: expected a number above 0 and at most 1, got 0"),
        ({"rate": "1.01"}, "`rate`: expected a number above 0 and at most 1, got 1.01"),
        ({"rate": math.inf}, "got inf"),
        ({"rate": "nan"}, "got nan"),
        ({"number": 1.5}, "`number`: expected a whole number, got float 1.5"),
        ({"number": 2.0}, "`number`: expected a whole number, got float 2.0"),
        ({"number": "two"}, "`number`: expected a whole number, got str 'two'"),
        ({"number": "1.0"}, "`number`: expected a whole number, got str '1.0'"),
        ({"number": True}, "`number`: expected a whole number, got bool True"),
        ({"number": 0}, "`number`: expected at least 1, got 0"),
        ({"number": -(10**400)}, "`number`: expected at least 1, got -1000"),
        ({"maybe": 10}, "`maybe`: expected a number below 10, got 10"),
        ({"maybe": "six"}, "`maybe`: expected a whole number, got str 'six'"),
        ({"flag": "no"}, "`flag`: expected true or false, got str 'no'"),
        ({"flag": "false"}, "`flag`: expected true or false, got str 'false'"),
        ({"flag": 0}, "`flag`: expected true or false, got int 0"),
        ({"flag": None}, "`flag`: got nothing; give true or false, or leave the option out"),
        ({"style": "haiku"}, "`style`: expected one of chat, paper, got 'haiku'"),
        ({"style": 5}, "`style`: expected text, got int 5"),
        ({"output": 5}, "`output`: expected text, got int 5"),
        ({"input": None}, "`input`: got nothing; give text, or leave the option out"),
        ({"names": "a"}, "`names`: expected a list, such as ['a'], got str 'a'"),
        ({"names": ["a", "c", "d"]}, "`names`: expected some of a, b, got c, d"),
        ({"names": None}, "`names`: got nothing"),
        ({"names": [1]}, "`names[0]`: expected text, got int 1"),
        ({"names": {"a": 1}}, "`names`: expected a list"),
        ({"temperatures": 0.5}, "`temperatures`: expected a list, such as [0.5], got float 0.5"),
        ({"temperatures": [0.5, "hot"]}, "`temperatures[1]`: expected a number, got str 'hot'"),
        ({"temperatures": [0.5, -1]}, "`temperatures`: expected at least 0, got -1"),
        ({"stops": "abc"}, "`stops`: expected a list, such as ['abc'], got str 'abc'"),
        ({"elsewhere": "fast"}, "`elsewhere`: expected a number, got str 'fast'"),
    ],
)
def test_what_is_wrong_is_refused(options, message):
    with pytest.raises(ConfigError) as caught:
        config(**options)
    assert message in str(caught.value)


def test_a_range_shows_all_its_digits():
    assert str(Range(at_least=32, at_most=2**24)) == "at least 32 and at most 16777216"
    assert str(Range(above=0, below=0.25)) == "above 0 and below 0.25"
    with pytest.raises(ConfigError, match="`x`: expected a number that is finite, got nan"):
        check_range("x", math.nan, Range())


def test_checks_outside_a_configuration():
    check_choice("x", 1, (1, 2))
    check_choices("x", [], (1, 2))
    with pytest.raises(ConfigError, match="`x`: expected one of 1, 2, got 3"):
        check_choice("x", 3, (1, 2))
    with pytest.raises(ConfigError, match="`x`: expected some of 1, 2, got 3, 4"):
        check_choices("x", [1, 3, 4], (1, 2))


# --- Sections of a file ------------------------------------------------------------------------------------------------------


def test_a_section_fills_a_configuration():
    assert build(Config, {"input": "a.jsonl", "rate": "2e-1"}, "sample") == config(input="a.jsonl", rate=0.2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "`judge`: the section is empty; give it keys, or leave it out"),
        ([], "`judge`: expected keys with values (`name: value`), got list []"),
        ([{"input": "a"}], "`judge`: expected keys with values (`name: value`), got list"),
        ("fast", "`judge`: expected keys with values (`name: value`), got str 'fast'"),
        (5, "`judge`: expected keys with values (`name: value`), got int 5"),
        ({"input": "a", "speed": 1}, "`judge`: unknown key `speed`; the keys are input, output, rate"),
        ({"input": "a", 5: 1}, "`judge`: unknown key `5`"),
        ({"rate": 1}, "`judge`: the key `input` is missing"),
        ({"input": "a", "rate": {"x": 1}}, "`judge`: `rate`: expected a number, got dict"),
        ({"input": "a", "flag": "no"}, "`judge`: `flag`: expected true or false"),
    ],
)
def test_a_wrong_section_is_told_with_section_and_key(values, message):
    with pytest.raises(ConfigError) as caught:
        build(Config, values, "judge")
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", [ConfigError, TypeError, ValueError])
def test_what_goes_wrong_in_a_section_names_it(kind):
    with pytest.raises(ConfigError, match="`train`: too slow"), in_section("train"):
        raise kind("too slow")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", "the key `a` stands twice in the section at line 1; remove one"),
        (b"train:\n  x: 1\n  x: 1\n", "the key `x` stands twice in the section at line 2"),
        (b"0: 1\n0: 2\n", "the key `0` stands twice"),
        (b"", "`config`: the section is empty"),
        (b"- a\n- b\n", "`config`: expected keys with values (`name: value`), got list"),
        (b"a: [1\n", "is not YAML"),
        (b"a: \xff\n", "is not YAML"),
        (b"a: 2024-13-45\n", "is not YAML: month must be in 1..12"),
        (b"a: " + b"7" * 5000 + b"\n", "is not YAML"),
        (b"a: " + b"[" * 20_000, "is not YAML"),
    ],
)
def test_a_file_that_is_no_good_is_told(tmp_path, content, message):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "c.yaml")
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match=r"`config`: cannot read `.*nothing\.yaml`: .*check the path"):
        read_yaml(tmp_path / "nothing.yaml")


def test_a_good_file_is_read(tmp_path):
    (tmp_path / "c.yaml").write_text("base: &base {x: 1, y: 2}\ntrain:\n  <<: *base\n  y: 2e-4\n")
    assert read_yaml(tmp_path / "c.yaml")["train"] == {"x": 1, "y": "2e-4"}


# --- What decides an output --------------------------------------------------------------------------------------------------


def test_options_that_decide_an_output_are_its_settings():
    settings = settings_of(config(workers=4, names=["a"]), without=("input",))
    assert settings == {
        "rate": 0.5,
        "number": 2,
        "maybe": None,
        "flag": False,
        "style": "chat",
        "names": ["a"],
        "temperatures": [],
        "stops": None,
        "elsewhere": 1e-3,
        "theirs": {},
    }
    assert settings_of(config(workers=1, output="b.jsonl")) == settings_of(config(workers=2, output="c.jsonl"))
    for field_ in dataclasses.fields(Config):
        assert (field_.name in settings_of(config())) == (field_.name not in ("output", "workers"))


def test_settings_are_json():
    class Colour(enum.Enum):
        RED = "red"

    @dataclass
    class Theirs:
        colour: Colour = Colour.RED
        nested: object = field(default_factory=lambda: {"a": (1, {2}), Colour.RED: [Colour.RED]})
        made: object = field(default_factory=config)
        function: object = print
        internal: int = field(default=3, init=False)

    settings = settings_of(Theirs())
    assert json.loads(json.dumps(settings)) == settings
    assert (settings["colour"], settings["nested"]["a"], settings["made"]["rate"]) == ("red", [1, [2]], 0.5)
    assert "internal" not in settings


# --- An output that is an input ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in.jsonl", "out.jsonl.partial", "out.jsonl.settings.json", "out.jsonl.summary.json"):
        Path(name).touch()
    Path("sub").mkdir()
    Path("link.jsonl").symlink_to("in.jsonl")
    return tmp_path


@pytest.mark.parametrize("output", ["in.jsonl", "./in.jsonl", "sub/../in.jsonl", "link.jsonl"])
def test_an_output_that_is_an_input_is_refused(folder, output):
    with pytest.raises(ConfigError, match=r"`output`: .*`input`.*choose another place"):
        check_paths(config(output=output))
    with pytest.raises(ConfigError, match="`output`"):
        check_paths(config(output=str((folder / output).absolute())))


@pytest.mark.parametrize("ending", [".partial", ".settings.json", ".summary.json"])
def test_a_file_beside_the_output_that_is_an_input_is_refused(folder, ending):
    with pytest.raises(ConfigError, match="`output`"):
        check_paths(config(input=f"out.jsonl{ending}", output="out.jsonl"))


@pytest.mark.parametrize(("given", "output"), [("in.jsonl", "out.jsonl"), ("in.jsonl", "sub/in.jsonl"), ("me/in", "me/in")])
def test_other_outputs_are_taken(folder, given, output):
    """The last one is a data set on the Hub: there is no such file."""
    check_paths(config(input=given, output=output))
