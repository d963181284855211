"""A problem made ready for its checker: its tests read and counted, once, before any program runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.groups import Problem, UnitTest
from trl_rrtf.judging.assertions import count_assertions, expected_modules, prompt_helpers, record_assertions


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


def prepare(problem: Problem) -> PreparedProblem:
    """Reads the tests of a problem.

    Raises:
        ConfigError: The problem has no test, or its tests cannot be run. That is never a verdict on a candidate.
    """
    name = problem.problem_id
    if not problem.tests:
        raise ConfigError(f"`tests` of problem {name!r}: the list is empty; a program without tests cannot be judged")
    tests = []
    for test in problem.tests:
        if test.kind in ("call", "check") and not problem.entry_point:
            raise ConfigError(f"`entry_point` of problem {name!r}: a test of kind `{test.kind}` needs the function's name")
        try:
            tests.append(_prepared_test(test))
        except (SyntaxError, ValueError) as error:
            raise ConfigError(f"`tests` of problem {name!r}: a test of kind `{test.kind}` cannot be read: {error}") from error
    total = sum(max(1, test["assertions"]) for test in tests)
    programs = sum(test["kind"] == "stdio" for test in tests)
    trees = [record_assertions(test.code) for test in problem.tests if test.code]
    message = {
        "setup_code": problem.setup_code,
        "helpers": prompt_helpers(problem),
        "entry_point": problem.entry_point,
        "tests": tests,
        "written": total,
        "modules": expected_modules(trees),
    }
    return PreparedProblem(message, total, programs + (programs < len(tests)))


def _prepared_test(test: UnitTest) -> dict[str, Any]:
    prepared: dict[str, Any] = {"kind": test.kind, "code": test.code, "stdout": test.stdout, "assertions": 0}
    if test.kind == "call":
        prepared |= {"input": test.input, "output": test.output}  # as text: JSON's integers have no largest one
        if not isinstance(json.loads(test.input or ""), list):
            raise ValueError("`input` is not a JSON list of arguments")
        json.loads(test.output or "")
    elif test.kind == "stdio":
        prepared["stdin"] = test.stdin
    else:
        prepared["assertions"] = count_assertions(test.code or "")
    return prepared
