"""The versions of a program in an answer: what of a block is Python, and which of several counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trl_rrtf.sampling.answer_text import Block, code_runs
from trl_rrtf.sampling.program_parts import is_cut_inside, longest_program

_ALTERNATIVE = re.compile(
    r"\balternativ\w*|\banother (?:way|approach|version|option|solution|implementation)|\b(?:can|could|may|might) also\b"
    r"|\bif you (?:want|need|prefer|like|would|'d)\b|(?:^|\n)[ \t]*or\b|\bvariants?\b|\bfor (?:comparison|reference)\b"
    r"|\boriginal\b|\b(?:extend|generali[sz])\w*",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"\b(?:correct(?:ed|ion)?|fix(?:ed)?|final(?:ly)?|instead|sorry|mistake|wait|oops|redo|rewrite|better|improved?|wrong"
    r"|revised?|updated?|complete|full|bug|together)\b",
    re.IGNORECASE,
)
_LEFT_OUT = re.compile(r"#[ \t]*(?:\.\.\.|…|(?:the )?rest of|same as)", re.IGNORECASE)
_TYPOGRAPHY = str.maketrans(
    {"\u00a0": " ", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2212": "-", "\u200b": None}
)


@dataclass(frozen=True)
class Version:
    """A program that a block holds.

    Attributes:
        program: What of the block is Python.
        block: Where it stands.
        is_complete: Whether nothing of it is cut off or left out ("# ... as above").
    """

    program: str
    block: Block
    is_complete: bool


def versions_of(block: Block) -> Iterator[Version]:
    """What of a block is Python, complete versions first: as it is, and mended where something in it calls for that."""
    cut = []
    for code in _mended(block.code):
        program = longest_program(code)
        if not program.strip():
            continue
        version = Version(program, block, not is_cut_inside(code, program) and not _LEFT_OUT.search(program))
        if version.is_complete:
            yield version
        else:
            cut.append(version)
    yield from cut


def _mended(code: str) -> list[str]:
    """The code, and with spaces for tabs, plain quotes, no shell prompts."""
    shell = [line[4:] for line in code.split("\n") if line.startswith((">>> ", "... "))]
    mended = [code.expandtabs(4), code.expandtabs(8), code.translate(_TYPOGRAPHY), "\n".join(shell)]
    return list(dict.fromkeys([code, *(version for version in mended if version.strip())]))


def pieces_of(block: Block) -> list[Block]:
    """The block itself, or the runs of code in what stands between fences."""
    return [block] if block.is_fenced else code_runs(block)


def latest(versions: Iterable[Version]) -> Version | None:
    """The version that counts: the last one, but for alternatives and excerpts."""
    counting = None
    for version in versions:
        if counting is None or _replaces(version, counting):
            counting = version
    return counting


def _replaces(new: Version, old: Version) -> bool:
    announcement = "\n\n".join(new.block.announcement.strip().split("\n\n")[-2:])
    if _CORRECTION.search(announcement):
        return True
    is_excerpt = _code_lines(new.program) < _code_lines(old.program)  # what an explanation goes through line by line
    return not is_excerpt and not _ALTERNATIVE.search(announcement)


def _code_lines(program: str) -> set[str]:
    lines = {line.strip() for line in program.split("\n")}
    return {line for line in lines if line and line != "..." and not line.startswith("#")}
