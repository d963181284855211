"""A model that is not there is found before anything expensive is imported or loaded."""

from __future__ import annotations

import os
from pathlib import Path

from trl_rrtf.errors import LoadError

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
