"""From what a model wrote to one self-contained program.

Handles Markdown answers (fenced blocks with or without a language, several blocks, an unfinished fence, text around) and
plain completions that go on from the prompt's signature. What a model appends behind the program (calls, prints, tests, prose)
is dropped.
"""

from __future__ import annotations

import ast
import re
import textwrap

from trl_rrtf.groups import Problem
from trl_rrtf.python_source import parse_program

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
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
    if not text.strip():
        return ""
    prompt = problem.prompt if isinstance(problem.prompt, str) else ""
    places = _places(text, problem.entry_point)
    for code in places:
        options = (code, *_continuations(code, prompt, problem.entry_point))
        programs = [_longest_program(option, problem.entry_point) for option in options]
        program = programs[0] or max(programs[1:], key=len, default="")
        if program:
            return _tidy(_with_preamble(program, prompt, problem.entry_point), problem.entry_point)
    return places[0].strip("\n") + "\n"


def _places(text: str, entry_point: str | None) -> list[str]:
    """Where the program may stand, the likeliest place first.

    A fenced block that defines the entry point; what stands before the first fence (a plain completion may end with a closing
    fence that nothing opened); the other Python blocks; the whole text without fences.
    """
    blocks = [textwrap.dedent(body) for tag, body in _FENCE.findall(text) if tag.lower() in _PYTHON_TAGS and body.strip()]
    before = text.split("```", 1)[0].strip("\n")
    defining = [block for block in blocks if _defines_text(block, entry_point)]
    first = [*defining, before] if not _defines_text(before, entry_point) else [before, *defining]
    others = [block for block in blocks if block not in defining]
    whole = text.replace("```python", "").replace("```", "").strip("\n")
    return [place for place in (*first, *others, whole) if place.strip()]


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
    for end in range(len(lines), 0, -1):
        part = "\n".join(lines[:end])
        try:
            tree = parse_program(part)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if entry_point is None or _defines(tree, entry_point):
            return part
        return ""
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
    return f"{preamble}\n\n\n{program}"


def _tidy(program: str, entry_point: str | None) -> str:
    """Drops what a model appends behind its functions: calls, prints, assertions, `if __name__` blocks."""
    if entry_point is None:  # a whole program that reads standard input: its calls are the program
        return program.strip("\n") + "\n"
    tree = parse_program(program)
    lines = program.splitlines()
    for node in tree.body:
        if _is_appended(node):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip("\n") + "\n"


def _is_appended(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.If):
        names = [part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)]
        return "__name__" in names
    return False
