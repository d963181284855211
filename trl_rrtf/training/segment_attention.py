"""SDPA over the segments of the shared layout: what a mask forbids anyway is not computed.

A row with a prompt of P tokens and N candidates of T has (P + N T)^2 pairs of positions, of which a mask allows about
P^2 / 2 + N T (P + T). SDPA with a mask computes all of them on a CPU; here each segment meets its own prompt and itself alone,
so that a further candidate costs its own tokens. FlexAttention does the same on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trl_rrtf.training.collator import PADDING_BLOCK, PREFIX_SEGMENT

NAME = "sdpa_segments"
"""The value of `attn_implementation`, registered with transformers when this module is imported."""

Span = tuple[slice, slice]
"""Positions of a segment, and those of its prompt (the same for the prompt itself)."""


def find_spans(block_ids: Tensor, segment_ids: Tensor) -> list[list[Span]]:
    """The segments of each row, in order and without padding, which is at the end.

    Args:
        block_ids: (B, L)
        segment_ids: (B, L)
    """
    spans = []
    for blocks, segments in zip(block_ids.tolist(), segment_ids.tolist(), strict=True):
        row: list[Span] = []
        start, prompt = 0, slice(0, 0)
        for end in range(1, len(blocks) + 1):
            if end < len(blocks) and (blocks[end], segments[end]) == (blocks[start], segments[start]):
                continue
            if start == 0 or blocks[start] != blocks[start - 1]:  # a new block; one without a prompt starts with a candidate
                prompt = slice(start, end if segments[start] == PREFIX_SEGMENT else start)
            if blocks[start] != PADDING_BLOCK:
                row.append((slice(start, end), prompt))
            start = end
        spans.append(row)
    return spans


def segment_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The attention function of transformers' `AttentionInterface`.

    Args:
        module: The attention layer.
        query: (B, heads, L, D)
        key: (B, key heads, L, D)
        value: (B, key heads, L, D)
        attention_mask: (B, 1, L, L) bool with the attribute `spans`, or any mask of SDPA without it.
        kwargs: Scaling, dropout and so on, as for SDPA.

    Returns:
        (B, L, heads, D), 0 at padding, and None for the weights.
    """
    rows: list[list[Span]] | None = getattr(attention_mask, "spans", None)
    if rows is None or attention_mask is None:  # padded rows, or generation
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    kwargs["is_causal"] = False
    outputs = []
    for number, spans in enumerate(rows):
        row = slice(number, number + 1)
        parts = []
        for segment, prompt in spans:
            seen = [segment] if segment == prompt else [prompt, segment]
            parts.append(
                sdpa_attention_forward(
                    module,
                    query[row, :, segment],
                    torch.cat([key[row, :, positions] for positions in seen], dim=2),
                    torch.cat([value[row, :, positions] for positions in seen], dim=2),
                    torch.cat([attention_mask[row, :, segment, positions] for positions in seen], dim=3),
                    **kwargs,
                )[0]
            )
        padding = query.shape[2] - spans[-1][0].stop
        parts.append(query.new_zeros(1, padding, query.shape[1], value.shape[3]))
        outputs.append(torch.cat(parts, dim=1))
    return torch.cat(outputs), None


AttentionInterface.register(NAME, segment_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
