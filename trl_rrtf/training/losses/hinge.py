"""Hinge with a margin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl_rrtf.training.losses.pairs import differences, pair_margins, sum_pairs

if TYPE_CHECKING:
    from torch import Tensor


def hinge_rank_loss(
    logps: Tensor,
    scores: Tensor,
    group_ids: Tensor,
    pairs: Tensor,
    num_groups: int,
    *,
    rank_margin: float,
    margin_scaling: str,
) -> Tensor:
    """Sum over pairs of max(0, margin_ij - (p_i - p_j)).

    Source: SLiC-HF, arXiv 2305.10425, equation 4 (constant margin); BRIO, arXiv 2203.16804, equation 7 (rank-scaled).

    Prefer it when pairs that are just in the right order should be driven further apart, but no further than a margin. Without
    margin it is `rrhf`.

    Args:
        logps: (R,)
        scores: (R,)
        group_ids: (R,)
        pairs: (R, R)
        num_groups: G.
        rank_margin: Margin, in the unit of `logps`.
        margin_scaling: `"constant"`, `"rank"` or `"score"`, as in `pairs.pair_margins`.

    Returns:
        (G,)
    """
    margins = pair_margins(scores, group_ids, rank_margin, margin_scaling)
    return sum_pairs((margins - differences(logps)).clamp(min=0), group_ids, pairs, num_groups)
