"""Programs without the examples that models put behind their functions, and with the calls that the functions need."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable

from trl_rrtf.sampling.program_parts import (
    Definition,
    definitions,
    executed,
    is_stub,
    is_test,
    parsed,
    unknown_names,
    without_statements,
)

_TEST_MODULES = {"unittest", "doctest", "pytest"}
_SHOWS = {"print", "pprint", "exit", "quit", "help", "display"}


def drop_examples(program: str, entry_point: str | None, setup_code: str = "") -> str:
    """Drops what a model appends behind its functions: prints, assertions, tests, input, `if __name__` blocks.

    Other calls stay (`sys.setrecursionlimit(...)`, `fill()`): the functions may need what they do.

    Args:
        program: A program that parses.
        entry_point: The function that is called, or None for a whole program, which may read its input anywhere.
        setup_code: What runs before; the names in it are known.
    """
    tree = parsed(program)
    if tree is None:
        return program
    dropped = _Examples(program, tree, entry_point, setup_code).statements() | _late_stubs(tree, entry_point)
    dropped |= _unused_tests(tree, entry_point, dropped)
    return without_statements(program, tree, dropped)


def drop_words(program: str) -> str:
    """Drops words that only happen to be Python (`Wait,`, `[DONE]`): they name what nothing defines."""
    tree = parsed(program)
    if tree is None:
        return program
    unknown = unknown_names(program, tree)
    words = [node for node in tree.body if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call)]
    return without_statements(
        program, tree, {node for node in words if not unknown.isdisjoint(_names(ast.walk(node), ast.Load))}
    )


class _Examples:
    """Finds the statements at a module's top level that only show or test its functions."""

    def __init__(self, program: str, tree: ast.Module, entry_point: str | None, setup_code: str) -> None:
        self._tree = tree
        self._entry_point = entry_point
        functions = [node for node in definitions(tree) if node.name != entry_point and not isinstance(node, ast.ClassDef)]
        # What uses the function, or reads input for it; a whole program does both rightly.
        self._uses = _callers(functions, {entry_point, "input"}) if entry_point else set()
        self._shows = _callers([node for node in functions if not _changes_something(node)], {"print", *self._uses})
        unknown = frozenset() if "*" in setup_code else unknown_names(program, tree) - set(re.findall(r"\w+", setup_code))
        self._words = unknown
        self._idle = _SHOWS | _TEST_MODULES | unknown

    def statements(self) -> set[ast.stmt]:
        """The examples, with what is computed from their results."""
        found: set[ast.stmt] = set()
        kept = {node.name for node in definitions(self._tree)}
        lost: set[str] = set()  # names that only examples bind
        for node in self._tree.body:
            if isinstance(node, Definition | ast.Import | ast.ImportFrom):
                continue
            bound, read = _names(executed(node), ast.Store), _names(executed(node), ast.Load)
            if self._is_example(node) or not lost.isdisjoint(read):
                found.add(node)
                lost |= bound - kept
            else:
                kept |= bound
                lost -= bound
        return found

    def _is_example(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.If) and "__name__" in _names(ast.walk(node.test), ast.Load):
            return True
        # A call such as `timeit(lambda: add(1, 2))` runs its function, a table of functions only names them.
        parts = list(ast.walk(node) if isinstance(node, ast.Expr) else executed(node))
        if not self._uses.isdisjoint(_called(parts)) or (self._entry_point and _reads_input(parts)):
            return True
        if isinstance(node, ast.Expr):
            return self._is_idle(node)
        statements = [part for part in parts if isinstance(part, ast.stmt) and not hasattr(part, "body")]
        return all(map(self._is_idle, statements)) and any(isinstance(part, ast.Expr) for part in statements)

    def _is_idle(self, node: ast.stmt) -> bool:
        """Whether a simple statement only shows or tests something, or calls what is nowhere defined."""
        if not isinstance(node, ast.Expr):
            return isinstance(node, ast.Assert | ast.Pass | ast.Break | ast.Continue)
        if not isinstance(node.value, ast.Call):  # words that happen to be Python
            return not self._words.isdisjoint(_names(ast.walk(node), ast.Load))
        function: ast.expr = node.value.func
        if isinstance(function, ast.Attribute) and function.attr in ("exit", "_exit"):
            return True
        if not self._shows.isdisjoint(_names(ast.walk(node.value), ast.Load)):  # `Thread(target=main).start()`
            return True
        while isinstance(function, ast.Attribute):
            function = function.value
        return isinstance(function, ast.Name) and function.id in self._idle


def _changes_something(function: Definition) -> bool:
    """Whether a function may fill what other functions read, beside printing."""
    return any(
        isinstance(part, ast.Global)
        or (isinstance(part, ast.Subscript | ast.Attribute) and isinstance(part.ctx, ast.Store))
        or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Call) and isinstance(part.value.func, ast.Attribute))
        for part in ast.walk(function)
    )


def _names(parts: Iterable[ast.AST], context: type[ast.expr_context]) -> set[str]:
    return {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, context)}


def _called(parts: Iterable[ast.AST]) -> set[str]:
    return {part.func.id for part in parts if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)}


def _reads_input(parts: list[ast.AST]) -> bool:
    """Whether something is read, not merely named as in `input = sys.stdin.readline`."""
    if "input" in _called(parts):
        return True
    names_it = any("stdin" in (getattr(part, "attr", ""), getattr(part, "id", "")) for part in parts)
    return names_it and any(isinstance(part, ast.Call | ast.For | ast.comprehension) for part in parts)


def _callers(functions: Iterable[Definition], names: set[str]) -> set[str]:
    """The names, and the functions that call one of them, also through others."""
    callers: defaultdict[str, list[str]] = defaultdict(list)
    for function in functions:
        parts = list(ast.walk(function))
        for name in _called(parts) | ({"input"} if _reads_input(parts) else set()):
            callers[name].append(function.name)
    found, todo = set(names), list(names)
    while todo:
        new = set(callers[todo.pop()]) - found
        found |= new
        todo += new
    return found


def _late_stubs(tree: ast.Module, entry_point: str | None) -> set[ast.stmt]:
    """Definitions of the entry point without a body that would replace a real one."""
    own = [node for node in definitions(tree) if node.name == entry_point]
    real = [number for number, node in enumerate(own) if not is_stub(node)]
    return set(own[real[-1] + 1 :]) if real else set()


def _unused_tests(tree: ast.Module, entry_point: str | None, dropped: set[ast.stmt]) -> set[ast.stmt]:
    """Test functions and classes that nothing calls which stays in the program."""
    tests = {node.name: node for node in definitions(tree) if is_test(node) and node.name != entry_point}
    gone = {*dropped, *tests.values()}
    todo: list[ast.stmt] = [node for node in tree.body if node not in gone]
    while todo:
        for name in _names(ast.walk(todo.pop()), ast.Load) & tests.keys():
            todo.append(tests.pop(name))
    return set(tests.values())
