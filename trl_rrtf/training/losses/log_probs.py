"""From token log-probabilities to one number per candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def sum_by_candidate(token_log_probs: Tensor, candidate_ids: Tensor, num_candidates: int) -> Tensor:
    """Log-likelihood of each candidate: the sum over its own tokens, end of sequence included.

    Args:
        token_log_probs: (M,) log-probability of each scored token, nats.
        candidate_ids: (M,) the candidate of each token, 0 .. R - 1.
        num_candidates: R.

    Returns:
        (R,) float32, nats.
    """
    values = token_log_probs.float()
    return values.new_zeros(num_candidates).index_add(0, candidate_ids, values)


def length_normalized(log_likelihoods: Tensor, lengths: Tensor, exponent: float) -> Tensor:
    """Log-likelihood over length to the power of `exponent`; the paper's p_i with the exponent 1.

    Args:
        log_likelihoods: (R,) nats.
        lengths: (R,) tokens of each candidate, never the padded length.
        exponent: 1 gives the mean per token, 0 the sum, values between them a milder preference for short candidates.

    Returns:
        (R,)
    """
    return log_likelihoods / lengths.clamp(min=1).to(log_likelihoods.dtype) ** exponent
