"""Checkpoints in PyTorch, whole or as a PEFT adapter: model and tokenizer, with the tokens that an adapter has added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file

from trl_rrtf.errors import ConfigError
from trl_rrtf.models.paths import base_model


def load_causal_lm(model: str, **options: Any) -> PreTrainedModel:
    """Loads a model; an adapter is put on its base model, and not merged.

    Args:
        model: Folder or Hub id, of a model or of a PEFT adapter.
        options: For `AutoModelForCausalLM.from_pretrained`.

    Raises:
        ConfigError: It is a kind of adapter without layers (a prompt that is learnt), or see
            [`fit_vocabulary`][trl_rrtf.models.causal_lm.fit_vocabulary].
    """
    adapter = adapter_folder(model)
    if adapter is None:
        return AutoModelForCausalLM.from_pretrained(model, **options)
    from peft import PeftModel

    loaded = AutoModelForCausalLM.from_pretrained(base_model(adapter), **options)
    fit_vocabulary(loaded, adapter)
    adapted = PeftModel.from_pretrained(loaded, adapter)
    if adapted.active_peft_config.is_prompt_learning:
        raise ConfigError(
            f"`model`: the adapter `{adapter}` is of {adapted.active_peft_config.peft_type.value}, which adds to the prompt "
            "and has no layers; LoRA and its like are supported"
        )
    return adapted.get_base_model()


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Loads a tokenizer: the model's own, or that of the base model where an adapter was saved without one.

    Args:
        model: Folder or Hub id, of a model or of a PEFT adapter.
    """
    return AutoTokenizer.from_pretrained(tokenizer_source(model))


def tokenizer_source(model: str) -> str:
    """The folder or Hub id that a model's tokenizer is loaded from; see `load_tokenizer`."""
    adapter = adapter_folder(model)
    if adapter is None or (Path(adapter) / "tokenizer_config.json").is_file():
        return adapter or model
    return base_model(adapter) or model


def adapter_folder(model: str) -> str | None:
    """The folder of a PEFT adapter, fetched where it is a Hub id; None for what is no adapter."""
    if Path(model).is_dir():
        return model if base_model(model) else None
    if find_adapter_config_file(model) is None:
        return None
    from huggingface_hub import snapshot_download

    return str(snapshot_download(model))


def fit_vocabulary(model: PreTrainedModel, adapter: str) -> None:
    """Gives a base model as many token embeddings as an adapter was trained with, in place.

    PEFT expects that, and goes by the tokenizer; an embedding may be larger (rounded up to a multiple of 64, say).

    Args:
        model: The base model.
        adapter: The adapter's folder.

    Raises:
        ConfigError: Tokens were added, and the adapter has no embedding of some of them: it was random in the training.
    """
    from peft import PeftConfig
    from peft.utils import load_peft_weights

    known = model.get_input_embeddings().weight.shape[0]
    saved = load_peft_weights(adapter, device="cpu")
    indices = getattr(PeftConfig.from_pretrained(adapter), "trainable_token_indices", None) or []
    trained = {index for part in (indices.values() if isinstance(indices, dict) else [indices]) for index in part}
    layers = {name: _rows_of(saved, name) for name in _embedding_names(model)}
    rows = max([known, *(index + 1 for index in trained), *(max(sizes) for sizes in layers.values())])
    missing = sorted(set(range(known, rows)) - trained)
    if missing and (lacking := [name for name, (whole, _) in layers.items() if whole < rows]):
        raise ConfigError(
            f"`model`: the adapter `{adapter}` was trained with {rows} tokens, its base model has {known}, and neither has "
            f"what `{lacking[0]}` had for {len(missing)} of them (the first is {missing[0]}), random numbers; save the adapter "
            f"again with `save_embedding_layers=True` or `modules_to_save`, or merge it before it is saved"
        )
    if rows > known:
        model.resize_token_embeddings(rows, mean_resizing=False)


def _embedding_names(model: PreTrainedModel) -> list[str]:
    """Of the input embedding, and of the LM head where its weights are its own."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    layers = [first] if last is None or last.weight is first.weight else [first, last]
    return [name for layer in layers for name, module in model.named_modules() if module is layer]


def _rows_of(saved: dict[str, Tensor], name: str) -> tuple[int, int]:
    """How many tokens an adapter's tensors for an embedding are of: whole ones, and low-rank ones."""
    own = {key: value for key, value in saved.items() if key.startswith(f"base_model.model.{name}.")}
    whole = [value.shape[0] for key, value in own.items() if key.endswith("weight") and "lora_" not in key]
    low_rank = [value.shape[1] for key, value in own.items() if key.endswith("lora_embedding_A")]
    return max(whole, default=0), max(low_rank, default=0)
