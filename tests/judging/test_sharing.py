"""Tests that share objects with the candidate: classes, iterators, callbacks, linked nodes, exceptions, arguments in place."""

from __future__ import annotations

import pytest

from trl_rrtf import Judge, JudgeConfig, Outcome, Problem, UnitTest

NODE = "class Node:\n    def __init__(self, value, next=None):\n        self.value, self.next = value, next\n"
REVERSE = (
    "def f(node):\n    last = None\n    while node:\n        node.next, last, node = last, node, node.next\n    return last\n"
)
REVERSED = """
def check(f):
    node = f(Node(1, Node(2, Node(3))))
    assert (node.value, node.next.value, node.next.next.value) == (3, 2, 1)
    assert node.next.next.next is None
"""

CASES = {
    "class used across calls": (
        """
def check(Stack):
    stack = Stack()
    stack.push(1); stack.push(2)
    assert stack.pop() == 2
    assert len(stack) == 1 and bool(stack)
    assert [x for x in stack] == [1] and 1 in stack and 2 not in stack
    assert stack[0] == 1 and stack.items == [1]
    assert isinstance(stack, Stack) and stack == stack
    with stack as same:
        assert same.pop() == 1
""",
        """
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __getitem__(self, i): return self.items[i]
    def __enter__(self): return self
    def __exit__(self, *_): pass
""",
        {"entry_point": "Stack"},
    ),
    "operators between the candidate's objects": (
        """
def check(V):
    a = V(1, 2) + V(3, 4)
    assert a == V(4, 6) and a != V(0, 0)
    assert str(a) == repr(a) == "V(4, 6)"
    assert max([V(1, 1), V(2, 2)]).x == 2
    assert float(V(3, 0)) == 3.0
""",
        """
class V:
    def __init__(self, x, y): self.x, self.y = x, y
    def __add__(self, o): return V(self.x + o.x, self.y + o.y)
    def __eq__(self, o): return (self.x, self.y) == (o.x, o.y)
    def __gt__(self, o): return self.x > o.x
    def __lt__(self, o): return self.x < o.x
    def __float__(self): return float(self.x)
    def __repr__(self): return f"V({self.x}, {self.y})"
""",
        {"entry_point": "V"},
    ),
    "generator": (
        """
import types
def check(f):
    g = f(4)
    assert isinstance(g, types.GeneratorType)
    assert next(g) == 0 and g.send(5) == 6
    assert list(g) == [1, 2, 3]
    assert sum(f(3)) == 3
""",
        "def f(n):\n    for i in range(n):\n        sent = yield i\n        if sent: yield sent + 1\n",
        {},
    ),
    "iterator": ("def check(f):\n    it = f([1, 2])\n    assert next(it) == 1\n    assert list(it) == [2]\n", "f = iter\n", {}),
    "coroutine": (
        "import asyncio\ndef check(f):\n    assert asyncio.run(f(2)) == 4\n",
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return 2 * x\n",
        {},
    ),
    "nodes of the setup code": (REVERSED, REVERSE, {"setup_code": NODE}),
    "nodes whose class the candidate writes again": (REVERSED, NODE + REVERSE, {"setup_code": NODE}),
    "nodes of the test, in a cycle": (
        "class T:\n    def __init__(self):\n        self.next = None\ndef check(f):\n    a, b = T(), T()\n    a.next, b.next = b, a\n"
        "    assert f(a) is True\n    b.next = None\n    assert f(a) is False\n",
        "def f(node):\n    seen = []\n    while node and node not in seen:\n        seen.append(node); node = node.next\n"
        "    return node is not None\n",
        {},
    ),
    "functions of the test": (
        """
def check(f):
    assert f(lambda x: x + 1, [1, 2]) == [2, 3]
    assert f(str, [1]) == ["1"]
    def bad(x): raise KeyError("k")
    try:
        f(bad, [1])
        assert False
    except KeyError as error:
        assert error.args == ("k",)
""",
        "def f(g, xs):\n    return [g(x) for x in xs]\n",
        {},
    ),
    "iterators of the test": (
        "def check(f):\n    assert f(iter([1, 2])) == 3\n    assert f(x * x for x in range(3)) == 5\n",
        "def f(it):\n    return sum(it)\n",
        {},
    ),
    "a function that the candidate returns": (
        "def check(f):\n    assert f(3)(4) == 7\n    assert sorted([1, 2], key=f(0)) == [1, 2]\n",
        "def f(n):\n    return lambda x: x + n\n",
        {},
    ),
    "the candidate's own exception": (
        "def check(f):\n    try:\n        f(-1)\n        assert False\n    except Negative as error:\n        assert str(error) == 'no'\n"
        "    try:\n        f(-1)\n    except ValueError as error:\n        assert type(error).__name__ == 'Negative'\n",
        "class Negative(ValueError): pass\ndef f(x): raise Negative('no')\n",
        {},
    ),
    "named tuples and enumerations": (
        "def check(f):\n    p, c = f()\n    assert p == (1, 2) and p.x == 1 and p._fields == ('x', 'y') and isinstance(p, tuple)\n"
        "    assert c == 7 and c.name == 'RED'\n",
        "from collections import namedtuple\nfrom enum import IntEnum\nclass C(IntEnum):\n    RED = 7\n"
        "P = namedtuple('P', 'x y')\ndef f(): return P(1, 2), C.RED\n",
        {},
    ),
    "arguments in place": (
        "def check(f):\n    m = [[1, 2], [3, 4]]\n    row = m[0]\n    assert f(m, {'n': []}) is None\n"
        "    assert m == [[1, 3], [2, 4]]\n    assert row == [1, 3]\n    d = {'n': [1]}\n    f(m, d)\n    assert d == {'n': [1, 2]}\n",
        "def f(m, d):\n    m[0][1], m[1][0] = m[1][0], m[0][1]\n    d['n'].append(2)\n",
        {},
    ),
    "a test that accepts two answers": (
        "def check(f):\n    try:\n        assert f() == 1\n    except AssertionError:\n        assert f() == 2\n",
        "def f(): return 2\n",
        {},
    ),
    "unittest assertions": (
        "import unittest\ndef check(f):\n    t = unittest.TestCase()\n    t.assertEqual(f(), 2)\n    with t.assertRaises(TypeError):\n"
        "        f(1)\n",
        "def f(): return 2\n",
        {},
    ),
    "helpers of the prompt": (
        "def check(f):\n    assert decode(f('abc')) == 'abc'\n    assert math.floor(1.5) == 1\n",
        "def decode(s): return 'abc'\ndef f(s): return s[::-1]\n",
        {"prompt": "import math\n\ndef decode(s):\n    return s[::-1]\n\ndef f(s):\n    '''Encodes.'''\n"},
    ),
    "numpy": (
        "def check(f):\n    assert np.array_equal(f([1, 2], 3), np.array([3, 6]))\n    assert (f([1.0], 2) == 2.0).all()\n",
        "import numpy as np\ndef f(xs, k): return np.array(xs) * k\n",
        {},
    ),
    "names of builtins": (
        "def check(f):\n    assert list(map(lambda x: f(x, 1), [1, 2])) == [2, 3]\n    assert sum([f(1, 1)]) == 2\n",
        "sum = lambda a, b: a + b\nlist = [1, 2]\ndef f(a, b): return sum(a, b)\n",
        {},
    ),
    "a function called check": (
        "def check(g):\n    assert g(1) == 2\n",
        "def check(x): return x + 1\n",
        {"entry_point": "check"},
    ),
    "threads": (
        "def check(f):\n    assert f([1, 2]) == [2, 4]\n",
        "from concurrent.futures import ThreadPoolExecutor\ndef f(xs):\n    with ThreadPoolExecutor(4) as e:\n"
        "        return list(e.map(lambda x: 2 * x, xs))\n",
        {},
    ),
    "deep recursion": (
        "def check(f):\n    assert f(30_000) == 30_000\n",
        "import sys\nsys.setrecursionlimit(10 ** 6)\ndef f(n): return n and 1 + f(n - 1)\n",
        {},
    ),
}


@pytest.fixture(scope="module")
def judge():
    with Judge(JudgeConfig(timeout=5, num_workers=1)) as judge:
        yield judge


@pytest.mark.parametrize("name", CASES)
def test_right_programs_pass(judge, name):
    check, program, options = CASES[name]
    options = {"prompt": "Write f.", "entry_point": "f", **options}
    verdict = judge.judge(Problem(problem_id=name, tests=[UnitTest(kind="check", code=check)], **options), program)
    assert (verdict.outcome, verdict.detail) == (Outcome.PASSED, "")


def test_a_helper_that_the_prompt_gives_is_the_prompts(judge):
    """Not what the candidate made of it: here the candidate's would accept anything."""
    check, _, options = CASES["helpers of the prompt"]
    problem = Problem(problem_id="p", tests=[UnitTest(kind="check", code=check)], entry_point="f", **options)
    assert judge.judge(problem, "def decode(s): return 'abc'\ndef f(s): return 'anything'\n").passed == 1


def test_expected_values_are_not_sent_with_arithmetic_or_comparison(judge):
    """A result that records what it meets never sees the 5."""
    program = """
MET = []
class Spy:
    def __getattribute__(self, name):
        MET.append(name)
        return object.__getattribute__(self, name)
    def meet(self, other):
        MET.append(repr(other))
        return True
    __eq__ = __ne__ = __lt__ = __gt__ = __sub__ = __rsub__ = __add__ = __contains__ = meet
def f(): return Spy()
def met(): return MET
"""
    codes = ["assert f() == 5", "assert 5 == f()", "assert abs(f() - 5) < 1", "assert f() in (5, 6)", "assert 5 <= f()"]
    tests = [UnitTest(kind="assert", code=code) for code in [*codes, "assert '5' not in str(met())"]]
    verdict = judge.judge(Problem(problem_id="p", prompt="x", tests=tests, entry_point="f"), program)
    assert (verdict.passed, verdict.total) == (1, 6)
