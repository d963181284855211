"""How sure a measured share is, and whether two models differ. The sample are the problems: candidates of one are alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

_DRAWS = 5_000


def mean_with_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean over the problems, with a 95 % percentile bootstrap interval (fixed seed).

    Args:
        values: One number per problem, such as its pass@1.

    Returns:
        `mean`, `low` and `high`.
    """
    import numpy as np  # here, for a quick `--help`

    array = np.asarray(values, dtype=float)
    generator = np.random.default_rng(0)
    means = np.concatenate(
        [array[generator.integers(len(array), size=(_DRAWS // 10, len(array)))].mean(axis=1) for _ in range(10)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(array.mean()), "low": float(low), "high": float(high)}


def paired_difference(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Second less first, problem by problem, with a 95 % bootstrap interval of the mean.

    Args:
        first: One number per problem.
        second: Those of another model, for the same problems in the same order.
    """
    return mean_with_interval([after - before for before, after in zip(first, second, strict=True)])


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test: whether problems that one model alone solves fall on both sides alike.

    Args:
        only_first: Problems that only the first model solves.
        only_second: Problems that only the second one solves.

    Returns:
        Probability, from 0 to 1, of a split at least so uneven if both were equally likely.
    """
    total, smaller = only_first + only_second, min(only_first, only_second)
    splits_at_least_so_uneven = 2 * sum(math.comb(total, i) for i in range(smaller + 1))
    return min(1.0, splits_at_least_so_uneven / math.pow(2, total))
