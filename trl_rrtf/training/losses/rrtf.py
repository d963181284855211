"""RRTF's ranking term (PanGu-Coder2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl_rrtf.training.losses.pairs import differences, sum_pairs

if TYPE_CHECKING:
    from torch import Tensor


def rrtf_rank_loss(logps: Tensor, scores: Tensor, group_ids: Tensor, pairs: Tensor, num_groups: int) -> Tensor:
    """Sum over pairs of (score_i - score_j) * max(0, p_j - p_i).

    Source: PanGu-Coder2, arXiv 2307.14936, section 3.3.

    Prefer it when the scores are graded (tests passed), so that a large gap counts more. A pair in the right order has no
    gradient, however close; `hinge` and `logistic` go on separating it.

    Args:
        logps: (R,)
        scores: (R,)
        group_ids: (R,)
        pairs: (R, R)
        num_groups: G.

    Returns:
        (G,)
    """
    return sum_pairs(differences(scores) * (-differences(logps)).clamp(min=0), group_ids, pairs, num_groups)
