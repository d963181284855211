"""From what a model wrote to one self-contained program.

Handles Markdown answers (fenced blocks with or without a language, several blocks, a corrected version behind a wrong one, an
unfinished fence, text around), plain completions that go on from the prompt's signature, and what chat models do to code
(tabs among spaces, typographic quotes, prompts of the interactive shell). What a model appends behind the program (calls,
prints, tests, prose) is dropped.
"""

from __future__ import annotations

import ast
import re
import textwrap

from trl_rrtf.python_source import parse_program
from trl_rrtf.rows.records import Problem

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_TILDES = re.compile(r"^[ \t]*~~~", re.MULTILINE)
_SPECIAL_TOKENS = re.compile(r"<\|[\w ]+\|>|</s>|### Response:?")
_CORRECTED = re.compile(r"\b(correct(?:ed|ion)?|fix(?:ed)?|final|instead|sorry|mistake)\b", re.IGNORECASE)
_TYPOGRAPHY = str.maketrans({"\u00a0": " ", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_PYTHON_TAGS = {"", "python", "py", "python3"}


def extract_program(text: str, problem: Problem) -> str:
    """Takes the program out of a model's answer.

    Args:
        text: What the model wrote, without the prompt.
        problem: The problem; its `entry_point` tells which of several blocks is meant, its prompt may hold the signature that
            the answer goes on from.

    Returns:
        One program that ends in a newline, or "" where there is no text. It may still not compile; the judge will say so.
    """
    text = _TILDES.sub("```", _SPECIAL_TOKENS.sub("", text))
    if not text.strip():
        return ""
    prompt = problem.prompt if isinstance(problem.prompt, str) else ""
    places = _places(text, problem.entry_point)
    for code in places:
        for version in _versions(code):
            options = (version, *_continuations(version, prompt, problem.entry_point))
            programs = [_longest_program(option, problem.entry_point) for option in options]
            program = programs[0] or max(programs[1:], key=len, default="")
            if program:
                program = _with_helpers(program, places)
                return _tidy(_with_preamble(program, prompt, problem.entry_point), problem.entry_point)
    return places[0].strip("\n") + "\n" if places else ""


def _places(text: str, entry_point: str | None) -> list[str]:
    """Where the program may stand, the likeliest place first.

    A fenced block that defines the entry point; what stands before the first fence (a plain completion may end with a closing
    fence that nothing opened); the other Python blocks; the whole text without fences.
    """
    found = [match for match in _FENCE.finditer(text) if match[1].lower() in _PYTHON_TAGS and match[2].strip()]
    blocks = [textwrap.dedent(match[2]) for match in found]
    before = text.split("```", 1)[0].strip("\n")
    defining = [block for block in blocks if _defines_text(block, entry_point)]
    if len(defining) > 1:
        wrong, corrected = found[blocks.index(defining[0])], found[blocks.index(defining[-1])]
        if _CORRECTED.search(text[wrong.end() : corrected.start()]):
            defining = defining[::-1]
    first = [*defining, before] if not _defines_text(before, entry_point) else [before, *defining]
    others = [block for block in blocks if block not in defining]
    whole = text.replace("```python", "").replace("```", "").strip("\n")
    return [place for place in (*first, *others, whole) if place.strip()]


def _versions(code: str) -> list[str]:
    """The code, then, where something in it calls for that, mended: spaces for tabs, plain quotes, no shell prompts."""
    shell = [line[4:] for line in code.splitlines() if line.startswith((">>> ", "... "))]
    mended = [code.expandtabs(4), code.expandtabs(8), code.translate(_TYPOGRAPHY), "\n".join(shell)]
    return list(dict.fromkeys([code, *(version for version in mended if version.strip())]))


def _with_helpers(program: str, places: list[str]) -> str:
    """Puts other blocks of the answer before the program if they define names that it lacks."""
    defined, used = _names(program)
    for block in places:
        try:
            own, _ = _names(block)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if own & (used - defined) and not own & defined:
            program = _put_before(block, program)
            defined |= own
    return program


def _names(code: str) -> tuple[set[str], set[str]]:
    """The names that a module binds at its top level, and all that it reads."""
    tree = parse_program(code)
    bound: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            bound |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return bound, {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _defines_text(code: str, entry_point: str | None) -> bool:
    return (
        entry_point is not None
        and re.search(rf"^\s*(?:async\s+)?(?:def|class)\s+{re.escape(entry_point)}\b", code, re.M) is not None
    )


def _continuations(code: str, prompt: str, entry_point: str | None) -> list[str]:
    """The answer as the body of the function whose signature ends the prompt, with indentation drift mended."""
    if not _defines_text(prompt, entry_point):
        return []
    head = prompt.rstrip() + "\n"
    body = textwrap.dedent(code)
    lines = code.splitlines()
    indented = textwrap.indent(body, "    ")
    # Often only the first line lost its indentation, because the prompt ended inside it.
    first_mended = "\n".join(["    " + lines[0].lstrip(), *lines[1:]]) if lines else ""
    return [head + code, head + first_mended, head + indented]


def _longest_program(code: str, entry_point: str | None) -> str:
    """The code without as many last lines as keep it from being Python; "" where the entry point is lost by that."""
    lines = code.splitlines()
    end = len(lines)
    while end > 0:
        part = "\n".join(lines[:end])
        try:
            tree = parse_program(part)
        except SyntaxError as error:  # all parts that hold the line of the error are as wrong
            end = min(end, error.lineno or end) - 1
            continue
        except (ValueError, RecursionError, MemoryError):
            return ""
        return part if entry_point is None or _defines(tree, entry_point) else ""
    return ""


def _defines(tree: ast.Module, name: str) -> bool:
    """Whether a module defines a name at its top level, with a body that is more than its docstring."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return not all(isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) for part in node.body)
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == name for target in node.targets):
            return True
    return False


def _with_preamble(program: str, prompt: str, entry_point: str | None) -> str:
    """Puts the prompt's imports and helpers (all that stands above its signature) before a program that lacks them."""
    if entry_point is None:
        return program
    match = re.search(rf"^def\s+{re.escape(entry_point)}\b", prompt, re.M)
    preamble = prompt[: match.start()].strip() if match else ""
    if not preamble or preamble in program:
        return program
    try:
        parse_program(preamble)
    except (SyntaxError, ValueError):  # prose, not code
        return program
    return _put_before(preamble, program)


def _put_before(code: str, program: str) -> str:
    """Code and program in one, with the `from __future__` imports of both first; the program alone where that is no Python."""
    future, rest = [], []
    for part in (code.strip("\n"), program):
        lines, body = part.splitlines(), parse_program(part).body
        starts = [node.lineno for node in body]
        for node in body:
            stands_alone = starts.count(node.lineno) == 1
            if stands_alone and isinstance(node, ast.ImportFrom) and node.module == "__future__":
                future.append(ast.unparse(node))
                lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
        rest.append("\n".join(lines).strip("\n"))
    together = "\n".join([*dict.fromkeys(future), "\n\n\n".join(rest)])
    try:
        parse_program(together)
    except (SyntaxError, ValueError):  # a line that held more than the import, say
        return program
    return together


def _tidy(program: str, entry_point: str | None) -> str:
    """Drops what a model appends behind its functions: calls, prints, assertions, test functions, `if __name__` blocks."""
    if entry_point is None:  # a whole program that reads standard input: its calls are the program
        return program.strip("\n") + "\n"
    tree = parse_program(program)
    lines = program.splitlines()
    for node in tree.body:
        if _is_appended(node) and getattr(node, "name", None) != entry_point:
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip("\n") + "\n"


def _is_appended(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.FunctionDef):
        return node.name.startswith("test_")
    if isinstance(node, ast.ClassDef):
        return any("TestCase" in ast.unparse(base) for base in node.bases)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.If):
        names = [part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)]
        return "__name__" in names
    return False
