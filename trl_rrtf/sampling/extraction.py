"""From what a model wrote to one self-contained program.

Handles Markdown answers (fenced blocks with or without a language, drafts and corrected versions, helpers in blocks of their
own, an unfinished fence, text around), answers of reasoning models, code in wrappers and JSON, plain completions that go on
from the prompt's signature, and what chat models do to code (tabs among spaces, typographic quotes, prompts of the interactive
shell). What a model appends behind a function (prints, tests, input, prose) is dropped.

Of several versions the last complete one counts, unless the words before it call it an alternative or it only repeats lines of
the one before. Thinking counts only where the answer itself has no program.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Sequence

from trl_rrtf.rows.records import Problem
from trl_rrtf.sampling.answer_text import Block, clean_text, code_runs, find_blocks, split_thinking, without_fences
from trl_rrtf.sampling.helper_blocks import HelperBlocks
from trl_rrtf.sampling.program_parts import definitions, is_only_code, is_stub, longest_program, names_of, parsed, put_before
from trl_rrtf.sampling.tidying import drop_examples
from trl_rrtf.sampling.versions import Version, latest, versions_of
from trl_rrtf.sampling.whole_programs import whole_program


def extract_program(text: str, problem: Problem) -> str:
    """Takes the program out of a model's answer.

    The last complete definition of the function counts; for a program that reads standard input, the last block that reads and
    prints. Not a stub, not an excerpt of the one before, and not what the words before it call an alternative. What it needs
    from other blocks is put before it. Thinking (`<think>`) counts only where the answer itself has no program. Examples, tests
    and input behind a function are dropped; other calls stay, for the function may need them.

    Args:
        text: What the model wrote, without the prompt.
        problem: The problem; its `entry_point` tells which of several blocks is meant, its prompt may hold the signature that
            the answer goes on from.

    Returns:
        One program that ends in a newline, or "" where there is no text. It may still not compile; the judge will say so.
    """
    text = clean_text(text)
    if not text.strip():
        return ""
    answer, thinking = split_thinking(text)
    parts = [find_blocks(answer), find_blocks(thinking)]
    if is_only_code(text):  # then what looks like tags and fences stands in its texts
        parts.insert(0, [Block(text)])
    if problem.entry_point is not None:
        parts.append([Block(without_fences(answer))])
    programs = (whole_program(part) if problem.entry_point is None else _function(part, problem) for part in parts)
    program = next(filter(None, programs), None) or _no_program(answer if answer.strip() else text, problem.entry_point)
    return program.strip("\n") + "\n"


def _function(blocks: Sequence[Block], problem: Problem) -> str:
    """The program with the function that is asked for; "" where no block defines it or goes on from its signature."""
    prompt = problem.prompt if isinstance(problem.prompt, str) else ""
    entry_point = _defined_name(problem.entry_point or "", prompt)
    versions = [version for block in blocks for version in _defining_versions(block, entry_point)]
    found = latest([version for version in versions if version.is_complete] or versions)
    program = found.program if found else _continued(blocks, prompt, entry_point)
    if not program:
        return ""
    preamble = _preamble(prompt, entry_point)
    known = names_of(preamble)[0] | set(re.findall(r"\w+", problem.setup_code))
    program = HelperBlocks(blocks, entry_point).put_before(program, known)
    if preamble and preamble not in program:
        program = put_before([preamble], program)  # where it is prose, the program stays alone
    return drop_examples(program, entry_point, problem.setup_code)


def _defined_name(entry_point: str, prompt: str) -> str:
    """What a program must define: in LeetCode's style the function under test is a method of `class Solution`."""
    is_method = re.search(rf"^[ \t]+def[ \t]+{re.escape(entry_point)}\b", prompt, re.M) is not None
    in_solution = is_method and re.search(r"^class[ \t]+Solution\b", prompt, re.M) is not None
    return "Solution" if in_solution or entry_point.startswith("Solution().") else entry_point


def _defining_versions(block: Block, entry_point: str) -> list[Version]:
    """The block's version of the function; where it is prose with drafts in between, that of each draft."""
    version = _defining_version(block, entry_point)
    if version or block.is_fenced:
        return [version] if version else []
    drafts = [_defining_version(run, entry_point) for run in code_runs(block)]
    return [draft for draft in drafts if draft]


def _defining_version(block: Block, entry_point: str) -> Version | None:
    if entry_point not in block.code:
        return None
    return next((version for version in versions_of(block) if _defines(version.program, entry_point)), None)


def _defines(program: str, name: str) -> bool:
    """Whether a program defines a name at its top level, with a body that does something."""
    tree = parsed(program)
    if tree is None:
        return False
    if any(node.name == name and not is_stub(node) for node in definitions(tree)):
        return True
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Constant)]
    return any(
        isinstance(target, ast.Name) and target.id == name and not _calls(node.value, name)
        for node in assigned
        for target in node.targets
    )


def _calls(value: ast.expr, name: str) -> bool:
    """Whether a value is a call of the function: a result, not another definition."""
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == name


def _names_definition(code: str, entry_point: str) -> bool:
    """Whether a line begins the definition, in code that need not parse."""
    # Blanks only: from every blank line, white space would go on to the next word.
    return re.search(rf"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+{re.escape(entry_point)}\b", code, re.M) is not None


def _continued(blocks: Sequence[Block], prompt: str, entry_point: str) -> str:
    """The first block that goes on from the prompt's signature, behind that signature; "" if there is none."""
    for block in blocks:
        programs = [longest_program(code) for code in _continuations(block.code, prompt, entry_point)]
        program = max((program for program in programs if _defines(program, entry_point)), key=len, default="")
        if program:
            return program
    return ""


def _continuations(code: str, prompt: str, entry_point: str) -> list[str]:
    """The answer as the body of the function whose signature ends the prompt, with indentation drift mended."""
    if not _names_definition(prompt, entry_point):
        return []
    head = prompt.rstrip() + "\n"
    body = textwrap.dedent(code)
    lines = code.split("\n")
    indented = textwrap.indent(body, "    ")
    # Often only the first line lost its indentation, because the prompt ended inside it.
    first_mended = "\n".join(["    " + lines[0].lstrip(), *lines[1:]]) if lines else ""
    return [head + code, head + first_mended, head + indented]


def _preamble(prompt: str, entry_point: str) -> str:
    """The prompt's imports and helpers: all that stands above its signature."""
    match = re.search(rf"^def\s+{re.escape(entry_point)}\b", prompt, re.M)
    return prompt[: match.start()].strip() if match else ""


def _no_program(text: str, entry_point: str | None) -> str:
    """What the judge is shown where nothing compiles: the block that is meant for the program, or all of the text."""
    blocks = [block for block in find_blocks(text) if block.is_fenced]
    defining = [block for block in blocks if entry_point and _names_definition(block.code, entry_point)]
    tagged = [block for block in blocks if block.is_tagged]
    return next((kind[-1].code for kind in (defining, tagged, blocks) if kind), text)
