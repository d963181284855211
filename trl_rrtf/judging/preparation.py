"""A problem made ready for its checker: its tests read and counted, once, before any program runs."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import marshal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trl_rrtf.errors import ConfigError
from trl_rrtf.judging.assertions import (
    count_assertions,
    expected_names,
    judges_nothing,
    prompt_helpers,
    record_assertions,
    run_test_functions,
    tell_statements,
    trusted_imports,
)
from trl_rrtf.judging.told_values import tell_values
from trl_rrtf.judging.wire.protocol import FunctionTest, ProblemTests, ProgramTest
from trl_rrtf.python_source import compile_expression, compile_tree, parse_program
from trl_rrtf.rows.checks import shown
from trl_rrtf.rows.records import Problem, UnitTest

_EXTRAS = {"sortedcontainers": "leetcode"}
"""Packages that an extra of this one brings."""


@dataclass(frozen=True, eq=False)
class PreparedProblem:
    """What goes to the checker.

    Attributes:
        tests: The problem's tests.
        total: Number of assertions as written; those in loops count once here.
        runs: How many processes a candidate may need: one for all test code, one per call and per whole program.
    """

    tests: ProblemTests
    total: int
    runs: int


def check_tests(problems: Iterable[tuple[str, Problem]]) -> None:
    """Reads the tests of all problems, to find those that cannot be run before any expensive work.

    Args:
        problems: Each with its place (file and line), for messages.

    Raises:
        ConfigError: As in `prepare`; the place is named.
    """
    for place, problem in problems:
        try:
            prepare(problem)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error


def prepare(problem: Problem, *, tells: bool = False) -> PreparedProblem:
    """Reads the tests of a problem.

    Args:
        problem: The problem.
        tells: Whether the values at the first failure are asked for.

    Raises:
        ConfigError: The problem has no test, or its tests cannot be run or judge nothing, or a package that they import is
            missing. That is never a verdict on a candidate.
    """
    name = problem.problem_id
    if not problem.tests:
        raise ConfigError(f"`tests` of problem {name!r}: the list is empty; a program without tests cannot be judged")
    functions: list[FunctionTest] = []
    programs: list[ProgramTest] = []
    trees: list[ast.Module] = []
    for test in problem.tests:
        if test.kind in ("call", "check") and not problem.entry_point:
            raise ConfigError(f"`entry_point` of problem {name!r}: a test of kind `{test.kind}` needs the function's name")
        reason = None
        try:
            if test.kind == "stdio":
                programs.append(ProgramTest(test.stdin or "", test.stdout or ""))
            elif test.kind == "call":
                functions.append(_call_test(test))
            else:
                trees.append(record_assertions(test.code or ""))
                if tells:
                    tell_values(trees[-1])
                functions.append(_code_test(test.kind, trees[-1]))
                reason = judges_nothing(trees[-1], test.kind)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(f"`tests` of problem {name!r}: a test of kind `{test.kind}` cannot be read: {error}") from error
        if reason:
            raise ConfigError(f"`tests` of problem {name!r}: a test of kind `{test.kind}` judges nothing: {reason}")
    calls = sum(test.kind == "call" for test in functions)
    return _prepared(problem, functions, programs, trees, len(programs) + calls + (calls < len(functions)), tells=tells)


def prepare_observation(problem: Problem, inputs: Sequence[str], kind: str) -> PreparedProblem:
    """Reads what shall be observed, with the problem's setup code and without its tests.

    Args:
        problem: The problem.
        inputs: Python expressions, or texts of standard input.
        kind: `expression` or `stdin`.

    Raises:
        ConfigError: An expression does not parse, or the setup code cannot be run, as in `prepare`.
    """
    if kind == "stdin":
        return _prepared(problem, [], [ProgramTest(text, "") for text in inputs], [], len(inputs))
    functions: list[FunctionTest] = []
    trees: list[ast.Module] = []
    for expression in inputs:
        try:
            trees.append(parse_program(expression.strip()))
            statement = trees[-1].body[0] if len(trees[-1].body) == 1 else None
            if not isinstance(statement, ast.Expr):
                raise ValueError("it is not one expression")
            code = compile_expression(statement.value, "<test>")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            start = expression if len(expression) <= 80 else expression[:77] + "..."
            raise ConfigError(f"`inputs`: expected Python expressions, such as `add(1, 2)`, got {start!r}: {error}") from error
        functions.append(FunctionTest("expression", marshal.dumps(code), "", "", 0))
    return _prepared(problem, functions, [], trees, len(inputs))


def check_inputs(problem: Problem, inputs: Sequence[str]) -> None:
    """Refuses what is no list of texts.

    Raises:
        ConfigError: It names the argument.
    """
    if isinstance(inputs, str) or not isinstance(inputs, Sequence):
        raise ConfigError(f"`inputs` for problem {problem.problem_id!r}: expected a list of texts, got {shown(inputs)}")
    for number, text in enumerate(inputs):
        if not isinstance(text, str):
            raise ConfigError(f"`inputs[{number}]` for problem {problem.problem_id!r}: expected text, got {shown(text)}")


def _prepared(
    problem: Problem,
    functions: list[FunctionTest],
    programs: list[ProgramTest],
    trees: list[ast.Module],
    runs: int,
    *,
    tells: bool = False,
) -> PreparedProblem:
    trusted = _trusted_code(problem)
    _require_packages(problem.problem_id, [*trees, *trusted])
    total = len(programs) + sum(max(1, test.assertions) for test in functions)
    entry_point = problem.entry_point and problem.entry_point.removeprefix("Solution().")  # as LeetCode's data write it
    names = expected_names(trees) - {entry_point}
    tests = ProblemTests(
        entry_point=entry_point,
        setup_code=problem.setup_code,
        trusted=[marshal.dumps(compile_tree(tree, "<setup>")) for tree in trusted],
        functions=[list(test) for test in functions],
        programs=[list(test) for test in programs],
        written=total,
        expected=sorted(names),
        imports=trusted_imports(trees, names),
        tells=tells,
    )
    return PreparedProblem(tests, total, runs)


def _call_test(test: UnitTest) -> FunctionTest:
    # Integers as floats: JSON's have no largest one, and reading one of 5,000 digits as an `int` is refused.
    if not isinstance(json.loads(test.input or "", parse_int=float), list):
        raise ValueError("`input` is not a JSON list of arguments")
    json.loads(test.output or "", parse_int=float)
    return FunctionTest("call", b"", test.input or "", test.output or "", 0)


def _code_test(kind: str, recorded: ast.Module) -> FunctionTest:
    without_assertion = run_test_functions(recorded) if kind == "assert" else 0
    code = marshal.dumps(compile_tree(recorded, "<test>"))
    return FunctionTest(kind, code, "", "", count_assertions(recorded) + without_assertion)


def _trusted_code(problem: Problem) -> list[ast.Module]:
    """The prompt's helpers and the setup code."""
    trees = [prompt_helpers(problem)]
    if problem.setup_code:
        try:
            trees.append(parse_program(problem.setup_code))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(f"`setup_code` of problem {problem.problem_id!r} does not parse: {error}") from error
    return [tell_statements(tree) for tree in trees if tree is not None]


def _require_packages(name: str, trees: list[ast.Module]) -> None:
    """Looks whether what the problem's own code imports, and not only tries to, is installed."""
    for statement in (statement for tree in trees for statement in tree.body):
        modules: list[str] = []
        if isinstance(statement, ast.Import):
            modules = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            modules = [statement.module or ""]
        for module in modules:
            package = module.split(".")[0]
            if not _is_installed(package):
                extra = _EXTRAS.get(package)
                advice = f'pip install "trl-rrtf[{extra}]"' if extra else f"pip install {package}, or leave the problem out"
                raise ConfigError(
                    f"problem {name!r}: its own code imports `{package}`, which is not installed, so that no program could be "
                    f"judged; {advice}"
                )


@functools.cache
def _is_installed(package: str) -> bool:
    return package in sys.stdlib_module_names or importlib.util.find_spec(package) is not None
