"""The attention of the shared layout: who sees whom, as a mask for the model at hand, and which models can do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_rrtf.training import segment_attention
from trl_rrtf.training.collator import PREFIX_SEGMENT

PROVED_MODEL_TYPES = frozenset(
    {
        *("llama", "qwen2", "qwen3", "gemma3_text", "gpt2", "gpt_bigcode", "starcoder2", "mistral", "phi"),
        *("phi3", "smollm3", "granite", "olmo2"),
    }
)
"""Values of `config.model_type` whose log-probabilities and gradients `tests/training/test_prefix_sharing.py` proves equal to
those of the padded layout, on both lines of transformers."""

_MASKED_LAYERS = {"full_attention", "sliding_attention"}
_MASKED_IMPLEMENTATIONS = ("eager", "sdpa", segment_attention.NAME, "flex_attention")
FLEX_BLOCK = 128
"""Rows for FlexAttention are padded to a multiple of its block size."""

AttentionRule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def attention_rule(block_ids: Tensor, segment_ids: Tensor, position_ids: Tensor, window: int | None = None) -> AttentionRule:
    """Whether a position attends to another, in the form of a FlexAttention `mask_mod`.

    A position sees what came before it (by position, itself included) in the prompt of its block and in its own segment.
    Padding is a block of its own and sees itself, so that no row of the softmax is empty.

    Args:
        block_ids: (B, L)
        segment_ids: (B, L)
        position_ids: (B, L)
        window: Positions that a sliding-window layer sees, itself included; None for all.

    Returns:
        `(batch, head, query, key) -> bool`, broadcasting over its arguments.
    """

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_block = block_ids[batch, query] == block_ids[batch, key]
        key_segment = segment_ids[batch, key]
        visible = (key_segment == PREFIX_SEGMENT) | (key_segment == segment_ids[batch, query])
        distance = position_ids[batch, query] - position_ids[batch, key]
        allowed = same_block & visible & (distance >= 0)
        return allowed if window is None else allowed & (distance < window)

    return sees


def attention_mask(model_config: Any, part: dict[str, Tensor], dtype: torch.dtype) -> Any:
    """The mask that a model is called with for a part in the shared layout.

    Args:
        model_config: The text model's configuration; its attention implementation decides the form.
        part: A part of a batch with `block_ids`, `segment_ids` and `position_ids`, (B, L) each.
        dtype: Of the model, for `eager` attention, which adds the mask to the scores.

    Returns:
        A `BlockMask` for `flex_attention`, a bool (B, 1, L, L) for `sdpa` and `sdpa_segments`, an additive one for `eager`; for
        models that mix full and sliding-window layers, a dictionary of them by kind of layer.
    """
    kinds = set(getattr(model_config, "layer_types", None) or ())
    if "sliding_attention" in kinds:
        window = _window(model_config)
        windows = {"full_attention": None, "sliding_attention": window}
        return {kind: _mask(model_config, part, windows[kind], dtype) for kind in windows}
    # Without kinds of layers, all layers have the window.
    return _mask(model_config, part, None if kinds else _window(model_config), dtype)


def _window(model_config: Any) -> int | None:
    if getattr(model_config, "use_sliding_window", True) is False:
        return None
    window: int | None = getattr(model_config, "sliding_window", None)
    return window


def _mask(model_config: Any, part: dict[str, Tensor], window: int | None, dtype: torch.dtype) -> Any:
    rule = attention_rule(part["block_ids"], part["segment_ids"], part["position_ids"], window)
    rows, length = part["block_ids"].shape
    device = part["block_ids"].device
    if model_config._attn_implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(rule, rows, None, length, length, device=device, BLOCK_SIZE=FLEX_BLOCK)
    row = torch.arange(rows, device=device)[:, None, None, None]
    position = torch.arange(length, device=device)
    allowed = rule(row, torch.zeros_like(row), position[:, None], position[None, :])
    if model_config._attn_implementation == segment_attention.NAME:
        allowed.spans = segment_attention.find_spans(part["block_ids"], part["segment_ids"])  # type: ignore[attr-defined]
        return allowed
    if model_config._attn_implementation == "sdpa":
        return allowed
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def obstacle(model: PreTrainedModel) -> str | None:
    """Why a model cannot share prompts, or None if nothing is known against it.

    Args:
        model: The model, or the `PeftModel` around it.
    """
    adapters = getattr(model, "peft_config", {})
    if any(adapter.is_prompt_learning for adapter in adapters.values()):
        return "its adapter puts virtual tokens before every row"
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if getattr(model, "_is_stateful", False) or kinds - _MASKED_LAYERS:
        return "it has layers that carry a state along the row and take no attention mask"
    if config._attn_implementation not in _MASKED_IMPLEMENTATIONS:
        return f"`attn_implementation={config._attn_implementation!r}` takes no mask; use sdpa or flex_attention"
    return None


def best_attention(model: PreTrainedModel) -> str | None:
    """The attention implementation that skips what the mask forbids, for a model that runs on SDPA; None to leave it.

    FlexAttention on a CUDA device, where the architecture supports it and there is no attention dropout; SDPA by segments on a
    CPU.
    """
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa":
        return None
    if model.device.type == "cpu":
        return segment_attention.NAME
    dropout = max(getattr(config, name, None) or 0.0 for name in ("attention_dropout", "attn_pdrop"))
    if model.device.type == "cuda" and getattr(model, "_supports_flex_attn", False) and dropout == 0:
        return "flex_attention"
    return None
