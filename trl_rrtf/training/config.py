"""`RRTFConfig`: TRL's `SFTConfig` with the options of RRTF."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from trl import SFTConfig

from trl_rrtf.errors import ConfigError
from trl_rrtf.training.options import GROUPS_WITHOUT_PAIRS, RANK_LOSS_CHOICES, SFT_REDUCTIONS, RRTFOptions

# Option -> (values that RRTF can honour, what to do instead).
_UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "packing": ((False,), "groups are padded, not packed; lower `per_device_train_batch_size` to save memory"),
    "eval_packing": ((None, False), "groups are padded, not packed"),
    "padding_free": ((False,), "groups are padded; lower `per_device_train_batch_size` to save memory"),
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
        rank_loss: Ranking objective, `"rrtf"` or `"rrhf"`.
        rank_weight: Weight of the ranking term.
        sft_weight: Weight of the fine-tuning term.
        sft_reduction: `"mean"` or `"sum"` over the tokens of the fine-tuning target. The paper prints a sum, RRHF's code has
            a mean; the default is the mean, because a sum outweighs the ranking term by the length of the target.
        groups_without_pairs: `"sft"` keeps a group without an ordered pair for the fine-tuning term, `"drop"` leaves it out.

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
        _check_choice("rank_loss", self.rank_loss, RANK_LOSS_CHOICES)
        _check_choice("sft_reduction", self.sft_reduction, SFT_REDUCTIONS)
        _check_choice("groups_without_pairs", self.groups_without_pairs, GROUPS_WITHOUT_PAIRS)
        for name in ("rank_weight", "sft_weight"):
            weight = getattr(self, name)
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(f"`{name}`: expected a finite number that is not negative, got {weight}")
        if self.rank_weight == 0 and self.sft_weight == 0:
            raise ConfigError("`rank_weight` and `sft_weight` are both 0, so nothing would be learnt; raise one of them")
        if self.sft_weight == 0 and self.groups_without_pairs == "sft":
            self.groups_without_pairs = "drop"  # without the fine-tuning term such a group has nothing to say
        for name, (honoured, instead) in _UNSUPPORTED.items():
            value = getattr(self, name, honoured[0])
            if value not in honoured:
                raise ConfigError(f"`{name}={value!r}` is not supported by RRTF: {instead}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"`{name}`: expected one of {', '.join(choices)}, got {value!r}")
