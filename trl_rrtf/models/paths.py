"""Where models lie: one that is not there is found before anything expensive, and one that changed is noticed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from pathlib import Path

from trl_rrtf.errors import LoadError
from trl_rrtf.rows.files import file_digest

_WEIGHT_FILES = ("config.json", "adapter_config.json")


def require_model(model: str, argument: str = "model") -> None:
    """Refuses a path that cannot be a model; a Hub id passes, since only the Hub can tell.

    Args:
        model: A folder, or a Hub id such as `bigcode/starcoder`.
        argument: The argument's name, for the error message.

    Raises:
        LoadError: The folder is not there, or holds no model.
    """
    path = Path(model)
    if path.is_dir():
        if not any((path / name).is_file() for name in _WEIGHT_FILES):
            raise LoadError(
                f"`{argument}`: the folder `{model}` holds no {' or '.join(_WEIGHT_FILES)}; is the model saved there?"
            )
        return
    looks_like_path = path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1 or path.exists()
    if looks_like_path or not model:
        raise LoadError(f"`{argument}`: there is no model folder `{model}`; check the path, or give a Hub id (`user/name`)")
    if os.environ.get("HF_HUB_OFFLINE") == "1" and not _is_cached(model):
        raise LoadError(
            f"`{argument}`: `{model}` is no folder here and not in the Hub's cache, and HF_HUB_OFFLINE=1 forbids to fetch it; "
            "give a folder, or unset HF_HUB_OFFLINE"
        )


def _is_cached(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(model, name), str) for name in _WEIGHT_FILES)


def model_name(model: str) -> str:
    """What a model is called in rows and cards: its folder's name, or its Hub id."""
    return Path(model).name if Path(model).exists() else model


_MODEL_FILES = (".safetensors", ".bin", ".onnx", ".onnx_data", ".gguf", ".model", ".jinja", ".txt", ".json")
"""Endings of weights, configurations and tokenizers."""

_NOT_THE_MODEL = ("train*", "eval_results.json", "all_results.json", "reference_*.json", "log_probs.json", "export_report.json")
"""Files with such endings that a training or an export leaves beside a model."""


def model_fingerprint(model: str) -> str:
    """A short hash of a model's weights, configuration and tokenizer, to notice that the folder holds another one.

    Of a PEFT adapter the base model counts too. A Hub id is its own fingerprint. Reads the weights once per process.

    Args:
        model: A folder, or a Hub id.
    """
    folder = Path(model)
    if not model or not folder.is_dir():  # no name is no folder, though Python takes it for this one
        return model
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        is_foreign = any(path.match(pattern) for pattern in _NOT_THE_MODEL)
        if path.is_file() and path.suffix in _MODEL_FILES and not is_foreign:
            status = path.stat()
            digest.update(path.name.encode())
            digest.update(_digest_of(path, status.st_size, status.st_mtime_ns))
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        with contextlib.suppress(ValueError):  # a damaged file is told when it is loaded
            base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path") or ""
            digest.update(model_fingerprint(base).encode())
    return digest.hexdigest()[:16]


@functools.cache
def _digest_of(path: Path, size: int, modified: int) -> bytes:
    return file_digest(path)
