"""The statement of test code at which a program failed: its text, what it compares, and with what."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from trl_rrtf.judging.assertions import expected_names, never_holds
from trl_rrtf.python_source import parse_program
from trl_rrtf.rows.records import Problem, UnitTest

_EQUALITIES = ("Equal", "ListEqual", "DictEqual", "SetEqual", "TupleEqual", "SequenceEqual", "CountEqual", "AlmostEqual")
_TRUTHS = {"assertTrue": "a true value", "assertFalse": "a false value"}


class FailingStatement(NamedTuple):
    """An assertion of test code.

    Attributes:
        shown: Its text as written; in a `check` with the function's name for `candidate`. In a loop, with the loop; in a `try`
            that asks for an exception, with that. The whole code of a test with a single assertion.
        expected: What it expects, if that can be told from its text.
        value_side: Which of its sides (0 or 1) is the program's, or None where it has none.
        expected_side: The side whose value is expected, where its text does not say it.
        sign: How the two are compared, where not for equality: `< `.
    """

    shown: str
    expected: str | None = None
    value_side: int | None = None
    expected_side: int | None = None
    sign: str = ""


def failing_statement(test: UnitTest, problem: Problem, line: int) -> FailingStatement:
    """Finds the statement at a line of a test's code.

    Args:
        test: Of kind `assert` or `check`.
        problem: Its `entry_point` is what a `check` is called with.
        line: The line, or 0 where none is known.
    """
    code = test.code or ""
    tree = parse_program(code)
    if _shares_its_line(tree, line):  # it could be either
        return FailingStatement(code.splitlines()[line - 1].strip())
    path = _path_to(tree, line)
    if not path:
        only = tree.body[0] if len(tree.body) == 1 and not line else None
        path = [only] if isinstance(only, ast.Assert) else []
    if not path:
        return FailingStatement(code.strip())
    around = [node for node in path if isinstance(node, ast.For | ast.While) or _asks_for_an_exception(node)]
    shown = ast.get_source_segment(code, around[0] if around else path[-1]) or code.strip()
    if test.kind == "assert" and path[-1] in tree.body and sum(isinstance(node, ast.Assert) for node in ast.walk(tree)) == 1:
        shown = code.strip()  # with what prepares it
    under_test = {problem.entry_point} if problem.entry_point else expected_names([tree])
    if test.kind == "check":
        parameter, called = _parameter(tree, path), _under_test(tree, problem.entry_point or "")
        if parameter is not None and called is not None:
            shown = re.sub(rf"\b{re.escape(parameter)}\(", lambda _: f"{called}(", shown)
            under_test.add(parameter)
    return _compared(path[-1], under_test)._replace(shown=shown)


def _shares_its_line(tree: ast.Module, line: int) -> bool:
    """Whether two simple statements stand on a line: `assert a; assert b`."""
    simple = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and not hasattr(node, "body")]
    return sum(node.lineno <= line <= (node.end_lineno or 0) for node in simple) > 1


def _asks_for_an_exception(node: ast.stmt) -> bool:
    return isinstance(node, ast.Try) and any(map(never_holds, [*node.body, *node.orelse]))


def _path_to(tree: ast.Module, line: int) -> list[ast.stmt]:
    """The statements around a line, from the outermost to the innermost."""
    path: list[ast.stmt] = []
    body: list[ast.stmt] = tree.body
    while True:
        inside = [node for node in body if node.lineno <= line <= (node.end_lineno or 0)]
        if not inside:
            return path
        path.append(inside[-1])
        if isinstance(path[-1], ast.With):
            return path  # `with self.assertRaises(ValueError)` is one assertion
        body = [node for node in ast.walk(inside[-1]) if isinstance(node, ast.stmt) and node is not inside[-1]]
        body = [node for node in body if not any(node in ast.walk(other) for other in body if other is not node)]


def _parameter(tree: ast.Module, path: list[ast.stmt]) -> str | None:
    """What the function around a statement calls the function under test."""
    functions = [node for node in path if isinstance(node, ast.FunctionDef)]
    if len(functions) != 1 or functions[0] not in tree.body or functions[0].name != "check" or not functions[0].args.args:
        return None
    return functions[0].args.args[0].arg


def _under_test(tree: ast.Module, entry_point: str) -> str | None:
    """What the assertions of a check get: the entry point, or what a second `check` makes of it (as LeetCode's data do)."""
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if len(checks) == 1:
        return entry_point
    last = checks[-1].body[0] if checks and len(checks[-1].body) == 1 else None
    if not (isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and len(last.value.args) == 1):
        return None
    return re.sub(rf"\b{re.escape(checks[-1].args.args[0].arg)}\b", entry_point, ast.unparse(last.value.args[0]))


def _compared(node: ast.stmt, under_test: set[str]) -> FailingStatement:
    """What a statement compares, by the sides that [`tell_values`][trl_rrtf.judging.told_values.tell_values] hands on."""
    value = node.test if isinstance(node, ast.Assert) else node.value if isinstance(node, ast.Expr) else None
    if value is None:
        return FailingStatement("")
    if isinstance(node, ast.Expr) and isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else ""
        if name in _TRUTHS and value.args:
            return FailingStatement("", _TRUTHS[name], 0)
        if name.removeprefix("assert") not in _EQUALITIES or len(value.args) < 2:
            return FailingStatement("")
        value = ast.Compare(left=value.args[0], ops=[ast.Eq()], comparators=[value.args[1]])
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not):
        return FailingStatement("", "a false value", 0)
    if not isinstance(value, ast.Compare) or len(value.ops) != 1:
        return FailingStatement("", None if isinstance(value, ast.Constant) else "a true value", 0)
    operator, sides = value.ops[0], [value.left, value.comparators[0]]
    if not isinstance(operator, ast.Eq | ast.Is):
        sign = ast.unparse(ast.Compare(ast.Name("x"), [operator], [ast.Name("y")]))[1:-1].strip()
        return _sides(sides, 0, f"{sign} ")
    turned = _calls(sides[1], under_test) if not _calls(sides[0], under_test) else False
    turned = turned or (_is_literal(sides[0]) and not _is_literal(sides[1]))
    return _sides(sides, int(turned), "")


def _sides(sides: list[ast.expr], value_side: int, sign: str) -> FailingStatement:
    other = 1 - value_side
    if _is_literal(sides[other]):
        return FailingStatement("", f"{sign}{ast.unparse(sides[other])}", value_side)
    return FailingStatement("", None, value_side, other, sign)


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _calls(value: ast.expr, under_test: set[str]) -> bool:
    return any(isinstance(node, ast.Name) and node.id in under_test for node in ast.walk(value))
