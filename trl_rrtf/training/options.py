"""The `train` stage's arguments and RRTF's own options, apart from `config.py` so that `--help` needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from trl_rrtf.options import check_options, option
from trl_rrtf.training.losses import PAIR_SCOPES, RANK_LOSSES
from trl_rrtf.training.losses.fine_tuning import SFT_REDUCTIONS
from trl_rrtf.training.losses.pairs import MARGIN_SCALINGS

GROUPS_WITHOUT_PAIRS = ("sft", "drop")
"""Values of `groups_without_pairs`."""

_RANK_LOSS_HELP = "; ".join(f"`{name}`: {loss.summary}" for name, loss in RANK_LOSSES.items())


def _losses_with(option: str) -> str:
    """The losses that take an option, for its help text."""
    return ", ".join(f"`{name}`" for name, loss in RANK_LOSSES.items() if option in loss.options)


@dataclass
class TrainArguments:
    """Model and data of the `train` stage, beside `RRTFConfig` and TRL's `ModelConfig`.

    Attributes:
        input: Ranked groups to train on.
        model: Model to train; the same as TRL's `model_name_or_path`.
        eval_dataset: Ranked groups to evaluate on, or None.
        show_groups: So many evaluation groups are shown at every evaluation.
    """

    input: str = option("Ranked groups to train on: a file, or a Hub data set id.", is_input=True, aliases=("--dataset",))
    model: str | None = option("Model to train: a folder, or a Hub id.", default=None, is_input=True)
    eval_dataset: str | None = option("Ranked groups to evaluate on.", default=None, is_input=True)
    show_groups: int = option(
        "Show so many groups of `eval_dataset` at every evaluation, as tables and Parquet files.",
        default=0,
        at_least=0,
        decides_output=False,
    )

    def __post_init__(self) -> None:
        """Checks the options."""
        check_options(self)


@dataclass
class RRTFOptions:
    """The options that `RRTFConfig` adds to TRL's `SFTConfig`.

    Attributes:
        rank_loss: Ranking objective.
        rank_weight: Weight of the ranking term.
        pair_scope: Which candidates of a group are compared.
        length_normalization: Exponent of the length that a candidate's log-likelihood is divided by.
        beta: Inverse temperature of the losses that have one.
        rank_margin: Margin of the losses that have one.
        margin_scaling: What the margin grows with.
        tie_bonus: Added to the score of every teacher's candidate.
        use_reference_model: Whether the ranking term uses log-probabilities relative to the initial model's.
        best_logp_penalty: Weight of the penalty against a falling log-probability of the best candidate.
        sft_weight: Weight of the fine-tuning term.
        sft_reduction: Whether the fine-tuning term is the mean or the sum over the target's tokens.
        groups_without_pairs: What becomes of a group without an ordered pair.
        prefix_sharing: Whether the candidates of a group share their prompt in one row.
        row_token_budget: Tokens of a row that groups are packed into.
        max_tokens_per_forward: Tokens that go through the model at once.
    """

    rank_loss: str = option(f"Ranking objective. {_RANK_LOSS_HELP}.", default="rrtf", choices=tuple(RANK_LOSSES))
    rank_weight: float = option("Weight of the ranking term; 0 turns it off.", default=1.0, at_least=0)
    pair_scope: str | None = option(
        "Which candidates of a group are compared: `teacher_student`: a teacher above a student; `all`: all of "
        "unequal scores; `best_against_rest`: the best-scored against every other. Default: as the objective's paper does.",
        default=None,
        choices=tuple(PAIR_SCOPES),
    )
    length_normalization: float = option(
        "A candidate's log-likelihood is divided by its length to this power: 1 the mean per token (RRTF, SimPO), 0 the sum "
        "(DPO).",
        default=1.0,
        at_least=0,
    )
    beta: float = option(f"Inverse temperature, of {_losses_with('beta')}.", default=1.0, above=0)
    rank_margin: float = option(
        f"By how much a pair should be apart, of {_losses_with('rank_margin')}; SimPO's gamma over beta.",
        default=0.0,
        at_least=0,
    )
    margin_scaling: str = option(
        "The margin of a pair: `constant`, times the difference of their `rank`, or of their `score`.",
        default="constant",
        choices=MARGIN_SCALINGS,
    )
    tie_bonus: float = option(
        "Added to the score of every teacher's candidate, so that it wins a tie; for data sets that were ranked without one "
        "(`trl-rrtf rank` adds `teacher_bonus`).",
        default=0.0,
        at_least=0,
    )
    use_reference_model: bool = option(
        "The ranking term uses log-probabilities relative to the initial model's (DPO), which are computed once, before "
        "training.",
        default=False,
    )
    best_logp_penalty: float = option(
        "Weight of a penalty on what the fine-tuning target's log-probability falls below the initial model's (DPO-Positive).",
        default=0.0,
        at_least=0,
    )
    sft_weight: float = option("Weight of the fine-tuning term; 0 turns it off.", default=1.0, at_least=0)
    sft_reduction: str = option(
        "Fine-tuning term over the target's tokens: `mean` (as RRHF's code; of the scale of the ranking term) or `sum` (as the "
        "PanGu-Coder2 paper prints it).",
        default="mean",
        choices=SFT_REDUCTIONS,
    )
    groups_without_pairs: str = option(
        "A group without an ordered pair: `sft` keeps it for the fine-tuning term, `drop` leaves it out.",
        default="sft",
        choices=GROUPS_WITHOUT_PAIRS,
    )
    prefix_sharing: bool | None = option(
        "The candidates of a group share their prompt in one row, so that it runs through the model once. Default: on for the "
        "architectures that it is proved for.",
        default=None,
    )
    row_token_budget: int | None = option(
        "With `prefix_sharing`: groups are packed into a row up to this many tokens. Default: the tokens of the batch's "
        "longest group.",
        default=None,
        at_least=1,
    )
    max_tokens_per_forward: int | None = option(
        "A batch of more tokens runs through the model in parts, twice: without graph for the loss, then part by part with it. "
        "The same gradients in less memory, for about a third more time.",
        default=None,
        at_least=1,
    )

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads log-probabilities of the initial model."""
        return self.use_reference_model or self.best_logp_penalty > 0
