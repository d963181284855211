"""The unbiased estimator of pass@k."""

from __future__ import annotations

import math

from trl_rrtf.errors import ConfigError


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Probability that at least one of k candidates passes, estimated without bias from n candidates.

    pass@k = 1 - C(n - c, k) / C(n, k), arXiv 2107.03374, equation 1.

    Args:
        num_samples: Candidates (n).
        num_correct: Candidates that pass (c).
        k: Candidates that may be tried.

    Returns:
        A number from 0 to 1.

    Raises:
        ConfigError: k is larger than n, or c is not from 0 to n.
    """
    if not 0 <= num_correct <= num_samples:
        raise ConfigError(f"`num_correct`: expected a number from 0 to `num_samples` ({num_samples}), got {num_correct}")
    if not 1 <= k <= num_samples:
        raise ConfigError(f"`k`: expected a number from 1 to the number of candidates ({num_samples}), got {k}")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)
