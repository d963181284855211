"""The fine-tuning term: which candidate is imitated, its likelihood, and a floor under that likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trl_rrtf.training.losses.pairs import STUDENT, same_group, sum_by_group

if TYPE_CHECKING:
    from torch import Tensor

SFT_REDUCTIONS = ("mean", "sum")
"""Values of `sft_reduction`."""


def best_teacher_targets(scores: Tensor, group_ids: Tensor, sources: Tensor) -> Tensor:
    """RRTF's fine-tuning target: the best-scored teacher of the group, or the best candidate of a group without teacher.

    Returns:
        (R,) weights that sum to 1 in each group; equally scored targets share the weight, so order does not matter.
    """
    return _share_among_best(scores, group_ids, sources != STUDENT)


def best_candidate_targets(scores: Tensor, group_ids: Tensor, sources: Tensor) -> Tensor:
    """RRHF's fine-tuning target: the best-scored candidate of the group, whatever its source.

    Returns:
        (R,) weights that sum to 1 in each group; equally scored targets share the weight, so order does not matter.
    """
    import torch

    return _share_among_best(scores, group_ids, torch.ones_like(scores, dtype=torch.bool))


def _share_among_best(scores: Tensor, group_ids: Tensor, eligible: Tensor) -> Tensor:
    together = same_group(group_ids)
    group_has_eligible = (together & eligible[None, :]).any(dim=1)
    eligible = eligible | ~group_has_eligible
    beaten = (together & eligible[None, :] & (scores[None, :] > scores[:, None])).any(dim=1)
    best = eligible & ~beaten
    ties = (together & best[None, :]).sum(dim=1)
    return best / ties.clamp(min=1)


def sft_loss(
    log_likelihoods: Tensor, lengths: Tensor, targets: Tensor, group_ids: Tensor, num_groups: int, sft_reduction: str
) -> Tensor:
    """The fine-tuning term: negative log-likelihood of each group's target.

    Source: arXiv 2307.14936, section 3.3 prints a sum over tokens; RRHF's public code has a mean.

    Args:
        log_likelihoods: (R,) sum over the tokens of a candidate, nats.
        lengths: (R,) number of completion tokens.
        targets: (R,) weights that sum to 1 in each group.
        group_ids: (R,) group of each candidate.
        num_groups: G.
        sft_reduction: `"sum"` over the target's tokens, or their `"mean"`.

    Returns:
        (G,)
    """
    values = log_likelihoods if sft_reduction == "sum" else log_likelihoods / lengths.clamp(min=1)
    return -sum_by_group(targets * values, group_ids, num_groups)


def falling_best_penalty(logps: Tensor, reference_logps: Tensor, targets: Tensor, group_ids: Tensor, num_groups: int) -> Tensor:
    """Sum over the targets of max(0, p_ref - p): what the best candidate has lost against the reference model.

    Source: DPO-Positive, arXiv 2402.13228, equation 3. There the term stands inside the sigmoid; here it is added, so that it
    goes with every ranking loss.

    Args:
        logps: (R,)
        reference_logps: (R,) the same of the reference model.
        targets: (R,) weights that sum to 1 in each group.
        group_ids: (R,)
        num_groups: G.

    Returns:
        (G,)
    """
    return sum_by_group(targets * (reference_logps - logps).clamp(min=0), group_ids, num_groups)
