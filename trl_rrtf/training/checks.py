"""What `RRTFTrainer` refuses: arguments, models, metrics and losses that are no number; each by name, with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoConfig, PreTrainedTokenizerBase

from trl_rrtf.errors import ConfigError
from trl_rrtf.training.config import RRTFConfig
from trl_rrtf.training.metrics import PAIR_METRICS
from trl_rrtf.training.ranked_dataset import has_ordered_pair

if TYPE_CHECKING:
    from trl_rrtf.training.trainer import RRTFTrainer

REFUSED_ARGUMENTS = {
    "compute_loss_func": "the objective is chosen with `rank_loss`",
    "compute_metrics": "the fused LM head keeps no logits that it could read; RRTF's own ranking metrics are logged, and a "
    "callback (`on_evaluate`) may add others",
    "preprocess_logits_for_metrics": "the fused LM head keeps no logits",
    "formatting_func": "rows are ranked groups; `Dataset.map` makes them from others",
    "model_init": "a search makes a trainer for each trial; give `model`",
    "tokenizer": "its name is `processing_class`",
}
"""Arguments of TRL's and transformers' trainers that `RRTFTrainer` does not take, with what to do instead."""

_MOST_NAMED = 10


def refuse_arguments(given: Mapping[str, Any]) -> None:
    """Refuses arguments of other trainers.

    Raises:
        ConfigError: One of them is given.
        TypeError: No trainer has such an argument.
    """
    for name, value in given.items():
        if name not in REFUSED_ARGUMENTS:
            raise TypeError(f"RRTFTrainer.__init__() got an unexpected keyword argument '{name}'")
        if value is not None:
            raise ConfigError(f"`{name}` is not supported by RRTF: {REFUSED_ARGUMENTS[name]}; leave it out")


def refuse_adapter(peft_config: Any, model: Any, args: RRTFConfig) -> None:
    """Refuses an adapter that would train tokens which the fused LM head reads past.

    Raises:
        ConfigError: `trainable_token_indices` on a model whose embeddings are its LM head too.
    """
    if not getattr(peft_config, "trainable_token_indices", None):
        return
    options = {"trust_remote_code": args.trust_remote_code, "revision": (args.model_init_kwargs or {}).get("revision")}
    config = AutoConfig.from_pretrained(model, **options) if isinstance(model, str) else model.config
    if config.get_text_config().tie_word_embeddings:
        raise ConfigError(
            "`peft_config.trainable_token_indices`: the embeddings of this model are its LM head too, whose weight the fused "
            "LM head reads directly, so the tokens would be trained in one place alone; leave it out, or untie them"
        )


def refuse_unsupported_model(trainer: RRTFTrainer) -> None:
    """Refuses what the loss cannot be computed with.

    Raises:
        ConfigError: A router loss, a row that is split over devices, or parts of a batch under DeepSpeed.
    """
    if trainer.has_router_loss:
        raise ConfigError(
            "`router_aux_loss_coef`: RRTF does not add the load-balancing loss of mixture-of-experts models; set it to 0.0"
        )
    parallelism = trainer.accelerator.parallelism_config
    if parallelism is not None and parallelism.non_data_parallel_size > 1:
        raise ConfigError(
            "`parallelism_config`: RRTF splits groups over devices (DDP, FSDP, ZeRO), not a row over several; use data "
            "parallelism alone"
        )
    if trainer.args.max_tokens_per_forward is not None and trainer.is_deepspeed_enabled:
        raise ConfigError(
            "`max_tokens_per_forward`: DeepSpeed steps after each backward, so a batch cannot go backward in parts; lower "
            "`per_device_train_batch_size`, or use FSDP2"
        )


def give_pad_token(tokenizer: PreTrainedTokenizerBase, args: RRTFConfig) -> None:
    """Gives a tokenizer its padding token, as `SFTTrainer` does: `pad_token`, its own, or that of the end.

    Raises:
        ConfigError: There is none, or the tokenizer does not know it.
    """
    pad_token = args.pad_token or tokenizer.pad_token or tokenizer.eos_token
    if pad_token is None:
        raise ConfigError(
            "`pad_token`: got nothing, and the tokenizer has neither padding nor end token; give one of its tokens "
            "(`tokenizer.pad_token`), and the tokenizer as `processing_class`"
        )
    if pad_token not in tokenizer.get_vocab():
        raise ConfigError(f"`pad_token`: the tokenizer has no token {pad_token!r}; give one of its vocabulary, or leave it out")
    tokenizer.pad_token = pad_token


def refuse_two_pad_tokens(args: RRTFConfig, collator: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a collator that pads with another token than `pad_token`.

    Raises:
        ConfigError: It names both.
    """
    number = getattr(collator, "pad_token_id", None)
    if args.pad_token is not None and number != tokenizer.pad_token_id:
        raise ConfigError(
            f"`pad_token`: {args.pad_token!r} has the number {tokenizer.pad_token_id}, and `data_collator` pads with {number}; "
            "leave one of them out"
        )


def require_best_metric(args: RRTFConfig, metrics: Mapping[str, float]) -> None:
    """Refuses an evaluation that does not have the metric which chooses the best model.

    Raises:
        ConfigError: It names those that there are.
    """
    name = args.metric_for_best_model
    if name is None or (name if name.startswith("eval_") else f"eval_{name}") in metrics:
        return
    pairs = "; the evaluation has no ordered pair" if _base_name(name, "") in PAIR_METRICS else ""
    known = ", ".join(sorted(metric.removeprefix("eval_") for metric in metrics))
    raise ConfigError(f"`metric_for_best_model`: `{name}` is not among the metrics{pairs}; choose one of {known}")


def require_pairs(args: RRTFConfig, eval_dataset: Any) -> None:
    """Refuses, before training, evaluation sets without a pair where a metric of pairs chooses the best model.

    Raises:
        ConfigError: It names the set.
    """
    metric = args.metric_for_best_model
    if metric is None:
        return
    sets = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
    for name, dataset in sets.items():
        base = _base_name(metric, name)
        if base.startswith("rewards/") and not args.use_reference_model:
            raise ConfigError(f"`metric_for_best_model`: `{metric}` needs `use_reference_model`; choose `ranking/accuracy`")
        if base not in PAIR_METRICS or not isinstance(dataset, Dataset):
            continue
        if not any(has_ordered_pair(row, args) for row in dataset.select_columns(["scores", "sources"])):
            raise ConfigError(
                f"`metric_for_best_model`: `{metric}` is a mean over ordered pairs, and no group of "
                f"`eval_dataset`{f'[{name!r}]' if name else ''} has one; choose `loss`, or give groups of unequal scores"
            )


def _base_name(metric: str, name: str) -> str:
    """`ranking/accuracy` of `eval_ranking/accuracy` and of `eval_NAME_ranking/accuracy`."""
    return metric.removeprefix("eval_").removeprefix(f"{name}_" if name else "")


def refuse_non_finite(losses: Tensor, log_likelihoods: Tensor, batch: Mapping[str, Tensor], step: int) -> None:
    """Stops a training whose loss is no number: its gradients would make every weight one.

    Args:
        losses: (G,) the loss of each group.
        log_likelihoods: (R,) of their candidates.
        batch: The batch.
        step: The update.

    Raises:
        ConfigError: It names the groups.
    """
    is_finite = torch.isfinite(losses)
    if bool(is_finite.all()):
        return
    numbers = batch["group_index"][~is_finite].tolist()
    groups = ", ".join(map(str, numbers[:_MOST_NAMED])) + (
        f" and {len(numbers) - _MOST_NAMED} more" * (len(numbers) > _MOST_NAMED)
    )
    broken = ~torch.isfinite(log_likelihoods)
    if bool(broken.all()):
        reason = (
            "the model's log-probabilities are not finite for any candidate: its weights are broken or its numbers overflow; "
        )
        reason += "lower `learning_rate`, set `max_grad_norm`, and use `bf16` rather than `fp16`"
    elif bool(broken.any()):
        reason = "the model's log-probabilities of some candidates are not finite; look at these rows"
    else:
        reason = "look at the scores of these rows, and at `rank_margin` and the weights of the terms"
    raise ConfigError(
        f"`train_dataset`: the loss of update {step} is {losses[~is_finite].tolist()[0]}, because of the groups {groups} (row "
        f"numbers; of a stream, in the worker's shards): {reason}"
    )
