"""The statement of test code at which a program failed: its text, what it compares, and with what."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from trl_rrtf.judging.assertions import expected_names
from trl_rrtf.python_source import parse_program
from trl_rrtf.rows.records import Problem, UnitTest


class FailingStatement(NamedTuple):
    """An assertion of test code.

    Attributes:
        shown: Its text as written; in a `check` with the function's name for `candidate`. In a loop, with the loop. The whole
            code of a test with a single assertion.
        expected: What it expects, if that can be told.
        expression: What it compares, to be evaluated on its own, if that can be told.
    """

    shown: str
    expected: str | None = None
    expression: str | None = None


def failing_statement(test: UnitTest, problem: Problem, line: int) -> FailingStatement:
    """Finds the statement at a line of a test's code.

    Args:
        test: Of kind `assert` or `check`.
        problem: Its `entry_point` is what a `check` is called with.
        line: The line, or 0 where none is known.
    """
    code = test.code or ""
    tree = parse_program(code)
    path = _path_to(tree, line)
    if not path:
        only = tree.body[0] if len(tree.body) == 1 and not line else None
        path = [only] if isinstance(only, ast.Assert) else []
    if not path:
        return FailingStatement(code.strip())
    loops = [node for node in path if isinstance(node, ast.For | ast.While)]
    shown = ast.get_source_segment(code, loops[0] if loops else path[-1]) or code.strip()
    if test.kind == "assert" and path[-1] in tree.body and sum(isinstance(node, ast.Assert) for node in ast.walk(tree)) == 1:
        shown = code.strip()  # with what prepares it
    under_test = {problem.entry_point} if problem.entry_point else expected_names([tree])
    renamed: dict[str, str] = {}
    if test.kind == "check":
        parameter, called = _parameter(tree, path), _under_test(tree, problem.entry_point or "")
        if parameter is not None and called is not None:
            renamed[parameter] = called
            shown = re.sub(rf"\b{re.escape(parameter)}\(", lambda _: f"{called}(", shown)
            under_test.add(parameter)
    compared = None if loops else _compared(path[-1], under_test)
    if compared is None:
        return FailingStatement(shown)
    value, expected = compared
    if not _stands_alone(value, tree, renamed):
        return FailingStatement(shown)
    return FailingStatement(shown, expected, ast.unparse(_Renamed(renamed).visit(value)))


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


def _compared(node: ast.stmt, under_test: set[str]) -> tuple[ast.expr, str] | None:
    """The side of an assertion that calls the program, and what is expected of it."""
    value: ast.expr
    if isinstance(node, ast.Assert):
        value = node.test
    elif isinstance(node, ast.Expr):
        value = node.value
    else:
        return None
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr.startswith("assert"):
        if value.func.attr != "assertEqual" or len(value.args) < 2:
            return None
        value = ast.copy_location(ast.Compare(left=value.args[0], ops=[ast.Eq()], comparators=[value.args[1]]), value)
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not):
        return (value.operand, "a false value") if _calls(value.operand, under_test) else None
    if not isinstance(value, ast.Compare) or len(value.ops) != 1:
        return (value, "a true value") if _calls(value, under_test) else None
    operator, left, right = value.ops[0], value.left, value.comparators[0]
    if isinstance(operator, ast.Eq | ast.Is):
        if _calls(left, under_test):
            return left, ast.unparse(right)
        return (right, ast.unparse(left)) if _calls(right, under_test) else None
    sign = ast.unparse(ast.Compare(ast.Name("x"), [operator], [ast.Name("y")]))[1:-1].strip()
    return (left, f"{sign} {ast.unparse(right)}") if _calls(left, under_test) else None


def _calls(value: ast.expr, under_test: set[str]) -> bool:
    return any(isinstance(node, ast.Name) and node.id in under_test for node in ast.walk(value))


def _stands_alone(value: ast.expr, tree: ast.Module, renamed: dict[str, str]) -> bool:
    """Whether an expression means the same without the code around it."""
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
    names = [node for node in ast.walk(value) if isinstance(node, ast.Name)]
    own = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in ast.walk(value) if isinstance(node, ast.arg)}
    read = {node.id for node in names if isinstance(node.ctx, ast.Load)} - own - set(renamed)
    return not (read & bound) and not any(isinstance(node, ast.Await | ast.NamedExpr) for node in ast.walk(value))


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id not in self._names:
            return node
        return ast.copy_location(ast.parse(self._names[node.id], mode="eval").body, node)
