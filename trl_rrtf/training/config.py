"""`RRTFConfig`: TRL's `SFTConfig` with the options of RRTF."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from trl import SFTConfig

from trl_rrtf.errors import ConfigError
from trl_rrtf.training.losses import LOSS_OPTIONS, PAIR_SCOPES, RANK_LOSSES
from trl_rrtf.training.losses.fine_tuning import SFT_REDUCTIONS
from trl_rrtf.training.losses.pairs import MARGIN_SCALINGS
from trl_rrtf.training.options import GROUPS_WITHOUT_PAIRS, RRTFOptions

# Option -> (values that RRTF can honour, what to do instead).
_UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "packing": ((False,), "groups are packed by `prefix_sharing` and `row_token_budget`; leave it out"),
    "eval_packing": ((None, False), "groups are packed by `prefix_sharing` and `row_token_budget`; leave it out"),
    "padding_free": ((False,), "groups are packed by `prefix_sharing` and `row_token_budget`; leave it out"),
    "assistant_only_loss": ((False,), "RRTF always scores the completion alone; leave it out"),
    "completion_only_loss": ((None, True), "RRTF always scores the completion alone; leave it out"),
    "loss_type": (("nll",), "choose the objective with `rank_loss`"),
    "truncation_mode": (("keep_start",), "candidates longer than `max_length` are dropped, never cut"),
    "label_smoothing_factor": ((0.0,), "RRTF has no label smoothing; leave it out"),
    "dataset_kwargs": ((None,), "the trainer always prepares ranked groups itself"),
    "group_by_length": ((False,), "rows of a ranked group differ in length; leave it out"),
    "train_sampling_strategy": (("random", "sequential"), "rows of a ranked group differ in length; leave it out"),
    "average_tokens_across_devices": ((True,), "the loss is a mean over all groups of an update, on all devices"),
    "remove_unused_columns": ((False,), "the trainer keeps just the columns that it needs; leave it out"),
    "batch_eval_metrics": ((False,), "RRTF computes its own ranking metrics"),
}


@dataclass
class RRTFConfig(RRTFOptions, SFTConfig):
    """Configuration of [`RRTFTrainer`][trl_rrtf.RRTFTrainer].

    Every option of TRL's `SFTConfig` (and so of `transformers.TrainingArguments`) stands beside RRTF's own. One that RRTF
    cannot honour is refused with what to do instead: packing, padding-free batches, assistant-only loss, truncation,
    label smoothing, other loss types.

    Defaults that differ from `SFTConfig`: `remove_unused_columns` is `False` (the trainer keeps just what it needs); `bf16` is
    on only where there is an accelerator, so that a script runs unchanged on a CPU.

    Batch sizes count *groups*: `per_device_train_batch_size=4` is four prompts with all their candidates. The loss is a mean
    over the groups of an update, so it does not depend on how an update is split into batches or over devices.

    Args:
        rank_loss: Ranking objective, a key of [`RANK_LOSSES`][trl_rrtf.training.losses.RANK_LOSSES].
        rank_weight: Weight of the ranking term.
        pair_scope: Which candidates of a group are compared: `"teacher_student"`, `"all"` (of unequal scores) or
            `"best_against_rest"`; by default what the objective's paper does. Not with a listwise objective.
        length_normalization: Exponent of the length that a candidate's log-likelihood is divided by: 1 for the mean per token,
            0 for the sum.
        beta: Inverse temperature of `logistic`, `plackett_luce` and `lambda`.
        rank_margin: By how much a pair should be apart, in the unit of the normalised log-probabilities, for `hinge` and
            `logistic`.
        margin_scaling: `"constant"`, or the margin grows with the pair's difference of `"rank"` or `"score"`.
        tie_bonus: Added to the score of every teacher's candidate; choose it smaller than the gap between two scores.
        use_reference_model: The ranking term uses log-probabilities relative to the initial model's. They are computed before
            training and kept in `output_dir`; no second model stays in memory.
        best_logp_penalty: Weight of a penalty on what the fine-tuning target's log-probability falls below the initial model's.
        sft_weight: Weight of the fine-tuning term.
        sft_reduction: `"mean"` or `"sum"` over the tokens of the fine-tuning target. The paper prints a sum, RRHF's code has
            a mean; the default is the mean, because a sum outweighs the ranking term by the length of the target.
        groups_without_pairs: `"sft"` keeps a group without an ordered pair for the fine-tuning term, `"drop"` leaves it out.
        prefix_sharing: Whether a group's candidates share their prompt in one row; None for where it is proved.
        row_token_budget: Tokens of a row that groups are packed into, with `prefix_sharing`; None for the batch's longest.
        max_tokens_per_forward: A batch of more tokens is run in parts, twice, with the same gradients; None for one part.

    Raises:
        ConfigError: An option is out of range, or RRTF cannot honour it.
    """

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Always false: the trainer keeps just the columns that it needs."}
    )

    def __post_init__(self) -> None:
        """Checks RRTF's options, then those that it cannot honour."""
        if self.bf16 is None and not torch.accelerator.is_available():
            self.bf16: bool | None = False
        super().__post_init__()
        _check_choice("rank_loss", self.rank_loss, tuple(RANK_LOSSES))
        _check_choice("sft_reduction", self.sft_reduction, SFT_REDUCTIONS)
        _check_choice("groups_without_pairs", self.groups_without_pairs, GROUPS_WITHOUT_PAIRS)
        _check_choice("margin_scaling", self.margin_scaling, MARGIN_SCALINGS)
        if self.pair_scope is not None:
            _check_choice("pair_scope", self.pair_scope, tuple(PAIR_SCOPES))
        for name in ("rank_weight", "sft_weight", "rank_margin", "tie_bonus", "best_logp_penalty", "length_normalization"):
            _check_number(name, getattr(self, name), least=0.0)
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ConfigError(f"`beta`: expected a finite number above 0, got {self.beta}")
        for name in ("row_token_budget", "max_tokens_per_forward"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"`{name}`: expected a positive number or nothing, got {value}")
        self._check_contradictions()
        for name, (honoured, instead) in _UNSUPPORTED.items():
            value = getattr(self, name, honoured[0])
            if value not in honoured:
                raise ConfigError(f"`{name}={value!r}` is not supported by RRTF: {instead}")
        self._keep_groups_whole()

    def _check_contradictions(self) -> None:
        """Refuses options that say opposite things, and options that the chosen loss does not have."""
        loss = RANK_LOSSES[self.rank_loss]
        if self.rank_weight == 0 and self.sft_weight == 0:
            raise ConfigError("`rank_weight` and `sft_weight` are both 0, so nothing would be learnt; raise one of them")
        for name in LOSS_OPTIONS:
            default = RRTFOptions.__dataclass_fields__[name].default
            if getattr(self, name) != default and name not in loss.options:
                takers = ", ".join(f"`{other}`" for other, entry in RANK_LOSSES.items() if name in entry.options)
                got = f"`{name}={getattr(self, name)!r}`"
                raise ConfigError(f"{got} says nothing to `rank_loss={self.rank_loss!r}`; leave it out, or use {takers}")
        if self.margin_scaling != "constant" and self.rank_margin == 0:
            raise ConfigError(f"`margin_scaling={self.margin_scaling!r}` scales a `rank_margin` of 0; set `rank_margin` too")
        if loss.listwise and self.pair_scope is not None:
            raise ConfigError(f"`pair_scope`: `rank_loss={self.rank_loss!r}` reads the whole order of a group; leave it out")
        if self.row_token_budget is not None and self.prefix_sharing is False:
            raise ConfigError("`row_token_budget` packs groups of the shared layout, but `prefix_sharing` is off; drop one")
        if self.rank_weight == 0 and self.use_reference_model:
            raise ConfigError("`use_reference_model` changes the ranking term, but `rank_weight` is 0; leave one out")
        if self.sft_weight == 0 and self.groups_without_pairs == "sft":
            self.groups_without_pairs = "drop"  # without the fine-tuning term such a group has nothing to say

    def _keep_groups_whole(self) -> None:
        """Each process reads its own groups: accelerate would cut a batch that one process reads for all between two rows."""
        if self.accelerator_config.dispatch_batches:
            raise ConfigError(
                "`accelerator_config.dispatch_batches=True` is not supported by RRTF: it would cut groups apart; leave it out"
            )
        self.accelerator_config.dispatch_batches = False


def _check_number(name: str, value: float, *, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(f"`{name}`: expected a finite number of at least {least:g}, got {value}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"`{name}`: expected one of {', '.join(choices)}, got {value!r}")
