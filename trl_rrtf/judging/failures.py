"""The first test that a program fails, in words that a model may be shown.

Only the tests that are handed over are run, and nothing of any other test is in the text. It does hold what the program itself
gave or raised, cut to a stated length: that is its author's text.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trl_rrtf.judging.failing_statement import failing_statement
from trl_rrtf.judging.judge import Finding, Judge
from trl_rrtf.rows.records import Outcome, Problem, UnitTest, Verdict

LONGEST_SHOWN = 1000
"""Characters of each part of a failure's text (a test, an input, an output); what is longer is cut, and says so."""


@dataclass(frozen=True)
class Failure:
    """A test that a program fails.

    Attributes:
        verdict: What happened to the program, by the tests that were run.
        test: The failing assertion, the call, or the text of standard input; empty where the program failed before any test.
        expected: What was expected, as Python or as the output's text, or None where that cannot be told apart from the test.
        got: What the program gave instead, as the test saw it, or what that is where it has no text; None where it gave
            nothing or that cannot be told.
        error: What the program raised, or the limit that it broke; empty where it ran and gave something else.
        kind: Kind of the test; empty where the program failed before any.
        variables: What the failing assertion used by name, such as `x = 2`; empty where it used none, or none short enough.
    """

    verdict: Verdict
    test: str
    expected: str | None
    got: str | None
    error: str = ""
    kind: str = ""
    variables: str = ""

    def text(self) -> str:
        """What a model may be shown, each part cut to 1,000 characters."""
        outcome = self.verdict.outcome
        if outcome is Outcome.INFRASTRUCTURE:
            return "The tests could not be run; that says nothing about the program."
        if not self.kind:
            error = cut(self.error)
            return f"The program does not compile: {error}" if outcome is Outcome.COMPILE_ERROR else f"It fails: {error}"
        is_program = self.kind == "stdio"
        parts = [("For this standard input, the program fails", self.test) if is_program else ("This test fails", self.test)]
        if self.variables:
            parts.append(("Where", self.variables))
        if self.expected is not None:
            parts.append(("Expected output" if is_program else "Expected", self.expected))
        if self.got is not None:
            parts.append(("Got", self.got))
        if self.error:
            parts.append(("Error", self.error))
        return "\n".join(f"{name}:{_behind(cut(part.rstrip()), own_lines=is_program)}" for name, part in parts)


def first_failure(judge: Judge, problem: Problem, program: str, tests: Sequence[UnitTest]) -> Failure | None:
    """Runs a program on some tests, and says which it fails first.

    Args:
        judge: The judge.
        problem: Its own tests are not looked at.
        program: A self-contained program.
        tests: The (public) tests.

    Returns:
        The first failure; None if the program passes all of these tests, which says nothing about any other. Where the judge
        failed, a failure whose verdict is `INFRASTRUCTURE`.

    Raises:
        ConfigError: There is no test, or one cannot be run.
    """
    [failure] = first_failures(judge, [(problem, program, tests)])
    return failure


def first_failures(judge: Judge, items: Iterable[tuple[Problem, str, Sequence[UnitTest]]]) -> list[Failure | None]:
    """As [`first_failure`][trl_rrtf.first_failure], for several programs side by side.

    Args:
        judge: The judge.
        items: (problem, program, tests) triples; programs of one problem that follow each other share a checker.
    """
    asked = list(_with_these_tests_only(items))
    findings = judge.find_many(asked)
    return [_failure(problem, finding) for (problem, _), finding in zip(asked, findings, strict=True)]


def _with_these_tests_only(items: Iterable[tuple[Problem, str, Sequence[UnitTest]]]) -> Iterator[tuple[Problem, str]]:
    last: tuple[Problem, list[UnitTest], Problem] | None = None
    columns = [field.name for field in dataclasses.fields(Problem)]
    for problem, program, tests in items:
        if last is None or last[0] is not problem or last[1] != list(tests):
            own = {name: getattr(problem, name) for name in columns}
            last = problem, list(tests), Problem(**{**own, "tests": list(tests)})
        yield last[2], program


def _failure(problem: Problem, finding: Finding) -> Failure | None:
    verdict, without_a_test = finding.verdict, (Outcome.INFRASTRUCTURE, Outcome.COMPILE_ERROR)
    if verdict.outcome is Outcome.PASSED:
        return None
    if finding.test is None or verdict.outcome in without_a_test:
        return Failure(verdict, "", None, None, _of_the_program(verdict.detail))
    in_judged_order = sorted(problem.tests, key=lambda test: test.kind == "stdio")
    test = in_judged_order[finding.test]
    sides = dict(enumerate(finding.sides))
    expected: str | None
    names = ", ".join(f"{name} = {text}" for name, text in finding.names.items())
    if test.kind == "stdio":
        shown, expected, got = test.stdin or "", test.stdout or "", sides.get(0)
    elif test.kind == "call":
        arguments = ", ".join(map(python_literal, json.loads(test.input or "")))
        shown = f"{(problem.entry_point or '').removeprefix('Solution().')}({arguments})"
        expected, got = python_literal(json.loads(test.output or "")), sides.get(0)
    else:
        statement = failing_statement(test, problem, finding.line)
        shown, expected = statement.shown, statement.expected
        got = None if statement.value_side is None else sides.get(statement.value_side)
        if statement.expected_side is not None and (value := sides.get(statement.expected_side)) is not None:
            expected = f"{statement.sign}{value}"
        if got is None and not finding.raised:  # then the text says of no value what was expected of it
            expected = None
    raised = _of_the_program(finding.raised)
    return Failure(verdict, shown, expected, None if raised else got, raised, test.kind, names)


def python_literal(value: Any) -> str:
    """Decoded JSON as Python."""
    if isinstance(value, list):
        return f"[{', '.join(map(python_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {python_literal(part)}' for key, part in value.items())}}}"
    return repr(value) if not isinstance(value, float) or math.isfinite(value) else f"float('{value}')"


def cut(text: str) -> str:
    """A text of at most 1,000 characters, or so many of it and how many there are."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... (cut, {len(text)} characters in all)"


def _behind(text: str, *, own_lines: bool) -> str:
    return f"\n{text}" if own_lines or "\n" in text or text.startswith("assert") else f" {text}"


def _of_the_program(detail: str) -> str:
    """A verdict's detail, with a line that is clearly one of the program and not of the tests."""
    detail = re.sub(r" \(<candidate>, line \d+\)", "", detail)
    return re.sub(r", line (\d+)(?=$| \((?:memory|output) limit)", r", line \1 of the program", detail)
