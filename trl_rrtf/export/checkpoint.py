"""A checkpoint, read right: adapters merged, newer formats converted, the result compared with the training's record."""

from __future__ import annotations

import gc
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trl_rrtf.errors import ConfigError, LoadError, TrlRrtfError
from trl_rrtf.models.causal_lm import fit_vocabulary
from trl_rrtf.models.checkpoint_log_probs import CheckpointLogProbs
from trl_rrtf.models.paths import base_model, require_model
from trl_rrtf.rows.files import write_json

# Mean difference of log-probabilities, in nats, from what the training process computed.
_TOLERANCES = {"float32": 2e-4, "bfloat16": 0.05, "float16": 0.02}
_QUANTIZED_TOLERANCE = 0.5
_MAJOR = int(transformers.__version__.split(".")[0])


@dataclass
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        model: In float32, in evaluation mode, adapters merged.
        tokenizer: Its tokenizer.
        proof: How it was found to be read right, for the report.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    proof: dict[str, Any]

    def release_model(self) -> None:
        """Gives the model's memory back, although PyTorch's exporter keeps tensors of it.

        What is mapped from a file cannot be freed; its pages are the system's to drop when memory is short.
        """
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            storage = tensor.untyped_storage()
            if storage.resizable():
                storage.resize_(0)
        del self.model
        gc.collect()


def load_checkpoint(model: str, scratch: Path) -> Checkpoint:
    """Loads a checkpoint and proves, where the training left a record, that it is read right.

    Args:
        model: Folder (full or sharded weights, or a PEFT adapter) or Hub id.
        scratch: Folder for converted configurations.

    Raises:
        LoadError: The checkpoint, or an adapter's base model, is not there or damaged.
        ConfigError: It is read differently than the training process saw it, or it was written by a newer transformers and has
            no record to prove the conversion.
    """
    require_model(model)
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(model))
    record = CheckpointLogProbs.load(folder)
    base = base_model(str(folder))
    converted = False
    try:
        if base is not None:
            from peft import PeftModel

            require_model(base, "base_model_name_or_path")
            readable_base, converted = _readable(Path(base), scratch / "base") if Path(base).is_dir() else (base, False)
            loaded = AutoModelForCausalLM.from_pretrained(readable_base, dtype=torch.float32)
            fit_vocabulary(loaded, str(folder))
            loaded = PeftModel.from_pretrained(loaded, str(folder)).merge_and_unload()
            has_tokenizer = (folder / "tokenizer_config.json").is_file()
            readable = _readable(folder, scratch / "adapter")[0] if has_tokenizer else readable_base
        else:
            readable, converted = _readable(folder, scratch / "model")
            loaded = AutoModelForCausalLM.from_pretrained(readable, dtype=torch.float32)
        _require_tokenizer(Path(readable), model)
        tokenizer = AutoTokenizer.from_pretrained(readable)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if isinstance(error, TrlRrtfError):
            raise
        raise LoadError(f"`model`: `{model}` cannot be loaded ({error}); is it a complete checkpoint?") from error
    except Exception as error:  # safetensors raises its own, with no common base
        raise LoadError(f"`model`: the weights of `{model}` are damaged ({error}); copy the checkpoint again") from error
    loaded.eval()
    if getattr(loaded.config.get_text_config(), "attn_logit_softcapping", None):
        loaded.set_attn_implementation("eager")  # SDPA leaves Gemma 2's soft cap out
    if record is None and converted:
        raise ConfigError(
            f"`model`: `{model}` was written by a newer transformers than the {transformers.__version__} here, and has no "
            "`log_probs.json` to prove that its conversion is right; export it with transformers 5 (another environment), or "
            "save it once with `RRTFTrainer.save_model`"
        )
    proof = (
        {"record": "none: the checkpoint has no log_probs.json"} if record is None else _proof(loaded, tokenizer, record, model)
    )
    proof |= {"converted_from_newer_transformers": converted, "adapter_merged": base is not None}
    return Checkpoint(loaded, tokenizer, proof)


def _require_tokenizer(folder: Path, model: str) -> None:
    """Refuses a folder without a tokenizer, of which transformers says something else."""
    names = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json")
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        raise LoadError(
            f"`model`: `{model}` has no tokenizer ({', '.join(names)}), which the exported folder needs; save the one that it "
            "was trained with there"
        )


def _proof(
    loaded: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, record: CheckpointLogProbs, model: str
) -> dict[str, Any]:
    input_ids = tokenizer(record.text)["input_ids"][: len(record.input_ids)]
    if input_ids != record.input_ids:
        place = next((i for i, (a, b) in enumerate(zip(input_ids, record.input_ids, strict=False)) if a != b), len(input_ids))
        raise ConfigError(
            f"`model`: the tokenizer of `{model}` gives other tokens than in training (from token {place} of a fixed text on) "
            f"under transformers {transformers.__version__}; it was trained with {record.transformers}: export with that"
        )
    ids = torch.tensor([input_ids])
    with torch.inference_mode():
        log_probs = loaded(ids).logits[0, :-1].float().log_softmax(dim=-1).gather(1, ids[0, 1:, None])[:, 0].tolist()
    mean, largest = record.difference(log_probs)
    tolerance = _QUANTIZED_TOLERANCE if record.quantized else _TOLERANCES[record.dtype]
    if not mean <= tolerance:
        raise ConfigError(
            f"`model`: under transformers {transformers.__version__} the model of `{model}` gives log-probabilities that "
            f"differ by {mean:.2g} nats in the mean from those of its training (allowed is {tolerance:g}), so it is misread or "
            f"damaged; it was trained with transformers {record.transformers}: export with that"
        )
    return {
        "record": f"log_probs.json of transformers {record.transformers}, computed in {record.dtype}",
        "mean_difference_nats": mean,
        "largest_difference_nats": largest,
        "allowed_mean_difference_nats": tolerance,
    }


def _readable(folder: Path, scratch: Path) -> tuple[str, bool]:
    """The folder itself, or a copy (weights linked) whose settings this transformers understands, if it is older."""
    files = {name: folder / name for name in ("config.json", "tokenizer_config.json") if (folder / name).is_file()}
    settings = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items()}
    version = str(settings.get("config.json", {}).get("transformers_version") or "0")
    newer = (
        int(version.split(".")[0]) > _MAJOR or settings.get("tokenizer_config.json", {}).get("tokenizer_class") == _V5_TOKENIZER
    )
    if _MAJOR >= 5 or not newer:
        return str(folder), False
    scratch.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file() and path.name not in settings:
            os.symlink(path.resolve(), scratch / path.name)
    for name, value in settings.items():
        write_json(scratch / name, (_older_config if name == "config.json" else _older_tokenizer_config)(value))
    return str(scratch), True


_V5_TOKENIZER = "TokenizersBackend"


def _older_config(config: dict[str, Any]) -> dict[str, Any]:
    """`config.json` of transformers 5, in the form of 4: one dictionary of rotary settings becomes several keys."""
    config = {
        name: _older_config(value) if name.endswith("_config") and isinstance(value, dict) else value
        for name, value in config.items()
    }
    rotary = config.pop("rope_parameters", None)
    if rotary is None:
        return config
    if "full_attention" in rotary:  # by layer type, as Gemma 3 has it
        local, rotary = rotary["sliding_attention"], dict(rotary["full_attention"])
        config["rope_local_base_freq"] = local["rope_theta"]
    rotary = dict(rotary)
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in rotary:
            config[name] = rotary.pop(name)
    config["rope_scaling"] = None if rotary.get("rope_type", "default") == "default" else rotary
    return config


def _older_tokenizer_config(config: dict[str, Any]) -> dict[str, Any]:
    config = dict(config)
    if config.get("tokenizer_class") == _V5_TOKENIZER:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = config.get("extra_special_tokens")
    if isinstance(extra, list):
        config["additional_special_tokens"] = extra
        del config["extra_special_tokens"]
    return config


def save_generation_config(model: PreTrainedModel, folder: Path) -> None:
    """Saves a model's settings of `generate` as they are: its end tokens, above all.

    `GenerationConfig.save_pretrained` refuses what published models ship, such as a `temperature` without `do_sample`.
    """
    if model.generation_config is not None:
        model.generation_config.to_json_file(folder / "generation_config.json")


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Saves a tokenizer so that transformers 4 and 5 read it alike.

    4 does not know the name that 5 gives to a plain tokenizer, and under its own gives token types, which `generate` refuses.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = _older_tokenizer_config(json.loads(path.read_text(encoding="utf-8")))
    write_json(path, {**config, "model_input_names": ["input_ids", "attention_mask"]})
