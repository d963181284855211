"""The objectives: values derived by hand, invariances, and the four defects of RRHF's public code."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from trl_rrtf.training.losses import PAIR_SCOPES, RANK_LOSSES
from trl_rrtf.training.losses.log_probs import length_normalized, sum_by_candidate
from trl_rrtf.training.losses.pairs import STUDENT, TEACHER, UNKNOWN, teacher_student_pairs
from trl_rrtf.training.losses.rrtf import rrtf_rank_loss
from trl_rrtf.training.objective import group_losses, scores_and_pairs
from trl_rrtf.training.options import RRTFOptions

# One group: a teacher that passed, a student that raised, a student that did not compile. p in nats per token.
LOGPS = torch.tensor([-1.0, -0.5, -2.0])
SCORES = torch.tensor([3.25, 1.0, 0.0])
SOURCES = torch.tensor([TEACHER, STUDENT, STUDENT])
LENGTHS = torch.tensor([4, 3, 5])
GROUP = torch.zeros(3, dtype=torch.long)


def losses_of(name, logps, scores, sources, lengths, group_ids, num_groups, reference=None, **options):
    """All terms, for mean log-probabilities."""
    batch = {"scores": scores, "sources": sources, "group_ids": group_ids, "group_index": torch.arange(num_groups)}
    if reference is not None:
        batch["reference_log_likelihoods"] = reference * lengths
    return group_losses(RRTFOptions(rank_loss=name, **options), logps * lengths, lengths, batch)


def objective_losses(name, logps, scores, sources, lengths, group_ids, num_groups, reduction="mean", **options):
    options = {"sft_reduction": reduction, **options}
    losses = losses_of(name, logps, scores, sources, lengths, group_ids, num_groups, **options)
    return losses.rank, losses.sft


def rank_loss_of(name, logps=LOGPS, scores=SCORES, sources=SOURCES, lengths=LENGTHS, **options):
    return losses_of(name, logps, scores, sources, lengths, torch.zeros(len(logps), dtype=torch.long), 1, **options).rank.item()


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
    for name in RANK_LOSSES:
        rank, _ = objective_losses(name, LOGPS, torch.ones(3), SOURCES, LENGTHS, GROUP, 1)
        assert rank.item() == 0.0, name


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


@pytest.mark.parametrize("name", RANK_LOSSES)
def test_order_of_candidates_does_not_matter(name):
    expected = objective_losses(name, LOGPS, SCORES, SOURCES, LENGTHS, GROUP, 1)
    for order in itertools.permutations(range(3)):
        index = list(order)
        got = objective_losses(name, LOGPS[index], SCORES[index], SOURCES[index], LENGTHS[index], GROUP, 1)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", RANK_LOSSES)
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
    tokens, candidate_ids = torch.tensor([-0.5, -1.5, -1.0, -1.0, -1.0, -3.0]), torch.tensor([0, 0, 1, 1, 1, 1])
    before = tokens.clone()
    means = length_normalized(sum_by_candidate(tokens, candidate_ids, 2), torch.tensor([2, 4]), 1.0)
    torch.testing.assert_close(means, torch.tensor([-1.0, -1.5]))
    assert torch.equal(tokens, before)


def test_gradients_in_float64():
    logps = LOGPS.double().requires_grad_()
    scores, lengths = SCORES.double(), LENGTHS.double()
    for name in RANK_LOSSES:
        assert torch.autograd.gradcheck(
            lambda p, name=name: sum(
                part.sum() for part in objective_losses(name, p, scores, SOURCES, lengths, GROUP, 1, "sum")
            ),
            logps,
        )


def test_hinge_gradient_by_hand():
    logps = LOGPS.clone().requires_grad_()
    pairs = teacher_student_pairs(SCORES, GROUP, SOURCES)
    rrtf_rank_loss(logps, SCORES, GROUP, pairs, 1).sum().backward()
    # Only (0, 1) is active: the gap pushes the teacher up and the student down by 2.25.
    torch.testing.assert_close(logps.grad, torch.tensor([-2.25, 2.25, 0.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_token_log_probs_are_summed_in_float32(dtype):
    tokens = torch.full((4096,), -0.01, dtype=dtype)
    value = sum_by_candidate(tokens, torch.zeros(4096, dtype=torch.long), 1)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(-40.96, rel=1e-2)


def test_rrhf_ignores_the_size_of_the_gap():
    assert rank_loss_of("rrhf") == rank_loss_of("rrhf", scores=SCORES * 100)


@pytest.mark.parametrize(
    ("scaling", "margin", "expected"),
    [
        ("constant", 1.2, (1.2 + 0.5) + (1.2 - 1.0) + 0),  # p_i - p_j of the pairs (0, 1), (0, 2), (1, 2): -0.5, 1.0, 1.5
        ("rank", 1.2, (1.2 + 0.5) + (2.4 - 1.0) + 0),
        ("score", 0.5, (0.5 * 2.25 + 0.5) + (0.5 * 3.25 - 1.0) + 0),
    ],
)
def test_hinge_with_margin_by_hand(scaling, margin, expected):
    assert rank_loss_of("hinge", rank_margin=margin, margin_scaling=scaling) == pytest.approx(expected)


def test_hinge_without_margin_is_rrhf():
    assert rank_loss_of("hinge") == rank_loss_of("rrhf") > 0


def test_equally_scored_candidates_share_a_rank():
    # Ranks 1, 2, 2: both pairs with the best have the margin once.
    scores = torch.tensor([3.0, 1.0, 1.0])
    assert rank_loss_of("hinge", scores=scores, rank_margin=1.2, margin_scaling="rank") == pytest.approx(1.7 + 0.2)


def test_logistic_by_hand():
    # -log sigmoid(2 (d - 0.25)) = log(1 + exp(-2 (d - 0.25))) for d = -0.5, 1.0, 1.5.
    expected = math.log(1 + math.exp(1.5)) + math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(-2.5))
    assert rank_loss_of("logistic", beta=2.0, rank_margin=0.25) == pytest.approx(expected, rel=1e-5)


def test_logistic_with_a_reference_is_dpo_over_the_pairs():
    # With sums instead of means: log-likelihoods -4, -1.5, -10, of the reference -5, -1, -12: ratios 1, -0.5, 2.
    reference = torch.tensor([-5.0, -1.0, -12.0]) / LENGTHS
    options = {"beta": 0.1, "length_normalization": 0.0, "use_reference_model": True, "reference": reference}
    expected = sum(math.log(1 + math.exp(-0.1 * difference)) for difference in (1.5, -1.0, -2.5))
    assert rank_loss_of("logistic", **options) == pytest.approx(expected, rel=1e-5)


def test_plackett_luce_by_hand():
    e = [math.exp(value) for value in (-1.0, -0.5, -2.0)]
    expected = -math.log(e[0] / sum(e)) - math.log(e[1] / (e[1] + e[2]))
    assert rank_loss_of("plackett_luce") == pytest.approx(expected, rel=1e-5)


def test_plackett_luce_drops_ties():
    e = [math.exp(value) for value in (-1.0, -0.5, -2.0)]
    tied = torch.tensor([3.0, 1.0, 1.0])
    assert rank_loss_of("plackett_luce", scores=tied) == pytest.approx(-math.log(e[0] / sum(e)), rel=1e-5)


def test_lambda_by_hand():
    # Gains 2^score - 1; the model ranks the candidates 2, 1, 3, so the discounts are 1 / log 3, 1 / log 2, 1 / log 4.
    gains = [2**3.25 - 1, 1.0, 0.0]
    discounts = [1 / math.log(3), 1 / math.log(2), 1 / math.log(4)]
    p = [-1.0, -0.5, -2.0]
    expected = sum(
        abs(gains[i] - gains[j]) * abs(discounts[i] - discounts[j]) * math.log(1 + math.exp(-(p[i] - p[j])))
        for i, j in ((0, 1), (0, 2), (1, 2))
    )
    assert rank_loss_of("lambda") == pytest.approx(expected, rel=1e-5)


def test_length_normalization_by_hand():
    sums = LOGPS * LENGTHS
    for exponent, expected in ((0.0, sums), (0.5, sums / LENGTHS.sqrt()), (1.0, LOGPS)):
        torch.testing.assert_close(length_normalized(sums, LENGTHS, exponent), expected)
    # Sums -4 and -1.5 of the pair (0, 1): hinge 2.5, gap 2.25; -10 of candidate 2 is below.
    assert rank_loss_of("rrtf", length_normalization=0.0) == pytest.approx(2.25 * 2.5)


def test_pair_scopes_by_hand():
    scores = torch.tensor([2.0, 3.0, 1.0])  # a student is best
    pairs = {
        scope: scores_and_pairs(RRTFOptions(pair_scope=scope), scores, GROUP, SOURCES)[1].nonzero().tolist()
        for scope in PAIR_SCOPES
    }
    assert pairs == {
        "teacher_student": [[0, 2]],
        "all": [[0, 2], [1, 0], [1, 2]],
        "best_against_rest": [[1, 0], [1, 2]],
    }


def test_the_tie_bonus_lets_a_teacher_win_a_tie():
    tied = torch.tensor([1.0, 1.0, 0.0])
    assert rank_loss_of("rrtf", scores=tied) == 0.0
    # (0, 1): gap 0.25, hinge 0.5.
    assert rank_loss_of("rrtf", scores=tied, tie_bonus=0.25) == pytest.approx(0.125)


def test_the_penalty_counts_what_the_target_has_lost():
    reference = torch.tensor([-0.75, -0.25, -3.0])
    losses = losses_of("rrtf", LOGPS, SCORES, SOURCES, LENGTHS, GROUP, 1, reference=reference, best_logp_penalty=2.0)
    assert losses.penalty.item() == pytest.approx(0.25)
    plain = losses_of("rrtf", LOGPS, SCORES, SOURCES, LENGTHS, GROUP, 1)
    assert losses.total.item() == pytest.approx(plain.total.item() + 2.0 * 0.25)
    risen = losses_of("rrtf", LOGPS, SCORES, SOURCES, LENGTHS, GROUP, 1, reference=LOGPS - 1, best_logp_penalty=2.0)
    assert risen.penalty.item() == 0.0


@pytest.mark.parametrize("name", RANK_LOSSES)
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_any_number_of_candidates(name, size):
    """Finite, no pull away from the best, unchanged when all log-probabilities move together; nothing to rank in one."""
    generator = torch.Generator().manual_seed(size)
    logps = (-3 * torch.rand(size, generator=generator)).requires_grad_()
    scores = torch.randint(0, 4, (size,), generator=generator).float()
    scores[0] = 3.5
    sources = torch.tensor([TEACHER] + [STUDENT] * (size - 1))
    lengths, group_ids = torch.full((size,), 5), torch.zeros(size, dtype=torch.long)
    rank = losses_of(name, logps, scores, sources, lengths, group_ids, 1).rank
    (gradient,) = torch.autograd.grad(rank.sum(), logps)
    assert torch.isfinite(rank).all()
    assert torch.isfinite(gradient).all()
    assert gradient[0] <= 0
    assert gradient.sum().item() == pytest.approx(0.0, abs=1e-4)
    moved = losses_of(name, logps - 2.0, scores, sources, lengths, group_ids, 1).rank
    torch.testing.assert_close(moved, rank, rtol=1e-4, atol=1e-4)
    assert (rank.item() > 0) == (size > 1 and bool((logps[0] < logps[1:]).any() or name not in ("rrtf", "rrhf", "hinge")))
