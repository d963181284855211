"""What the trainer logs: sums per group, added up over an update, processes and steps, divided once at the end.

Averages of averages would be wrong under gradient accumulation, on several processes and for groups of different sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trl_rrtf.training.losses.pairs import differences, is_best, sum_by_group
from trl_rrtf.training.objective import GroupLosses

STATISTICS = (
    "groups",
    "loss",
    "rank_loss",
    "sft_loss",
    "penalty",
    "pairs",
    "correct_pairs",
    "pair_margin",
    "active_pairs",
    "rewarded_pairs",
    "correct_rewards",
    "reward_margin",
    "without_pairs",
    "best_logp",
    "worst_logp",
    "candidates",
    "completion_tokens",
    "dropped",
)
"""Columns of a group's statistics; each is a sum that may be added to another group's."""

PAIR_METRICS = ("ranking/accuracy", "ranking/margin", "rewards/accuracies", "rewards/margins")
"""Metrics that are means over ordered pairs, so that there are none without a pair."""


def group_statistics(losses: GroupLosses, lengths: Tensor, group_ids: Tensor, num_dropped: Tensor) -> Tensor:
    """Statistics of each group, without gradient.

    Args:
        losses: Of G groups with R candidates.
        lengths: (R,) completion tokens.
        group_ids: (R,)
        num_dropped: (G,) candidates that were too long.

    Returns:
        (G, len(STATISTICS)) float32, columns as in `STATISTICS`.
    """
    num_groups = len(losses.total)
    logps, pairs = losses.logps.detach().float(), losses.pairs

    def by_group(values: Tensor) -> Tensor:
        return sum_by_group(values.to(torch.float32), group_ids, num_groups)

    margins, gains = differences(logps), differences(losses.rewards.detach().float())
    num_pairs = by_group(pairs.sum(dim=1))
    rewarded = pairs & losses.is_relative
    best, worst = is_best(losses.scores, group_ids), is_best(-losses.scores, group_ids)
    columns = {
        "groups": torch.ones_like(num_pairs),
        "loss": losses.total.detach(),
        "rank_loss": losses.rank.detach(),
        "sft_loss": losses.sft.detach(),
        "penalty": losses.penalty.detach(),
        "pairs": num_pairs,
        "correct_pairs": by_group((pairs & (margins > 0)).sum(dim=1)),
        "pair_margin": by_group((pairs * margins).sum(dim=1)),
        "active_pairs": by_group((pairs & (gains < 0)).sum(dim=1)),
        "rewarded_pairs": by_group(rewarded.sum(dim=1)),
        "correct_rewards": by_group((rewarded & (gains > 0)).sum(dim=1)),
        "reward_margin": by_group((rewarded * gains).sum(dim=1)),
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
    if total["penalty"]:
        metrics["loss/best_logp_penalty"] = total["penalty"] / groups
    if pairs:
        metrics["ranking/accuracy"] = total["correct_pairs"] / pairs
        metrics["ranking/margin"] = total["pair_margin"] / pairs
    if rewarded := total["rewarded_pairs"]:
        metrics["rewards/accuracies"] = total["correct_rewards"] / rewarded
        metrics["rewards/margins"] = total["reward_margin"] / rewarded
    return metrics
