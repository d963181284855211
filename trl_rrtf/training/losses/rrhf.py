"""RRHF's ranking term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl_rrtf.training.losses.pairs import differences, sum_pairs

if TYPE_CHECKING:
    from torch import Tensor


def rrhf_rank_loss(logps: Tensor, scores: Tensor, group_ids: Tensor, pairs: Tensor, num_groups: int) -> Tensor:
    """Sum over pairs of max(0, p_j - p_i), unweighted.

    Source: RRHF, arXiv 2304.05302, equation 2.

    Prefer it when only the order of the scores means something, as with a reward model's.

    Args:
        logps: (R,)
        scores: (R,) not used; the pairs hold the order.
        group_ids: (R,)
        pairs: (R, R)
        num_groups: G.

    Returns:
        (G,)
    """
    return sum_pairs((-differences(logps)).clamp(min=0), group_ids, pairs, num_groups)
