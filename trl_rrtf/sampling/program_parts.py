"""The parts of a program that a model wrote: what parses, which names it binds and lacks, and programs put together."""

from __future__ import annotations

import ast
import builtins
import symtable
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import lru_cache

from trl_rrtf.python_source import parse_program

# A program that is cut off in nested blocks is parsed once for each of them, a long text only a few times.
_MIN_PARSED, _TIMES_PARSED = 200_000, 4  # characters
_CUTS_BY_LINE = 20

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def parsed(code: str) -> ast.Module | None:
    """The syntax tree, or None where the text is no Python or more than the parser can take."""
    return _parse(code)[0]


@lru_cache(maxsize=8)  # one program is looked at several times in a row
def _parse(code: str) -> tuple[ast.Module | None, int | None]:
    """The syntax tree, or the line of the error if the parser tells it."""
    try:
        return parse_program(code), None
    except SyntaxError as error:
        return None, error.lineno
    except (ValueError, RecursionError, MemoryError, SystemError, OverflowError):
        return None, None


@lru_cache(maxsize=8)
def longest_program(code: str) -> str:
    """The code without as many last lines as keep it from being Python; "" if that is all of it."""
    lines = code.split("\n")
    end = len(lines)
    cuts, to_parse = 0, max(_MIN_PARSED, _TIMES_PARSED * len(code))
    while end > 0 and to_parse > 0:
        part = "\n".join(lines[:end])
        to_parse -= len(part)
        tree, error_line = _parse(part)
        if tree is not None:
            return part
        # All parts that hold the line of the error are as wrong. Where none is told, the code nests too deep: on a long line.
        longest = max(range(end), key=lambda number: len(lines[number]))
        end = min(end, error_line) - 1 if error_line else longest
        cuts += 1
        while cuts > _CUTS_BY_LINE and end > 0 and lines[end].startswith((" ", "\t")):
            end -= 1
    return ""


def is_cut_inside(code: str, part: str) -> bool:
    """Whether the rest of the code, behind its longest program, goes on inside the last statement of that program."""
    rest = code[len(part) :].strip("\n")
    return rest.startswith((" ", "\t", ")", "]", "}"))


def definitions(tree: ast.Module | None) -> Iterator[Definition]:
    """The functions and classes at the top level, if it is a program."""
    return (node for node in (tree.body if tree else []) if isinstance(node, Definition))


def is_stub(node: ast.stmt) -> bool:
    """Whether a function or class does nothing: `pass`, `...`, a docstring, a word, or `raise NotImplementedError`."""
    if isinstance(node, ast.ClassDef):
        return all(_does_nothing(part) or (isinstance(part, Definition) and is_stub(part)) for part in node.body)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and all(map(_does_nothing, node.body))


def is_test(node: Definition) -> bool:
    """Whether a function or class is a test, by its name or base class."""
    if isinstance(node, ast.ClassDef):
        return any("TestCase" in (getattr(base, "id", ""), getattr(base, "attr", "")) for base in node.bases)
    return node.name.startswith("test_")


def _does_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return isinstance(error, ast.Name) and error.id == "NotImplementedError"
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Name))


@lru_cache(maxsize=8)
def names_of(code: str) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a program binds at its top level, and those that it reads and neither it nor Python has."""
    tree = parsed(code)
    if tree is None:
        return frozenset(), frozenset()
    bound: set[str] = set()
    read = _globals_read(code)
    for node in tree.body:
        for part in executed(node):
            bound |= _bound_by(part)
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load):
                read.add(part.id)
    bound |= {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    return frozenset(bound), frozenset(read - bound - set(dir(builtins)) - {"__name__", "__file__"})


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and all that runs with it: not the bodies of functions and classes that it defines."""
    todo = [node]
    while todo:
        part = todo.pop()
        yield part
        if isinstance(part, Definition):
            body = set(part.body)
            todo.extend(child for child in ast.iter_child_nodes(part) if child not in body)
        elif not isinstance(part, ast.Lambda):
            todo.extend(ast.iter_child_nodes(part))


def _bound_by(part: ast.AST) -> set[str]:
    if isinstance(part, ast.Name):
        return set() if isinstance(part.ctx, ast.Load) else {part.id}
    if isinstance(part, ast.alias):
        return {(part.asname or part.name).split(".")[0]}
    name = getattr(part, "name", None)  # of a function, a class, an `except ... as`, a pattern
    return {name} if name else set()


def _globals_read(code: str) -> set[str]:
    """The names that functions and classes read from the module; those of the module itself take quadratic time here."""
    read: set[str] = set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            todo = symtable.symtable(code, "<program>", "exec").get_children()
        while todo:
            table = todo.pop()
            if isinstance(table, symtable.Function):
                read |= set(table.get_globals())
            else:
                read |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
            todo += table.get_children()
    except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError, OverflowError):
        pass
    return read


def is_only_code(program: str) -> bool:
    """Whether a text is a program, and has no words that only happen to be Python (`Sure`, `O(1)`, `[BEGIN]`).

    Such words are statements that name what nothing defines.
    """
    tree = parsed(program)
    if tree is None:
        return False
    words = [part for node in tree.body if isinstance(node, ast.Expr) for part in ast.walk(node)]
    return unknown_names(program, tree).isdisjoint(part.id for part in words if isinstance(part, ast.Name))


def unknown_names(program: str, tree: ast.Module) -> frozenset[str]:
    """The names that nothing in the program binds, as far as that can be told."""
    has_star = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body)
    return frozenset() if has_star else names_of(program)[1]


def without_statements(code: str, tree: ast.Module, dropped: Set[ast.stmt]) -> str:
    """The program without some of its top-level statements, with the decorators and the comments right above them."""
    if not dropped:
        return code
    lines = code.split("\n")
    kept: defaultdict[int, list[ast.stmt]] = defaultdict(list)  # the statements that stay, by the numbers of their lines
    for node in tree.body:
        for number in _line_numbers(node) if node not in dropped else ():
            kept[number].append(node)
    gone: set[int] = set()
    for node in tree.body:
        for number in _line_numbers(node) if node in dropped else ():
            if number in kept:
                lines[number] = _statements_only(lines[number], kept[number])
            else:
                gone.add(number)
        gone.update(_comment_above(node, lines, kept) if node in dropped else ())
    rest = "\n".join(_without_lines(lines, gone))
    return code if parsed(rest) is None else rest  # several statements that share their lines


def _line_numbers(node: ast.stmt) -> range:
    decorators = node.decorator_list if isinstance(node, Definition) else []
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return range(first - 1, node.end_lineno or node.lineno)


def _statements_only(line: str, statements: Sequence[ast.stmt]) -> str:
    """A line without what stands on it beside these statements."""
    source = line.encode()  # the tree counts in bytes
    return "; ".join(source[node.col_offset : node.end_col_offset].decode(errors="replace") for node in statements)


def _comment_above(node: ast.stmt, lines: Sequence[str], kept: Mapping[int, list[ast.stmt]]) -> Iterator[int]:
    """The lines of a comment such as `# Example usage`."""
    number = _line_numbers(node)[0] - 1
    while number >= 0 and lines[number].startswith("#") and number not in kept:
        yield number
        number -= 1


def _without_lines(lines: Sequence[str], gone: Set[int]) -> Iterator[str]:
    """The lines that stay; where blank ones stood on both sides of what is gone, those before it."""
    is_seam, last = False, ""
    for number, line in enumerate(lines):
        if number in gone:
            is_seam = True
        elif line.strip() or last.strip() or not is_seam:
            is_seam = is_seam and not line.strip()
            last = line
            yield line


def put_before(parts: Sequence[str], program: str) -> str:
    """All in one, with the `from __future__` imports first; the program alone where that is no Python."""
    future, rest = [], []
    for part in (*parts, program):
        tree = parsed(part)
        if tree is None:
            return program
        lines = part.split("\n")
        statements_on = Counter(node.lineno for node in tree.body)
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module == "__future__" and statements_on[node.lineno] == 1:
                future.append(ast.unparse(node))
                lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
        rest.append("\n".join(lines).strip("\n"))
    together = "\n".join([*dict.fromkeys(future), "\n\n\n".join(rest)])
    return program if parsed(together) is None else together  # a line that held more than the import, say
