"""Programs out of what models really write; each must compile and do what the model meant."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
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


FENCED = f"```python\n{ADD}```\n"
DRAFT = "```python\ndef add(a, b):\n    return a - b\n```\n"
USAGE = "```python\nprint(add(1, 2))  # 3\nassert add(0, 0) == 0\n```\n"

# In the manner of the models named; every draft in the thinking is wrong or is another function.
REASONING = {
    "R1": "<think>\nOkay, so I need a function add. Maybe subtract?\n\n"
    + DRAFT
    + "\nWait, that's wrong. Let me redo it:\n\n```python\n"
    "def add(a, b):\n    return a * b\n```\n\nHmm, no. It's a sum.\n</think>\n\nTo solve this we add both numbers.\n\n"
    "### Solution Code\n" + FENCED + "\n### Explanation\n1. The operator `+` adds.\n",
    "R1, the opening tag in the prompt": "Okay, the user wants `add`.\n\n"
    + DRAFT
    + "\nI think that is it.\n</think>\n\n"
    + FENCED,
    "R1, unfenced drafts": "<think>\nFirst try:\n\ndef add(a, b):\n    return a - b\n\nNo, that subtracts.\n</think>\n"
    + FENCED,
    "R1, nothing in front of the draft": "<think>\ndef add(a, b):\n    return a - b\n</think>\n\ndef add(a, b):\n"
    "    return a + b\n",
    "QwQ": "Let's see. The function takes two numbers.\n\n"
    + DRAFT
    + "\nWait, but the sign. Alternatively:\n\n"
    + DRAFT
    + "\nYes.\n</think>\n\n**Solution:**\n\n"
    + FENCED
    + "\n**Example usage:**\n\n"
    + USAGE,
    "QwQ, no closing tag": "Let's see.\n\n"
    + DRAFT
    + "\nWait, let me check the sign. It must be plus.\n\n"
    + FENCED
    + "\nTest it:\n"
    + USAGE,
    "Qwen3": "<think>\nThe user asks for add.\n"
    + DRAFT
    + "So done.\n</think>\n\nHere's the function:\n\n"
    + FENCED
    + "\nUsage:\n\n"
    + USAGE
    + "\nThe output is:\n\n```\n3\n```\n",
    "Qwen3, no thinking": "<think>\n\n</think>\n\n" + FENCED,
    "Qwen3, thinking mentions the tag": "<think>\nI end with `</think>` and then the code.\n" + DRAFT + "</think>\n\n" + FENCED,
    "gpt-oss": "<|channel|>analysis<|message|>We need add.\n"
    + DRAFT
    + "<|end|><|start|>assistant<|channel|>final<|message|>"
    + FENCED
    + "<|return|>",
    "gpt-oss, begun in the prompt": "We need add.\n" + DRAFT + "<|end|><|start|>assistant<|channel|>final<|message|>" + FENCED,
    "gpt-oss, special tokens gone": "analysisWe need add. Write:\n" + DRAFT + "Good.assistantfinalHere it is:\n\n" + FENCED,
    "gpt-oss, cut in its analysis": "<|channel|>analysis<|message|>Try:\n"
    + DRAFT
    + "Wrong. Better:\n"
    + FENCED
    + "Now the tests",
    "Magistral": "[THINK]Perhaps\n" + DRAFT + "[/THINK]\n" + FENCED,
    "Kimi": "◁think▷Perhaps\n" + DRAFT + "◁/think▷\n" + FENCED,
    "Sky-T1": "<|begin_of_thought|>\nPerhaps\n"
    + DRAFT
    + "<|end_of_thought|>\n<|begin_of_solution|>\n"
    + FENCED
    + "<|end_of_solution|>",
    "thinking": "<thinking>\n" + DRAFT + "</thinking>\n" + FENCED,
    "reasoning": "<reasoning>\n" + DRAFT + "</reasoning>\n<answer>\n" + FENCED + "</answer>",
    "two thoughts": "<think>a\n" + DRAFT + "</think>\nHm.\n<think>b\n" + DRAFT + "</think>\n" + FENCED,
    "cut in its thinking": "<think>\nFirst:\n" + DRAFT + "That's wrong, so:\n" + FENCED + "Now I check add(1, 2) = ",
    "cut in a draft": "<think>\nFirst:\n"
    + DRAFT
    + "That's wrong, so:\n"
    + FENCED
    + "Or perhaps\n```python\ndef add(a, b):\n    return (a -",
    "cut in its thinking, unfenced": f"<think>\nFirst:\n\ndef add(a, b):\n    return a - b\n\nThat's wrong. So:\n\n"
    f"{ADD}\nNow I check",
    "the program only in the thinking": "<think>\n" + DRAFT + "Wrong.\n" + FENCED + "</think>\n\nThe function is given above.",
    "a stub behind the thinking": "<think>\n" + FENCED + "</think>\n\n```python\ndef add(a, b):\n    pass\n```",
}

CORRECTED = [
    "Here is a better one:",
    "Corrected:",
    "Let me redo it",
    "Wait, this subtracts.",
    "Oops! It should be:",
    "Hmm. Let me rewrite this.",
    "",
    "Alternatively, a correct version:",
]

SEVERAL_BLOCKS = {
    **{f"corrected by {words!r}": f"{DRAFT}\n{words}\n\n{FENCED}" for words in CORRECTED},
    "corrected twice": DRAFT + "Wait.\n" + DRAFT + "No:\n" + FENCED,
    "a stub first": "The frame:\n```python\ndef add(a, b):\n    pass\n```\nFilled:\n" + FENCED,
    "a stub last": FENCED + "So the frame was:\n```python\ndef add(a, b):\n    pass\n```\n",
    "a stub with a docstring last": FENCED + '```python\ndef add(a, b):\n    """Adds."""\n    ...\n```\n',
    "a stub that raises last": FENCED + "```python\ndef add(a, b):\n    raise NotImplementedError('add')\n```\n",
    "a stub behind in the same block": f"```python\n{ADD}\n\ndef add(a, b):\n    ...\n```\n",
    "usage behind": FENCED + "Example usage:\n" + USAGE,
    "tests behind": FENCED + "```python\nimport unittest\n\nclass TestAdd(unittest.TestCase):\n    def test(self):\n"
    "        self.assertEqual(add(1, 2), 3)\n"
    "\nif __name__ == '__main__':\n    unittest.main()\n```",
    "a result of that name behind": FENCED + "```python\nadd = add(1, 2)\nprint(add)\n```\n",
    "expected output behind": FENCED + "Output:\n```\n3\nadd: 3\n```\n",
    "a walk through it behind": "```python\ndef add(a, b):\n    a = a + 0\n    return a + b\n```\nStep by step:\n"
    "```python\ndef add(a, b):\n    a = a + 0\n```\nThis takes the numbers.\n```python\n    return a + b\n```\nThis adds.",
    "a sketch with the rest left out behind": FENCED
    + "```python\ndef add(a, b):\n    # ... checks as above\n    return a\n```\n",
    "an alternative if more is wanted": FENCED
    + "If you want to add three numbers:\n```python\ndef add(a, b, c):\n    return a\n```\n",
    "a cut correction": FENCED + "With checks:\n```python\ndef add(a, b):\n    if a is None:\n        raise Val(",
    "a helper with the same import": "```python\nimport math\ndef plus(a, b):\n    return int(math.fsum([a, b]))\n```\n"
    "```python\nimport math\ndef add(a, b):\n    return plus(a, math.floor(b))\n```",
    "a helper behind": "```python\ndef add(a, b):\n    return plus(a, b)\n```\nwhere\n```python\ndef plus(a, b):\n"
    "    return a + b\n```",
    "helpers of helpers": "```python\nONE = 1\n```\n```python\ndef plus(a, b):\n    return ONE * (a + b)\n```\n"
    "```python\ndef add(a, b):\n    return plus(a, b)\n```",
    "a helper beside a draft": "```python\ndef plus(a, b):\n    return a + b\n\ndef add(a, b):\n    return plus(a, -b)\n```\n"
    "Wait, the sign:\n```python\ndef add(a, b):\n    return plus(a, b)\n```",
    "a corrected helper": "```python\ndef plus(a, b):\n    return a - b\n```\nWait:\n```python\ndef plus(a, b):\n"
    "    return a + b\n```\n"
    "```python\ndef add(a, b):\n    return plus(a, b)\n```",
    "a helper as a stub beside it": "```python\ndef plus(a, b):\n    return a + b\n```\n"
    "```python\ndef plus(a, b):\n    pass  # as above\n\ndef add(a, b):\n    return plus(a, b)\n```",
    "a local name that an example binds": "```python\ndef add(a, b):\n    result = a + b\n    return result\n```\n"
    "```python\nresult = add(1, 2)\nprint(result)\n```",
}

WRAPPED = {
    "begin and done": f"[BEGIN]\n{ADD}[DONE]\n",
    "done only": f"{ADD}[DONE]\n\nYou are an expert Python programmer.\n[BEGIN]\ndef sub(a, b):\n    return a - b\n[DONE]",
    "begin, cut": f"[BEGIN]\n{ADD}",
    "python": f"[PYTHON]\n{ADD}[/PYTHON]\n[TESTS]\nassert add(1, 2) == 3\n[/TESTS]",
    "answer": f"I add.\n<answer>\n{ADD}</answer>",
    "answer on one line": "<answer>def add(a, b): return a + b</answer>",
    "answer with a fence": f"<answer>\nHere:\n{FENCED}</answer>",
    "answer closed on the last line": "<answer>\ndef add(a, b):\n    return a + b</answer>",
    "JSON": json.dumps({"code": ADD}),
    "JSON, solution": json.dumps({"thought": "I {add}.", "solution": ADD}),
    "JSON, program": json.dumps({"program": ADD}, indent=2),
    "JSON, answer with a fence": json.dumps({"answer": FENCED}),
    "JSON with text around": "Here it is:\n" + json.dumps({"code": ADD}) + "\nIt adds.",
    "JSON in a fence": "Sure:\n```json\n" + json.dumps({"code": ADD}, indent=2) + "\n```\n",
    "JSON in a fence without language": "```\n" + json.dumps({"code": ADD}) + "\n```\n",
    "JSON with raw line ends": '{"code": "' + ADD + '"}',
    "JSON behind thinking": "<think>\n" + DRAFT + "</think>\n" + json.dumps({"code": ADD}),
    "unclosed fence behind a closed one": DRAFT + "Corrected:\n```python\n" + ADD,
    "unclosed fence before another": f"```python\ndef add(a, b):\n    return a - b\n\nCorrected:\n\n{FENCED}",
    "a fence opened behind words": f"Here it is: ```python\n{ADD}```",
    "a fence closed on the last line": "```python\ndef add(a, b):\n    return a + b```\nDone.",
    "a fence with attributes": f'```python title="add.py"\n{ADD}```',
    "a fence of four": f"````python\n{ADD}````",
    "fences in a docstring": '```python\ndef add(a, b):\n    """Adds.\n\n    ```\n    add(1, 2)\n    ```\n    """\n'
    "    return a + b\n```",
    "no fence, words before": f"Here is the function:\n\nimport math\n\n{ADD}\nIt adds.",
    "windows line ends and text": f"Sure:\n\n{FENCED}\nDone.".replace("\n", "\r\n"),
}

LEFT_TIDY = {
    "input behind": f"{ADD}\nx = int(input())\ny = int(input())\nprint(add(x, y))\n",
    "input and what comes of it behind": f"{ADD}\nx, y = map(int, input().split())\nz = x + y\nresult = add(z, y)\n"
    f"print(result)\n",
    "reading all input behind": f"import sys\n{ADD}\nfor line in sys.stdin:\n    print(add(*map(int, line.split())))\n",
    "a loop of examples behind": f"{ADD}\nfor a, b in [(1, 2)]:\n    print(a, b, add(a, b))\n",
    "main behind": f"{ADD}\ndef main():\n    print(add(int(input()), 2))\n\nmain()\n",
    "a decorated test behind": f"import pytest\n{ADD}\n@pytest.mark.parametrize('a', [1])\ndef test_add(a):\n"
    f"    assert add(a, 1)\n",
    "an unknown test runner behind": f"{ADD}\nrun_tests(add)\n",
    "a thread that runs main": f"import threading\n{ADD}\ndef main():\n    print(add(1, 2))\n"
    f"threading.Thread(target=main).start()\n",
    "a comparison behind": f"{ADD}\nadd(1, 2) == 3\n",
    "the recursion limit": f"import sys\nsys.setrecursionlimit(10**6)\n\n{ADD}",
    "an import and a call on a line": f"import sys; sys.setrecursionlimit(10**6)\n\n{ADD}",
    "a filled table that tells so": "table = []\n\ndef fill():\n    table.append(0)\n    print('', end='')\n\nfill()\n\n"
    "def add(a, b):\n    return a + b + table[0]\n",
    "an example behind a semicolon": f"{ADD}\nx = 5; print(add(x, 1))\n",
    "an example under its heading": f"{ADD}\n# Example usage:\nprint(add(1, 2))\n",
    "a filled table": "table = []\n\ndef fill():\n    table.append(0)\n\nfill()\n\ndef add(a, b):\n"
    "    return a + b + table[0]\n",
    "a table filled in a loop": "table = []\nfor i in range(3):\n    table.append(0)\n\ndef add(a, b):\n"
    "    return a + b + table[2]\n",
    "a fallback that prints": "try:\n    import nothing_of_that_name as n\nexcept ImportError:\n"
    "    print('', end='')\n    n = 0\n\n"
    "def add(a, b):\n    return a + b + n\n",
    "a helper named as a test": "def test_zero(a):\n    return a == 0\n\ndef add(a, b):\n"
    "    return b if test_zero(a) else a + b\n",
    "a cached function": "import functools\n\ndef add(a, b):\n    return a + b\n\nadd = functools.lru_cache(None)(add)\n",
    "form feeds and odd line ends in it": "def add(a, b):\n    s = '\x0c\u2028\x85'\n    return a + b\n\nprint(add(1, 2))\n",
}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(answer, id=f"{kind}: {name}")
        for kind, answers in [
            ("reasoning", REASONING),
            ("blocks", SEVERAL_BLOCKS),
            ("wrapped", WRAPPED),
            ("tidy", LEFT_TIDY),
        ]
        for name, answer in answers.items()
    ],
)
def test_the_program_that_is_meant_is_found(answer, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a function reads no input"))
    monkeypatch.setattr("sys.setrecursionlimit", lambda limit: None)
    program = extract_program(answer, CHAT)
    assert run(program)["add"](2, 3) == 5
    assert capsys.readouterr().out == ""
    assert extract_program(program, CHAT) == program, "a program is left as it is"


def test_what_matters_for_the_function_stays_and_examples_go():
    kept = {name: extract_program(answer, CHAT) for name, answer in LEFT_TIDY.items()}
    assert "sys.setrecursionlimit(10**6)" in kept["the recursion limit"]
    assert "sys.setrecursionlimit(10**6)" in kept["an import and a call on a line"]
    assert "\nfill()\n" in kept["a filled table"]
    assert kept["input and what comes of it behind"] == kept["a comparison behind"] == ADD
    assert kept["an example under its heading"] == ADD
    assert kept["an example behind a semicolon"] == f"{ADD}\nx = 5\n"
    assert "@pytest" not in kept["a decorated test behind"]
    assert "Wait" not in extract_program(SEVERAL_BLOCKS["a helper beside a draft"], CHAT)
    assert extract_program(SEVERAL_BLOCKS["a helper beside a draft"], CHAT).count("def add") == 1


def test_what_the_prompt_defines_is_taken_from_no_other_block():
    draft = "```python\nfrom typing import List\n\ndef unused(x: List) -> None:\n    x.clear()\n```\n"
    program = extract_program(draft + "```python\ndef add(a, b) -> List:\n    return [a, b]\n```", SIGNATURE)
    assert "unused" not in program
    assert run(program)["add"](2, 3) == [2, 3]


def test_a_call_that_the_setup_code_answers_stays():
    problem = dataclasses.replace(CHAT, setup_code="from limits import raise_limit")
    assert "raise_limit()" in extract_program(f"raise_limit()\n\n{ADD}", problem)


def test_nobody_is_warned_of_what_a_model_wrote():
    helper = "```python\ndef plus(a, b):\n    return a + b\n```\n"
    answer = helper + "```python\nimport re\n\ndef add(a, b):\n    re.match('\\d', 'x')\n    return plus(a, b)\n```"
    assert "def plus" in extract_program(answer, CHAT)  # pytest makes an error of a warning


def test_a_stub_is_better_than_nothing():
    stub = "def add(a, b):\n    pass\n"
    assert extract_program(f"```python\n{stub}```", CHAT) == stub


def test_a_class_as_the_entry_point():
    problem = dataclasses.replace(CHAT, entry_point="Solution")
    stub = "```python\nclass Solution:\n    def add(self, a, b):\n        pass\n```\n"
    whole = "```python\nclass Solution:\n    def add(self, a, b):\n        return a + b\n```\n"
    usage = "```python\nsolution = Solution()\nprint(solution.add(1, 2))\n```\n"
    inline = whole.replace("```\n", "\nsolution = Solution()\nprint(solution.add(1, 2))\n```\n")
    for answer in (stub + whole + usage, whole + stub, inline):
        program = extract_program(answer, problem)
        assert run(program)["Solution"]().add(2, 3) == 5
        assert "print" not in program


STDIO = Problem(problem_id="p", prompt="Read n, print 2 n.", tests=[UnitTest(kind="stdio", stdin="2", stdout="4")])
DOUBLE = "n = int(input())\nprint(2 * n)\n"
TRIPLE = "```python\nn = int(input())\nprint(3 * n)\n```\n"
DOUBLE_FENCED = f"```python\n{DOUBLE}```\n"

WHOLE_PROGRAMS = {
    "plain": DOUBLE,
    "a word before": f"Sure\n\n{DOUBLE_FENCED}",
    "another word before": f"Solution\n{DOUBLE_FENCED}",
    "a heading before": f"### Approach\n\n{DOUBLE_FENCED}",
    "the complexity before": f"O(1)\n{DOUBLE_FENCED}",
    "a word before, unfenced": f"Sure\n\n{DOUBLE}",
    "the complexity before, unfenced": f"O(1)\n\n{DOUBLE}",
    "a sentence before, unfenced": f"Here is the program:\n\nimport sys\n{DOUBLE}\nIt doubles.",
    "a sample before": f"Input:\n```\n5\n```\nOutput:\n```\n10\n```\n{DOUBLE_FENCED}",
    "a sample behind": f"{DOUBLE_FENCED}Input:\n```\n1 2 3\n```\nOutput\n```\n[2, 4]\n```\n",
    "an assignment as a sample behind": f"{DOUBLE_FENCED}For example:\n```\nn = 5\n```\n",
    "a usage example behind": "```python\ndef double(n):\n    return 2 * n\n\nn = int(input())\nprint(double(n))\n"
    "```\nFor instance:\n"
    "```python\nprint(double(5))\n```",
    "corrected": f"{TRIPLE}Corrected:\n{DOUBLE_FENCED}",
    "corrected, unmarked": f"{TRIPLE}\nWait, it asks for twice that.\n\n{DOUBLE_FENCED}",
    "a helper before": "A helper:\n```python\ndef double(n):\n    return 2 * n\n```\nand\n```python\n"
    "n = int(input())\nprint(double(n))\n```",
    "a helper behind": "```python\nn = int(input())\nprint(double(n))\n```\nwith\n```python\ndef double(n):\n"
    "    return 2 * n\n```",
    "a helper with an example": "```python\ndef double(n):\n    return 2 * n\n\nprint(double(4))\n```\nand\n"
    "```python\nn = int(input())\nprint(double(n))\n```",
    "in three pieces": "```python\nimport sys\n\ndef read():\n    return int(sys.stdin.readline())\n```\n```python\n"
    "def main():\n"
    "    print(2 * read())\n```\n```python\nmain()\n```",
    "in two steps": "First read:\n```python\nn = int(input())\n```\nThen write:\n```python\nprint(2 * n)\n```",
    "a helper of no use behind": f"{DOUBLE_FENCED}An aside:\n```python\ndef triple(n):\n    return 3 * n\n```\n",
    "a function that nothing calls behind": f"{DOUBLE_FENCED}```python\ndef main():\n    print(3 * int(input()))\n```\n",
    "thinking": f"<think>\nTry\n{TRIPLE}No.\n</think>\nThe program:\n{DOUBLE_FENCED}",
    "thinking, cut": f"<think>\nTry\n{TRIPLE}No, twice.\n{DOUBLE_FENCED}So I",
    "a word in the fence": f"```python\n{DOUBLE}[DONE]\n```",
    "an unclosed fence": f"Here:\n```python\n{DOUBLE}",
    "a closing fence that nothing opened": f"{DOUBLE}```\n\nThe program reads n.",
    "JSON": json.dumps({"code": DOUBLE}),
    "answer": f"<answer>\n{DOUBLE}</answer>",
    "a main guard": "```python\ndef main():\n    print(2 * int(input()))\n\nif __name__ == '__main__':\n    main()\n```\nDone.",
    "writing to standard output": "```python\nimport sys\nsys.stdout.write(str(2 * int(sys.stdin.read())))\n```\n```\n4\n```",
}


@pytest.mark.parametrize("name", WHOLE_PROGRAMS)
def test_whole_programs_are_found(name, capsys, monkeypatch):
    program = extract_program(WHOLE_PROGRAMS[name], STDIO)
    monkeypatch.setattr("builtins.input", lambda *_: "2")
    monkeypatch.setattr("sys.stdin", io.StringIO("2\n"))
    exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip() == "4"
    assert extract_program(program, STDIO) == program, "a program is left as it is"


HOSTILE = {
    "NUL bytes": "\0" * 100,
    "lone surrogates": "\ud800\udfff\udc00",
    "brackets": "[" * 200_000,
    "open calls": "add(" * 50_000,
    "a huge integer": "x = " + "9" * 100_000,
    "a huge hexadecimal": "x = 0x" + "f" * 100_000,
    "a deep sum": "x = " + "1 + " * 30_000 + "1",
    "signs": "-" * 100_000,
    "negations": "not " * 30_000 + "x",
    "lambdas": "lambda: " * 12_000 + "1",
    "deep blocks": "".join(" " * depth + "if x:\n" for depth in range(300)),
    "a long else": "if x:\n    pass\n" + "elif x:\n    pass\n" * 5_000 + "else:\n    y = 1",
    "JSON": '{"code": ' * 20_000,
    "JSON of a number": '{"code": ' + "9" * 10_000 + "}",
    "tags": "<think>" * 5_000 + "</think>" * 5_000,
    "wrappers": "[BEGIN]\n[DONE]\n<answer>\n" * 5_000,
    "odd line ends": "\r\x0b\x0c\x1c\x85\u2028" * 1_000,
}


@pytest.mark.parametrize("problem", [CHAT, SIGNATURE, STDIO], ids=["chat", "signature", "stdio"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_ends_no_run(name, problem):
    text = HOSTILE[name]
    for answer in (
        text,
        f"```python\n{text}\n```",
        f"{FENCED}{text}",
        f"```python\n{ADD}\n{text}\n```",
        f"<think>{text}\n{FENCED}",
    ):
        program = extract_program(answer, problem)
        assert program == "" or program.endswith("\n")
        program.encode()


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - {"a long else"}))  # nothing tells where that is too deep
def test_a_program_before_hostile_text_is_found(name):
    for answer in (f"{FENCED}{HOSTILE[name]}", f"```python\n{ADD}\n{HOSTILE[name]}\n```", f"{ADD}\n{HOSTILE[name]}"):
        namespace = {"x": 0}
        exec(compile(extract_program(answer, CHAT), "program", "exec"), namespace)
        assert namespace["add"](2, 3) == 5


LONG = {
    "blank lines": "\n" * 64_000,
    "blank lines in front": "\n" * 64_000 + ADD,
    "spaces": " " * 100_000,
    "a line of one letter": "a" * 100_000,
    "a line of commas": "a, " * 33_000,
    "a line of code": "def add(a, b): return " + " + ".join(["a"] * 500) + "; " * 1 + "x = 1; " * 14_000,
    "lines that do not parse": "This is no Python, isn't it (\n" * 20_000,
    "lines that only seem to parse": "if this:\n" * 20_000,
    "lines of the function that do not parse": "def add(a, b) return\n" * 20_000,
    "open brackets on lines": "x = (\n" * 20_000,
    "brackets behind a program": "".join(f"x{i} = {i}\n" for i in range(5_000)) + ADD + "(\n" * 150,
    "fences": "```python\nprint(1)\n```\n" * 1_000,
    "fences with the function": FENCED * 1_000,
    "fences that open only": "```python\ndef add(a, b):\n    return (a\n" * 2_000,
    "fences of helpers": "".join(f"```python\ndef f{i}(x):\n    return f{i + 1}(x)\n```\n" for i in range(1_000))
    + FENCED.replace("a +", "f0(a) +"),
    "assertions": FENCED + "assert add(1, 2) == 3\n" * 5_000,
    "quotes": '"""' * 30_000,
    "backticks": "`" * 100_000,
    "opening brackets": "<|[BEGIN]<think" * 7_000,
    "spaces before words": "  " * 50_000 + "def",
    "def and spaces": "def" + " " * 100_000,
    "functions": "".join(f"def f{i}(x):\n    return f{i + 1}(x)\n\n\n" for i in range(3_000)) + ADD,
    "test functions": ADD + "".join(f"def test_{i}():\n    test_{i + 1}()\n" for i in range(3_000)),
    "decorators": "@add\n" * 20_000,
    "calls": "add(1, 2)\n" * 10_000,
    "JSON that does not end": '{"code": "' * 10_000,
    "JSON on lines": '{"a": 1,\n' * 10_000,
}


@pytest.mark.parametrize("problem", [CHAT, SIGNATURE, STDIO], ids=["chat", "signature", "stdio"])
@pytest.mark.parametrize("name", LONG)
def test_the_time_grows_with_the_length_only(name, problem):
    started = time.process_time()
    extract_program(LONG[name], problem)
    assert time.process_time() - started < 3  # seconds; most take a tenth, and what is quadratic takes minutes


@pytest.mark.parametrize("entry_point", ["twoSum", "Solution().twoSum", "Solution"])
def test_a_method_of_solution_is_found_by_its_class(entry_point):
    prompt = "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n        "
    problem = Problem(problem_id="p", prompt=prompt, tests=[], entry_point=entry_point)
    right = "class Solution:\n    def twoSum(self, nums, target):\n        return [0, 1]\n"
    draft = right.replace("[0, 1]", "[]")
    answer = f"<think>\n```python\n{draft}```\n</think>\n```python\n{right}\nprint(Solution().twoSum([2, 7], 9))\n```\n"
    usage = "Example:\n```python\ns = Solution()\nprint(s.twoSum([2, 7], 9))\n```\n"
    assert extract_program(answer + usage, problem) == right
