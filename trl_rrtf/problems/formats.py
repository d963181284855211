"""Readers of the formats that problems are published in, told apart by their columns; see `FORMATS` at the end.

Every reader takes a row as published and gives a [`Problem`][trl_rrtf.Problem]. What a format cannot carry over is told in the
docs (problems.md).
"""

from __future__ import annotations

import ast
import base64
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
from trl_rrtf.rows.records import Problem, UnitTest

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A published format.

    Attributes:
        columns: The columns that tell it.
        read: Row and place to problem.
    """

    columns: frozenset[str]
    read: Callable[[Row, str], Problem]


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
    solutions = _json(row, "solutions", where) or []
    starter = str(row.get("starter_code") or "")
    statement = f"{row['question'].strip()}\n\n{starter}".strip()
    inputs, outputs = cases.get("inputs") or [], cases.get("outputs") or []
    if not inputs:
        raise RowError(where, "input_output", "there is no test in it; drop the problem, or give it tests")
    function = cases.get("fn_name")
    if function:
        entry_point = "Solution" if "class Solution" in (starter or "".join(solutions[:1])) else function
        tests = [
            _call(entry_point, function, arguments, result, unwrap=True)
            for arguments, result in zip(inputs, outputs, strict=True)
        ]
    else:
        entry_point = None
        tests = [UnitTest(kind="stdio", stdin=_lines(a), stdout=_lines(b)) for a, b in zip(inputs, outputs, strict=True)]
    return Problem(
        problem_id=f"{row.get('source') or 'APPS'}/{_apps_name(row)}",
        prompt=statement,
        tests=tests,
        entry_point=entry_point,
        setup_code=_TYPING if entry_point == "Solution" else "",
        reference_solution=solutions[0] if solutions else None,
        extra={"difficulty": row.get("difficulty")},
    )


def _apps_name(row: Row) -> str:
    """APPS numbers its rows; TACO names some of them, and different ones alike, so that only the content tells them apart."""
    if row.get("problem_id") is not None:
        return str(row["problem_id"])
    content = _hash(f"{row['question']}{row['input_output']}")
    return f"{row['name']}-{content}" if row.get("name") else content


_TYPING = "from typing import *\nfrom collections import *"
"""What LeetCode imports for every solution."""

_PYTHON3 = 3
"""Number of Python 3 among CodeContests' languages."""


def _code_contests(row: Row, where: str) -> Problem:
    tests = []
    for column in ("public_tests", "private_tests", "generated_tests"):
        cases = row.get(column) or {"input": [], "output": []}
        pairs = zip(cases["input"], cases["output"], strict=True)
        tests += [UnitTest(kind="stdio", stdin=stdin, stdout=stdout) for stdin, stdout in pairs]
    if not tests:
        raise RowError(where, "public_tests", "there is no test in any of the three columns; drop the problem")
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
    cases = [*_json(row, "public_test_cases", where), *_private_cases(row, where)]
    function: Any = (_json(row, "metadata", where) or {}).get("func_name")
    starter = str(row.get("starter_code") or "")
    tests = []
    for case in cases:
        if case["testtype"] == "stdin":
            tests.append(UnitTest(kind="stdio", stdin=case["input"], stdout=case["output"]))
        else:  # one JSON value a line
            arguments = [json.loads(line) for line in case["input"].splitlines() if line.strip()]
            tests.append(_call("Solution", function, arguments, json.loads(case["output"]), unwrap=False))
    return Problem(
        problem_id=f"LiveCodeBench/{row['question_id']}",
        prompt=f"{row['question_content'].strip()}\n\n{starter}".strip() + "\n",
        tests=tests,
        entry_point="Solution" if function else None,
        setup_code=_TYPING if function else "",
        extra={"difficulty": row.get("difficulty"), "contest_date": str(row.get("contest_date"))},
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


def _lines(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(map(str, value)) + "\n"


def _json(row: Row, column: str, where: str) -> Any:
    value = row.get(column)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except json.JSONDecodeError as error:
        raise RowError(where, column, f"not JSON: {error}") from error


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
    "APPS, TACO": Format(frozenset({"question", "solutions", "input_output"}), _apps),
    "CodeContests": Format(frozenset({"name", "description", "public_tests", "solutions"}), _code_contests),
    "LeetCode": Format(
        frozenset({"task_id", "problem_description", "starter_code", "entry_point", "prompt", "completion", "test"}), _leetcode
    ),
    "CoderEval": Format(frozenset({"_id", "name", "code", "level"}), _codereval),
    "LiveCodeBench": Format(frozenset({"question_id", "question_content", "public_test_cases", "metadata"}), _livecodebench),
    "CodeAlpaca": Format(frozenset({"instruction", "output"}), _codealpaca),
}
"""Name -> format. The first whose columns are there is meant, so a format stands before those that have fewer columns."""
