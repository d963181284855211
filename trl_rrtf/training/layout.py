"""Which layout a model's batches have: candidates that share their prompt, or rows that repeat it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from trl_rrtf.training import prefix_sharing
from trl_rrtf.training.collator import DataCollatorForRankedGroups

if TYPE_CHECKING:
    from trl_rrtf.training.trainer import RRTFTrainer

logger = logging.getLogger(__name__)


def choose_layout(trainer: RRTFTrainer) -> bool:
    """Whether candidates share their prompt: as the configuration says, or where it is proved and nothing is against it."""
    wanted = trainer.args.prefix_sharing
    if wanted is False:
        return False
    model_type = trainer.model.config.get_text_config().model_type
    reason = prefix_sharing.obstacle(trainer.model)
    if reason is None and model_type not in prefix_sharing.PROVED_MODEL_TYPES:
        reason = f"it is not proved for `{model_type}` models" if wanted is None else _disproof(trainer)
    if reason is not None:
        logger.warning("`prefix_sharing` is off, each candidate repeats its prompt, because %s", reason)
        return False
    chosen = (trainer.args.model_init_kwargs or {}).get("attn_implementation")
    if chosen is None and (better := prefix_sharing.best_attention(trainer.model)) is not None:
        trainer.model.set_attn_implementation(better)
        if better == "flex_attention" and (reason := _disproof(trainer)) is not None:
            trainer.model.set_attn_implementation("sdpa")
            logger.warning("FlexAttention is not used, SDPA with a mask is, because %s", reason)
    if trainer.model.config.get_text_config()._attn_implementation == "flex_attention":
        trainer.data_collator.pad_to_multiple_of = trainer.data_collator.pad_to_multiple_of or prefix_sharing.FLEX_BLOCK
    return True


def _disproof(trainer: RRTFTrainer) -> str | None:
    """Runs a small group in both layouts; says how they differ, or None if they agree."""
    tokens = torch.randint(trainer.model.config.get_text_config().vocab_size, (24,), generator=torch.Generator().manual_seed(0))
    prompt_ids, *completion_ids = tokens[:12].tolist(), tokens[12:17].tolist(), tokens[17:].tolist()
    group: dict[str, Any] = {
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "scores": [1.0, 0.0],
        "sources": [1, 0],
    }
    group |= {"group_index": 0, "num_dropped": 0}
    length = prefix_sharing.FLEX_BLOCK
    collators = [DataCollatorForRankedGroups(0, length, prefix_sharing=sharing) for sharing in (False, True)]
    try:
        padded, shared = (trainer.log_likelihoods([group], collator) for collator in collators)
    except Exception as error:  # models refuse a mask, and compilers a model, with every kind of error
        return f"it fails in the shared layout ({type(error).__name__}: {error})"
    difference = float(((padded - shared).abs() / padded.abs()).max())
    allowed = 1e-4 if trainer.model.dtype == torch.float32 else 3e-2
    return None if difference < allowed else f"the two layouts differ by {difference:.1e} of a log-likelihood"
