"""Attention of one new token against SDPA."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from trl_rrtf.sampling.decode_attention import decode_attention


@pytest.mark.parametrize("mask_kind", ["none", "bool", "added"])
@pytest.mark.parametrize(("length", "key_heads"), [(1, 2), (1, 6), (3, 2)])
def test_it_is_sdpa(length, key_heads, mask_kind):
    """Shared and unshared key heads, one token and a prompt, padding on the left, a mask longer than the keys."""
    torch.manual_seed(0)
    query = torch.randn(4, 6, length, 8)
    key, value = torch.randn(4, key_heads, 9, 8), torch.randn(4, key_heads, 9, 8)
    allowed = torch.ones(4, 1, length, 11, dtype=torch.bool)
    allowed[1, ..., :5] = False
    masks = {"none": None, "bool": allowed, "added": torch.zeros(allowed.shape).masked_fill(~allowed, -1e9)}
    mask = masks[mask_kind]
    module = SimpleNamespace(num_key_value_groups=6 // key_heads, is_causal=False)
    cut = None if mask is None else mask[..., :9]
    expected, _ = sdpa_attention_forward(module, query, key, value, cut, scaling=0.3)
    found, _ = decode_attention(module, query, key, value, mask if length == 1 else cut, scaling=0.3)
    torch.testing.assert_close(found, expected)
