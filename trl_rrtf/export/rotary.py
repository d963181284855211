"""Rotary embeddings that choose their frequencies by the text's length, and the positions that a graph is right for.

A graph has one set of frequencies. Dynamic NTK computes others for each length beyond the original one, and LongRoPE has a
second set for those texts, so that even keys that are cached already would change. Their graphs get the frequencies of texts up
to the original length, and are capped there by name.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from trl_rrtf.export.weights import WeightedGraph
from trl_rrtf.models.onnx_runtime import CAP_ENTRY, CAP_REASON_ENTRY
from trl_rrtf.rows.files import write_json

_BY_LENGTH = ("dynamic", "longrope")
"""Kinds of rotary embedding that choose frequencies by length."""


@dataclass(frozen=True)
class Positions:
    """Which positions a model, and its graph, know.

    Attributes:
        usable: Longest text, in tokens, that the graph is right for; None where the model has no limit.
        cap: Why that is less than the model's own limit; empty if it is not.
        boundaries: Lengths after which something changes inside: sliding windows, original lengths of scaled embeddings.
    """

    usable: int | None
    cap: str
    boundaries: tuple[int, ...]


def positions_of(config: PretrainedConfig) -> Positions:
    """The positions of a model.

    Args:
        config: Of a language model, or of one with another beside it.
    """
    config = config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and longest <= 0:  # XLNet says -1 where it has no limit
        longest = None
    usable, cap, boundaries = longest, "", {*_windows(config), *_chunks(config)}
    for rotary in _rotary_settings(config):
        kind, original = _kind(rotary), _original_length(rotary, config)
        if kind in _BY_LENGTH and original:
            if usable is None or original < usable or kind == "dynamic":
                usable = min(original, usable or original)
                cap = (
                    f"the rotary embedding `{kind}` has other frequencies for texts of more than {original} tokens, and a "
                    "graph has those of shorter ones"
                )
        elif kind != "default" and original:
            boundaries.add(original)
    found = sorted(length for length in boundaries if usable is None or length < usable)
    return Positions(usable, cap, tuple(found))


@contextlib.contextmanager
def frozen_frequencies(model: PreTrainedModel) -> Iterator[None]:
    """Inside, rotary embeddings that choose their frequencies by length have those of short texts."""
    earlier: list[tuple[Any, Any]] = []
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        by_layer = isinstance(kinds, dict)
        if kinds is None or not any(kind in _BY_LENGTH for kind in (kinds.values() if by_layer else [kinds])):
            continue
        earlier.append((module, kinds))
        for prefix in [f"{layer}_" for layer in kinds] if by_layer else [""]:
            frequencies = getattr(module, f"{prefix}inv_freq", None)
            if frequencies is not None:
                with torch.no_grad():
                    frequencies.copy_(getattr(module, f"{prefix}original_inv_freq"))
        module.rope_type = dict.fromkeys(kinds, "default") if by_layer else "default"
    try:
        yield
    finally:
        for module, kinds in earlier:
            module.rope_type = kinds


@contextlib.contextmanager
def real_rotations(model: PreTrainedModel) -> Iterator[None]:
    """Inside, rotary embeddings that multiply complex numbers (DeepSeek-V2, Llama 4) use real ones: ONNX has no others."""
    module, name = sys.modules[type(model).__module__], "apply_rotary_emb"
    rotation = getattr(module, name, None)
    if rotation is None or "view_as_complex" not in inspect.getsource(rotation):
        yield
        return
    by_token = "[:, :, None, :]" in inspect.getsource(rotation)  # states (B, S, N, H), else (B, N, S, H)
    embeddings = [part for part in model.modules() if hasattr(part, "inv_freq")]
    setattr(module, name, functools.partial(_rotated, heads_axis=2 if by_token else 1))
    for embedding in embeddings:
        embedding.forward = functools.partial(_cosines_and_sines, embedding)  # type: ignore[method-assign]
    try:
        yield
    finally:
        setattr(module, name, rotation)
        for embedding in embeddings:
            del embedding.forward


def _cosines_and_sines(embedding: Any, states: Tensor, position_ids: Tensor) -> Tensor:
    """(B, S, H / 2, 2) for positions (B, S)."""
    angles = position_ids[:, :, None].float() * embedding.inv_freq[None, None, :].float()
    table: Tensor = torch.stack([angles.cos(), angles.sin()], dim=-1) * embedding.attention_scaling
    return table


def _rotated(query: Tensor, key: Tensor, table: Tensor, *, heads_axis: int) -> tuple[Tensor, Tensor]:
    """Query and key with each pair of neighbours (real and imaginary part) turned by its angle."""
    cosines, sines = table.unsqueeze(heads_axis).unbind(dim=-1)

    def turned(states: Tensor) -> Tensor:
        real, imaginary = states.float().reshape(*states.shape[:-1], -1, 2).unbind(dim=-1)
        parts = [real * cosines - imaginary * sines, real * sines + imaginary * cosines]
        return torch.stack(parts, dim=-1).flatten(3).type_as(states)

    return turned(query), turned(key)


def write_cap(graph: WeightedGraph, folder: Path, positions: Positions) -> None:
    """Tells whoever runs the graph how long a text it is right for: in the graph, and in the folder's configuration."""
    if not positions.cap:
        return
    for key, value in ((CAP_ENTRY, str(positions.usable)), (CAP_REASON_ENTRY, positions.cap)):
        graph.proto.metadata_props.add(key=key, value=value)
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["max_position_embeddings"] = positions.usable
    write_json(path, settings)


def _windows(config: PretrainedConfig) -> list[int]:
    """Of the layers that see a window only."""
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None)
    if not window or (layers and "sliding_attention" not in layers) or getattr(config, "use_sliding_window", None) is False:
        return []
    return [int(window)]


def _chunks(config: PretrainedConfig) -> list[int]:
    """Of the layers that see the tokens of their own chunk only (Llama 4)."""
    chunk = getattr(config, "attention_chunk_size", None)
    return [int(chunk)] if chunk and "chunked_attention" in (getattr(config, "layer_types", None) or ()) else []


def _rotary_settings(config: PretrainedConfig) -> list[Mapping[str, Any]]:
    """One, or one per type of layer: under transformers 4 and 5 they have other names."""
    settings = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if "full_attention" in settings or "sliding_attention" in settings:
        return [part for part in settings.values() if isinstance(part, dict)]
    return [settings]


def _kind(rotary: Mapping[str, Any]) -> str:
    kind = str(rotary.get("rope_type") or rotary.get("type") or "default")
    return "dynamic" if "dynamic" in kind else kind  # as transformers does


def _original_length(rotary: Mapping[str, Any], config: PretrainedConfig) -> int | None:
    """Tokens of the texts that the model had learnt from before its embedding was scaled."""
    longest = getattr(config, "max_position_embeddings", None)
    if _kind(rotary) == "dynamic":
        return longest  # transformers looks at no other
    known = rotary.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    if known:
        return int(known)
    if _kind(rotary) == "longrope":
        return longest
    factor = rotary.get("factor")
    return int(longest / factor) if longest and factor else None
