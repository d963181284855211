"""RRTF's own training options, apart from `config.py` so that `--help` shows them without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, field

RANK_LOSS_CHOICES = ("rrtf", "rrhf")
SFT_REDUCTIONS = ("mean", "sum")
GROUPS_WITHOUT_PAIRS = ("sft", "drop")


@dataclass
class RRTFOptions:
    """The options that `RRTFConfig` adds to TRL's `SFTConfig`.

    Attributes:
        rank_loss: Ranking objective.
        rank_weight: Weight of the ranking term.
        sft_weight: Weight of the fine-tuning term.
        sft_reduction: Whether the fine-tuning term is the mean or the sum over the target's tokens.
        groups_without_pairs: What becomes of a group without an ordered pair.
    """

    rank_loss: str = field(
        default="rrtf",
        metadata={
            "help": "Ranking objective. `rrtf`: hinge on teacher-student pairs, weighted by the score gap (PanGu-Coder2); "
            "`rrhf`: unweighted hinge on all pairs of unequal scores (RRHF).",
            "choices": list(RANK_LOSS_CHOICES),
        },
    )
    rank_weight: float = field(default=1.0, metadata={"help": "Weight of the ranking term; 0 turns it off."})
    sft_weight: float = field(default=1.0, metadata={"help": "Weight of the fine-tuning term; 0 turns it off."})
    sft_reduction: str = field(
        default="mean",
        metadata={
            "help": "Fine-tuning term over the target's tokens: `mean` (as RRHF's code; of the scale of the ranking term) or "
            "`sum` (as the PanGu-Coder2 paper prints it).",
            "choices": list(SFT_REDUCTIONS),
        },
    )
    groups_without_pairs: str = field(
        default="sft",
        metadata={
            "help": "A group without an ordered pair: `sft` keeps it for the fine-tuning term, `drop` leaves it out.",
            "choices": list(GROUPS_WITHOUT_PAIRS),
        },
    )
