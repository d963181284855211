"""The loss of each group: options and log-likelihoods in, the weighted sum of ranking, fine-tuning and penalty out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from trl_rrtf.training.losses import PAIR_SCOPES, RANK_LOSSES
from trl_rrtf.training.losses.fine_tuning import falling_best_penalty, sft_loss
from trl_rrtf.training.losses.log_probs import length_normalized
from trl_rrtf.training.losses.pairs import TEACHER
from trl_rrtf.training.options import RRTFOptions

REFERENCE_COLUMN = "reference_log_likelihoods"
"""(N,) log-likelihoods of a group's candidates under the initial model, nats."""


@dataclass(frozen=True)
class GroupLosses:
    """Losses of G groups with R candidates, and what they were made from.

    Attributes:
        total: (G,) weighted sum, the loss.
        rank: (G,) ranking term.
        sft: (G,) fine-tuning term.
        penalty: (G,) what the target has lost against the initial model.
        logps: (R,) length-normalised log-probabilities of the model alone.
        rewards: (R,) what is ranked: `logps`, or with `use_reference_model` TRL's implicit rewards, `beta` times what a
            candidate has gained on the initial model.
        is_relative: Whether `rewards` are relative to the initial model.
        scores: (R,) with the tie bonus.
        pairs: (R, R) the pairs that were compared.
    """

    total: Tensor
    rank: Tensor
    sft: Tensor
    penalty: Tensor
    logps: Tensor
    rewards: Tensor
    is_relative: bool
    scores: Tensor
    pairs: Tensor


def scores_and_pairs(options: RRTFOptions, scores: Tensor, group_ids: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (R,) with the tie bonus, and the pairs (R, R) that the options compare."""
    scores = scores + options.tie_bonus * (sources == TEACHER)
    scope = options.pair_scope or RANK_LOSSES[options.rank_loss].pair_scope
    return scores, PAIR_SCOPES[scope](scores, group_ids, sources)


def group_losses(options: RRTFOptions, log_likelihoods: Tensor, lengths: Tensor, batch: Mapping[str, Tensor]) -> GroupLosses:
    """Losses of the groups of a batch.

    Args:
        options: The objective and its settings.
        log_likelihoods: (R,) float32, nats.
        lengths: (R,) scored tokens of each candidate.
        batch: `scores`, `sources`, `group_ids` (R,), `group_index` (G,), and `reference_log_likelihoods` (R,) where the options
            need it.
    """
    loss, group_ids, num_groups = RANK_LOSSES[options.rank_loss], batch["group_ids"], len(batch["group_index"])
    scores, pairs = scores_and_pairs(options, batch["scores"], group_ids, batch["sources"])
    targets = loss.sft_targets(scores, group_ids, batch["sources"])

    logps = length_normalized(log_likelihoods, lengths, options.length_normalization)
    compared, penalty = logps, logps.new_zeros(num_groups)
    if options.needs_reference:
        reference = length_normalized(batch[REFERENCE_COLUMN], lengths, options.length_normalization)
        penalty = falling_best_penalty(logps, reference, targets, group_ids, num_groups)
        if options.use_reference_model:
            compared = logps - reference
    settings = {name: getattr(options, name) for name in loss.options}
    rank = loss.function(compared, scores, group_ids, pairs, num_groups, **settings)
    sft = sft_loss(log_likelihoods, lengths, targets, group_ids, num_groups, options.sft_reduction)
    total = options.rank_weight * rank + options.sft_weight * sft + options.best_logp_penalty * penalty
    rewards = options.beta * compared
    return GroupLosses(total, rank, sft, penalty, logps, rewards, options.use_reference_model, scores, pairs)
