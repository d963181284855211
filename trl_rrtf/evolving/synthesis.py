"""Tests for problems that have none: a teacher writes a solution and assertions, and others decide what is kept.

An assertion is kept if the teacher's solution passes it and no majority of independent solutions fails it; the set is kept if
it is large enough and tells the solution from its mutants.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence

from trl_rrtf.python_source import parse_program

_PROMPT = """Solve this programming task in Python, and write tests for your solution.

{statement}

Answer with two code blocks. The first holds one function that solves the task. The second holds {number} different assertions
that call it, one per line, each of the form `assert function(arguments) == result`, with ordinary and special cases, and
nothing else.
"""


def synthesis_prompt(statement: str, num_tests: int) -> str:
    """The request for a solution and its tests."""
    return _PROMPT.format(statement=statement.strip(), number=num_tests)


def find_assertions(answer: str) -> list[str]:
    """The assertions of an answer, each line for itself, so that one that is no Python costs no other.

    Only comparisons that call something count: `assert True` tests nothing.
    """
    found = []
    for line in answer.splitlines():
        line = line.strip()
        if not line.startswith("assert "):
            continue
        try:
            [statement] = parse_program(line).body
        except (SyntaxError, ValueError):
            continue
        if isinstance(statement, ast.Assert) and any(isinstance(node, ast.Call) for node in ast.walk(statement.test)):
            found.append(ast.unparse(ast.Assert(test=statement.test)))
    return list(dict.fromkeys(found))


def called_function(assertions: Sequence[str], program: str) -> str | None:
    """The function of the program that the assertions call."""
    defined = [node.name for node in parse_program(program).body if isinstance(node, ast.FunctionDef)]
    called = {node.id for line in assertions for node in ast.walk(parse_program(line)) if isinstance(node, ast.Name)}
    return next((name for name in reversed(defined) if name in called), None)


def mutants(program: str) -> Iterator[str]:
    """Wrong versions of a program, each with one change.

    A result becomes None, a comparison is turned, a number is off by one, or an operator is swapped.
    """
    tree = parse_program(program)
    for index, node in enumerate(ast.walk(tree)):
        for change in (_without_result, _turned_comparison, _off_by_one, _swapped_operator):
            mutant = copy.deepcopy(tree)
            place = list(ast.walk(mutant))[index]
            if isinstance(node, ast.expr | ast.stmt) and change(place):
                yield ast.unparse(ast.fix_missing_locations(mutant)) + "\n"


def _without_result(node: ast.AST) -> bool:
    if not isinstance(node, ast.Return) or node.value is None:
        return False
    node.value = ast.Constant(None)
    return True


_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}


def _turned_comparison(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare) or type(node.ops[0]) not in _TURNED:
        return False
    node.ops[0] = _TURNED[type(node.ops[0])]()
    return True


def _off_by_one(node: ast.AST) -> bool:
    if not isinstance(node, ast.Constant) or type(node.value) is not int:
        return False
    node.value += 1
    return True


_SWAPPED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}


def _swapped_operator(node: ast.AST) -> bool:
    if not isinstance(node, ast.BinOp) or type(node.op) not in _SWAPPED:
        return False
    node.op = _SWAPPED[type(node.op)]()
    return True


def kept_tests(
    reference_passes: Sequence[bool], votes: Sequence[Sequence[bool]], killed: Sequence[Sequence[bool]], min_tests: int
) -> tuple[list[int], str | None]:
    """Which tests of a set are kept.

    Args:
        reference_passes: For each test, whether the teacher's solution passes it.
        votes: For each independent solution, whether it passes each test.
        killed: For each mutant, whether each test fails on it.
        min_tests: Fewest tests of a set.

    Returns:
        Indices of the kept tests, and why the whole set is refused (`too_few_tests`, `kills_no_mutant`) or None.
    """
    kept = [
        index
        for index, passes in enumerate(reference_passes)
        if passes and 2 * sum(vote[index] for vote in votes) >= len(votes)
    ]
    if len(kept) < min_tests:
        return [], "too_few_tests"
    if not any(kill[index] for kill in killed for index in kept):
        return [], "kills_no_mutant"
    return kept, None
