"""A problem made ready for its checker: its tests read and counted, once, before any program runs."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.judging.assertions import (
    count_assertions,
    expected_names,
    prompt_helpers,
    record_assertions,
    trusted_imports,
)
from trl_rrtf.rows.records import Problem, UnitTest


@dataclass(frozen=True, eq=False)
class PreparedProblem:
    """What goes to the checker.

    Attributes:
        message: Plain values.
        total: Number of assertions as written; those in loops count once here.
        runs: How many processes a candidate needs: one for all functions, and one per whole program.
    """

    message: dict[str, Any]
    total: int
    runs: int


def check_tests(problems: Iterable[Problem]) -> None:
    """Reads the tests of all problems, to find those that cannot be run before any expensive work.

    Raises:
        ConfigError: As in `prepare`.
    """
    for problem in problems:
        prepare(problem)


def prepare(problem: Problem) -> PreparedProblem:
    """Reads the tests of a problem.

    Raises:
        ConfigError: The problem has no test, or its tests cannot be run. That is never a verdict on a candidate.
    """
    name = problem.problem_id
    if not problem.tests:
        raise ConfigError(f"`tests` of problem {name!r}: the list is empty; a program without tests cannot be judged")
    tests, trees = [], []
    for test in problem.tests:
        if test.kind in ("call", "check") and not problem.entry_point:
            raise ConfigError(f"`entry_point` of problem {name!r}: a test of kind `{test.kind}` needs the function's name")
        try:
            prepared, tree = _prepared_test(test)
        except (SyntaxError, ValueError) as error:
            raise ConfigError(f"`tests` of problem {name!r}: a test of kind `{test.kind}` cannot be read: {error}") from error
        tests.append(prepared)
        trees += [tree] if tree else []
    total = sum(max(1, test["assertions"]) for test in tests)
    programs = sum(test["kind"] == "stdio" for test in tests)
    names = expected_names(trees) - {problem.entry_point}
    imports = trusted_imports(trees, names)
    message = {
        "setup_code": problem.setup_code,
        "helpers": prompt_helpers(problem),
        "entry_point": problem.entry_point,
        "tests": tests,
        "written": total,
        "expected": sorted(names - imports.keys()),
        "imports": imports,
    }
    return PreparedProblem(message, total, programs + (programs < len(tests)))


def _prepared_test(test: UnitTest) -> tuple[dict[str, Any], ast.Module | None]:
    """A test as plain values, and its syntax tree if it is code."""
    prepared: dict[str, Any] = {"kind": test.kind, "code": None, "stdout": test.stdout, "assertions": 0}
    if test.kind == "call":
        if not isinstance(json.loads(test.input or ""), list):
            raise ValueError("`input` is not a JSON list of arguments")
        json.loads(test.output or "")
        # As text: JSON's integers have no largest one.
        return {**prepared, "input": test.input, "output": test.output}, None
    if test.kind == "stdio":
        return {**prepared, "stdin": test.stdin}, None
    tree = record_assertions(test.code or "")
    return {**prepared, "assertions": count_assertions(tree), "code": ast.unparse(tree)}, tree
