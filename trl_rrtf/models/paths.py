"""Where models lie: one that is not there is found before anything expensive, and one that changed is noticed."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path

from trl_rrtf.errors import LoadError
from trl_rrtf.rows.files import file_digest

_CONFIGURATIONS = ("config.json", "adapter_config.json")


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
        if not any((path / name).is_file() for name in _CONFIGURATIONS):
            raise LoadError(
                f"`{argument}`: the folder `{model}` holds no {' or '.join(_CONFIGURATIONS)}; is the model saved there?"
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

    return any(isinstance(try_to_load_from_cache(model, name), str) for name in _CONFIGURATIONS)


def model_name(model: str) -> str:
    """What a model is called in rows and cards: its folder's name, or its Hub id."""
    return Path(os.path.abspath(model)).name if Path(model).exists() else model


_MODEL_FILES = (
    *("*.safetensors", "*.bin", "*.index.json", "*.gguf", "*.onnx", "*.onnx_data"),  # weights
    *("*config.json", "*.py"),  # configurations, and a model's own code
    *("tokenizer*", "*.model", "*.tiktoken", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
    *("chat_template*", "additional_chat_templates/*.jinja"),
)
"""What loading a model reads. Evaluations, notes and what a training keeps for itself may stand beside it, and change."""

_NOT_THE_MODEL = ("training_args.bin", "optimizer*.bin", "scheduler*.bin", "scaler*.bin")
"""What else a training gives such names."""


def model_fingerprint(model: str) -> str:
    """A short hash of a model's weights, configuration and tokenizer, to notice that the folder holds another one.

    Of a PEFT adapter the base model counts too. A Hub id is its own fingerprint. Reads the weights once per process.

    Args:
        model: A folder, or a Hub id.

    Raises:
        LoadError: An adapter's configuration is damaged.
    """
    folder = Path(model)
    if not model or not folder.is_dir():  # no name is no folder, though Python takes it for this one
        return model
    digest = hashlib.sha256()
    _add_files(folder, digest)
    base = base_model(model)
    if base and Path(base).is_dir():
        _add_files(Path(base), digest)
    elif base:
        digest.update(base.encode())
    return digest.hexdigest()[:16]


def _add_files(folder: Path, digest: hashlib._Hash) -> None:
    for path in sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)}):
        if path.is_file() and not any(path.match(pattern) for pattern in _NOT_THE_MODEL):
            status = path.stat()
            digest.update(path.name.encode())
            digest.update(_digest_of(path.resolve(), status.st_size, status.st_mtime_ns))


def base_model(model: str) -> str | None:
    """The base model (a folder or a Hub id) of a PEFT adapter; None for what is no adapter's folder.

    Raises:
        LoadError: The adapter's configuration is damaged, or names none.
    """
    adapter = Path(model) / "adapter_config.json"
    if not model or not adapter.is_file():
        return None
    try:
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(f"`{adapter}` is damaged ({type(error).__name__}: {error}); copy the adapter again") from error
    if not isinstance(base, str) or not base:
        raise LoadError(f"`{adapter}` names no base model; write its folder or Hub id into `base_model_name_or_path`")
    return base


@functools.cache
def _digest_of(path: Path, size: int, modified: int) -> bytes:
    return file_digest(path)
