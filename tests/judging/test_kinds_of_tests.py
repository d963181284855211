"""Tests in every style that people write them, outputs and results as graders compare them, and tests that judge nothing."""

from __future__ import annotations

import json

import pytest

from trl_rrtf import ConfigError, Judge, JudgeConfig, Outcome, Problem, UnitTest, run_judge
from trl_rrtf.judging.config import JudgeArguments


@pytest.fixture(scope="module")
def judge():
    with Judge(JudgeConfig(timeout=3, num_workers=1)) as judge:
        yield judge


def problem(*tests, **options):
    return Problem(problem_id="p/1", prompt="-", tests=list(tests), **{"entry_point": "f", **options})


def code(text, kind="assert"):
    return UnitTest(kind=kind, code=text)


def outcome(judge, tests, program, **options):
    verdict = judge.judge(problem(*tests, **options), program)
    return verdict.outcome, verdict.passed, verdict.total


RIGHT, WRONG = "def f(x):\n    if x < 0:\n        raise ValueError(x)\n    return x + 1\n", "def f(x):\n    return 5\n"
UNITTEST = """
import unittest
class TestF(unittest.TestCase):
    def setUp(self):
        self.x = 1
    def test_add(self):
        self.assertEqual(f(self.x), 2)
        self.assertNotEqual(f(2), 5)
    def test_raises(self):
        with self.assertRaises(ValueError):
            f(-1)
        self.assertRaises(ValueError, f, -2)
    def test_many(self):
        for x in range(3):
            with self.subTest(x=x):
                self.assertEqual(f(x), x + 1)
class Helper:
    pass
if __name__ == '__main__':
    unittest.main()
"""
PYTEST = """
import pytest
def test_add():
    assert f(1) == 2
def test_raises():
    with pytest.raises(ValueError):
        f(-1)
class TestMore:
    def setup_method(self):
        self.x = 3
    def test_three(self):
        assert f(self.x) == 4
async def test_later():
    assert f(5) == 6
"""
# Style -> test code, assertions that hold for RIGHT.
STYLES = {
    "comparisons that stand alone": ("f(1) == 2\nf(2) == 3", 2),
    "unittest": (UNITTEST, 7),
    "pytest": (PYTEST, 4),
    "an exception that must come": ("try:\n    f(-1)\n    assert False\nexcept ValueError:\n    pass", 1),
    "the same with fail": (
        "import unittest\nt = unittest.TestCase()\ntry:\n    f(-1)\n    t.fail('no')\nexcept ValueError:\n    pass\nassert f(0) == 1",
        2,
    ),
    "a helper that asserts": ("def same(a, b):\n    assert a == b\nsame(f(1), 2)\nsame(f(2), 3)", 2),
    "a guard around the call": (
        "def test_a():\n    assert f(1) == 2\nif __name__ == '__main__':\n    test_a()\n    assert f(2) == 3",
        2,
    ),
    "a test class that names itself": (
        "import unittest\nclass TestF(unittest.TestCase):\n    N = 1\n    def setUp(self):\n        super(TestF, self).setUp()\n"
        "    def test_one(self):\n        self.assertEqual(f(TestF.N), 2)\nunittest.main()",
        1,
    ),
    "tests that are inherited": (
        "import unittest\nclass TestBase(unittest.TestCase):\n    x = 1\n    def test_one(self):\n        self.assertEqual(f(self.x), self.x + 1)\n"
        "class More(TestBase):\n    x = 2\n",
        2,
    ),
    "a class with setup_class": (
        "class TestF:\n    @classmethod\n    def setup_class(cls):\n        cls.x = 1\n    def test_one(self):\n        assert f(self.x) == 2\n",
        1,
    ),
    "an own method that asserts": (
        "import unittest\nclass TestF(unittest.TestCase):\n    def assertNext(self, x):\n        self.assertEqual(f(x), x + 1)\n"
        "    def test_one(self):\n        self.assertNext(1)\n        self.assertNext(2)\n",
        2,
    ),
    "functions without assertions": (
        "def test_a():\n    if f(1) != 2: raise Exception\ndef test_b():\n    if f(2) != 3: raise Exception\n",
        2,
    ),
    "a helper that raises": ("def same(a, b):\n    if a != b: raise Exception(a)\nsame(f(1), 2)", 1),
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_run_as_it_is_meant(judge, style):
    text, held = STYLES[style]
    assert outcome(judge, [code(text)], RIGHT) == (Outcome.PASSED, held, held)
    assert outcome(judge, [code(text)], WRONG)[0] in (Outcome.FAILED, Outcome.PARTIAL, Outcome.RUNTIME_ERROR)


VACUOUS = {
    "no assertion and no call": (code("x = 1"), "it asserts nothing and calls nothing"),
    "a helper that nobody calls": (code("def helper():\n    assert f(1) == 2"), "it asserts nothing and calls nothing"),
    "check without a function of that name": (code("assert candidate(1) == 1", "check"), "it defines no function `check`"),
    "fixtures": (code("def test_f(tmp_path):\n    assert f(1) == 2"), "`test_f` needs fixtures or parameters of pytest"),
}


@pytest.mark.parametrize("name", VACUOUS)
def test_tests_that_judge_nothing_are_refused(judge, name):
    test, message = VACUOUS[name]
    with pytest.raises(ConfigError, match=f"`tests` of problem 'p/1'.*{message}"):
        judge.judge(problem(test), RIGHT)


def test_a_wrong_program_holds_nothing_of_a_helper_that_asserts(judge):
    for text in ("def assert_same(a, b):\n    assert a == b\nassert_same(f(1), 2)", STYLES["functions without assertions"][0]):
        assert outcome(judge, [code(text)], "def f(x):\n    return 77\n")[1] == 0


def test_assertions_that_a_branch_leaves_out_do_not_count(judge):
    text = "x = f(1)\nif x > 0:\n    assert x == 2\nelse:\n    assert x == -2"
    assert outcome(judge, [code(text)], RIGHT) == (Outcome.PASSED, 1, 1)
    with Judge(JudgeConfig(num_workers=1, stop_at_first_failure=True)) as strict:
        assert outcome(strict, [code(text)], RIGHT) == (Outcome.PASSED, 1, 1)
        assert outcome(strict, [code(UNITTEST)], "def f(x):\n    return 77\n")[0] is Outcome.FAILED


def test_a_test_that_cannot_be_run_is_named_by_file_and_line(tmp_path):
    good = {"kind": "assert", "code": "assert f(1) == 2"}
    rows = [
        {
            "problem_id": f"p/{i}",
            "prompt": "-",
            "entry_point": "f",
            "tests": [good],
            "completions": [RIGHT],
            "sources": ["student"],
            "models": ["m"],
        }
        for i in range(3)
    ]
    rows[2]["tests"] = [{**good, "code": "assert f(1) = 2"}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match=r"c\.jsonl, line 3: `tests` of problem 'p/2'.* invalid syntax"):
        run_judge(JudgeArguments(str(tmp_path / "c.jsonl"), str(tmp_path / "j.jsonl")), JudgeConfig())
    assert not (tmp_path / "j.jsonl.partial").exists()


# What a program prints, what is expected, whether it is the same within the default tolerance, and exactly.
OUTPUTS = [
    ("0.5\n", "0.50\n", True, False),
    ("0.3333333\n", "0.333333333333\n", True, False),
    ("1\n\n2\n", "1\n2", True, False),
    ("1 2\n", "1\n2\n", True, False),
    ("1  \n2\n\n", "1\n2", True, True),
    ("3.0", "3", True, False),
    ("1e3", "1000.0", True, False),
    ("-0.0", "0.0", True, False),
    ("nan", "NaN", True, False),
    ("0.34", "0.33", False, False),
    ("10000001", "10000000", False, False),
    ("1_0", "10", False, False),
    ("1 2 3", "1 2", False, False),
    ("yes", "YES", False, False),
    ("", "1", False, False),
]


@pytest.mark.parametrize(("printed", "expected", "close", "exact"), OUTPUTS)
def test_outputs_are_compared_as_published_graders_do(judge, printed, expected, close, exact):
    one = problem(UnitTest(kind="stdio", stdin="", stdout=expected), entry_point=None)
    program = f"import sys\nsys.stdout.write({printed!r})\n"
    assert (judge.judge(one, program).outcome is Outcome.PASSED) == close
    with Judge(JudgeConfig(num_workers=1, number_tolerance=0)) as strict:
        assert (strict.judge(one, program).outcome is Outcome.PASSED) == exact


RESULTS = [
    ("0.1 + 0.2", "0.3", True),
    ("[1, (0.1 + 0.2, {'a': 1 / 3})]", '[1, [0.3, {"a": 0.333333333}]]', True),
    ("2.0", "2", True),
    ("{1: 'a', None: 'b', True: 'c'}", '{"1": "c", "null": "b"}', True),
    ("(1, 2)", "[1, 2]", True),
    ("[0.1]", "[0.2]", False),
    ("[1, 2]", "[1]", False),
    ("{'a': 1}", '{"b": 1}', False),
    ("'1'", "1", False),
    ("10 ** 5000", "1" + 5000 * "0", True),
    ("10 ** 5000 + 1", "1" + 5000 * "0", False),
]


@pytest.mark.parametrize(("result", "expected", "same"), RESULTS)
def test_results_of_calls_are_compared_as_json(judge, result, expected, same):
    one = problem(UnitTest(kind="call", input="[]", output=expected))
    assert (judge.judge(one, f"def f():\n    return {result}\n").outcome is Outcome.PASSED) == same


def test_each_call_has_the_whole_time():
    tests = [UnitTest(kind="call", input=f"[{x}]", output=str(x + 1)) for x in range(5)]
    slow = "import time\ndef f(x):\n    time.sleep(0.4)\n    return x + 1\n"
    endless = "def f(x):\n    while x == 2: pass\n    return x + 1\n"
    with Judge(JudgeConfig(timeout=1, num_workers=1)) as judge:
        assert outcome(judge, tests, slow) == (Outcome.PASSED, 5, 5)
        assert outcome(judge, tests, endless) == (Outcome.PARTIAL, 2, 5)


def test_a_method_of_solution_is_the_entry_point(judge):
    program = "class Solution:\n    def twoSum(self, nums, target):\n        return [nums.index(target - 7), 1]\n"
    tests = [
        code("assert twoSum(nums=[2, 7], target=9) == [0, 1]"),
        UnitTest(kind="call", input="[[2, 7], 9]", output="[0, 1]"),
    ]
    tests.append(code("def check(candidate):\n    assert candidate(nums=[2, 7], target=9) == [0, 1]\n", "check"))
    for name in ("twoSum", "Solution().twoSum"):
        assert outcome(judge, tests, program, entry_point=name) == (Outcome.PASSED, 3, 3)
    assert outcome(judge, [code("assert Solution().twoSum([2, 7], 9) == [0, 1]")], program, entry_point="twoSum")[1] == 1


def test_programs_end_as_python_ends_them(judge):
    test = UnitTest(kind="stdio", stdin="1 2\n", stdout="3\n")
    programs = [
        "import threading, time\ndef main():\n    a, b = map(int, input().split())\n    time.sleep(0.05)\n    print(a + b)\n"
        "threading.Thread(target=main).start()\n",
        "import atexit\na, b = map(int, input().split())\natexit.register(lambda: print(a + b))\n",
        "import sys, io\nreal = sys.stdout\nsys.stdout = io.StringIO()\nprint(sum(map(int, input().split())))\n"
        "real.write(sys.stdout.getvalue())\n",
        "print(sum(map(int, open('/dev/stdin').read().split())))\n",
        "import os\nprint(sum(map(int, os.read(0, 100).split())))\nimport sys\nsys.exit(0)\n",
        "import os, sys\nprint(sum(map(int, sys.stdin.buffer.read().split())), flush=True)\nos._exit(0)\n",
    ]
    for program in programs:
        assert outcome(judge, [test], program, entry_point=None) == (Outcome.PASSED, 1, 1), program


def test_input_may_be_larger_than_what_a_program_may_write(judge):
    numbers = "\n".join(map(str, range(600_000)))
    test = UnitTest(kind="stdio", stdin=f"{numbers}\n", stdout=f"{sum(range(600_000))}\n")
    assert len(numbers) > 3 * JudgeConfig().max_output_bytes
    program = "import sys\nprint(sum(map(int, sys.stdin)))\n"
    assert outcome(judge, [test], program, entry_point=None) == (Outcome.PASSED, 1, 1)
