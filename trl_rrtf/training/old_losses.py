"""The objectives, as pure functions of log-probabilities, scores, group ids and masks.

Shapes: R candidates of G groups lie in one flat batch, T token positions each.

| name | shape | meaning |
|---|---|---|
| `logps` | (R,) | mean log-probability of a candidate, nats per token (the paper's p) |
| `scores` | (R,) | larger is better |
| `sources` | (R,) | `TEACHER`, `STUDENT` or `UNKNOWN` |
| `group_ids` | (R,) | the group of each candidate, 0 .. G - 1 |
| `pairs` | (R, R) | `pairs[i, j]`: i should be likelier than j |

Everything is summed per group and returned as (G,), so a group's loss does not depend on the other groups of the batch, on
padding or on the order of its candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

STUDENT, TEACHER, UNKNOWN = 0, 1, -1
"""Codes of a candidate's source in a batch; `UNKNOWN` when the rows do not say."""


def mean_log_probs(token_log_probs: Tensor, completion_mask: Tensor) -> Tensor:
    """The paper's p_i: mean log-probability over the tokens of a candidate, end of sequence included.

    Args:
        token_log_probs: (R, T) log-probability of each token, in nats.
        completion_mask: (R, T) 1 at the tokens of the candidate, 0 at prompt and padding.

    Returns:
        (R,) float32. Divided by the candidate's own length, never by the padded one.
    """
    mask = completion_mask.to(torch.float32)
    return (token_log_probs.to(torch.float32) * mask).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)


def teacher_student_pairs(scores: Tensor, group_ids: Tensor, sources: Tensor) -> Tensor:
    """RRTF's pairs: a teacher i and a student j of one group with score_i > score_j.

    A candidate of unknown source may take either part, so groups without sources use all their ordered pairs.

    Returns:
        (R, R) bool.
    """
    teachers = sources != STUDENT
    students = sources != TEACHER
    return all_unequal_pairs(scores, group_ids, sources) & teachers[:, None] & students[None, :]


def all_unequal_pairs(scores: Tensor, group_ids: Tensor, sources: Tensor) -> Tensor:
    """RRHF's pairs: every two candidates of one group with score_i > score_j, whatever their sources.

    Returns:
        (R, R) bool.
    """
    return (group_ids[:, None] == group_ids[None, :]) & (scores[:, None] > scores[None, :])


def rrtf_rank_loss(logps: Tensor, scores: Tensor, group_ids: Tensor, pairs: Tensor, num_groups: int) -> Tensor:
    """PanGu-Coder2's ranking term: sum over pairs of (score_i - score_j) * max(0, p_j - p_i).

    Source: arXiv 2307.14936, section 3.3. Prefer it when the scores are graded (tests passed), so that a large gap counts more.

    Returns:
        (G,)
    """
    gaps = scores[:, None] - scores[None, :]
    return _sum_pairs(gaps * _hinges(logps), group_ids, pairs, num_groups)


def rrhf_rank_loss(logps: Tensor, scores: Tensor, group_ids: Tensor, pairs: Tensor, num_groups: int) -> Tensor:
    """RRHF's ranking term: sum over pairs of max(0, p_j - p_i), unweighted.

    Source: arXiv 2304.05302, equation 2. Prefer it when only the order of the scores means something.

    Returns:
        (G,)
    """
    return _sum_pairs(_hinges(logps), group_ids, pairs, num_groups)


def _hinges(logps: Tensor) -> Tensor:
    """(R, R): max(0, p_j - p_i)."""
    return (logps[None, :] - logps[:, None]).clamp(min=0)


def _sum_pairs(values: Tensor, group_ids: Tensor, pairs: Tensor, num_groups: int) -> Tensor:
    """(R, R) values -> (G,) sums over the pairs of each group."""
    per_candidate = torch.where(pairs, values, torch.zeros_like(values)).sum(dim=1)
    return sum_by_group(per_candidate, group_ids, num_groups)


def sum_by_group(values: Tensor, group_ids: Tensor, num_groups: int) -> Tensor:
    """(R,) values -> (G,) sums."""
    return values.new_zeros(num_groups).index_add(0, group_ids, values)


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
    return _share_among_best(scores, group_ids, torch.ones_like(sources, dtype=torch.bool))


def _share_among_best(scores: Tensor, group_ids: Tensor, eligible: Tensor) -> Tensor:
    same_group = group_ids[:, None] == group_ids[None, :]
    group_has_eligible = (same_group & eligible[None, :]).any(dim=1)
    eligible = eligible | ~group_has_eligible
    beaten = (same_group & eligible[None, :] & (scores[None, :] > scores[:, None])).any(dim=1)
    best = eligible & ~beaten
    ties = (same_group & best[None, :]).sum(dim=1)
    return best / ties.clamp(min=1)


def sft_loss(logps: Tensor, lengths: Tensor, targets: Tensor, group_ids: Tensor, num_groups: int, reduction: str) -> Tensor:
    """The fine-tuning term: negative log-likelihood of each group's target.

    Source: arXiv 2307.14936, section 3.3 prints a sum over tokens; RRHF's public code has a mean.

    Args:
        logps: (R,) mean log-probability, nats per token.
        lengths: (R,) number of completion tokens.
        targets: (R,) weights that sum to 1 in each group.
        group_ids: (R,) group of each candidate.
        num_groups: G.
        reduction: `"sum"` over the target's tokens, or their `"mean"`.

    Returns:
        (G,)
    """
    log_likelihoods = logps * lengths if reduction == "sum" else logps
    return -sum_by_group(targets * log_likelihoods, group_ids, num_groups)


@dataclass(frozen=True)
class RankObjective:
    """A ranking objective: which pairs, which loss over them, which fine-tuning target."""

    pairs: Callable[[Tensor, Tensor, Tensor], Tensor]
    rank_loss: Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
    sft_targets: Callable[[Tensor, Tensor, Tensor], Tensor]


RANK_OBJECTIVES: dict[str, RankObjective] = {
    "rrtf": RankObjective(teacher_student_pairs, rrtf_rank_loss, best_teacher_targets),
    "rrhf": RankObjective(all_unequal_pairs, rrhf_rank_loss, best_candidate_targets),
}
"""Values of `rank_loss` -> objective."""
