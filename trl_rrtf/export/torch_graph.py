"""The graph of a model, exported by PyTorch itself: wherever Optimum's exporter is not there or does not fit.

Inputs, outputs and their names are those of an Optimum export, so that both run in the same way.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from trl_rrtf.errors import ConfigError
from trl_rrtf.models.key_value_cache import CACHE

_BATCH, _LENGTH, _PAST = 2, 3, 5
"""Sizes of the example that is traced; none is 0 or 1, which would be taken for constants."""


class _WithFlatCache(nn.Module):
    """The model with its cache as a list of tensors."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past_key_values: list[Tensor]
    ) -> tuple[Tensor, ...]:
        cache = DynamicCache()  # without the configuration: sliding layers keep the whole cache and mask it, as Optimum's do
        for layer in range(len(past_key_values) // 2):
            cache.update(past_key_values[2 * layer], past_key_values[2 * layer + 1], layer)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=True,
            **{CACHE: cache},
        )
        layers = getattr(outputs, CACHE).layers
        return (outputs.logits, *(states for layer in layers for states in (layer.keys, layer.values)))


def _example_cache(model: PreTrainedModel) -> list[Tensor]:
    """Zeros in the shapes that the model itself gives its cache: keys and values, (B, heads, P, numbers) per layer.

    Configurations say it under many names, and not all of them truly.

    Raises:
        ConfigError: The model keeps something else.
    """
    cache = DynamicCache()
    tokens = torch.ones(_BATCH, _PAST, dtype=torch.int64)
    positions = torch.arange(_PAST).repeat(_BATCH, 1)
    cause = None
    try:
        with torch.no_grad():
            model(input_ids=tokens, attention_mask=tokens, position_ids=positions, use_cache=True, **{CACHE: cache})
    except Exception as error:  # of layers that look for their own kind of state in it
        cause = error
    states = [getattr(layer, part, None) for layer in cache.layers for part in ("keys", "values")]
    filled = [state for state in states if isinstance(state, Tensor) and state.dim() == 4 and state.shape[2] == _PAST]
    if cause is not None or not filled or len(filled) < len(states):
        raise ConfigError(
            f"`model`: not every layer of `{model.config.model_type}` models keeps the keys and values of all tokens (state "
            "spaces, linear attention and convolutions keep other states), and an exported graph has no other cache; run the "
            "checkpoint in PyTorch"
        ) from cause
    return [torch.zeros_like(state) for state in filled]


def export_with_torch(model: PreTrainedModel, folder: Path) -> None:
    """Writes `model.onnx` with a key-value cache, and the configuration beside it.

    Args:
        model: The model, in float32.
        folder: Where to.

    Raises:
        ConfigError: The model's layers keep other states than keys and values.
    """
    past = _example_cache(model)
    batch, length = torch.export.Dim("batch_size"), torch.export.Dim("sequence_length")
    total, past_length = torch.export.Dim("total_sequence_length"), torch.export.Dim("past_sequence_length")
    names = [f"{layer}.{part}" for layer in range(len(past) // 2) for part in ("key", "value")]
    arguments: dict[str, Any] = {
        "input_ids": torch.ones(_BATCH, _LENGTH, dtype=torch.int64),
        "attention_mask": torch.ones(_BATCH, _PAST + _LENGTH, dtype=torch.int64),
        "position_ids": torch.arange(_PAST, _PAST + _LENGTH).repeat(_BATCH, 1),
        "past_key_values": past,
    }
    shapes: dict[str, Any] = {
        "input_ids": {0: batch, 1: length},
        "attention_mask": {0: batch, 1: total},
        "position_ids": {0: batch, 1: length},
        "past_key_values": [{0: batch, 2: past_length} for _ in past],
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            _WithFlatCache(model).eval(),
            (),
            str(folder / "model.onnx"),
            kwargs=arguments,
            input_names=["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{name}" for name in names)],
            output_names=["logits", *(f"present.{name}" for name in names)],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=True,
            verbose=False,
        )
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
