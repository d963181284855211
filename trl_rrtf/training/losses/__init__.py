"""The objectives, as pure functions of log-probabilities, scores, group ids and pairs, each in its own module.

Shapes: R candidates of G groups lie in one flat batch.

| name | shape | meaning |
|---|---|---|
| `logps` | (R,) | length-normalised log-probability of a candidate; with the exponent 1 the paper's p, nats per token |
| `scores` | (R,) | larger is better |
| `sources` | (R,) | `TEACHER`, `STUDENT` or `UNKNOWN` |
| `group_ids` | (R,) | the group of each candidate, 0 .. G - 1 |
| `pairs` | (R, R) | `pairs[i, j]`: i should be likelier than j |

Everything is summed per group and returned as (G,), so a group's loss does not depend on the other groups of the batch, on
padding or on the order of its candidates.

The modules import torch inside their functions alone, so that `--help` reads `RANK_LOSSES` without loading it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trl_rrtf.training.losses.fine_tuning import best_candidate_targets, best_teacher_targets
from trl_rrtf.training.losses.hinge import hinge_rank_loss
from trl_rrtf.training.losses.lambda_loss import lambda_rank_loss
from trl_rrtf.training.losses.logistic import logistic_rank_loss
from trl_rrtf.training.losses.pairs import PAIR_SCOPES
from trl_rrtf.training.losses.plackett_luce import plackett_luce_rank_loss
from trl_rrtf.training.losses.rrhf import rrhf_rank_loss
from trl_rrtf.training.losses.rrtf import rrtf_rank_loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RankLoss:
    """A value of `rank_loss`.

    Attributes:
        function: `(logps, scores, group_ids, pairs, num_groups, **options) -> (G,)`.
        summary: One line for `--help` and the documentation.
        pair_scope: The pairs that it compares unless `pair_scope` says otherwise, a key of `PAIR_SCOPES`.
        sft_targets: Which candidate the fine-tuning term imitates: `(scores, group_ids, sources) -> (R,)` weights.
        options: The options of `RRTFConfig` that it takes, as keyword arguments of `function`.
        listwise: Whether it reads the whole order of a group, so that `pair_scope` has no meaning.
    """

    function: Callable[..., Tensor]
    summary: str
    pair_scope: str
    sft_targets: Callable[[Tensor, Tensor, Tensor], Tensor]
    options: tuple[str, ...] = ()
    listwise: bool = False


RANK_LOSSES: dict[str, RankLoss] = {
    "rrtf": RankLoss(
        rrtf_rank_loss,
        "hinge on teacher-student pairs, weighted by the score gap (PanGu-Coder2)",
        pair_scope="teacher_student",
        sft_targets=best_teacher_targets,
    ),
    "rrhf": RankLoss(
        rrhf_rank_loss,
        "unweighted hinge on all pairs of unequal scores (RRHF)",
        pair_scope="all",
        sft_targets=best_candidate_targets,
    ),
    "hinge": RankLoss(
        hinge_rank_loss,
        "hinge with a margin (SLiC, BRIO)",
        pair_scope="all",
        sft_targets=best_candidate_targets,
        options=("rank_margin", "margin_scaling"),
    ),
    "logistic": RankLoss(
        logistic_rank_loss,
        "pairwise log-sigmoid (SimPO; with `use_reference_model` DPO on groups)",
        pair_scope="all",
        sft_targets=best_candidate_targets,
        options=("beta", "rank_margin", "margin_scaling"),
    ),
    "plackett_luce": RankLoss(
        plackett_luce_rank_loss,
        "likelihood of the group's order, ties dropped (ListMLE, PRO)",
        pair_scope="all",
        sft_targets=best_candidate_targets,
        options=("beta",),
        listwise=True,
    ),
    "lambda": RankLoss(
        lambda_rank_loss,
        "pairwise log-sigmoid weighted by what a swap costs in DCG (LiPO)",
        pair_scope="all",
        sft_targets=best_candidate_targets,
        options=("beta",),
    ),
}
"""Values of `rank_loss`; the choices, the help and the error texts are made from this table."""

LOSS_OPTIONS = ("beta", "rank_margin", "margin_scaling")
"""Options that only some of the losses take."""

__all__ = ["LOSS_OPTIONS", "PAIR_SCOPES", "RANK_LOSSES", "RankLoss"]
