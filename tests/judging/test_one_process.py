"""A test written for one Python process means the same here: each program passes its tests in both."""

from __future__ import annotations

import sys
import textwrap
import types

import pytest

from trl_rrtf import Judge, JudgeConfig, Outcome, Problem, UnitTest


@pytest.fixture(scope="module")
def judge():
    with Judge(JudgeConfig(timeout=5, num_workers=1)) as judge:
        yield judge


# Name -> program, tests.
CASES = {
    "a variable of the module": (
        "LIMIT = 3\ncalls = 0\ndef f(x):\n    global calls\n    calls += 1\n    return x + LIMIT\n",
        ["assert f(1) == 4\nassert LIMIT == 3", "assert calls == 0\nf(2)\nassert calls == 1"],
    ),
    "a list of the module that a test fills": (
        "registry = []\ndef f():\n    return len(registry)\n",
        ["registry.append(1)\nassert f() == 1\nregistry.append(2)\nassert f() == 2"],
    ),
    "names of classes and functions": (
        "import functools\nclass Dog:\n    'A dog.'\n    def bark(self): return 'w'\ndef f(): return Dog()\n"
        "def wrap(g):\n    @functools.wraps(g)\n    def inner(*a): return g(*a)\n    return inner\n",
        [
            "assert type(f()).__name__ == 'Dog'\nassert f().__class__.__name__ == 'Dog'\nassert Dog.__name__ == 'Dog'",
            "assert Dog.__doc__ == 'A dog.'\nassert f.__name__ == 'f'",
            "def base(x):\n    'doc'\n    return x\nw = wrap(base)\nassert w.__name__ == 'base'\nassert w.__doc__ == 'doc'\nassert w(2) == 2",
        ],
    ),
    "isinstance, issubclass and type": (
        "from abc import ABC, abstractmethod\nclass Shape(ABC):\n    @abstractmethod\n    def area(self): ...\n"
        "class Square(Shape):\n    def __init__(self, a): self.a = a\n    def area(self): return self.a ** 2\ndef f(): return Square(2)\n",
        [
            "assert isinstance(f(), Shape)\nassert issubclass(Square, Shape)\nassert not issubclass(Shape, Square)",
            "assert type(f()) is Square\nassert type(f()) == type(Square(3))\nassert not isinstance(3, Square)",
            "try:\n    Shape()\n    ok = False\nexcept TypeError:\n    ok = True\nassert ok",
        ],
    ),
    "value objects in sets and as keys": (
        "class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return isinstance(o, P) and self.x == o.x\n"
        "    def __hash__(self): return hash(self.x)\ndef f(x): return P(x)\ndef many(): return {P(1), P(2), P(1)}\n"
        "def table(): return {P(1): 'a'}\n",
        [
            "assert len({f(1), f(1), f(2)}) == 2\nassert hash(f(1)) == hash(P(1))",
            "d = {f(1): 'a'}\nassert d[P(1)] == 'a'\nassert P(1) in d\nassert P(3) not in d",
            "assert len(many()) == 2\nassert P(2) in many()\nassert table()[P(1)] == 'a'",
            "assert f(1) == P(1)\nassert f(1) != P(2)\nassert f(1) != 1",
        ],
    ),
    "what cannot be hashed": (
        "class P:\n    def __eq__(self, o): return True if isinstance(o, P) else NotImplemented\ndef f(): return P()\n",
        ["try:\n    {f()}\n    ok = False\nexcept TypeError:\n    ok = True\nassert ok"],
    ),
    "membership without iteration": (
        "class Evens:\n    def __contains__(self, n): return isinstance(n, int) and n % 2 == 0\ndef f(): return Evens()\n",
        ["assert 4 in f()\nassert 3 not in f()"],
    ),
    "operators of an own class": (
        textwrap.dedent("""
        class V:
            def __init__(self, x): self.x = x
            def __add__(self, o): return V(self.x + (o.x if isinstance(o, V) else o))
            __radd__ = __add__
            def __mul__(self, k): return V(self.x * k)
            __rmul__ = __mul__
            def __iadd__(self, o): self.x += o; return self
            def __neg__(self): return V(-self.x)
            def __abs__(self): return abs(self.x)
            def __round__(self, n=0): return round(self.x, n)
            def __float__(self): return float(self.x)
            def __format__(self, spec): return format(self.x, spec)
            def __divmod__(self, o): return divmod(self.x, o)
            def __pow__(self, n): return V(self.x ** n)
            def __eq__(self, o): return isinstance(o, V) and self.x == o.x
            def __lt__(self, o): return self.x < o.x
            def __index__(self): return int(self.x)
        """),
        [
            "assert V(1) + V(2) == V(3)\nassert V(1) + 2 == V(3)\nassert 2 + V(1) == V(3)\nassert sum([V(1), V(2)]) == V(3)",
            "assert V(2) * 3 == V(6)\nassert 3 * V(2) == V(6)\nassert -V(2) == V(-2)\nassert abs(V(-3)) == 3",
            "assert round(V(2.567), 2) == 2.57\nassert f'{V(2.5):.2f}' == '2.50'\nassert float(V(2)) == 2.0",
            "v = V(1)\nv += 4\nassert v.x == 5\nassert divmod(V(7), 2) == (3, 1)\nassert V(2) ** 3 == V(8)",
            "assert sorted([V(3), V(1)])[0] == V(1)\nassert max(V(1), V(5)).x == 5\nassert [10, 20, 30][V(1)] == 20",
        ],
    ),
    "numbers of a function": (
        "class N:\n    def __init__(self, x): self.x = x\n    def __abs__(self): return abs(self.x)\n"
        "    def __round__(self, n=None): return round(self.x, n)\n    def __format__(self, s): return format(self.x, s)\n"
        "    def __int__(self): return int(self.x)\n    def __neg__(self): return N(-self.x)\ndef f(x): return N(x)\n",
        ["assert abs(f(-2)) == 2\nassert round(f(1.26), 1) == 1.3\nassert f'{f(1):.1f}' == '1.0'\nassert int(-f(2)) == -2"],
    ),
    "views of dictionaries": (
        "D = {'a': 1, 'b': 2}\ndef keys(): return D.keys()\ndef values(): return D.values()\ndef items(): return D.items()\n",
        ["assert keys() == {'a', 'b'}\nassert list(values()) == [1, 2]\nassert ('a', 1) in items()\nassert len(items()) == 2"],
    ),
    "types of the standard library": (
        textwrap.dedent("""
        from pathlib import PurePath, PurePosixPath, Path
        from array import array
        from uuid import UUID
        from datetime import datetime, timedelta
        def path(p): return PurePosixPath(p).parent
        def concrete(p): return Path(p) / 'x'
        def numbers(): return array('i', [1, 2, 3])
        def unique(): return UUID(int=5)
        def when(): return datetime(2020, 1, 2)
        """),
        [
            "from pathlib import PurePosixPath, Path\nassert path('/a/b') == PurePosixPath('/a')\nassert str(path('/a/b')) == '/a'",
            "from pathlib import Path\nassert concrete('/a') == Path('/a/x')",
            "from array import array\nassert numbers() == array('i', [1, 2, 3])\nassert numbers()[1] == 2",
            "from uuid import UUID\nassert unique() == UUID(int=5)",
            "assert when() == datetime(2020, 1, 2)\nassert when() + timedelta(days=1) == datetime(2020, 1, 3)",
        ],
    ),
    "members of an enumeration": (
        "from enum import Enum, IntEnum\nclass Color(Enum):\n    RED = 1\n    BLUE = 2\nclass Level(IntEnum):\n    LOW = 1\n"
        "def f(x): return Color.RED if x else Color.BLUE\ndef g(): return Level.LOW\n",
        [
            "assert f(1) is Color.RED\nassert f(0) is Color.BLUE\nassert f(1) == Color.RED\nassert f(1) != Color.BLUE",
            "assert f(1).name == 'RED'\nassert f(1).value == 1\nassert Color(2) is Color.BLUE\nassert Color['RED'] is Color.RED",
            "assert list(Color) == [Color.RED, Color.BLUE]\nassert len(Color) == 2\nassert {f(1): 1}[Color.RED] == 1\nassert Color.RED in Color",
            "assert g() == 1\nassert g() is Level.LOW\nassert g() + 1 == 2",
        ],
    ),
    "own exceptions": (
        textwrap.dedent("""
        import json
        class BankError(Exception):
            def __init__(self, code, text):
                super().__init__(text)
                self.code = code
        class Overdrawn(BankError): pass
        def f(x): raise Overdrawn(x, f'bad {x}')
        def parse(s): return json.loads(s)
        """),
        [
            "try:\n    f(7)\n    code = None\nexcept Overdrawn as e:\n    code = e.code\n    text = str(e)\nassert code == 7\nassert text == 'bad 7'",
            "try:\n    f(7)\n    ok = False\nexcept BankError as e:\n    ok = type(e).__name__ == 'Overdrawn' and isinstance(e, BankError)\nassert ok",
            "import json\ntry:\n    parse('{')\n    ok = False\nexcept json.JSONDecodeError:\n    ok = True\nassert ok",
            "try:\n    f(1)\nexcept Exception as e:\n    found = e.args\nassert found == ('bad 1',)",
        ],
    ),
    "a dictionary that makes what is missing": (
        "class D(dict):\n    def __missing__(self, k): return k * 2\ndef f(): return D(a=1)\n",
        ["assert f() == {'a': 1}\nassert f()['zz'] == 'zzzz'\nassert isinstance(f(), dict)\nassert isinstance(f(), D)"],
    ),
    "subclasses of builtins that change": (
        textwrap.dedent("""
        class Stack(list):
            def push(self, x): self.append(x)
            def peek(self): return self[-1]
            def pop(self, *a):
                if not self: raise LookupError('empty')
                return super().pop(*a)
        class Bag(dict):
            def add(self, k): self[k] = self.get(k, 0) + 1
        """),
        [
            "s = Stack()\ns.push(1)\ns.push(2)\nassert s == [1, 2]\nassert len(s) == 2\nassert s.peek() == 2\nassert s.pop() == 2\nassert s == [1]",
            "s = Stack()\ntry:\n    s.pop()\n    ok = False\nexcept LookupError:\n    ok = True\nassert ok",
            "s = Stack([1])\ns.append(5)\nassert s.peek() == 5",
            "b = Bag()\nb.add('a')\nb.add('a')\nassert b == {'a': 2}\nassert b['a'] == 2",
        ],
    ),
    "changed in place, and a result": (
        textwrap.dedent("""
        def remove(nums, val):
            nums[:] = [n for n in nums if n != val]
            return len(nums)
        def twice(xs):
            for i, x in enumerate(xs): xs[i] = 2 * x
            return xs
        def count(d, k):
            d[k] = d.get(k, 0) + 1
            return d[k]
        def fill(b):
            b[0] = 65
            return len(b)
        """),
        [
            "nums = [3, 2, 3]\nassert remove(nums, 3) == 1\nassert nums == [2]",
            "nums = [3, 2, 3]\nk = remove(nums=nums, val=3)\nassert nums[:k] == [2]",
            "nums = [3, 2, 3]\nassert remove(nums, 3) == 1 and nums == [2]",
            "def run(nums):\n    k = remove(nums, 3)\n    return nums[:k]\nassert run([3, 1, 3]) == [1]",
            "xs = [1, 2]\nassert twice(xs) == [2, 4]\nassert xs == [2, 4]",
            "d = {}\ncount(d, 'a')\ncount(d, 'a')\nassert d == {'a': 2}",
            "b = bytearray(b'xyz')\nassert fill(b) == 3\nassert b == b'Ayz'",
            "if remove(xs := [1, 3], 3):\n    assert xs == [1]\nassert xs == [1]",
        ],
    ),
    "a call that raises after a change": (
        "def f(xs):\n    xs.append(1)\n    raise ValueError\n",
        ["xs = []\ntry:\n    f(xs)\nexcept ValueError:\n    pass\nassert xs == [1]"],
    ),
    "a test writes into attributes": (
        textwrap.dedent("""
        class School:
            def __init__(self):
                self.students = {}
                self.log = []
                self.grid = [[0, 0], [0, 0]]
            def add(self, name):
                self.students[name] = {'grade': 0}
                self.log.append(name)
            def count(self): return len(self.students) + len(self.log)
            def total(self): return sum(map(sum, self.grid))
        """),
        [
            "s = School()\ns.students['Alice'] = {'grade': 5}\nassert s.count() == 1\nassert s.students == {'Alice': {'grade': 5}}",
            "s = School()\ns.log.append('x')\ns.log.extend(['y'])\nassert s.count() == 2\nassert s.log == ['x', 'y']",
            "s = School()\nlog = s.log\ns.add('Bob')\nassert log == ['Bob']\nassert s.log is log",
            "s = School()\ns.students.update(a=1, b=2)\ndel s.students['a']\nassert s.count() == 1",
            "s = School()\ns.grid[1][0] = 7\nassert s.total() == 7",
            "s = School()\ns.name = 'x'\nassert s.name == 'x'\ndel s.name\nassert not hasattr(s, 'name')",
        ],
    ),
    "long integers": (
        "def f(n): return 10 ** n\n",
        ["assert f(5000) == 10 ** 5000\nassert len(str(f(10) % 1000)) >= 1", "assert f(5000) // 10 ** 4999 == 10"],
    ),
    "attributes of any name": (
        "class A:\n    def __init__(self):\n        self._session = 1\n        self._target = 2\n        self.link = 3\n        self.session = 4\n"
        "    def operate(self, operation, target): return operation + target\n    mro = 5\ndef f(): return A()\n",
        [
            "a = f()\nassert (a._session, a._target, a.link, a.session) == (1, 2, 3, 4)\nassert a.operate(1, target=2) == 3",
            "assert A.mro == 5",
        ],
    ),
    "functions of a test that use objects of the program": (
        "class T:\n    def __init__(self, p): self.p = p\ndef f(ps, key): return [t.p for t in sorted(map(T, ps), key=key)]\n"
        "def g(h, *a, **k): return h(*a, **k)\n",
        [
            "assert f([3, 1, 2], lambda t: t.p) == [1, 2, 3]\nassert f([3, 1, 2], lambda t: -t.p) == [3, 2, 1]",
            "assert g(lambda a, b=2: a + b, 1) == 3\nassert g(lambda a, b=2: a + b, 1, b=5) == 6",
        ],
    ),
    "functions of a test whose parameters are counted": (
        "import inspect\ndef curry(g):\n    n = len(inspect.signature(g).parameters)\n    m = g.__code__.co_argcount\n"
        "    assert n == m\n    def c(*a): return g(*a) if len(a) >= n else (lambda *b: c(*a, *b))\n    return c\n",
        ["assert curry(lambda a, b, c: a + b + c)(1)(2)(3) == 6"],
    ),
    "generators": (
        "def f():\n    got = yield 1\n    try:\n        yield got\n    except ValueError:\n        yield 'caught'\n    return 5\n",
        [
            "g = f()\nassert next(g) == 1\nassert g.send('x') == 'x'\nassert g.throw(ValueError()) == 'caught'\nassert list(g) == []"
        ],
    ),
    "context managers": (
        "class C:\n    def __init__(self): self.log = []\n    def __enter__(self): self.log.append('in'); return self\n"
        "    def __exit__(self, kind, error, trace): self.log.append(kind.__name__ if kind else 'out'); return kind is ValueError\n",
        [
            "c = C()\nwith c as d:\n    assert d is c\nassert c.log == ['in', 'out']",
            "c = C()\nwith c:\n    raise ValueError('x')\nassert c.log == ['in', 'ValueError']",
        ],
    ),
    "callable, iterable and lengths": (
        "class B:\n    def __init__(self, xs): self.xs = xs\n    def __iter__(self): return iter(self.xs)\n    def __len__(self): return len(self.xs)\n"
        "    def __bool__(self): return True\nclass Empty: pass\ndef f(): return B([1, 2])\n",
        [
            "assert list(f()) == [1, 2]\nassert len(f()) == 2\nassert not callable(f())\nassert callable(B)\nassert bool(B([]))\nassert bool(Empty())",
            "b = f()\nassert len(b) == 2\nassert sum(b) == 3\nassert 2 in b\nassert [x for x in b] == [1, 2]\nassert sorted(b, reverse=True) == [2, 1]",
            "try:\n    len(Empty())\n    ok = False\nexcept TypeError:\n    ok = True\nassert ok",
        ],
    ),
    "linked nodes of the program": (
        "class Node:\n    def __init__(self, v, next=None): self.v, self.next = v, next\ndef build(xs):\n    head = None\n"
        "    for x in reversed(xs): head = Node(x, head)\n    return head\n",
        [
            "n = build([1, 2])\nassert n.v == 1\nassert n.next.v == 2\nassert n.next.next is None",
            "n = Node(1)\nn.next = Node(2)\nm = n.next\nassert n.next is m\nn.next.v = 9\nassert m.v == 9",
        ],
    ),
    "dataclasses and named tuples": (
        "from dataclasses import dataclass, field\nfrom collections import namedtuple\n@dataclass(order=True)\nclass P:\n    x: int\n    tags: list = field(default_factory=list)\n"
        "Q = namedtuple('Q', 'a b')\ndef f(x): return P(x)\ndef q(): return Q(1, 2)\n",
        [
            "assert f(1) == P(1)\nassert f(1) < P(2)\nassert repr(f(1)) == 'P(x=1, tags=[])'\np = f(1)\np.tags.append('t')\nassert p == P(1, ['t'])",
            "assert q() == (1, 2)\nassert q().b == 2\na, b = q()\nassert a + b == 3\nassert q()._replace(a=5).a == 5\nassert isinstance(q(), tuple)",
        ],
    ),
    "class attributes, properties and static methods": (
        "class A:\n    count = 0\n    def __init__(self): A.count += 1\n    @property\n    def double(self): return 2 * self._x\n    @double.setter\n    def double(self, v): self._x = v / 2\n"
        "    @staticmethod\n    def s(x): return x + 1\n    @classmethod\n    def c(cls): return cls()\n",
        [
            "a = A()\nassert A.count == 1\nb = A.c()\nassert A.count == 2\nassert A.s(1) == 2\na.double = 4\nassert a.double == 4\nA.count = 10\nassert a.count == 10"
        ],
    ),
    "cached functions": (
        "from functools import lru_cache\n@lru_cache(None)\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)\n",
        ["assert f(30) == 832040\nassert f.cache_info().currsize == 31\nf.cache_clear()\nassert f.cache_info().currsize == 0"],
    ),
    "imports as the program has them": (
        "from datetime import datetime\nimport datetime as dt\nfrom collections import Counter\nimport math\ndef f(): return datetime(2020, 1, 1)\ndef c(): return Counter('aab')\n",
        [
            "assert f() == datetime(2020, 1, 1)\nassert datetime.strptime('2020', '%Y') == f()",
            "assert dt.date(2020, 1, 1).year == 2020",
            "assert c() == Counter({'a': 2, 'b': 1})\nassert math.isclose(1, 1)",
        ],
    ),
    "two calls in one statement": (
        "import heapq\ndef pop(h): return heapq.heappop(h)\ndef f(q, x):\n    q.append(x)\n    return len(q)\n",
        [
            "h = [1, 2, 3]\nassert [pop(h) for _ in range(3)] == [1, 2, 3]\nassert h == []",
            "q = []\nassert f(q, 1) + f(q, 2) == 3\nassert q == [1, 2]",
            "h = [0, 1, 2]\nassert list(iter(lambda: pop(h), 2)) == [0, 1]",
        ],
    ),
    "threads of a test": (
        "def f(x): return x + 1\n",
        [
            "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(8) as e:\n    assert list(e.map(f, range(300))) == list(range(1, 301))"
        ],
    ),
    "length, change, iteration": (
        "class S:\n    def __init__(self): self.items = [1, 2, 3]\n    def __len__(self): return len(self.items)\n"
        "    def __iter__(self): return iter(list(self.items))\n    def __delitem__(self, i): del self.items[i]\n"
        "    def __iadd__(self, xs): self.items += xs; return self\nclass Own:\n    def __init__(self): self.n = 0\n"
        "    def __len__(self): return 2\n    def __iter__(self): return self\n    def __next__(self):\n        self.n += 1\n"
        "        if self.n > 2: raise StopIteration\n        return self.n\ndef f(): return S()\n",
        [
            "s = f()\nassert len(s) == 3\ndel s[0]\nassert [x for x in s] == [2, 3]",
            "s = S()\nassert len(s) == 3\ns += [4]\nassert [x for x in s] == [1, 2, 3, 4]",
            "s = f()\nassert len(s) == 3\ns.items.append(4)\nassert [x for x in s] == [1, 2, 3, 4]",
            "a = Own()\nassert len(a) == 2\nassert [x for x in a] == [1, 2]",
        ],
    ),
    "truth values of other types": (
        "import numpy as np\nclass M:\n    def __init__(self, a): self.a = np.array(a)\n    def __eq__(self, o): return (self.a == o.a).all()\n"
        "class N:\n    def __init__(self, a): self.a = a\n    def __eq__(self, o): return isinstance(o, N) and (self.a == o.a and 1)\n",
        ["assert M([1, 2]) == M([1, 2])\nassert not M([1, 2]) == M([1, 3])\nassert N(1) == N(1)\nassert not N(1) == N(2)"],
    ),
    "changes inside tuples": (
        "def f(pair):\n    pair[0].append(1)\n    return len(pair)\n",
        ["a, b = [], []\nassert f((a, b)) == 2\nassert a == [1]"],
    ),
    "assertions that must not be reached": (
        "def f(i):\n    if i < 0: raise ValueError\n    return 2 * i\n",
        [
            "for i in range(5):\n    if f(i) != 2 * i: assert False",
            "try:\n    f(-1)\nexcept ValueError:\n    pass\nelse:\n    assert False",
        ],
    ),
    "copies of objects": (
        "class A:\n    def __init__(self): self.xs = []\ndef f(): return A()\n",
        [
            "import copy\na = f()\nb = copy.copy(a)\nc = copy.deepcopy(a)\na.xs.append(1)\nassert b.xs == [1]\nassert c.xs == []\nassert type(c) is A"
        ],
    ),
    "functions of a test that change a variable": (
        "counter = 0\ndef f():\n    global counter\n    counter += 1\n    return counter\n",
        [
            "import pickle\nclass T:\n    pass\nassert f() == 1 and counter == 1\nt = pickle.loads(pickle.dumps(T()))\nassert type(t) is T\nassert counter == 1"
        ],
    ),
    "keywords of numpy's tests": (
        "import numpy as np\ndef f(): return [1.0, 2.0]\n",
        [
            "import numpy as np\nnp.testing.assert_allclose(actual=f(), desired=[1, 2])\nassert np.allclose(f(), b=[1, 2])\nassert np.allclose(f(), [1, 2], rtol=1e-9)"
        ],
    ),
    "asynchronous functions": (
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x + 1\n",
        [
            "import asyncio\nassert asyncio.run(f(1)) == 2\nasync def both(): return await asyncio.gather(f(1), f(2))\nassert asyncio.run(both()) == [2, 3]"
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_passes_in_one_process(name, monkeypatch):
    program, tests = CASES[name]
    for test in tests:
        module = types.ModuleType("one_process")
        monkeypatch.setitem(sys.modules, "one_process", module)
        exec(program, module.__dict__)
        exec(test, module.__dict__)


@pytest.mark.parametrize("name", CASES)
def test_it_passes_here(judge, name):
    program, tests = CASES[name]
    entry_point = "f" if "def f(" in program else None
    for test in tests:  # each in a process of its own, as above
        problem = Problem(problem_id=name, prompt="-", tests=[UnitTest(kind="assert", code=test)], entry_point=entry_point)
        verdict = judge.judge(problem, program)
        assert verdict.outcome is Outcome.PASSED, (verdict.detail, test)
