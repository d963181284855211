"""Programs out of what models really write; each must compile and do what the model meant."""

from __future__ import annotations

import ast
import random
import time
from pathlib import Path

import pytest

from trl_rrtf import CandidateGroup, Problem, UnitTest, extract_program
from trl_rrtf.rows.files import stream_rows

TESTS = [UnitTest(kind="assert", code="assert add(1, 2) == 3")]
CHAT = Problem(problem_id="p", prompt="Write a Python function `add(a, b)`.", tests=TESTS, entry_point="add")
SIGNATURE = Problem(
    problem_id="p",
    prompt="import math\nfrom typing import List\n\n\ndef helper(x):\n    return x\n\n\n"
    'def add(a, b):\n    """Adds.\n\n    >>> add(1, 2)\n    3\n    """\n',
    tests=TESTS,
    entry_point="add",
)
ADD = "def add(a, b):\n    return a + b\n"

ANSWERS = {
    "plain": ADD,
    "fenced": f"```python\n{ADD}```",
    "fenced without language": f"```\n{ADD}```",
    "fenced with py": f"```py\n{ADD}```\n",
    "text around": f"Sure! Here is the function:\n\n```python\n{ADD}```\n\nThis adds two numbers.",
    "unfinished fence": f"Here it is:\n```python\n{ADD}",
    "a closing fence that nothing opened": f"{ADD}```\n\nIn the above code, we add `a` and `b`.",
    "several blocks": f"Install:\n```bash\npip install x\n```\nA helper:\n```python\nx = 1\n```\nand\n```python\n{ADD}```",
    "indented block": "1. The code:\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n",
    "an example behind": f"{ADD}\nprint(add(1, 2))\n",
    "tests behind": f"{ADD}\nassert add(1, 2) == 3\nassert add(0, 0) == 1\n",
    "a main block behind": f"{ADD}\nif __name__ == '__main__':\n    print(add(int(input()), 2))\n",
    "prose behind": f"{ADD}\nThis function adds two numbers.\n",
    "a cut line behind": f"{ADD}\ndef other(x):\n    return (x +",
    "calls behind": f"{ADD}\nadd(1, 2)\nmain()\n",
    "imports and constants stay": f"import math\nZERO = 0\n\n{ADD}",
    "a helper stays": f"def twice(x):\n    return 2 * x\n\n\n{ADD}",
    "an assignment as the function": "add = lambda a, b: a + b\n",
    "leading blank lines": f"\n\n\n{ADD}",
    "windows line ends": ADD.replace("\n", "\r\n"),
    "tilde fences": f"~~~python\n{ADD}~~~\n",
    "special tokens": f"```python\n{ADD}```<|im_end|>\n<|endoftext|>",
    "tabs among spaces": "def add(a, b):\n    if a:\n\treturn a + b\n    return b\n",
    "typographic quotes": "def add(a, b):\n    x = \u201chello\u201d\n    return a + b\n",
    "non-breaking spaces": ADD.replace("    ", "\u00a0\u00a0\u00a0\u00a0"),
    "the interactive shell": ">>> def add(a, b):\n...     return a + b\n>>> add(1, 2)\n3\n",
    "a helper in another block": "First:\n```python\ndef plus(a, b):\n    return a + b\n```\nThen:\n```python\ndef add(a, b):\n"
    "    return plus(a, b)\n```\n",
    "a corrected version": "```python\ndef add(a, b):\n    return a - b\n```\nSorry, here is the corrected one:\n"
    f"```python\n{ADD}```",
    "an alternative that is not meant": f"```python\n{ADD}```\nOr for three:\n```python\ndef add(a, b, c):\n    return a\n```",
    "test functions behind": f"{ADD}\ndef test_add():\n    assert add(1, 1) == 3\n\ntest_add()\n",
    "a unittest class behind": f"import unittest\n{ADD}\nclass TestAdd(unittest.TestCase):\n    def test_it(self):\n"
    "        add(1)\n",
    "five spaces": "def add(a, b):\n     c = a + b\n     return c\n",
    "doctest block behind": f"```python\n{ADD}```\n```python\n>>> add(1, 2)\n3\n```",
}


def run(program):
    namespace = {}
    exec(compile(program, "program", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_become_programs_that_add(name, capsys):
    program = extract_program(ANSWERS[name], CHAT)
    assert run(program)["add"](2, 3) == 5
    assert program.endswith("\n")
    assert not program.endswith("\n\n")
    assert capsys.readouterr().out == ""
    assert extract_program(program, CHAT) == program, "a program is left as it is"


def test_what_belongs_to_the_program_stays():
    namespace = run(extract_program(ANSWERS["imports and constants stay"], CHAT))
    assert namespace["ZERO"] == 0
    assert "twice" in run(extract_program(ANSWERS["a helper stays"], CHAT))


COMPLETIONS = {
    "the body": "    return a + b\n",
    "a body whose first line lost its indentation": "total = a + b\n    return total\n",
    "a body without indentation": "total = a + b\nreturn total\n",
    "a body and another function": "    return a + b\n\n\ndef main():\n    print(add(1, 2))\n",
    "a body and prose": "    return a + b\n\nThis adds two numbers.\n",
    "a body and a closing fence": "    return a + b\n```\n\nDone.",
    "the whole function again": ADD,
    "the whole function in a fence": f"```python\n{ADD}```",
}


@pytest.mark.parametrize("name", COMPLETIONS)
def test_completions_go_on_from_the_signature_and_keep_the_prompts_preamble(name):
    namespace = run(extract_program(COMPLETIONS[name], SIGNATURE))
    assert namespace["add"](2, 3) == 5
    assert namespace["helper"](4) == 4
    assert "math" in namespace


@pytest.mark.parametrize("text", ["", "   \n", "\n"])
def test_no_text_is_no_program(text):
    assert extract_program(text, CHAT) == ""


@pytest.mark.parametrize("text", ["I cannot do that.", "def add(a, b)\n    return a +", "```python\ndef add(a,\n```"])
def test_what_is_no_program_is_left_for_the_judge(text):
    program = extract_program(text, CHAT)
    assert program.strip()
    with pytest.raises(SyntaxError):
        ast.parse(program)


def test_a_signature_alone_is_no_program_that_passes():
    program = extract_program("Sorry.", SIGNATURE)
    with pytest.raises(SyntaxError):
        ast.parse(program)


def test_a_whole_program_keeps_its_calls():
    problem = Problem(problem_id="p", prompt="Read n, print 2 n.", tests=[UnitTest(kind="stdio", stdin="1", stdout="2")])
    program = extract_program("```python\nn = int(input())\nprint(2 * n)\n```", problem)
    assert program == "n = int(input())\nprint(2 * n)\n"


def test_long_answers_take_no_longer_than_they_are():
    answer = ADD + "This is no Python, and nor is this (.\n" * 20_000
    started = time.perf_counter()
    assert extract_program(answer, CHAT) == ADD
    assert time.perf_counter() - started < 5


def test_any_text_gives_a_program_or_what_there_is():
    """Answers with lines lost, repeated and cut: no error, one line end behind, and a program stays what it is."""
    chance = random.Random(0)
    for _ in range(600):
        lines = chance.choice(list(ANSWERS.values())).splitlines(keepends=True)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(lines) + 1)
            change = chance.choice(["drop", "fence", "repeat", "cut"])
            if change == "drop":
                lines[place : place + 1] = []
            elif change == "fence":
                lines.insert(place, "```\n")
            elif change == "repeat":
                lines[place:place] = lines[:2]
            else:
                lines = lines[:place]
        program = extract_program("".join(lines), CHAT)
        assert program == "" or (program.endswith("\n") and not program.endswith("\n\n"))
        try:
            names = {node.name for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)}
        except SyntaxError:
            continue
        if "add" in names:
            assert extract_program(program, CHAT) == program


def test_no_recorded_answer_loses_by_extraction():
    """What SmolLM2-135M wrote on the held-out easy problems, in three prompt styles."""
    compiled = {"as written": 0, "extracted": 0}
    for group in stream_rows(Path(__file__).parents[2] / "recipes" / "data" / "recorded_outputs.jsonl", CandidateGroup):
        for text in (candidate.raw for candidate in group.candidates):
            was_good, is_good = (defines(program, group.entry_point) for program in (text, extract_program(text, group)))
            assert is_good or not was_good, text
            compiled["as written"] += was_good
            compiled["extracted"] += is_good
    assert compiled["extracted"] > 2 * compiled["as written"] > 0


def defines(program, name):
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("import math\n\n\ndef f(x):\n", "```python\nfrom __future__ import annotations\n\ndef f(x):\n    return math.pi\n```"),
        (
            "Write f.",
            "```python\nimport math\ndef helper():\n    return math.pi\n```\nand\n"
            "```python\nfrom __future__ import annotations\n\ndef f(x):\n    return helper()\n```",
        ),
        (
            "import math\n\n\ndef f(x):\n",
            "```python\nfrom __future__ import annotations; y = 1\ndef f(x):\n    return math.pi\n```",
        ),
    ],
)
def test_imports_from_the_future_stay_first(prompt, answer):
    """Other code was put before them, and one such answer ended a whole run with a SyntaxError."""
    problem = Problem(problem_id="p", prompt=prompt, tests=[UnitTest(kind="assert", code="assert f(1)")], entry_point="f")
    program = extract_program(answer, problem)
    assert program.startswith("from __future__ import annotations")
    assert ("y = 1" in program) == ("y = 1" in answer)
    compile(program, "<program>", "exec")
