"""Readers of the formats that problems are published in, told apart by their columns; see `FORMATS` at the end.

Every reader takes a row as published and gives a [`Problem`][trl_rrtf.Problem]. What a format cannot carry over is told in the
docs (problems.md).
"""

from __future__ import annotations

import ast
import base64
import functools
import hashlib
import io
import json
import pickle
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trl_rrtf.errors import RowError
from trl_rrtf.python_source import parse_program
from trl_rrtf.rows import checks
from trl_rrtf.rows.records import LEETCODE_IMPORTS, Problem, UnitTest

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A published format.

    Attributes:
        columns: The columns that tell it.
        read: Row and place to problem.
        has_unusable_rows: Whether the published file is known to hold rows that are no problems (it was scraped, and without
            tests for some, say), so that they are passed over and counted unless somebody wants to be strict.
    """

    columns: frozenset[str]
    read: Callable[[Row, str], Problem]
    has_unusable_rows: bool = False


def find_format(columns: set[str]) -> Format | None:
    """The first format whose columns are all there."""
    return next((entry for entry in FORMATS.values() if entry.columns <= columns), None)


def _humaneval(row: Row, where: str) -> Problem:
    return Problem(
        problem_id=row["task_id"],
        prompt=row["prompt"],
        tests=[UnitTest(kind="check", code=row["test"])],
        entry_point=row["entry_point"],
        reference_solution=row["prompt"] + row["canonical_solution"],
    )


def _humaneval_x(row: Row, where: str) -> Problem:
    """The test ends with a call of `check`, which names the function."""
    functions = [
        node.name for node in _parsed(row, "declaration", where, body="    pass").body if isinstance(node, ast.FunctionDef)
    ]
    if not functions:
        raise RowError(where, "declaration", "no function is declared; only the Python part of HumanEval-X can be read")
    test = _parsed(row, "test", where)
    test.body = [node for node in test.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))]
    return Problem(
        problem_id=f"HumanEval-X/{row['task_id']}",
        prompt=row["prompt"],
        tests=[UnitTest(kind="check", code=ast.unparse(test))],
        entry_point=functions[-1],
        reference_solution=row["prompt"] + row["canonical_solution"],
    )


def _mbpp(row: Row, where: str) -> Problem:
    tests = [*row["test_list"], *(row.get("challenge_test_list") or [])]
    if not tests:
        raise RowError(where, "test_list", "the list is empty; a problem needs at least one test")
    # MBPP's own prompt shows the assertions, since only they tell the function's name and arguments.
    statement = str(row.get("text") or row["prompt"])
    shown = "\n".join(row["test_list"])
    code = str(row["code"]).replace("\r\n", "\n")
    try:
        entry_point = _called_function(tests[0], code)
        setup_code = "\n".join([row.get("test_setup_code") or "", *(row.get("test_imports") or [])]).strip()
        only_imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in parse_program(setup_code).body)
    except SyntaxError as error:
        raise RowError(where, None, f"`code`, `test_list` or the setup code does not parse as Python: {error}") from error
    if row.get("test"):  # MBPP+: one script with many inputs
        tests = [row["test"]]
    if not only_imports:  # it builds the arguments from the candidate's classes, so it is a part of each test
        tests = [f"{setup_code}\n{test}" for test in tests]
        setup_code = ""
    return Problem(
        problem_id=f"MBPP/{row['task_id']}",
        prompt=f"{statement}\nYour code should pass these tests:\n{shown}",
        tests=[UnitTest(kind="assert", code=test) for test in tests],
        entry_point=entry_point,
        setup_code=setup_code,
        reference_solution=code,
    )


def _called_function(test: str, code: str) -> str | None:
    """The function of the reference that the assertion calls."""
    defined = {node.name for node in ast.walk(parse_program(code)) if isinstance(node, ast.FunctionDef)}
    called = [
        node.func.id for node in ast.walk(parse_program(test)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    return next((name for name in called if name in defined), None)


def _apps(row: Row, where: str) -> Problem:
    """APPS and TACO: whole programs, or functions named by `fn_name`, inside `class Solution` where the starter code has it."""
    cases = _json(row, "input_output", where) or {}
    if not isinstance(cases, Mapping):
        raise RowError(where, "input_output", f"no object with `inputs` and `outputs`: {checks.shown(cases)}")
    solutions = _json(row, "solutions", where) or []
    starter = str(row.get("starter_code") or "")
    inputs, outputs = cases.get("inputs") or [], cases.get("outputs") or []
    for name, values in (("inputs", inputs), ("outputs", outputs)):
        if not isinstance(values, list):
            raise RowError(where, "input_output", f"`{name}` is no list: {checks.shown(values)}")
    if len(inputs) != len(outputs):
        raise RowError(where, "input_output", f"unequal lists: {len(inputs)} inputs and {len(outputs)} outputs")
    pairs = list(zip(inputs, outputs, strict=True))
    function, entry_point, setup_code = _name(cases.get("fn_name"), where, "input_output"), None, _APPS_SETUP
    if function:
        entry_point = "Solution" if "class Solution" in (starter or "".join(solutions[:1])) else function
        for arguments in inputs:
            if not isinstance(arguments, list):
                raise RowError(where, "input_output", f"the arguments of a call are no list: {checks.shown(arguments)}")
        tests = [_call(entry_point, function, arguments, result, unwrap=True) for arguments, result in pairs]
        setup_code = _without(setup_code, function)
    elif pairs and "class Solution" in starter:
        entry_point, method = "Solution", _method(starter, where)
        tests = [method.test(given, result, where, "input_output", unwrap=True) for given, result in pairs]
    else:
        tests = [
            UnitTest(kind="stdio", stdin=_text(given, where, "inputs"), stdout=_text(result, where, "outputs"))
            for given, result in pairs
        ]
        setup_code += "\nstdin = sys.stdin\nstdout = sys.stdout"
    if entry_point == "Solution":
        setup_code = f"{setup_code}\n{LEETCODE_IMPORTS}"
    return Problem(
        problem_id=f"{row.get('source') or 'APPS'}/{_apps_name(row)}",
        prompt=f"{row['question'].strip()}\n\n{starter}".strip(),
        tests=tests,
        entry_point=entry_point,
        setup_code=setup_code,
        reference_solution=solutions[0] if solutions else None,
        extra={"difficulty": row.get("difficulty")},
    )


def _name(value: Any, where: str, column: str) -> str | None:
    """The name of the function that is called, or None where there is none."""
    if value in (None, ""):
        return None
    if not (isinstance(value, str) and value.isidentifier()):
        raise RowError(where, column, f"the name of the function is no name: {checks.shown(value)}")
    return value


def _apps_name(row: Row) -> str:
    """APPS numbers its rows; TACO names some of them, and different ones alike, so that only the content tells them apart."""
    if row.get("problem_id") is not None:
        return str(row["problem_id"])
    content = _hash(f"{row['question']}{row['input_output']}{row.get('starter_code') or ''}")
    return f"{row['name']}-{content}" if row.get("name") else content


_APPS_SETUP = """\
import sys
import time
import itertools
from itertools import accumulate, product, permutations, combinations
import collections
from collections import Counter, OrderedDict, deque, defaultdict, ChainMap
from functools import lru_cache
import math
from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2
import fractions
from typing import List, Tuple
import random
import heapq
from heapq import *"""
"""What the graders of APPS and TACO import for every program, but for NumPy: each program would load it anew."""

_LIVECODEBENCH_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools"),
    *("functools", "operator", "io", "sys", "json"),
)
_LIVECODEBENCH_SETUP = "\n".join(
    [
        *(f"from {module} import *" for module in (*_LIVECODEBENCH_MODULES, "builtins", "typing")),
        *(f"import {module}" for module in _LIVECODEBENCH_MODULES),
        "sys.setrecursionlimit(50000)",
    ]
)
"""What LiveCodeBench's grader runs before every program. Its order matters: `builtins` takes `pow` back from `math`."""


def _without(imports: str, name: str) -> str:
    """Imports without a name that the candidate has to define: a program without `gcd` must not pass by `math`'s."""
    return f"{imports}\ndel {name}" if name in _imported_names(imports) else imports


@functools.cache
def _imported_names(imports: str) -> frozenset[str]:
    names: dict[str, Any] = {}
    exec(imports, names)
    return frozenset(names)


@dataclass(frozen=True)
class _Method:
    """The one method of a starter code's `class Solution`.

    Attributes:
        name: Its name.
        parameters: Their annotations, without `self`; an empty text where there is none.
        num_required: How many have no default.
    """

    name: str
    parameters: tuple[str, ...]
    num_required: int

    def test(self, given: Any, result: Any, where: str, column: str, *, unwrap: bool) -> UnitTest:
        """A call, of a list of arguments or of text with one JSON value a line.

        Raises:
            RowError: It cannot be told what the arguments are.
        """
        arguments = given
        if isinstance(given, str):  # the published form of a whole program's input
            try:
                arguments = [_loads(line) for line in given.splitlines() if line.strip()]
                result, unwrap = _loads(result) if isinstance(result, str) else result, False
            except ValueError as error:
                raise RowError(where, column, f"{self._undecided}: {error}, in {checks.shown(given)}") from error
        if not isinstance(arguments, list) or not self.num_required <= len(arguments) <= len(self.parameters):
            raise RowError(where, column, f"{self._undecided}: {checks.shown(given)} for {len(self.parameters)} parameters")
        for argument, annotation in zip(arguments, self.parameters, strict=False):
            if isinstance(argument, str) and "str" not in annotation:  # it may as well be a line of numbers
                raise RowError(
                    where,
                    column,
                    f"{self._undecided}: {checks.shown(argument)} for a parameter annotated {annotation or 'not'}",
                )
        return _call("Solution", self.name, arguments, result, unwrap=unwrap)

    @property
    def _undecided(self) -> str:
        return f"no `fn_name`, and the inputs do not fit `Solution().{self.name}`"


def _method(starter: str, where: str) -> _Method:
    """The method that a starter code asks for.

    Raises:
        RowError: There is none, or several.
    """
    body = starter[starter.index("class Solution") :]
    heads = [_head(body[found.start() :]) for found in re.finditer(r"def\s+[A-Za-z]\w*\s*\(\s*self\b", body)]
    methods = [head for head in heads if head is not None]
    if len(methods) != 1:
        names = ", ".join(head.name for head in methods) or "none"
        raise RowError(where, "starter_code", f"no `fn_name`, and `class Solution` has not one method to call: it has {names}")
    head = methods[0]
    parameters = [*head.args.posonlyargs, *head.args.args][1:]
    annotations = tuple(ast.unparse(one.annotation) if one.annotation else "" for one in parameters)
    return _Method(head.name, annotations, len(parameters) - len(head.args.defaults))


def _head(text: str) -> ast.FunctionDef | None:
    """The function at the start of a text, whatever its body is: starter code has none."""
    for colon in re.finditer(":", text):
        try:
            (function,) = parse_program(f"{text[: colon.end()]} pass").body
        except (SyntaxError, ValueError):  # the colon of an annotation
            continue
        return function if isinstance(function, ast.FunctionDef) else None
    return None


_PYTHON3 = 3
"""Number of Python 3 among CodeContests' languages."""


def _code_contests(row: Row, where: str) -> Problem:
    tests = []
    for column in ("public_tests", "private_tests", "generated_tests"):
        cases = row.get(column) or {"input": [], "output": []}
        if len(cases["input"]) != len(cases["output"]):
            counts = f"{len(cases['input'])} inputs and {len(cases['output'])} outputs"
            raise RowError(where, column, f"unequal lists: {counts}")
        tests += [
            UnitTest(kind="stdio", stdin=_text(stdin, where, column), stdout=_text(stdout, where, column))
            for stdin, stdout in zip(cases["input"], cases["output"], strict=True)
        ]
    solutions = row.get("solutions") or {"language": [], "solution": []}
    programs = zip(solutions["language"], solutions["solution"], strict=True)
    return Problem(
        problem_id=f"CodeContests/{row['name']}",
        prompt=row["description"],
        tests=tests,
        reference_solution=next((program for language, program in programs if language == _PYTHON3), None),
        extra={"difficulty": row.get("difficulty"), "public_tests": len((row.get("public_tests") or {"input": []})["input"])},
    )


def _leetcode(row: Row, where: str) -> Problem:
    """`check(candidate)` gets a method of a new `Solution`; `prompt` holds imports and LeetCode's node classes."""
    match = re.fullmatch(r"(\w+)\(\)\.(\w+)", row["entry_point"])
    if match is None:
        raise RowError(where, "entry_point", f"expected `Class().method`, got {row['entry_point']!r}")
    name, method = match.groups()
    test = f"{row['test']}\n\n_check_method = check\n\ndef check(candidate):\n    _check_method(candidate().{method})\n"
    return Problem(
        problem_id=f"LeetCode/{row['task_id']}",
        prompt=f"{row['problem_description'].strip()}\n\n{row['starter_code'].rstrip()}\n",
        tests=[UnitTest(kind="check", code=test)],
        entry_point=name,
        setup_code=row["prompt"],
        reference_solution=row["completion"],
        extra={"difficulty": row.get("difficulty")},
    )


_CODEREVAL_LEVELS = ("self_contained", "slib_runnable")


def _codereval(row: Row, where: str) -> Problem:
    """Only functions that need nothing but the standard library; the others run inside their projects."""
    if row["level"] not in _CODEREVAL_LEVELS:
        raise RowError(
            where,
            "level",
            f"only {' and '.join(_CODEREVAL_LEVELS)} run outside their projects, got {row['level']}; choose one, such as "
            "`--where level=self_contained`",
        )
    code = str(row["code"])
    signature = code[: code.index(":\n") + 1] if ":\n" in code else f"def {row['name']}():"
    docstring = str(row.get("docstring") or row.get("human_label") or "").strip()
    test = row.get("test")
    return Problem(
        problem_id=f"CoderEval/{row['_id']}",
        prompt=f'{signature}\n    """{docstring}"""\n',
        tests=[UnitTest(kind="check" if "def check(" in test else "assert", code=test)] if test else [],
        entry_point=row["name"],
        reference_solution=code,
        extra={"level": row["level"]},
    )


def _livecodebench(row: Row, where: str) -> Problem:
    public_cases = _json(row, "public_test_cases", where) or []
    cases = [*public_cases, *_private_cases(row, where)]
    function = _name((_json(row, "metadata", where) or {}).get("func_name"), where, "metadata")
    starter = str(row.get("starter_code") or "")
    method = _method(starter, where) if not function and "class Solution" in starter else None
    tests = []
    for case in cases:
        given, expected = (_text(case[name], where, "public_test_cases, private_test_cases") for name in ("input", "output"))
        if method is not None:
            tests.append(method.test(given, expected, where, "public_test_cases, private_test_cases", unwrap=False))
        elif case["testtype"] == "stdin":
            tests.append(UnitTest(kind="stdio", stdin=given, stdout=expected))
        elif not function:
            raise RowError(where, "metadata", "no `func_name`, and no `class Solution` in the starter code tells the function")
        else:  # one JSON value a line
            arguments = [_loads(line) for line in given.splitlines() if line.strip()]
            tests.append(_call("Solution", function, arguments, _loads(expected), unwrap=False))
    return Problem(
        problem_id=f"LiveCodeBench/{row['question_id']}",
        prompt=f"{row['question_content'].strip()}\n\n{starter}".strip() + "\n",
        tests=tests,
        entry_point="Solution" if function or method else None,
        setup_code=_LIVECODEBENCH_SETUP,
        extra={
            "difficulty": row.get("difficulty"),
            "contest_date": str(row.get("contest_date")),
            "public_tests": len(public_cases),
        },
    )


def _private_cases(row: Row, where: str) -> list[dict[str, str]]:
    """JSON, or the same pickled as text, compressed and in base64."""
    text = row.get("private_test_cases") or "[]"
    try:
        cases: list[dict[str, str]] = json.loads(text)
    except json.JSONDecodeError:
        try:
            pickled = zlib.decompress(base64.b64decode(text))
            cases = json.loads(_TextUnpickler(io.BytesIO(pickled)).load())
        except (ValueError, zlib.error, pickle.UnpicklingError) as error:
            raise RowError(where, "private_test_cases", f"neither JSON nor packed JSON: {error}") from error
    return cases


class _TextUnpickler(pickle.Unpickler):
    """Reads a pickled text; anything that would import or call is refused, since data sets are not trusted."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, and only text is read")


def _codealpaca(row: Row, where: str) -> Problem:
    """Instructions without tests: seeds of Evol-Instruct."""
    statement = "\n".join(part for part in (row["instruction"].strip(), str(row.get("input") or "").strip()) if part)
    return Problem(problem_id=f"CodeAlpaca/{_hash(statement)}", prompt=statement, tests=[], extra={"answer": row["output"]})


def _call(entry_point: str, function: str, arguments: list[Any], result: Any, *, unwrap: bool) -> UnitTest:
    """A call of a function, or of a method of a new `Solution`; `unwrap`: the result may stand in a list of one, as in APPS."""
    target = f"{entry_point}().{function}" if entry_point == "Solution" else function
    called = f"{target}({', '.join(map(repr, arguments))})"
    if unwrap and isinstance(result, list) and len(result) == 1:
        return UnitTest(kind="assert", code=f"assert {called} in ({result!r}, {result[0]!r})")
    return UnitTest(kind="assert", code=f"assert {called} == {result!r}")


def _text(value: Any, where: str, column: str) -> str:
    """Standard input or output: text, or a list of lines. The official graders pass no program where it is something else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value) + "\n"
    raise RowError(where, column, f"standard input or output is neither text nor a list of lines: {checks.shown(value)}")


def _json(row: Row, column: str, where: str) -> Any:
    value = row.get(column)
    if not isinstance(value, str):
        return value
    try:
        return _loads(value) if value.strip() else None
    except ValueError as error:
        raise RowError(where, column, str(error)) from error
    except RecursionError as error:
        raise RowError(where, column, "nested too deeply to be read") from error


def _loads(text: str) -> Any:
    """A JSON value that can be written as Python.

    Raises:
        ValueError: It is not JSON, has a number of more digits than Python reads, or one that is not finite.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    except ValueError as error:
        raise error if "JSON" in str(error) else ValueError(f"a number has more digits than Python reads: {error}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"not JSON: {name} is no number")


def _parsed(row: Row, column: str, where: str, body: str = "") -> ast.Module:
    try:
        return parse_program(f"{row[column].rstrip()}\n{body}")
    except SyntaxError as error:
        raise RowError(where, column, f"it does not parse as Python: {error}") from error


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


FORMATS = {
    "HumanEval, HumanEval+": Format(frozenset({"task_id", "prompt", "canonical_solution", "test", "entry_point"}), _humaneval),
    "HumanEval-X (Python)": Format(frozenset({"task_id", "prompt", "declaration", "canonical_solution", "test"}), _humaneval_x),
    "MBPP": Format(frozenset({"task_id", "text", "code", "test_list"}), _mbpp),
    "MBPP sanitized, MBPP+": Format(frozenset({"task_id", "prompt", "code", "test_list"}), _mbpp),
    "APPS, TACO": Format(frozenset({"question", "solutions", "input_output"}), _apps, has_unusable_rows=True),
    "CodeContests": Format(
        frozenset({"name", "description", "public_tests", "solutions"}), _code_contests, has_unusable_rows=True
    ),
    "LeetCode": Format(
        frozenset({"task_id", "problem_description", "starter_code", "entry_point", "prompt", "completion", "test"}), _leetcode
    ),
    "CoderEval": Format(frozenset({"_id", "name", "code", "level"}), _codereval),
    "LiveCodeBench": Format(
        frozenset({"question_id", "question_content", "public_test_cases", "metadata"}), _livecodebench, has_unusable_rows=True
    ),
    "CodeAlpaca": Format(frozenset({"instruction", "output"}), _codealpaca),
}
"""Name -> format. The first whose columns are there is meant, so a format stands before those that have fewer columns."""
