"""Parsing programs that somebody else wrote."""

from __future__ import annotations

import ast
import warnings
from types import CodeType


def parse_program(code: str) -> ast.Module:
    """Parses a program without warning of what its author did (an invalid escape sequence, say).

    Not for several threads at once: the warning filters are the process's.

    Raises:
        SyntaxError: The text does not compile. Hostile text also raises ValueError, RecursionError or MemoryError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(code)
        compile(tree, "<program>", "exec")  # finds what parsing does not, such as a `return` outside a function
        return tree


def compile_tree(tree: ast.Module, name: str) -> CodeType:
    """Compiles a syntax tree in the same silence.

    Args:
        tree: A tree, perhaps changed since it was parsed.
        name: File name for tracebacks.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code: CodeType = compile(tree, name, "exec", dont_inherit=True)
        return code


def compile_expression(value: ast.expr, name: str) -> CodeType:
    """Compiles an expression's syntax tree, for `eval`, in the same silence; arguments as in `compile_tree`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code: CodeType = compile(ast.Expression(value), name, "eval", dont_inherit=True)
        return code
