"""The likelihood of a group's order under the Plackett-Luce model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl_rrtf.training.losses.pairs import sum_by_group

if TYPE_CHECKING:
    from torch import Tensor


def plackett_luce_rank_loss(
    logps: Tensor, scores: Tensor, group_ids: Tensor, pairs: Tensor, num_groups: int, *, beta: float
) -> Tensor:
    """Sum over candidates i of -log(exp(beta p_i) / (exp(beta p_i) + sum over j below i of exp(beta p_j))).

    Source: ListMLE (Xia et al., ICML 2008), as PRO, arXiv 2306.17492, equation 7, uses it on candidates. Ties are dropped as in
    partial orders (LiPO, arXiv 2402.01878, section 3): equally scored candidates do not compete.

    Prefer it when the whole order matters and the scores' gaps do not. LiPO found it behind `logistic` and `lambda`, and PRO
    found that it needs the fine-tuning term.

    Args:
        logps: (R,)
        scores: (R,) not used; the pairs hold the order.
        group_ids: (R,)
        pairs: (R, R) i above j, all unequal pairs of each group.
        num_groups: G.
        beta: Inverse temperature.

    Returns:
        (G,)
    """
    import torch

    strengths = beta * logps
    itself = torch.eye(len(logps), dtype=torch.bool, device=logps.device)
    competing = strengths[None, :].masked_fill(~(pairs | itself), -torch.inf)
    return sum_by_group(competing.logsumexp(dim=1) - strengths, group_ids, num_groups)
