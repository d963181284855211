"""The column `repair_of`: which candidate of a group is a repair of which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trl_rrtf.errors import RowError
from trl_rrtf.rows import checks


def repair_column(row: Mapping[str, Any], where: str, length: int) -> list[int | None]:
    """The column of a candidate group; nulls where the row has none.

    Args:
        row: The row.
        where: Its place, for the error message.
        length: How many candidates it has.

    Raises:
        RowError: An entry is no index of another candidate, or repairs go in a circle.
    """
    kind = f"the index (0 to {length - 1}) of the candidate that this one repairs"
    values = checks.optional_entries(row, "repair_of", where, length, lambda value: _is_index(value, length), kind)
    for start in range(length):
        seen: set[int] = set()
        at: int | None = start
        while at is not None:
            if at in seen:
                raise RowError(where, f"repair_of[{start}]", "the repairs go in a circle; each repairs a candidate before it")
            seen.add(at)
            at = values[at]
    return values


def _is_index(value: Any, length: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < length


def renumbered(repair_of: Sequence[int | None], kept: Sequence[int], equals: Mapping[int, int]) -> list[int | None]:
    """The column after some candidates were left out.

    Args:
        repair_of: The column before.
        kept: Indices of the candidates that stay.
        equals: Candidate that goes -> the kept one with the same program, for those that have one.

    Returns:
        The column of those that stay. Where the repaired candidate goes, its equal takes its place, else the candidate that it
        repaired itself.
    """
    new = {old: index for index, old in enumerate(kept)}
    column: list[int | None] = []
    for old in kept:
        at = repair_of[old]
        while at is not None and at not in new:
            at = equals[at] if at in equals else repair_of[at]
        column.append(None if at is None or at == old else new[at])
    return column
