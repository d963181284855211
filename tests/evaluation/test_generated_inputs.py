"""Inputs made from what a model may see: their kinds, their seeds, and that no hidden test is looked at."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import subprocess
import sys

import pytest

from trl_rrtf import Problem, UnitTest
from trl_rrtf.evaluation.generated_inputs import generate_inputs


def problem(prompt="Write it.", entry_point="f", **columns):
    return Problem(problem_id="p", prompt=prompt, tests=columns.pop("tests", []), entry_point=entry_point, **columns)


def arguments_of(text):
    """The arguments of a call's text."""
    call = ast.parse(text, mode="eval").body
    return [ast.literal_eval(argument) for argument in call.args]


class Forbidden(list):
    """Tests that must not be looked at."""

    def __iter__(self):
        raise AssertionError("a hidden test was looked at")

    __getitem__ = __len__ = __bool__ = __contains__ = __iter__


TESTS = {
    "call": UnitTest(kind="call", input='[[3, 1, 2], true, {"a": null}]', output="6"),
    "assert": UnitTest(kind="assert", code="x = 1\nassert len(f([3, 1, 2], True, {'a': None})) == 1"),
    "check": UnitTest(kind="check", code="def check(candidate):\n    assert candidate([3, 1, 2], True, {'a': None}) == 6\n"),
}


@pytest.mark.parametrize("kind", TESTS)
def test_calls_come_from_public_tests_and_keep_their_types(kind):
    made = generate_inputs(problem(), [TESTS[kind]], 12, seed=0)
    assert (made.kind, made.origin, len(made.texts)) == ("expression", "public tests", 12)
    assert made.texts[0] == "f([3, 1, 2], True, {'a': None})"  # what is given comes first
    assert len(set(made.texts)) == 12
    for numbers, flag, mapping in map(arguments_of, made.texts):
        assert all(type(number) is int for number in numbers)
        assert type(flag) is bool
        assert type(mapping) is dict


def test_every_type_is_mutated_within_itself():
    example = "f(2, 2.5, 'abc', [1.5], ('x', 1), {1, 2}, {'k': 'v'}, key=[True])"
    made = generate_inputs(problem(), [UnitTest(kind="assert", code=f"assert {example} == 1")], 200, seed=1)
    assert len(made.texts) == 200
    rows = [arguments_of(text) for text in made.texts]
    assert {tuple(map(type, row)) for row in rows} == {(int, float, str, list, tuple, set, dict)}
    assert {tuple(map(type, row[4])) for row in rows} == {(str, int)}
    assert all(len({repr(row[i]) for row in rows}) > 1 for i in range(7))
    assert len({text.split("key=")[1] for text in made.texts}) > 1


def test_hidden_tests_are_never_looked_at():
    for public, prompt in ([TESTS["call"]], "-"), ([], "For example, `f([1, 2])` returns `3`."), ([], "def f(a: int): ..."):
        made = generate_inputs(problem(prompt, tests=Forbidden()), public, 8, seed=0)
        assert made.texts
        assert made == generate_inputs(problem(prompt, tests=[UnitTest(kind="assert", code="assert f(1)")]), public, 8, seed=0)


def test_what_is_expected_of_a_public_test_does_not_matter():
    other = dataclasses.replace(TESTS["call"], output="[99999]")
    assert generate_inputs(problem(), [TESTS["call"]], 8, seed=0) == generate_inputs(problem(), [other], 8, seed=0)


def test_without_public_tests_the_prompts_examples_serve():
    made = generate_inputs(problem("Write `f(words)`.\n>>> f(['a', 'b'])\n'ab'\nAlso f(words) of `f(('x',))`."), [], 9, seed=0)
    assert made.origin == "prompt"
    assert made.texts[:2] == ["f(['a', 'b'])", "f(('x',))"]
    assert len(made.texts) == 9
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is f([1, 2])?"}]}]
    assert generate_inputs(problem(messages), [], 2, seed=0).texts[0] == "f([1, 2])"


def test_without_examples_the_types_of_the_signature_serve():
    prompt = (
        "from typing import *\n\nclass Solution:\n    def f(self, a: List[int], b: 'str', c: Optional[float],\n"
        "          d: dict[str, int] | None = None, e: tuple[int, ...] = ()) -> Set[int]:\n"
    )
    made = generate_inputs(problem(prompt, "Solution().f"), [], 10, seed=0)
    assert (made.kind, made.origin, len(made.texts)) == ("expression", "signature", 10)
    for row in map(arguments_of, made.texts):
        assert tuple(map(type, row)) == (list, str, float, dict, tuple)


@pytest.mark.parametrize(
    ("prompt", "entry_point"),
    [
        ("Write f.", "f"),
        ("def f(a, b): ...", "f"),
        ("def f(a: Tree): ...", "f"),
        ("def f(a: list[Tree]): ...", "f"),
        ("?", None),
    ],
)
def test_where_nothing_shows_an_input_there_is_none(prompt, entry_point):
    assert generate_inputs(problem(prompt, entry_point), [], 5, seed=0).texts == []


def test_standard_input_keeps_its_lines_and_its_counts():
    text = "3\n1 5 7\n2 9 4\n8 8 6\nabc\n"
    made = generate_inputs(problem(entry_point=None), [UnitTest(kind="stdio", stdin=text, stdout="1\n")], 40, seed=0)
    assert (made.kind, made.texts[0], len(made.texts)) == ("stdin", text, 40)
    for given in made.texts:
        lines = given.split("\n")
        assert [len(line.split()) for line in lines] == [1, 3, 3, 3, 1, 0]
        assert all(1 <= int(number) <= 10 for line in lines[1:4] for number in line.split())
    two = generate_inputs(problem(entry_point=None), [UnitTest(kind="stdio", stdin="2\n4\n1 2 3 4\n", stdout="")], 20, seed=0)
    assert {tuple(given.split("\n")[:2]) for given in two.texts} == {("2", "4")}  # cases, and the length of the next line


def test_a_contests_statement_shows_its_input():
    prompt = (
        "Add.\n\n-----Input-----\nFirst comes n.\n\n-----Output-----\nA sum.\n\nSample Input 1\n2\n4 5\n\nSample Output 1\n9\n"
    )
    made = generate_inputs(problem(prompt, None), [], 6, seed=0)
    assert (made.kind, made.origin, made.texts[0], len(made.texts)) == ("stdin", "prompt", "2\n4 5\n", 6)


def test_numbers_that_no_expression_holds_are_left_out():
    odd = [UnitTest(kind="call", input=text, output="0") for text in ("[Infinity]", "[NaN]", f"[{'9' * 5000}]")]
    assert generate_inputs(problem(), odd, 4, seed=0).texts == []
    assert len(generate_inputs(problem(), [*odd, TESTS["call"]], 4, seed=0).texts) == 4


def test_the_same_seed_gives_the_same_inputs_in_every_process():
    """Sets stand in another order there."""
    code = "assert f({'a', 'b', 'c', 'd'}, [{'x', 'y', 'z'}]) == 1"
    script = (
        "import json; from trl_rrtf import Problem, UnitTest\n"
        "from trl_rrtf.evaluation.generated_inputs import generate_inputs\n"
        f"made = generate_inputs(Problem(problem_id='p', prompt='-', tests=[], entry_point='f'), "
        f"[UnitTest(kind='assert', code={code!r})], 20, seed=3)\nprint(json.dumps(made.texts))\n"
    )
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
            ).stdout
        )
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 20
    other = generate_inputs(problem(), [UnitTest(kind="assert", code=code)], 20, seed=4).texts
    assert other[0] == found[0][0]
    assert other != found[0]
