"""Which candidates are compared: pairs of a group, by source and score."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

STUDENT, TEACHER, UNKNOWN = 0, 1, -1
"""Codes of a candidate's source in a batch; `UNKNOWN` when the rows do not say."""


def all_unequal_pairs(scores: Tensor, group_ids: Tensor, sources: Tensor) -> Tensor:
    """RRHF's pairs: every two candidates of one group with score_i > score_j, whatever their sources.

    Returns:
        (R, R) bool.
    """
    return same_group(group_ids) & (scores[:, None] > scores[None, :])


def teacher_student_pairs(scores: Tensor, group_ids: Tensor, sources: Tensor) -> Tensor:
    """RRTF's pairs: a teacher i and a student j of one group with score_i > score_j.

    A candidate of unknown source may take either part, so groups without sources use all their ordered pairs.

    Returns:
        (R, R) bool.
    """
    teachers = sources != STUDENT
    students = sources != TEACHER
    return all_unequal_pairs(scores, group_ids, sources) & teachers[:, None] & students[None, :]


def best_against_rest_pairs(scores: Tensor, group_ids: Tensor, sources: Tensor) -> Tensor:
    """The best-scored candidates of a group against every candidate below them.

    Returns:
        (R, R) bool.
    """
    return all_unequal_pairs(scores, group_ids, sources) & is_best(scores, group_ids)[:, None]


PAIR_SCOPES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "teacher_student": teacher_student_pairs,
    "all": all_unequal_pairs,
    "best_against_rest": best_against_rest_pairs,
}
"""Values of `pair_scope`."""


def same_group(group_ids: Tensor) -> Tensor:
    """(R,) -> (R, R) bool: two candidates are of one group."""
    return group_ids[:, None] == group_ids[None, :]


def is_best(scores: Tensor, group_ids: Tensor) -> Tensor:
    """(R,) bool: no candidate of the group has a larger score."""
    return ~(same_group(group_ids) & (scores[None, :] > scores[:, None])).any(dim=1)


def ranks(values: Tensor, group_ids: Tensor) -> Tensor:
    """Rank of each candidate in its group, 1 for the largest value; equal values share the better rank.

    Returns:
        (R,) int64.
    """
    return 1 + (same_group(group_ids) & (values[None, :] > values[:, None])).sum(dim=1)


def differences(values: Tensor) -> Tensor:
    """(R,) -> (R, R): values_i - values_j."""
    return values[:, None] - values[None, :]


def sum_pairs(values: Tensor, group_ids: Tensor, pairs: Tensor, num_groups: int) -> Tensor:
    """(R, R) values -> (G,) sums over the pairs of each group."""
    return sum_by_group(values.masked_fill(~pairs, 0.0).sum(dim=1), group_ids, num_groups)


def sum_by_group(values: Tensor, group_ids: Tensor, num_groups: int) -> Tensor:
    """(R,) values -> (G,) sums."""
    return values.new_zeros(num_groups).index_add(0, group_ids, values)


def pair_margins(scores: Tensor, group_ids: Tensor, rank_margin: float, margin_scaling: str) -> Tensor:
    """How much likelier candidate i should be than candidate j.

    Args:
        scores: (R,)
        group_ids: (R,)
        rank_margin: The margin, in the unit of the log-probabilities.
        margin_scaling: `"constant"`: the same for every pair; `"rank"`: times the difference of the two ranks, 1 for
            neighbours (BRIO, arXiv 2203.16804, equation 7); `"score"`: times the difference of the two scores.

    Returns:
        (R, R), meaningful where i is better than j.
    """
    if margin_scaling == "rank":
        return rank_margin * -differences(ranks(scores, group_ids).to(scores.dtype))
    if margin_scaling == "score":
        return rank_margin * differences(scores)
    return scores.new_full((len(scores), len(scores)), rank_margin)


MARGIN_SCALINGS = ("constant", "rank", "score")
"""Values of `margin_scaling`."""
