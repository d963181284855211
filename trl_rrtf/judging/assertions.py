"""Test code, taken apart: which statements count as a test, and which names it expects from the candidate."""

from __future__ import annotations

import ast
import builtins
import sys

from trl_rrtf.judging.checker import RECORDER
from trl_rrtf.python_source import parse_program
from trl_rrtf.rows.records import Problem

_CATCHERS = {"AssertionError", "Exception", "BaseException"}
_MODULE_ALIASES = {"np": "numpy", "pd": "pandas"}
_TRUSTED_NAMES = {
    "isclose": "math",
    **dict.fromkeys(("Counter", "OrderedDict", "defaultdict", "deque", "namedtuple"), "collections"),
    **{"Decimal": "decimal", "Fraction": "fractions", "reduce": "functools"},
}
"""Names that tests use without importing them, from the candidate's imports; they get the real ones."""


def record_assertions(code: str) -> ast.Module:
    """Wraps each assertion into `with _recorder:`, so that each counts and one that fails does not end the rest.

    Assertions are `assert` statements and calls of methods or functions whose names begin with `assert`, also in loops and
    helper functions. Those in a `try` that would catch their error stay as they are: there, a failure is part of the test.

    Raises:
        SyntaxError: The text does not compile.
    """
    tree = parse_program(code)
    _Record().visit(tree)
    return ast.fix_missing_locations(tree)


def count_assertions(recorded: ast.Module) -> int:
    """How many assertions stand in code that records them, those in loops once."""
    return sum(
        isinstance(node, ast.With) and isinstance(name := node.items[0].context_expr, ast.Name) and name.id == RECORDER
        for node in ast.walk(recorded)
    )


class _Record(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return _recorded(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        called = node.value.func if isinstance(node.value, ast.Call) else None
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        return _recorded(node) if name.startswith("assert") else node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        parts = ["handlers", "orelse", "finalbody"]
        if not any(map(_catches_assertions, node.handlers)):
            parts.append("body")
        for part in parts:
            setattr(node, part, [self.visit(child) for child in getattr(node, part)])
        return node


def _recorded(node: ast.stmt) -> ast.AST:
    recorder = ast.withitem(context_expr=ast.Name(id=RECORDER, ctx=ast.Load()))
    return ast.copy_location(ast.With(items=[recorder], body=[node]), node)


def _catches_assertions(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in _CATCHERS) for kind in kinds)


def expected_names(trees: list[ast.Module]) -> set[str]:
    """Names that the code reads and does not get from Python itself."""
    read = {
        node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    return {name for name in read if not hasattr(builtins, name)} - {RECORDER}


def trusted_imports(trees: list[ast.Module], names: set[str]) -> dict[str, list[str]]:
    """What test code takes from the standard library or numpy without importing it: name -> `[module]` or `[module, name]`.

    Many published tests leave such imports to the candidate.
    """
    owners = {
        node.value.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    imports = {name: [_TRUSTED_NAMES[name], name] for name in names & _TRUSTED_NAMES.keys()}
    for name in owners & names:
        module = _MODULE_ALIASES.get(name, name)
        if module in sys.stdlib_module_names or module in _MODULE_ALIASES.values():
            imports[name] = [module]
    return imports


def prompt_helpers(problem: Problem) -> str:
    """Imports and helper functions that a prompt made of code holds beside the function to write.

    Published checks use them (HumanEval/32, 38 and 50), and they must be the prompt's, not what the candidate made of them.
    """
    if not isinstance(problem.prompt, str) or not problem.entry_point:
        return ""
    for text in (problem.prompt, problem.prompt.rstrip() + "\n    pass\n"):
        try:
            statements = parse_program(text).body
        except (SyntaxError, ValueError):
            continue
        names = [getattr(statement, "name", None) for statement in statements]
        if problem.entry_point not in names:
            return ""
        kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
        return "\n\n".join(
            ast.unparse(statement)
            for statement, name in zip(statements, names, strict=True)
            if isinstance(statement, kept) and name != problem.entry_point
        )
    return ""
