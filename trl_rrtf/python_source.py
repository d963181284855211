"""Parsing programs that somebody else wrote."""

from __future__ import annotations

import ast
import warnings


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
