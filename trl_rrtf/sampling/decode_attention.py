"""SDPA for generation on a CPU: one new token meets its cache without copies of it.

Where several query heads share a key head, SDPA's CPU kernels need the keys and values of each shared head repeated, for every
layer and every token: with many rows these copies, and a kernel made for long queries, cost more than the model's weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_decode"
"""The value of `attn_implementation`, registered with transformers when this module is imported."""


def decode_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function of transformers' `AttentionInterface`.

    Args:
        module: The attention layer.
        query: (B, heads, L, D); with L above 1, a prompt, this is SDPA as usual.
        key: (B, key heads, T, D)
        value: (B, key heads, T, D)
        attention_mask: (B or 1, 1, L, T), bool or added to the scores, or None.
        scaling: Factor of the scores, by default 1 / sqrt(D).
        kwargs: Dropout and so on, as for SDPA.

    Returns:
        (B, L, heads, D), and None for the weights.
    """
    rows, heads, length, width = query.shape
    if length > 1:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    scores = grouped @ key.transpose(2, 3) * (width**-0.5 if scaling is None else scaling)
    if attention_mask is not None:
        mask = attention_mask[..., : key.shape[2]]
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(dim=-1) @ value).reshape(rows, 1, heads, value.shape[3]), None


AttentionInterface.register(NAME, decode_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
