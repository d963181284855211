"""The objectives: values derived by hand, invariances, and the four defects of RRHF's public code."""

from __future__ import annotations

import itertools

import pytest
import torch

from trl_rrtf.training.losses import (
    RANK_OBJECTIVES,
    STUDENT,
    TEACHER,
    UNKNOWN,
    mean_log_probs,
    rrhf_rank_loss,
    rrtf_rank_loss,
    sft_loss,
)
from trl_rrtf.training.options import RANK_LOSS_CHOICES

# One group: a teacher that passed, a student that raised, a student that did not compile. p in nats per token.
LOGPS = torch.tensor([-1.0, -0.5, -2.0])
SCORES = torch.tensor([3.25, 1.0, 0.0])
SOURCES = torch.tensor([TEACHER, STUDENT, STUDENT])
LENGTHS = torch.tensor([4, 3, 5])
GROUP = torch.zeros(3, dtype=torch.long)


def objective_losses(name, logps, scores, sources, lengths, group_ids, num_groups, reduction="mean"):
    objective = RANK_OBJECTIVES[name]
    pairs = objective.pairs(scores, group_ids, sources)
    rank = objective.rank_loss(logps, scores, group_ids, pairs, num_groups)
    targets = objective.sft_targets(scores, group_ids, sources)
    return rank, sft_loss(logps, lengths, targets, group_ids, num_groups, reduction)


def test_choices_are_the_table():
    assert tuple(RANK_OBJECTIVES) == RANK_LOSS_CHOICES


def test_rrtf_by_hand():
    # Pair (0, 1): gap 3.25 - 1 = 2.25, hinge -0.5 - (-1.0) = 0.5, so 1.125.
    # Pair (0, 2): gap 3.25, hinge max(0, -2 + 1) = 0.  Pair (1, 2) has no teacher, so it does not count.
    rank, sft = objective_losses("rrtf", LOGPS, SCORES, SOURCES, LENGTHS, GROUP, 1)
    torch.testing.assert_close(rank, torch.tensor([1.125]))
    torch.testing.assert_close(sft, torch.tensor([1.0]))


def test_rrtf_fine_tuning_sum_by_hand():
    # The target has 4 tokens of mean -1.0: the sum is -4.0.
    _, sft = objective_losses("rrtf", LOGPS, SCORES, SOURCES, LENGTHS, GROUP, 1, reduction="sum")
    torch.testing.assert_close(sft, torch.tensor([4.0]))


def test_rrhf_by_hand():
    # All pairs, unweighted: (0, 1) 0.5, (0, 2) 0, (1, 2) max(0, -2 + 0.5) = 0.
    rank, sft = objective_losses("rrhf", LOGPS, SCORES, SOURCES, LENGTHS, GROUP, 1)
    torch.testing.assert_close(rank, torch.tensor([0.5]))
    torch.testing.assert_close(sft, torch.tensor([1.0]))
    # With the students' log-probabilities exchanged: (0, 2) 0.5, (1, 2) -0.5 + 2 = 1.5.
    swapped, _ = objective_losses("rrhf", LOGPS[[0, 2, 1]], SCORES, SOURCES, LENGTHS, GROUP, 1)
    torch.testing.assert_close(swapped, torch.tensor([2.0]))


def test_equal_scores_have_no_pair():
    for name in RANK_OBJECTIVES:
        rank, _ = objective_losses(name, LOGPS, torch.ones(3), SOURCES, LENGTHS, GROUP, 1)
        assert rank.item() == 0.0


def test_a_student_above_the_teacher_is_no_rrtf_pair_but_an_rrhf_pair():
    scores = torch.tensor([1.0, 3.0, 0.0])
    rrtf, _ = objective_losses("rrtf", torch.tensor([-0.5, -1.0, -2.0]), scores, SOURCES, LENGTHS, GROUP, 1)
    rrhf, _ = objective_losses("rrhf", torch.tensor([-0.5, -1.0, -2.0]), scores, SOURCES, LENGTHS, GROUP, 1)
    assert rrtf.item() == 0.0
    assert rrhf.item() == pytest.approx(0.5)


def test_without_sources_every_ordered_pair_counts():
    unknown = torch.full((3,), UNKNOWN)
    rank, _ = objective_losses("rrtf", torch.tensor([-3.0, -1.0, -0.5]), SCORES, unknown, LENGTHS, GROUP, 1)
    # (0, 1) 2.25 * 2, (0, 2) 3.25 * 2.5, (1, 2) 1 * 0.5
    assert rank.item() == pytest.approx(4.5 + 8.125 + 0.5)


def test_tied_targets_share_the_weight_so_order_does_not_matter():
    scores, sources = torch.tensor([3.25, 3.25, 1.0]), torch.tensor([TEACHER, TEACHER, STUDENT])
    for order in itertools.permutations(range(3)):
        index = list(order)
        _, sft = objective_losses("rrtf", LOGPS[index], scores[index], sources[index], LENGTHS[index], GROUP, 1)
        assert sft.item() == pytest.approx((1.0 + 0.5) / 2)


def test_the_target_is_the_best_teacher_even_below_a_student():
    scores = torch.tensor([2.25, 3.0, 0.0])
    _, rrtf = objective_losses("rrtf", LOGPS, scores, SOURCES, LENGTHS, GROUP, 1)
    _, rrhf = objective_losses("rrhf", LOGPS, scores, SOURCES, LENGTHS, GROUP, 1)
    assert (rrtf.item(), rrhf.item()) == (1.0, 0.5)


def test_a_group_without_teacher_falls_back_to_its_best_candidate():
    _, sft = objective_losses("rrtf", LOGPS, SCORES, torch.full((3,), STUDENT), LENGTHS, GROUP, 1)
    assert sft.item() == 1.0


@pytest.mark.parametrize("name", RANK_OBJECTIVES)
def test_order_of_candidates_does_not_matter(name):
    expected = objective_losses(name, LOGPS, SCORES, SOURCES, LENGTHS, GROUP, 1)
    for order in itertools.permutations(range(3)):
        index = list(order)
        got = objective_losses(name, LOGPS[index], SCORES[index], SOURCES[index], LENGTHS[index], GROUP, 1)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", RANK_OBJECTIVES)
def test_defect_2_several_ragged_groups_in_one_batch(name):
    """RRHF's code takes `[0]` of a batch axis and needs as many candidates for each prompt."""
    generator = torch.Generator().manual_seed(0)
    sizes = [3, 1, 6, 2]
    parts = []
    for size in sizes:
        logps, scores = -torch.rand(size, generator=generator), torch.randint(0, 4, (size,), generator=generator).float()
        sources = torch.tensor([TEACHER] + [STUDENT] * (size - 1))
        parts.append((logps, scores, sources, torch.randint(1, 9, (size,), generator=generator)))
    alone = [objective_losses(name, *part, torch.zeros(len(part[0]), dtype=torch.long), 1) for part in parts]
    together = objective_losses(
        name,
        *(torch.cat(column) for column in zip(*parts, strict=True)),
        torch.repeat_interleave(torch.arange(4), torch.tensor(sizes)),
        4,
    )
    torch.testing.assert_close(together[0], torch.cat([rank for rank, _ in alone]))
    torch.testing.assert_close(together[1], torch.cat([sft for _, sft in alone]))


def test_defect_1_the_mean_is_over_the_real_length():
    """RRHF's code divides by the padded length, and edits its labels in place."""
    token_log_probs = torch.tensor([[-9.0, -0.5, -1.5, -7.0, -7.0], [-9.0, -1.0, -1.0, -1.0, -3.0]])
    mask = torch.tensor([[0, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    before = token_log_probs.clone(), mask.clone()
    torch.testing.assert_close(mean_log_probs(token_log_probs, mask), torch.tensor([-1.0, -1.5]))
    assert torch.equal(token_log_probs, before[0])
    assert torch.equal(mask, before[1])


def test_gradients_in_float64():
    logps = LOGPS.double().requires_grad_()
    scores, lengths = SCORES.double(), LENGTHS.double()
    for name in RANK_OBJECTIVES:
        assert torch.autograd.gradcheck(
            lambda p, name=name: sum(
                part.sum() for part in objective_losses(name, p, scores, SOURCES, lengths, GROUP, 1, "sum")
            ),
            logps,
        )


def test_hinge_gradient_by_hand():
    logps = LOGPS.clone().requires_grad_()
    pairs = RANK_OBJECTIVES["rrtf"].pairs(SCORES, GROUP, SOURCES)
    rrtf_rank_loss(logps, SCORES, GROUP, pairs, 1).sum().backward()
    # Only (0, 1) is active: the gap pushes the teacher up and the student down by 2.25.
    torch.testing.assert_close(logps.grad, torch.tensor([-2.25, 2.25, 0.0]))


def test_bfloat16_token_log_probs_are_summed_in_float32():
    tokens = torch.full((1, 4096), -0.01, dtype=torch.bfloat16)
    value = mean_log_probs(tokens, torch.ones(1, 4096))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(-0.01, rel=1e-2)


def test_rrhf_ignores_the_size_of_the_gap():
    pairs = RANK_OBJECTIVES["rrhf"].pairs(SCORES, GROUP, SOURCES)
    small = rrhf_rank_loss(LOGPS, SCORES, GROUP, pairs, 1)
    large = rrhf_rank_loss(LOGPS, SCORES * 100, GROUP, pairs, 1)
    torch.testing.assert_close(small, large)
