"""What a model may be shown of a failure: the first public test that fails, what was expected and got, and nothing hidden."""

from __future__ import annotations

import pytest

from trl_rrtf import ConfigError, Judge, JudgeConfig, Outcome, Problem, RowError, UnitTest
from trl_rrtf.judging.failures import LONGEST_SHOWN, Failure, first_failure, first_failures
from trl_rrtf.rows.public_tests import public_tests

WRONG = "def add(a, b):\n    return a - b\n"
RIGHT = "def add(a, b):\n    return a + b\n"
SLOW = "def add(a, b):\n    while a: pass\n    return b\n"
HIDDEN = UnitTest(kind="assert", code="assert add(7000, 70) == 7070")


def code(text, kind="assert"):
    return UnitTest(kind=kind, code=text)


def call(arguments, result):
    return UnitTest(kind="call", input=arguments, output=result)


def stdio(stdin, stdout):
    return UnitTest(kind="stdio", stdin=stdin, stdout=stdout)


def problem(entry_point="add", **options):
    return Problem(problem_id="p", prompt="Write add.", entry_point=entry_point, **{"tests": [HIDDEN], **options})


@pytest.fixture(scope="module")
def judge():
    with Judge(JudgeConfig(timeout=3, num_workers=2)) as judge:
        yield judge


CHECK = "def check(candidate):\n    assert candidate(1, 0) == 1\n    assert candidate(1, 2) == 3, 'no'\n"
LEETCODE = (
    "def check(candidate):\n    assert candidate(a=1, b=2) == 3\n\n_check_method = check\n\n"
    "def check(candidate):\n    _check_method(candidate().add)\n"
)


@pytest.mark.parametrize(
    ("program", "test", "text"),
    [
        (WRONG, code("assert add(1, 2) == 3"), "assert add(1, 2) == 3\nExpected: 3\nGot: -1"),
        (WRONG, code("assert 3 == add(1, 2), 'words'"), "assert 3 == add(1, 2), 'words'\nExpected: 3\nGot: -1"),
        (WRONG, code("add(1, 2) == 3"), "fails: add(1, 2) == 3\nExpected: 3\nGot: -1"),
        (
            WRONG,
            code("assert add(1, 0) == 1\nassert add(1, 2) == 3\nassert add(1,\n 3) == 4"),
            "assert add(1, 2) == 3\nExpected: 3\nGot: -1",
        ),
        (WRONG, code("x = 2\nassert add(1, x) == 3"), "x = 2\nassert add(1, x) == 3\nWhere: x = 2\nExpected: 3\nGot: -1"),
        (WRONG, code("assert abs(add(1, 2) - 3) < 1e-6"), "assert abs(add(1, 2) - 3) < 1e-6\nExpected: < 1e-06\nGot: 4"),
        (WRONG, code("assert add(1, 2) in (2, 3)"), "assert add(1, 2) in (2, 3)\nExpected: in (2, 3)\nGot: -1"),
        (WRONG, code("assert not add(1, 0)"), "assert not add(1, 0)\nExpected: a false value\nGot: 1"),
        (WRONG, code("assert math.isclose(add(1, 2), 3)"), "Expected: a true value\nGot: False"),
        (WRONG, code("for i in range(3):\n    assert add(i, i) == 2 * i"), "for i in range(3):\n    assert add(i, i) == 2 * i"),
        (WRONG, code("def test_add():\n    assert add(1, 2) == 3"), "assert add(1, 2) == 3\nExpected: 3\nGot: -1"),
        (
            WRONG,
            code("class TestAdd(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(add(1, 2), 3)"),
            "self.assertEqual(add(1, 2), 3)\nExpected: 3\nGot: -1",
        ),
        (WRONG, code(CHECK, "check"), "assert add(1, 2) == 3, 'no'\nExpected: 3\nGot: -1"),
        (WRONG, call("[1, 2]", "3"), "This test fails: add(1, 2)\nExpected: 3\nGot: -1"),
        (
            WRONG,
            call('[1, {"a": null}]', "[true, NaN]"),
            "add(1, {'a': None})\nExpected: [True, float('nan')]\nError: TypeError",
        ),
        ("def add(a, b):\n    return {a, b}\n", code("assert add(3, 10) == 1"), "Expected: 1\nGot: {3, 10}"),
        (
            "def add(a, b):\n    return 1 / 0\n",
            code("assert add(1, 2) == 3"),
            "Expected: 3\nError: ZeroDivisionError: division by",
        ),
        ("x = 1\n", code("assert add(1, 2) == 3"), "Error: NameError: name 'add' is not defined"),
        (
            "def add(\n",
            code("assert add(1, 2) == 3"),
            "The program does not compile: SyntaxError: '(' was never closed, line 1 of the program",
        ),
        ("1 / 0\n", code("assert add(1, 2) == 3"), "It fails: ZeroDivisionError: division by zero, line 1 of the program"),
        ("import os; os._exit(0)\n", code("assert add(1, 2) == 3"), "It fails: the program ended early (exit status 0)"),
        (
            "raise AssertionError('mine')\n",
            code("assert add(1, 2) == 3"),
            "It fails: AssertionError: mine, line 1 of the program",
        ),
        (
            "def add(a, b):\n    assert a > b, 'mine'\n",
            code("assert add(1, 2) == 3"),
            "Expected: 3\nError: AssertionError: mine, line 2 of the program",
        ),
    ],
)
def test_the_failing_test_is_told(judge, program, test, text):
    failure = first_failure(judge, problem(), program, [test])
    assert text in failure.text()
    assert "7070" not in failure.text()


GROWS = "def add(a, b, seen=[]):\n    seen.append(a)\n    return seen\n"
REMEMBERS = "memo = {}\ndef add(a, b):\n    return memo.setdefault(0, a + b)\n"
COUNTS = "count = 0\ndef add(a, b):\n    global count\n    count += 1\n    return count\n"


@pytest.mark.parametrize(
    ("program", "tests", "shown"),
    [
        (GROWS, [code("assert add(1, 0) == [1]"), code("assert add(2, 0) == [2]")], ("[2]", "[1, 2]")),
        (GROWS, [code("assert add(1, 0) == [1]\nassert add(2, 0) == [2]")], ("[2]", "[1, 2]")),
        (GROWS, [call("[1, 0]", "[1]"), call("[2, 0]", "[2]")], ("[2]", "[1, 2]")),
        (
            GROWS,
            [code("def check(candidate):\n    assert candidate(1, 0) == [1]\n    assert candidate(2, 0) == [2]", "check")],
            ("[2]", "[1, 2]"),
        ),
        (REMEMBERS, [code("assert add(1, 0) == 1"), code("assert add(2, 0) == 2")], ("2", "1")),
        (COUNTS, [code("assert add(0, 0) == 1"), code("assert add(0, 0) == 1")], ("1", "2")),
        (COUNTS, [code("for i in range(5):\n    assert add(i, 0) == min(i + 1, 3)")], ("3", "4")),
    ],
)
def test_the_value_is_the_one_that_the_test_saw_and_not_that_of_a_fresh_process(judge, program, tests, shown):
    failure = first_failure(judge, problem(), program, tests)
    assert (failure.expected, failure.got) == shown


@pytest.mark.parametrize(
    ("program", "test", "texts"),
    [
        ("def add(a, b):\n    yield a\n", "assert add(1, 2) == [1]", ["Got: a value of type generator, which has no text"]),
        ("class Q: pass\ndef add(a, b): return Q()\n", "assert add(1, 2) == 3", ["Got: a value of type Q, which has no text"]),
        (
            "class Q: pass\ndef add(a, b): return [Q()]\n",
            "assert add(1, 2) == 3",
            ["Got: a value of type list, and in it a value of type Q, which has no text of its own"],
        ),
        (
            "class Q:\n    def __repr__(self): raise SystemExit\ndef add(a, b): return Q()\n",
            "assert add(1, 2) == 3",
            ["Got: a value of type Q, whose text raises SystemExit"],
        ),
        (WRONG, "x = 2\ny = 1\nassert add(1, x) == x + y", ["Where: x = 2, y = 1\nExpected: 3\nGot: -1"]),
        (WRONG, "for i in range(3):\n    assert add(i, i) == 2 * i", ["Where: i = 1\nExpected: 2\nGot: 0"]),
        (WRONG, "x = 2\nassert 1 / 0 == add(1, x)", ["Where: x = 2\nError: ZeroDivisionError"]),
        (WRONG, "assert add(1, 2) == add(5, 2)", ["Expected: 3\nGot: -1"]),
        (WRONG, "x = add(1, 2)\nassert x == 3", ["Expected: 3\nGot: -1"]),
        (
            WRONG,
            "xs = [1, 2]\nassert sorted(xs, key=lambda x: add(x, 0)) == xs[::-1]",
            ["Where: xs = [1, 2]\nExpected: [2, 1]"],
        ),
        (
            WRONG,
            "try:\n    add(1, 2)\n    assert False\nexcept ValueError:\n    pass",
            ["This test fails:\ntry:\n    add(1, 2)\n    assert False\nexcept ValueError:\n    pass"],
        ),
        (WRONG, "assert add(1, 0) == 1; assert add(1, 2) == 3", ["assert add(1, 0) == 1; assert add(1, 2) == 3"]),
    ],
)
def test_what_a_test_compares_is_told_as_well_as_it_can_be(judge, program, test, texts):
    shown = first_failure(judge, problem(), program, [code(test)]).text()
    assert [text for text in texts if text not in shown] == [], shown


def test_the_variables_of_a_failure_are_bounded(judge):
    names = "\n".join(f"x{i} = {i}" for i in range(9))
    failure = first_failure(
        judge, problem(), WRONG, [code(f"{names}\nlong = 'z' * 500\nassert add(x1 + x2 + x3, x4 + x5 + x6 + len(long)) == 3")]
    )
    assert failure.variables == "x1 = 1, x2 = 2, x3 = 3, x4 = 4, x5 = 5"


def test_a_limit_of_time_in_a_loop_tells_the_variables():
    with Judge(JudgeConfig(timeout=0.5, num_workers=1)) as judge:
        failure = first_failure(judge, problem(), SLOW, [code("for i in range(3):\n    assert add(i, i) == 2 * i")])
    assert (failure.variables, failure.got, failure.error) == ("i = 1", None, "time limit of 0.5 s")


def test_the_values_change_no_verdict(judge):
    """An argument that the program empties reaches the test when its statement has ended, whether values are told or not."""
    program = "def add(a, b):\n    a.clear()\n    return []\n"
    test = code("a = [1]\nassert add(a, 0) == [1]\nassert a == [1]\nassert add([], 0) == [] and a == []")
    failure = first_failure(judge, problem(), program, [test])
    verdict = judge.judge(problem(tests=[test]), program)
    assert failure.variables == "a = [1]", "as it was when the assertion compared"
    assert (failure.verdict.outcome, failure.verdict.passed, failure.verdict.total) == (Outcome.PARTIAL, 1, 3)
    assert (verdict.outcome, verdict.passed, verdict.total) == (Outcome.PARTIAL, 1, 3)


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("print(int(input()) * 3)", "For this standard input, the program fails:\n2\nExpected output:\n4\nGot:\n6"),
        ("print(1 / 0)", "2\nExpected output:\n4\nError:\nZeroDivisionError: division by zero, line 1 of the program"),
        ("print(", "The program does not compile: SyntaxError: '(' was never closed, line 1 of the program"),
    ],
)
def test_the_failing_run_of_a_whole_program_is_told(judge, program, text):
    failure = first_failure(judge, problem(None), program, [stdio("1\n", "3\n"), stdio("2\n", "4\n")][-1:])
    assert text in failure.text()


def test_a_leetcode_check_names_the_method_that_it_calls(judge):
    program = "class Solution:\n    def add(self, a, b):\n        return a * b\n"
    failure = first_failure(judge, problem("Solution"), program, [code(LEETCODE, "check")])
    assert (failure.test, failure.expected, failure.got) == ("assert Solution().add(a=1, b=2) == 3", "3", "2")


def test_the_first_failing_test_is_told_and_not_a_later_one(judge):
    """Also where a later one raises: of two, the verdict's detail names the exception."""
    raises_later = "def add(a, b):\n    return 1 / 0 if b == 2 else 9\n"
    tests = [code("assert add(1, 1) == 9"), code("assert add(1, 0) == 1"), code("assert add(1, 2) == 3")]
    failure = first_failure(judge, problem(), raises_later, tests)
    assert (failure.test, failure.expected, failure.got, failure.error) == ("assert add(1, 0) == 1", "1", "9", "")
    mixed = [stdio("", "x"), call("[1, 1]", "9"), call("[1, 0]", "1")]
    assert first_failure(judge, problem(), raises_later, mixed).test == "add(1, 0)"
    in_one = code("def check(candidate):\n    assert candidate(1, 0) == 1\n    assert candidate(1, 2) == 3\n", "check")
    assert first_failure(judge, problem(), raises_later, [in_one]).error == ""


def test_a_limit_of_time_is_told_with_its_call():
    with Judge(JudgeConfig(timeout=0.5, num_workers=1)) as judge:
        for tests in (
            [code("assert add(0, 1) == 1"), code("assert add(1, 1) == 2")],
            [call("[0, 1]", "1"), call("[1, 1]", "2")],
            [code("assert add(0, 1) == 1\nx = add(1, 1)\nassert x == 2")],
        ):
            failure = first_failure(judge, problem(), SLOW, tests)
            assert "add(1, 1)" in failure.test
            assert failure.error == "time limit of 0.5 s"


def test_a_program_that_passes_the_public_tests_has_no_failure_whatever_the_hidden_ones_say(judge):
    assert first_failure(judge, problem(), WRONG, [code("assert add(1, 0) == 1")]) is None
    assert judge.judge(problem(), WRONG).outcome is Outcome.FAILED


def test_many_programs_are_told_in_order(judge):
    tests = [code("assert add(1, 2) == 3")]
    programs = [WRONG, RIGHT, "def add(a, b):\n    return 5\n", "def add(", RIGHT] * 4
    failures = first_failures(judge, ((problem(), program, tests) for program in programs))
    assert [failure and failure.got for failure in failures] == ["-1", None, "5", None, None] * 4
    assert [failure is None for failure in failures] == [False, True, False, False, True] * 4


def test_what_a_program_writes_is_cut_to_a_stated_length(judge):
    loud = "def add(a, b):\n    return 'x' * 10**6 if b else (_ for _ in ()).throw(ValueError('y' * 4000))\n"
    text = first_failure(judge, problem(), loud, [code("assert add(1, 2) == 3")]).text()
    assert len(text) < 2 * LONGEST_SHOWN
    assert "... (cut, " in text
    assert len(first_failure(judge, problem(), loud, [code("assert add(1, 0) == 3")]).text()) < 2 * LONGEST_SHOWN
    long = stdio("1\n" * 5000, "2\n" * 5000)
    text = first_failure(judge, problem(None), "print('z' * 900_000)", [long]).text()
    assert len(text) < 4 * LONGEST_SHOWN
    assert "... (cut, 9999 characters in all)" in text


def test_no_tests_at_all_is_an_error_and_no_pass(judge):
    with pytest.raises(ConfigError, match="the list is empty"):
        first_failure(judge, problem(), RIGHT, [])


def test_a_judge_that_could_not_judge_blames_nobody(judge):
    failure = first_failure(judge, problem(setup_code="1 / 0"), RIGHT, [code("assert add(1, 2) == 3")])
    assert isinstance(failure, Failure)
    assert failure.verdict.outcome is Outcome.INFRASTRUCTURE
    assert failure.text() == "The tests could not be run; that says nothing about the program."


def test_which_tests_are_public():
    tests = [code(f"assert add({i}, 0) == {i}") for i in range(3)]

    def of(default=None, **extra):
        return public_tests(problem(tests=tests, extra=extra), default)

    assert of() == []
    assert of(2) == tests[:2]
    assert of(9) == tests
    assert of(2, public_tests=1) == tests[:1]
    assert of(2, public_tests=0) == []
    assert of(2, public_tests=None) == tests[:2]
    for value, message in (
        (4, "says that 4 tests are public, and the problem has 3"),
        (-1, "expected a whole number of tests, 0 or more, got int -1"),
        (True, "got bool True"),
        (1.5, "got float 1.5"),
        (["assert add(1, 2) == 3"], "put the public tests first in `tests` and write their number here"),
        ({"input": [], "output": []}, "put the public tests first in `tests`"),
    ):
        with pytest.raises(RowError, match=message) as raised:
            of(public_tests=value)
        assert raised.value.column == "public_tests"
