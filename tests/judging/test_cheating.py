"""Programs that compute nothing, and objects that would talk their way through an assertion."""

from __future__ import annotations

import pytest

from trl_rrtf import Judge, JudgeConfig, Outcome, Problem, UnitTest


@pytest.fixture(scope="module")
def judge():
    with Judge(JudgeConfig(timeout=3, num_workers=1)) as judge:
        yield judge


def problem(*codes, kind="assert", **options):
    tests = [UnitTest(kind=kind, code=code) for code in codes]
    return Problem(problem_id="p", prompt="-", tests=tests, **{"entry_point": "f", **options})


ALWAYS_EQUAL = "class X:\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(*a): return X()\n"
NEAR = (
    "class Near:\n    def __init__(self, v, tol=1e-6): self.v, self.tol = v, tol\n"
    "    def __eq__(self, o): return abs(self.v - getattr(o, 'v', o)) <= max(self.tol, getattr(o, 'tol', 0))\n"
)
CASES = {
    "arguments emptied before they are compared": (
        "def f(xs):\n    xs.clear()\n    return []\n",
        [
            "xs = [3, 1]\nassert f(xs) == sorted(xs)",
            "xs = [3, 1]\nassert sorted(f(xs)) == sorted(xs)",
            "xs = [2]\nassert f(xs=xs) == xs * 2",
        ],
    ),
    "arguments emptied in a loop": (
        "def f(xs):\n    xs.clear()\n    return []\n",
        ["assert all(f(xs) == sorted(xs) for xs in ([2, 1], [3, 2]))", "for xs in [[2, 1]]:\n    assert f(xs) == sorted(xs)"],
    ),
    "equal to everything": (
        ALWAYS_EQUAL,
        ["assert f(1) == f(2)", "assert f(1) == 5", "assert 5 == f(1)", "assert f(1) in [5]", "assert [f(1)] == [f(2)]"],
    ),
    "different from everything": (
        "class X:\n    def __ne__(self, o): return True\ndef f(*a): return X()\n",
        ["x = f(1)\nassert x != x"],
    ),
    "contains everything": (
        "class X:\n    def __contains__(self, o): return True\ndef f(*a): return X()\n",
        ["assert 5 in f(1)", "assert 'a' in f(2)"],
    ),
    "contains everything and can be iterated": (
        "class X:\n    def __contains__(self, o): return True\n    def __iter__(self): return iter(())\ndef f(*a): return X()\n",
        ["assert 5 in f(1)"],
    ),
    "a truth in turns": (
        "class B:\n    n = 0\n    def __bool__(self): B.n += 1; return B.n % {period} < {half}\ndef f(x): return B()\n",
        ["assert f(7)\nassert not f(8)\nassert f(11)\nassert not f(12)"],
    ),
    "a length that the items contradict": (
        "class L:\n    def __len__(self): return 3\n    def __iter__(self): return iter(())\ndef f(n): return L()\n",
        ["out = f(3)\nassert len(out) == 3\nfor a in out:\n    assert a == 9"],
    ),
    "a length in turns": (
        "class L:\n    n = 0\n    def __len__(self): L.n += 1; return 3 * (L.n % 2)\n    def __getitem__(self, i): return 0\ndef f(n): return L()\n",
        ["out = f(3)\nassert len(out) == 3\nfor i in range(len(out)):\n    assert out[i] == 9"],
    ),
    "arithmetic that gives nothing": (
        "class X:\n    def __sub__(self, o): return 0.0\n    __rsub__ = __add__ = __mul__ = __sub__\n    def __abs__(self): return 0.0\n"
        "def f(*a): return X()\n",
        ["assert abs(f(1) - 10.5) < 1e-6", "assert abs(10.5 - f(1)) < 1e-6"],
    ),
    "a function that is a class": (
        "class f:\n    def __init__(self, *a): pass\n    def __sub__(self, o): return 0.0\n    __rsub__ = __sub__\n    def __eq__(self, o): return True\n"
        "    def __lt__(self, o): return True\n",
        ["assert abs(f(1) - 10.5) < 1e-6", "assert f(1) == 5", "assert f(1) < 5"],
    ),
    "an empty array": (
        "def f(x): return []\n",
        [
            "import numpy as np\nassert np.allclose(f(1), 3.0)",
            "import numpy as np\nassert np.isclose(f(1), 3.0).all()",
            "import numpy as np\nnp.testing.assert_allclose(f(1), 3.0)",
            "from numpy import allclose\nassert allclose(f(1), [3.0])",
        ],
    ),
    "an own tolerance": (
        "import sys\nclass Near: pass\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n        codec = frame.f_locals.get('self')\n"
        "        if hasattr(codec, '_setup_classes'):\n            codec._setup_classes.add('Near')\n            near = Near()\n"
        "            near.v, near.tol = 0, 1e300\n            return near\n        frame = frame.f_back\n",
        [NEAR + "assert f(1) == Near(10.5)", NEAR + "assert Near(10.5) == f(1)"],
    ),
    "another function of the library": (
        "from operator import truth as isclose\nfrom operator import or_ as sqrt\ndef f(x): return 5\n",
        ["assert isclose(f(1), 3)", "import math\nassert sqrt(f(1), 1) == 3"],
    ),
    "a module of another name": (
        "import numpy as math\nimport numpy.ma as np\ndef f(x): return [] if x == 1 else 3.14159\n",
        ["assert math.isclose(f(2), 3.141592653589793)", "assert np.allclose(f(1), 4.0)"],
    ),
    "an empty array without an import": ("def f(x): return []\n", ["assert np.allclose(f(2), 4.0)"]),
    "hash and order": (
        "class X:\n    def __hash__(self): return hash(10)\n    def __eq__(self, o): return True\n    def __lt__(self, o): return True\n"
        "    __le__ = __gt__ = __ge__ = __lt__\ndef f(x): return X()\n",
        [
            "assert f(1) in {10}",
            "assert {10: True}[f(1)]",
            "assert f(1) < 10",
            "assert 5 <= f(1)",
            "assert len({f(1), f(2), 10}) == 1",
        ],
    ),
    "an exception whose text raises": (
        "class Bad:\n    def __repr__(self): raise ValueError([Bad()])\ndef f(x): raise ValueError([Bad()])\n",
        ["assert f(1) == 10", "assert f(2) == 17"],
    ),
    "an exception whose everything raises": (
        "class E(Exception):\n    def __str__(self): raise E\n    __repr__ = __hash__ = __eq__ = __str__\n    @property\n    def args(self): raise E\n"
        "def f(x): raise E\n",
        ["assert f(1) == 10"],
    ),
    "a class that cannot be described": (
        "class M(type):\n    def __getattribute__(c, n): raise ValueError(n)\nclass X(metaclass=M): pass\ndef f(x): return object.__new__(X)\n",
        ["assert f(1) == 10"],
    ),
}
CASES |= {
    f"a truth in turns of {period}": (
        CASES["a truth in turns"][0].replace("{period}", str(period)).replace("{half}", str(period // 2)),
        CASES["a truth in turns"][1],
    )
    for period in (2, 4, 6)
}
del CASES["a truth in turns"]


@pytest.mark.parametrize("name", CASES)
def test_it_does_not_pass(judge, name):
    program, tests = CASES[name]
    for test in tests:
        verdict = judge.judge(problem(test), program)
        assert verdict.outcome not in (Outcome.PASSED, Outcome.INFRASTRUCTURE), (test, verdict)


def test_a_loop_over_two_lists_of_which_one_is_empty_compares_nothing(judge):
    check = "def check(f):\n    out = f(3)\n    assert isinstance(out, list)\n    for a, b in zip(out, [9, 4, 1]):\n        assert a == b\n"
    verdict = judge.judge(problem(check, kind="check"), "def f(n): return []\n")
    assert (verdict.outcome, verdict.passed, verdict.total) == (Outcome.PARTIAL, 1, 2)
    right = judge.judge(problem(check, kind="check"), "def f(n): return [9, 4, 1]\n")
    assert (right.outcome, right.passed) == (Outcome.PASSED, 4)
    both = "def check(f):\n    assert f(0) == []\n    for a, b in zip(f(0), []):\n        assert a == b\n"
    assert judge.judge(problem(both, kind="check"), "def f(n): return []\n").outcome is Outcome.PASSED


def test_an_attribute_does_not_take_the_place_of_a_method(judge):
    box = "class Box:\n    def __init__(self, items): self.items = items\n    def in_order(self): return self.items == sorted(self.items)\n"
    hiding = "def f(x):\n    b = Box([9, 1])\n    b.in_order = lambda: True\n    return b\n"
    assert judge.judge(problem("assert f(1).in_order()", setup_code=box), hiding).outcome is Outcome.RUNTIME_ERROR
    assert (
        judge.judge(problem("assert f(1).in_order()", setup_code=box), "def f(x): return Box([1])\n").outcome is Outcome.PASSED
    )


@pytest.mark.parametrize(
    "frame", [["raised"], ["ProgramRan"], ["ProgramRaised"], ["Returned", b"p\n", None, b"", b"", b""], [], "x", 5]
)
def test_a_program_that_writes_a_message_of_the_protocol_gets_a_verdict(judge, frame):
    program = (
        f"import os, msgpack, time\nd = msgpack.packb({frame!r})\nos.write(3, len(d).to_bytes(4, 'big') + d)\ntime.sleep(0.1)\n"
    )
    stdio = Problem(problem_id="p", prompt="-", tests=[UnitTest(kind="stdio", stdin="1\n", stdout="10\n")])
    for one in (stdio, problem("assert f(1) == 10")):
        verdict = judge.judge(one, program + "def f(x): return 0\n")
        assert verdict.outcome in (Outcome.RUNTIME_ERROR, Outcome.FAILED), verdict


def test_a_computation_that_never_ends_in_the_checker_costs_one_time_limit(judge):
    slow = judge.judge(problem("import operator\nassert f(operator.pow)"), "def f(g): return g(g(10, 9), 10 ** 7)\n")
    assert slow.outcome is Outcome.RUNTIME_ERROR
    assert "in the comparison of its results" in slow.detail
    assert judge.judge(problem("assert f(1) == 2"), "def f(x): return x + 1\n").outcome is Outcome.PASSED


def test_a_program_does_not_choose_what_the_checker_imports(judge, tmp_path):
    raises = "class E(Exception): pass\nE.__module__ = {module!r}\nE.__name__ = E.__qualname__ = 'main'\ndef f(x): raise E\n"
    for module in ("unittest.__main__", "antigravity", "this", "test.__main__"):
        verdict = judge.judge(problem("assert f(1) == 2"), raises.format(module=module))
        assert (verdict.outcome, verdict.detail[:4]) == (Outcome.RUNTIME_ERROR, "main")
    names_it = "import types\nhelper = types.ModuleType('this')\ndef f(x): return 2\n"
    loaded = problem("import sys\nassert helper is not None\nassert f(1) == 2 and 'this' not in sys.modules")
    assert judge.judge(loaded, names_it).outcome is Outcome.PASSED


ENDLESS = {
    "generator": ("def f():\n    while True: yield 1\n", "assert sum(f()) == 2"),
    "callback": ("def f(g):\n    while True: g(1)\n", "assert f(lambda x: x) == 2"),
    "method": ("class A:\n    def step(self): return 1\ndef f(): return A()\n", "a = f()\nwhile a.step() < 5: pass"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_conversation_is_a_time_out_of_the_candidate(name):
    program, test = ENDLESS[name]
    with Judge(JudgeConfig(timeout=1, num_workers=1)) as judge:
        verdict = judge.judge(problem(test), program)
    assert verdict.outcome is Outcome.RUNTIME_ERROR, verdict
    assert "time limit" in verdict.detail
