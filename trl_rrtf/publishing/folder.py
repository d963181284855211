"""What of a folder goes to the Hub, laid out beside it: links to its files, and copies of those that may not go as they are."""

from __future__ import annotations

import codecs
import fnmatch
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.models.hub import NOT_PUSHED, hub_id
from trl_rrtf.models.private_text import below_home, refuse_private_text
from trl_rrtf.rows.files import output_errors, write_text

_TEXTS = (".json", ".jsonl", ".md", ".txt", ".yaml", ".yml", ".jinja", ".py", ".csv", ".toml", ".cfg", ".ini", ".sh")
_VOCABULARY = re.compile(r"tokenizer\.json|vocab.*|merges\.txt")
"""Texts that hold what a tokenizer knows, paths among it."""

WEIGHTS = (".safetensors", ".bin", ".gguf", ".onnx")
_BEGINNING = 8192
_ADAPTER = "adapter_config.json"


def lay_out(source: Path, folder: Path, *, base_model: str | None, places: Sequence[str]) -> list[str]:
    """Lays out a model's folder for an upload; nothing in it is changed.

    Args:
        source: The folder.
        folder: Where links and copies go.
        base_model: Hub id of the base model, for an adapter whose own is a folder.
        places: Folders of this machine that no text should tell.

    Returns:
        What the copies tell otherwise, in words.

    Raises:
        ConfigError: A file holds a token of the Hub or a path of this machine that cannot be left out, or is a link out of the
            folder, or an adapter's base model is a folder and no Hub id is given for it.
        OutputError: The copies cannot be written.
    """
    changed = list[str]()
    with output_errors(folder):
        for name in files_to_push(source):
            path, target = source / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not _is_text(path):
                os.symlink(path.resolve(), target)
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            portable = _portable_json(path, text, base_model) if path.suffix == ".json" else None
            if portable is None:
                os.symlink(path.resolve(), target)
            else:
                write_text(target, portable)
                changed.append(f"`{name}` goes with names in the place of folders of this machine")
            if name != "README.md":  # the card is composed anew
                refuse_private_text(portable or text, path, places)
    return changed


def files_to_push(source: Path) -> list[str]:
    """Names of a folder's files, in order, without checkpoints, states and what holds paths of this machine.

    Links to folders are not followed.

    Raises:
        ConfigError: A link leads out of the folder (but for the Hub's own cache, whose snapshots are links), to a file that
            stays here, or to nothing.
    """
    found = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file() or path.is_symlink())
    names = [name for name in found if _goes(name + "/" if (source / name).is_dir() else name)]
    for name in names:
        if (source / name).is_symlink():
            _check_link(source, name)
    return [name for name in names if (source / name).is_file()]


def _goes(name: str) -> bool:
    is_visible = not any(part.startswith(".") for part in name.split("/"))
    return is_visible and not any(
        fnmatch.fnmatchcase(form, pattern) for pattern in NOT_PUSHED for form in (name, name.rstrip("/"))
    )


def _check_link(source: Path, name: str) -> None:
    root, link = source.resolve(), source / name
    target = link.resolve()
    if not target.exists():
        raise ConfigError(f"`{link}` is a link to `{target}`, which is not there; remove the link")
    if not target.is_relative_to(root) and not _is_in_hub_cache(target, root):
        raise ConfigError(
            f"`{link}` is a link that leads out of the folder, to `{target}`; put the file itself there to upload it, "
            "or remove the link"
        )
    if target.is_file() and target.is_relative_to(root) and not _goes(target.relative_to(root).as_posix()):
        raise ConfigError(f"`{link}` is a link to `{target}`, which is never uploaded; remove the link")


def _is_in_hub_cache(target: Path, root: Path) -> bool:
    """Whether it is a file of the Hub's cache, or of the cache that the folder itself is a snapshot of."""
    from huggingface_hub.constants import HF_HUB_CACHE

    is_own = root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs"
    return is_own or (target.parent.name == "blobs" and target.is_relative_to(Path(HF_HUB_CACHE).resolve()))


def _is_text(path: Path) -> bool:
    """By its name, else by its beginning (`LICENSE`, say)."""
    if _VOCABULARY.fullmatch(path.name) or path.suffix in WEIGHTS:
        return False
    if path.suffix in _TEXTS:
        return True
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    try:
        # A character may be cut at the end of what was read.
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return b"\0" not in beginning


def _portable_json(path: Path, text: str, base_model: str | None) -> str | None:
    """The same without paths of this machine; None where there are none (or it is no JSON, which is not ours to judge)."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    changed = without_paths(values)
    if path.name == _ADAPTER and isinstance(values, dict):
        changed["base_model_name_or_path"] = _adapters_base(path, values.get("base_model_name_or_path"), base_model)
    return None if changed == values else json.dumps(changed, indent=2, ensure_ascii=False) + "\n"


def without_paths(values: Any) -> Any:
    """The same values, with names in the place of absolute paths that exist here, or lie below whosever home folder."""
    if isinstance(values, dict):
        return {name: without_paths(value) for name, value in values.items()}
    if isinstance(values, list):
        return [without_paths(value) for value in values]
    if isinstance(values, str) and _is_path_here(values):
        return Path(values).name
    return values


def _is_path_here(text: str) -> bool:
    below = below_home(text)
    if below is not None:
        return bool(below) and "\n" not in text  # the last part of `/home/NAME` would still tell the name
    is_absolute = text.startswith("/") and len(text) < 4096 and len(Path(text).parts) > 2
    return is_absolute and "\0" not in text and os.path.exists(text)


def _adapters_base(path: Path, given: Any, base_model: str | None) -> str:
    """The Hub id of an adapter's base model: without one, nobody else could load it."""
    own = hub_id(given) if isinstance(given, str) else None
    if own is None and base_model is None:
        raise ConfigError(
            f"`base_model`: the adapter's base model is a folder here (`{given}`, in `{path}`), which nobody else has; say "
            "what it is on the Hub (`--base_model owner/name`)"
        )
    if own is not None and base_model is not None and own != base_model:
        raise ConfigError(f"`base_model`: `{path}` says that it is {own}, got {base_model}; leave it out")
    return own or str(base_model)
