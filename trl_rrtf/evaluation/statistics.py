"""How sure a measured share is, and whether two models differ. Problems are what is resampled: candidates of one are alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_DRAWS = 5_000


@dataclass(frozen=True)
class Interval:
    """A mean over problems, with its 95 % interval.

    Attributes:
        mean: The mean.
        low: Lower end.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1%} [{self.low:.1%}, {self.high:.1%}]"


def mean_with_interval(values: Sequence[float]) -> Interval:
    """Mean over the problems, with a 95 % percentile bootstrap interval (fixed seed).

    Args:
        values: One number per problem, such as its pass@1.
    """
    import numpy as np  # here, for a quick `--help`

    array = np.asarray(values, dtype=float)
    generator = np.random.default_rng(0)
    means = np.concatenate(
        [array[generator.integers(len(array), size=(_DRAWS // 10, len(array)))].mean(axis=1) for _ in range(10)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(array.mean()), float(low), float(high))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Second minus first, problem by problem, with a 95 % bootstrap interval of the mean.

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
    all_splits: int = 2**total  # whole numbers: a float ends at 2^1023
    return min(1.0, splits_at_least_so_uneven / all_splits)
