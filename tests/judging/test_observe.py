"""What a program does on given inputs: values as text that is the same for equal ones, errors, limits, no test in sight."""

from __future__ import annotations

import dataclasses

import pytest

from trl_rrtf import ConfigError, Judge, JudgeConfig, Problem
from trl_rrtf.judging.observation import Observation
from trl_rrtf.judging.preparation import prepare_observation
from trl_rrtf.rows.records import UnitTest

SETUP = """
class Node:
    def __init__(self, value, next=None):
        self.value, self.next = value, next

class Named:
    def __init__(self, name):
        self.name = name
    def __repr__(self):
        return f"<{self.name}>"
"""
PROBLEM = Problem(
    problem_id="p",
    prompt="Write add.",
    entry_point="add",
    setup_code=SETUP,
    tests=[UnitTest(kind="assert", code="assert add(70, 7) == 'hidden-77'")],
)
PROGRAM = """
import collections, os, time
import numpy

Pair = collections.namedtuple("Pair", "a b")
class Plain: pass
class Shown:
    def __init__(self, text="shown"): self.text = text
    def __repr__(self): return self.text
class MyList(list): pass
class Loud:
    def __repr__(self): raise ValueError("no text")
class Endless:
    def __repr__(self):
        while True: pass

def add(a, b): return a + b
def same(value): return value
def made(name): return eval(name)
def chain(count):
    node = None
    for value in range(count): node = Node(value, node)
    return node
def circle():
    node = Node(1); node.next = node; return node
def changed(items): items.append(items[0]); return items
def leave(): os._exit(3)
def forever():
    while True: pass
"""


@pytest.fixture(scope="module")
def judge():
    with Judge(JudgeConfig(timeout=3, num_workers=2)) as judge:
        yield judge


def values(judge, *expressions, program=PROGRAM):
    return [one.value if one.value is not None else f"! {one.error}" for one in judge.observe(PROBLEM, program, expressions)]


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("add(1, 2)", "3"),
        ("add('a', 'b')", "'ab'"),
        ("same((1,))", "(1,)"),
        ("same([1.5, None, True, b'x'])", "[1.5, None, True, b'x']"),
        ("made('{3, 10, 1}')", "{1, 3, 10}"),
        ("made('{\"b\", (1, 2), 3}')", "{'b', (1, 2), 3}"),
        ("made('frozenset({2, 1})')", "{1, 2}"),
        ("made('set()')", "set()"),
        ("made('{10: {2, 1}, 9: 0}')", "{9: 0, 10: {1, 2}}"),
        ("made('collections.Counter(\"aab\")')", "{'a': 2, 'b': 1}"),
        ("made('{2: 1, 1: 1}.keys()')", "dict_keys([1, 2])"),
        ("made('{2: 5, 1: 4}.values()')", "dict_values([5, 4])"),
        ("made('collections.deque([1])')", "deque([1])"),
        ("made('Pair(1, 2)')", "(1, 2)"),
        ("made('MyList([1])')", "[1]"),
        ("made('numpy.arange(3)')", "array([0, 1, 2])"),
        ("made('numpy.float64(1.5)')", "1.5"),
        ("made('Shown()')", "shown"),
        ("[made('Shown()'), {made('Shown()').text}]", "[shown, {'shown'}]"),
        ("made('ValueError(1, \"x\")')", "ValueError(1, 'x')"),
        ("chain(2)", "Node(next=Node(next=None, value=0), value=1)"),
        ("made('Named(\"x\")')", "<x>"),
        ("circle()", "Node(next=..., value=1)"),
        ("made('int')", "<class 'int'>"),
        ("math.floor(add(1, 1.5))", "2"),  # the tests' own names of the standard library
        ("sorted(\n    [add(1, 2), 1]\n)", "[1, 3]"),
        ("(lambda items: [changed(items), items])([1])", "[[1, 1], [1, 1]]"),
        ("made('2 ** 20000')", None),
        ("'x' * 3000", None),
    ],
)
def test_a_value_is_written_the_same_however_it_was_built(judge, expression, text):
    [value] = values(judge, expression)
    if text is None:
        assert 2000 < len(value) < 2100, "cut, with a digest behind it"
    else:
        assert value == text


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("add(1, 'a')", "TypeError: unsupported operand type(s) for +: 'int' and 'str'"),
        ("nothing(1)", "NameError: name 'nothing' is not defined"),
        ("made('Plain()')", "a value of type Plain, which has no text of its own"),
        ("[1, made('Plain()')]", "a value of type Plain, which has no text of its own"),
        ("made('Loud()')", "ValueError: no text"),
        ("add", "a value of type function, which has no text of its own"),
        ("made('(i for i in [1])')", "a value of type generator, which has no text of its own"),
        ("chain(5000)", "a value that is nested too deeply to be shown"),
    ],
)
def test_what_has_no_text_says_why(judge, expression, error):
    assert values(judge, "add(1, 2)", expression, "add(2, 2)") == ["3", f"! {error}", "4"]


def test_equal_values_have_equal_texts_and_others_do_not(judge):
    """Also where the text is cut: the digest is of the whole."""
    one, other, third = values(judge, "list(range(5000))", "made('[*range(5000)]')", "[*range(4999), 0]")
    assert one == other
    assert one != third
    assert one[:2000] == third[:2000]
    first, second = values(judge, "made('set(map(str, range(2000)))')", "set(map(str, range(1999, -1, -1)))")
    assert first == second


def test_a_lost_process_costs_one_observation_and_three_limits_end_the_rest():
    with Judge(JudgeConfig(timeout=0.5, num_workers=1)) as judge:
        expressions = [
            "add(1, 2)",
            "leave()",
            "add(2, 2)",
            "forever()",
            "add(3, 2)",
            "[made('Endless()')]",
            "forever()",
            "add(1, 2)",
            "1",
        ]
        assert values(judge, *expressions) == [
            "3",
            "! the program ended early (exit status 3)",
            "4",
            "! time limit of 0.5 s",
            "5",
            "! time limit of 0.5 s",
            "! time limit of 0.5 s",
            *["! not run: 3 before it came to a limit of time or memory"] * 2,
        ]


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("def add(", "SyntaxError"),
        ("raise ValueError('at the top')", "ValueError: at the top"),
        ("import os; os._exit(1)", "exit"),
    ],
)
def test_a_program_that_does_not_load_gives_its_reason_for_each_input(judge, program, error):
    observations = judge.observe(PROBLEM, program, ["add(1, 2)", "1"])
    assert [one.value for one in observations] == [None, None]
    assert all(error in one.error for one in observations)


def test_the_output_of_a_whole_program_is_written_as_outputs_are_compared(judge):
    program = "import sys\ntext = sys.stdin.read()\nprint(int(text) * 2, ' ')\nprint()\n"
    good, bad = judge.observe(PROBLEM, program, ["4\n", "x"], kind="stdin")
    assert good == Observation("8")
    assert bad.value is None
    assert bad.error.startswith("ValueError: invalid literal")


def test_many_programs_are_observed_in_order_and_side_by_side(judge):
    programs = [f"def add(a, b):\n    return a + b + {i}\n" for i in range(40)]
    observed = list(judge.observe_many((PROBLEM, program, ["add(0, 0)", "add(1, 1)"]) for program in programs))
    assert [[one.value for one in both] for both in observed] == [[str(i), str(i + 2)] for i in range(40)]
    assert list(judge.observe_many([])) == []
    assert judge.observe(PROBLEM, PROGRAM, []) == []


def test_no_test_of_the_problem_is_where_a_program_is_observed(judge):
    prepared = prepare_observation(PROBLEM, ["add(1, 2)"], "expression")
    assert "hidden-77" not in repr(prepared)
    without_tests = dataclasses.replace(PROBLEM, tests=[])
    assert judge.observe(without_tests, PROGRAM, ["add(1, 2)"]) == [Observation("3")]


def test_a_wrong_question_is_refused_by_name(judge):
    for expression in ("x = 1", "add(", "1; 2", "", ")("):
        with pytest.raises(ConfigError, match=r"`inputs`: expected Python expressions"):
            judge.observe(PROBLEM, PROGRAM, [expression])
    with pytest.raises(ConfigError, match=r"`kind`: expected one of expression, stdin, got 'call'"):
        judge.observe_many([], kind="call")


def test_a_second_run_finds_what_changes():
    with Judge(JudgeConfig(timeout=2, num_workers=1, second_run=True)) as judge:
        program = "import time\ndef add(a, b): return a + b if b else time.time_ns()\n"
        steady, changing = judge.observe(PROBLEM, program, ["add(1, 2)", "add(1, 0)"])
    assert steady == Observation("3")
    assert changing == Observation(None, "flaky: another run gave something else")


def test_a_problem_whose_own_code_fails_says_nothing_about_the_program(judge):
    broken = dataclasses.replace(PROBLEM, setup_code="1 / 0")
    [observation] = judge.observe(broken, PROGRAM, ["add(1, 2)"])
    assert observation.is_infrastructure
    assert "the problem's own code failed" in observation.error


def test_a_closed_judge_observes_nothing():
    judge = Judge(JudgeConfig(num_workers=1))
    judge.close()
    [observation] = judge.observe(PROBLEM, PROGRAM, ["add(1, 2)"])
    assert observation.is_infrastructure


def test_a_hostile_program_sees_no_test_and_its_texts_stay_bounded(judge):
    """It may write what it likes into its own text, and nothing else."""
    program = """
import gc, sys
class Any:
    def __repr__(self): return "x" * 10**6
def add(a, b):
    if b == 0: return Any()
    if b == 1: raise ValueError("y" * 3000)
    if b == 2: return [[i] * 1000 for i in range(2000)]
    if b == 3: return chr(0xd800)
    found = [thing for thing in gc.get_objects() if isinstance(thing, str) and "hidden-" + "77" in thing]
    return found
"""
    observations = judge.observe(PROBLEM, program, [f"add(0, {i})" for i in range(5)])
    assert all(len(one.value or "") < 2200 and len(one.error) < 500 for one in observations)
    assert observations[1].error.startswith("ValueError: yyy")
    assert observations[2].error.startswith("a value of more than") or observations[2].value
    assert observations[3].value == r"'\ud800'"
    assert observations[4].value == "[]"


@pytest.mark.parametrize(
    ("program", "inputs", "message"),
    [
        (PROGRAM, [1], r"`inputs\[0\]` for problem 'p': expected text, got int 1"),
        (PROGRAM, "add(1, 2)", "`inputs` for problem 'p': expected a list of texts, got str 'add"),
        (None, ["add(1, 2)"], "`program`: expected the text of a Python program, got nothing"),
    ],
)
@pytest.mark.parametrize("kind", ["expression", "stdin"])
def test_arguments_of_a_wrong_type_are_named(judge, program, inputs, message, kind):
    with pytest.raises(ConfigError, match=message):
        judge.observe(PROBLEM, program, inputs, kind)


def test_a_program_that_is_no_text_is_named(judge):
    with pytest.raises(ConfigError, match="`program`: expected the text of a Python program, got nothing"):
        judge.judge(PROBLEM, None)
