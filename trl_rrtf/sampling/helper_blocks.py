"""The functions that a program needs from other blocks of the same answer."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from trl_rrtf.sampling.answer_text import Block
from trl_rrtf.sampling.program_parts import definitions, is_stub, names_of, parsed, put_before, without_statements
from trl_rrtf.sampling.tidying import drop_examples
from trl_rrtf.sampling.versions import pieces_of, versions_of


@dataclass(frozen=True)
class _Helper:
    """A block with names that other blocks may need."""

    code: str
    place: int
    missing: frozenset[str]


class HelperBlocks:
    """The blocks of an answer by the names that they bind, the last one for each; stubs bind nothing.

    Args:
        blocks: All blocks of the answer.
        entry_point: The function that is asked for; it is needed from no other block.
    """

    def __init__(self, blocks: Iterable[Block], entry_point: str | None) -> None:
        self._entry_point = entry_point
        self._by_name: dict[str, _Helper] = {}
        for place, piece in enumerate(piece for block in blocks for piece in pieces_of(block)):
            version = next(versions_of(piece), None)
            if version:
                bound, missing = names_of(version.program)
                helper = _Helper(version.program, place, missing)
                self._by_name |= dict.fromkeys(bound - _stubs(version.program, None) - {entry_point}, helper)

    def put_before(self, program: str, known: Set[str] = frozenset()) -> str:
        """Puts the blocks before a program that define what it lacks or has as a stub, and what they lack themselves.

        Args:
            program: A program that parses.
            known: Names that are defined elsewhere.
        """
        missing = names_of(program)[1] - known
        stubs = _stubs(program, self._entry_point)
        if self._by_name.keys().isdisjoint(missing | stubs):
            return program
        helpers = [helper for helper in self._needed(missing | stubs) if helper.code not in program]
        program = _without_definitions(program, stubs & self._by_name.keys())
        own = {node.name for node in definitions(parsed(program))}
        codes = [_without_definitions(drop_examples(helper.code, self._entry_point), own) for helper in helpers]
        return put_before(codes, program)

    def _needed(self, missing: Set[str]) -> list[_Helper]:
        found: dict[int, _Helper] = {}
        todo = list(missing)
        while todo:
            helper = self._by_name.get(todo.pop())
            if helper and helper.place not in found:
                found[helper.place] = helper
                todo += helper.missing
        return [found[place] for place in sorted(found)]


def _stubs(program: str, entry_point: str | None) -> set[str]:
    return {node.name for node in definitions(parsed(program)) if is_stub(node) and node.name != entry_point}


def _without_definitions(code: str, names: set[str]) -> str:
    tree = parsed(code)
    if tree is None:
        return code
    return without_statements(code, tree, {node for node in definitions(tree) if node.name in names})
