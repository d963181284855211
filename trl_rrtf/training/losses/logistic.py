"""Pairwise log-sigmoid: SimPO, and DPO on groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl_rrtf.training.losses.pairs import differences, pair_margins, sum_pairs

if TYPE_CHECKING:
    from torch import Tensor


def logistic_rank_loss(
    logps: Tensor,
    scores: Tensor,
    group_ids: Tensor,
    pairs: Tensor,
    num_groups: int,
    *,
    beta: float,
    rank_margin: float,
    margin_scaling: str,
) -> Tensor:
    """Sum over pairs of -log sigmoid(beta * (p_i - p_j - margin_ij)).

    Source: SimPO, arXiv 2405.14734, equation 6, whose gamma is `beta * rank_margin`; with log-probabilities relative to a
    reference model and not divided by length, DPO, arXiv 2305.18290, equation 7, over the pairs of a group.

    Prefer it when every pair should keep a gradient, the less the further it is apart. SimPO's usual values are `beta` 2.0 to
    2.5 and `rank_margin` 0.3 to 0.8; DPO's are `beta` 0.1 with `use_reference_model` and `length_normalization` 0.

    Args:
        logps: (R,) relative to the reference model where there is one.
        scores: (R,)
        group_ids: (R,)
        pairs: (R, R)
        num_groups: G.
        beta: Inverse temperature.
        rank_margin: Margin, in the unit of `logps`.
        margin_scaling: `"constant"`, `"rank"` or `"score"`, as in `pairs.pair_margins`.

    Returns:
        (G,)
    """
    from torch.nn.functional import logsigmoid

    margins = pair_margins(scores, group_ids, rank_margin, margin_scaling)
    return sum_pairs(-logsigmoid(beta * (differences(logps) - margins)), group_ids, pairs, num_groups)
