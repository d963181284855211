"""Test code that tells its recorder what its assertions compare, so that a failure can show the values that the test saw."""

from __future__ import annotations

import ast
import builtins

from trl_rrtf.judging.assertions import is_recorded, of_recorder
from trl_rrtf.judging.wire.protocol import RECORDER


def tell_values(recorded: ast.Module) -> ast.Module:
    """Hands the sides of each recorded assertion through the recorder, and tells it which names are read.

    Args:
        recorded: From [`record_assertions`][trl_rrtf.judging.assertions.record_assertions]; changed in place.
    """
    for node in ast.walk(recorded):
        if isinstance(node, ast.With) and is_recorded(node) and len(node.body) == 1:
            names = _names(node.body[0])
            _tell(node.body[0])
            if names:
                reads = ast.Call(func=of_recorder("reads"), args=list(map(ast.Constant, names)), keywords=[])
                node.body.insert(0, ast.copy_location(ast.Expr(reads), node.body[0]))
    return ast.fix_missing_locations(recorded)


def _tell(statement: ast.stmt) -> None:
    """The two sides of a comparison or the arguments of a method such as `assertEqual`, else the value that has to be true."""
    if isinstance(statement, ast.Assert):
        value = statement.test
        if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not):
            value.operand = _handed(value.operand, 0)
        elif isinstance(value, ast.Compare) and len(value.ops) == 1:
            value.left, value.comparators = _handed(value.left, 0), [_handed(value.comparators[0], 1)]
        else:
            statement.test = _handed(value, 0)
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        arguments = statement.value.args
        if not any(isinstance(argument, ast.Starred) for argument in arguments[:2]):
            arguments[:2] = [_handed(argument, side) for side, argument in enumerate(arguments[:2])]


def _names(statement: ast.stmt) -> list[str]:
    """What a statement reads by name and does not bind itself."""
    names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    own = {node.id for node in names if isinstance(node.ctx, ast.Store)} | {RECORDER}
    own |= {node.arg for node in ast.walk(statement) if isinstance(node, ast.arg)}
    return list(dict.fromkeys(node.id for node in names if node.id not in own and not hasattr(builtins, node.id)))


def _handed(value: ast.expr, side: int) -> ast.expr:
    return ast.copy_location(ast.Call(func=of_recorder("saw"), args=[ast.Constant(side), value], keywords=[]), value)
