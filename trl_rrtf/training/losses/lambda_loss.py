"""LambdaLoss of LiPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl_rrtf.training.losses.pairs import differences, ranks, sum_pairs

if TYPE_CHECKING:
    from torch import Tensor


def lambda_rank_loss(
    logps: Tensor, scores: Tensor, group_ids: Tensor, pairs: Tensor, num_groups: int, *, beta: float
) -> Tensor:
    """Sum over pairs of |G_i - G_j| * |1/D(t_i) - 1/D(t_j)| * log(1 + exp(-beta (p_i - p_j))).

    G = 2^score - 1 is the gain, D = log(1 + rank) the discount, t the rank by the model's own log-probability, which has no
    gradient. The weight is what swapping the two would change in DCG.

    Source: LiPO, arXiv 2402.01878, equation 10.

    Prefer it with many candidates and graded scores: in LiPO it alone keeps gaining with the number of candidates.

    Args:
        logps: (R,)
        scores: (R,)
        group_ids: (R,)
        pairs: (R, R)
        num_groups: G.
        beta: Inverse temperature.

    Returns:
        (G,)
    """
    from torch.nn.functional import logsigmoid

    gains = scores.exp2() - 1
    discounts = 1 / (1 + ranks(logps.detach(), group_ids).to(logps.dtype)).log()
    weights = differences(gains).abs() * differences(discounts).abs()
    return sum_pairs(-weights * logsigmoid(beta * differences(logps)), group_ids, pairs, num_groups)
