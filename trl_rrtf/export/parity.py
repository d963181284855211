"""Whether an exported graph computes what the PyTorch model does: logits, greedy text, perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_rrtf.export.report import Parity
from trl_rrtf.models.checkpoint_log_probs import PROBE_TEXT
from trl_rrtf.models.onnx_runtime import OnnxDecoder

_CACHED_STEPS = 4
_NEW_TOKENS = 24
_PROMPTS = (
    'def add(a, b):\n    """Return the sum."""\n',
    "Write a Python function that returns the largest number of a list, or None if the list is empty.",
    "import re\n\ndef words(text):",
)
"""Of different lengths, so that a batch of them is padded."""


def compare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, decoder: OnnxDecoder) -> Parity:
    """Runs both on the same batch, prompts and text.

    Args:
        model: In float32, in evaluation mode.
        tokenizer: Its tokenizer.
        decoder: The exported graph.
    """
    batch = _padded([tokenizer(prompt)["input_ids"] for prompt in _PROMPTS])
    is_token = batch[1] == 1
    theirs = _logits(model, *batch)
    ours, _ = decoder.step(*batch)
    cached, cached_ours = theirs[:, -_CACHED_STEPS:], _logits_one_by_one(decoder, *batch)
    text = _text(model, tokenizer)
    text_theirs, (text_ours, _) = _logits(model, *text), decoder.step(*text)
    differences = np.abs(ours - theirs)[is_token]
    deviation = float(theirs[is_token].std())
    cached_differences = np.abs(cached_ours - cached)
    return Parity(
        largest_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        relative_difference=float(differences.mean()) / deviation,
        cached_largest_difference=float(cached_differences.max()),
        cached_relative_difference=float(cached_differences.mean()) / deviation,
        next_token_agreement=float((text_ours.argmax(axis=-1) == text_theirs.argmax(axis=-1)).mean()),
        greedy_agreement=_greedy_agreement(model, decoder, *batch),
        perplexity=_perplexity(text_ours, text[0]),
        perplexity_of_pytorch=_perplexity(text_theirs, text[0]),
    )


def _padded(rows: Sequence[list[int]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Token ids and mask (B, T), padded on the left."""
    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return np.array(ids, dtype=np.int64), np.array(mask, dtype=np.int64)


def _text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 512
    ids = np.array([tokenizer(PROBE_TEXT)["input_ids"][: min(512, positions)]], dtype=np.int64)
    return ids, np.ones_like(ids)


@torch.inference_mode()
def _logits(
    model: PreTrainedModel, input_ids: np.ndarray[Any, Any], attention_mask: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    mask = torch.from_numpy(attention_mask)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    logits: np.ndarray[Any, Any] = (
        model(input_ids=torch.from_numpy(input_ids), attention_mask=mask, position_ids=positions, use_cache=False)
        .logits.float()
        .numpy()
    )
    return logits


def _logits_one_by_one(
    decoder: OnnxDecoder, input_ids: np.ndarray[Any, Any], attention_mask: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """(B, C, V) logits of the last C tokens, each run alone over the cache of those before."""
    start = input_ids.shape[1] - _CACHED_STEPS
    _, cache = decoder.step(input_ids[:, :start], attention_mask[:, :start])
    found = []
    for end in range(start + 1, input_ids.shape[1] + 1):
        logits, cache = decoder.step(input_ids[:, end - 1 : end], attention_mask[:, :end], cache)
        found.append(logits)
    return np.concatenate(found, axis=1)


def _greedy_agreement(
    model: PreTrainedModel, decoder: OnnxDecoder, input_ids: np.ndarray[Any, Any], attention_mask: np.ndarray[Any, Any]
) -> float:
    """Both go on greedily from the same prompts, in a batch."""
    mask = torch.from_numpy(attention_mask)
    with torch.inference_mode():
        theirs = model.generate(
            torch.from_numpy(input_ids),
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=_NEW_TOKENS,
            min_new_tokens=_NEW_TOKENS,
            pad_token_id=0,
        )[:, input_ids.shape[1] :].numpy()
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    ours, (logits, cache) = [], decoder.step(input_ids, attention_mask)
    for _ in range(_NEW_TOKENS):
        last = logits[:, -1].copy()
        last[:, ends] = -np.inf  # as `min_new_tokens` does
        ours.append(last.argmax(axis=-1))
        attention_mask = np.concatenate([attention_mask, np.ones_like(attention_mask[:, :1])], axis=1)
        logits, cache = decoder.step(ours[-1][:, None], attention_mask, cache)
    same = np.stack(ours, axis=1) == theirs
    return float(np.minimum.accumulate(same, axis=1).mean())


def _perplexity(logits: np.ndarray[Any, Any], input_ids: np.ndarray[Any, Any]) -> float:
    log_probs = torch.from_numpy(logits[0, :-1]).log_softmax(dim=-1)
    return float(np.exp(-log_probs.gather(1, torch.from_numpy(input_ids[0, 1:, None])).mean().item()))
