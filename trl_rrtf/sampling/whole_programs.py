"""Programs that read standard input, among the helpers, samples and examples of an answer."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from enum import IntEnum

from trl_rrtf.sampling.answer_text import Block, code_runs
from trl_rrtf.sampling.helper_blocks import HelperBlocks
from trl_rrtf.sampling.program_parts import Definition, definitions, is_only_code, is_test, parsed
from trl_rrtf.sampling.tidying import drop_words
from trl_rrtf.sampling.versions import Version, latest, versions_of

_READING = {"input", "stdin", "fileinput"}
_WRITING = {"print", "stdout", "write", "pprint"}
_MAX_JOINED = 20  # blocks that are tried together with what they need from others


class _Use(IntEnum):
    """What a piece of code can be in an answer, the likeliest program last."""

    SAMPLE = 0
    EXAMPLE = 1
    FUNCTIONS = 2
    PROGRAM_WITHOUT_INPUT = 3
    PROGRAM = 4


def whole_program(blocks: Sequence[Block]) -> str:
    """The last block that reads and prints, by itself or with what it needs of the others; "" where all are samples."""
    versions = [version for block in blocks for version in _whole_versions(block)]
    versions = [version for version in versions if version.is_complete] or versions
    helpers = HelperBlocks(blocks, None)
    by_themselves = [
        version
        for version in versions
        if _use(version.program) is _Use.PROGRAM and helpers.put_before(version.program) == version.program
    ]
    if found := latest(by_themselves):
        return drop_words(found.program)
    uses = {version: _use(version.program, helpers.put_before(version.program)) for version in versions[-_MAX_JOINED:]}
    best = max(uses.values(), default=_Use.SAMPLE)
    found = latest(version for version, use in uses.items() if use is best)
    return drop_words(helpers.put_before(found.program)) if found and best is not _Use.SAMPLE else ""


def _whole_versions(block: Block) -> list[Version]:
    """The block's program; of what stands between fences, the runs of code if words come before them."""
    version = next(versions_of(block), None)
    is_program = version is not None and (
        block.is_fenced or (is_only_code(version.program) and _use(version.program) is not _Use.SAMPLE)
    )
    pieces = [block] if is_program else code_runs(block)
    return [version for piece in pieces for version in [next(versions_of(piece), None)] if version]


def _use(own: str, joined: str | None = None) -> _Use:
    """What a program is for, by itself and together with its helpers."""
    tree, whole = parsed(own), parsed(joined or own)
    if tree is None or whole is None:
        return _Use.SAMPLE
    names = {getattr(part, "id", getattr(part, "attr", None)) for part in ast.walk(whole)}
    acts = any(_acts(node) for node in tree.body)
    reads = not names.isdisjoint(_READING) or _opens_standard_input(whole)
    prints = acts and not names.isdisjoint(_WRITING)
    if prints and reads:
        return _Use.PROGRAM
    if prints:
        only_shows = all(isinstance(node, ast.Expr | ast.Assert | ast.Assign) for node in tree.body)
        return _Use.EXAMPLE if only_shows else _Use.PROGRAM_WITHOUT_INPUT
    return _Use.FUNCTIONS if any(not is_test(node) for node in definitions(tree)) else _Use.SAMPLE


def _acts(node: ast.stmt) -> bool:
    """Whether a statement does more than to define, import or name something."""
    if isinstance(node, Definition | ast.Import | ast.ImportFrom):
        return False
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def _opens_standard_input(tree: ast.Module) -> bool:
    """Whether there is an `open(0)` or `os.read(0, ...)`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    first = [(getattr(call.func, "id", getattr(call.func, "attr", "")), call.args[0]) for call in calls]
    return any(name in ("open", "read") and isinstance(value, ast.Constant) and value.value == 0 for name, value in first)
