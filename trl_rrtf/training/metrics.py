"""What the trainer logs: sums per group, added up over an update, processes and steps, divided once at the end.

Averages of averages would be wrong under gradient accumulation, on several processes and for groups of different sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trl_rrtf.training.losses import sum_by_group

STATISTICS = (
    "groups",
    "loss",
    "rank_loss",
    "sft_loss",
    "pairs",
    "correct_pairs",
    "pair_margin",
    "active_pairs",
    "without_pairs",
    "best_logp",
    "worst_logp",
    "candidates",
    "completion_tokens",
    "dropped",
)
"""Columns of a group's statistics; each is a sum that may be added to another group's."""


def group_statistics(
    *,
    loss: Tensor,
    rank_loss: Tensor,
    sft_loss: Tensor,
    logps: Tensor,
    scores: Tensor,
    lengths: Tensor,
    group_ids: Tensor,
    pairs: Tensor,
    num_dropped: Tensor,
) -> Tensor:
    """Statistics of each group, without gradient.

    Args:
        loss: (G,) weighted loss.
        rank_loss: (G,) ranking term.
        sft_loss: (G,) fine-tuning term.
        logps: (R,) mean log-probability, nats per token.
        scores: (R,)
        lengths: (R,) completion tokens.
        group_ids: (R,)
        pairs: (R, R) bool.
        num_dropped: (G,) candidates that were too long.

    Returns:
        (G, len(STATISTICS)) float32, columns as in `STATISTICS`.
    """
    num_groups = len(loss)
    logps = logps.detach().float()

    def by_group(values: Tensor) -> Tensor:
        return sum_by_group(values.to(torch.float32), group_ids, num_groups)

    margins = logps[:, None] - logps[None, :]
    num_pairs = by_group(pairs.sum(dim=1))
    same_group = group_ids[:, None] == group_ids[None, :]
    best = ~(same_group & (scores[None, :] > scores[:, None])).any(dim=1)
    worst = ~(same_group & (scores[None, :] < scores[:, None])).any(dim=1)
    columns = {
        "groups": torch.ones_like(num_pairs),
        "loss": loss.detach(),
        "rank_loss": rank_loss.detach(),
        "sft_loss": sft_loss.detach(),
        "pairs": num_pairs,
        "correct_pairs": by_group((pairs & (margins > 0)).sum(dim=1)),
        "pair_margin": by_group((pairs * margins).sum(dim=1)),
        "active_pairs": by_group((pairs & (margins < 0)).sum(dim=1)),
        "without_pairs": num_pairs == 0,
        "best_logp": by_group(best * logps) / by_group(best),
        "worst_logp": by_group(worst * logps) / by_group(worst),
        "candidates": by_group(torch.ones_like(logps)),
        "completion_tokens": by_group(lengths),
        "dropped": num_dropped,
    }
    return torch.stack([columns[name].to(torch.float32) for name in STATISTICS], dim=1)


def summarize(sums: Tensor) -> dict[str, float]:
    """Turns added-up statistics into the metrics that are logged.

    Args:
        sums: (len(STATISTICS),) sums over any number of groups.

    Returns:
        Metric name -> value; those of pairs are left out where there was no pair. Empty without a group.
    """
    total = dict(zip(STATISTICS, sums.tolist(), strict=True))
    groups, pairs = total["groups"], total["pairs"]
    if not groups:
        return {}
    metrics = {
        "loss/rank": total["rank_loss"] / groups,
        "loss/sft": total["sft_loss"] / groups,
        "ranking/active_pairs": total["active_pairs"] / groups,
        "groups/without_signal": total["without_pairs"] / groups,
        "logps/best": total["best_logp"] / groups,
        "logps/worst": total["worst_logp"] / groups,
        "completions/mean_length": total["completion_tokens"] / total["candidates"],
        "completions/dropped": total["dropped"] / groups,
    }
    if pairs:
        metrics["ranking/accuracy"] = total["correct_pairs"] / pairs
        metrics["ranking/margin"] = total["pair_margin"] / pairs
    return metrics
