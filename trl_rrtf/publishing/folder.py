"""What of a folder goes to the Hub, laid out beside it: links to its files, and copies of those that may not go as they are."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.models.hub import NOT_PUSHED, hub_id
from trl_rrtf.rows.files import output_errors, write_text

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")
_TEXTS = (".json", ".jsonl", ".md", ".txt", ".yaml", ".yml", ".jinja", ".py", ".csv", ".toml", ".cfg", ".ini", ".sh")
_VOCABULARY = re.compile(r"tokenizer\.json|vocab.*|merges\.txt|.*\.index\.json")
"""Texts that hold what a tokenizer knows (paths among it) and names of weights."""

_LARGEST_TEXT = 20_000_000
_ADAPTER = "adapter_config.json"


def lay_out(source: Path, folder: Path, *, base_model: str | None) -> list[str]:
    """Lays out a model's folder for an upload; nothing in it is changed.

    Args:
        source: The folder.
        folder: Where links and copies go.
        base_model: Hub id of the base model, for an adapter whose own is a folder.

    Returns:
        What the copies tell otherwise, in words.

    Raises:
        ConfigError: A file holds a token of the Hub or a path of this machine that cannot be left out, or an adapter's base
            model is a folder and no Hub id is given for it.
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
                refuse_secrets(portable or text, path, source)
    return changed


def files_to_push(source: Path) -> list[str]:
    """Names of a folder's files, in order, without checkpoints, states and what holds paths of this machine."""
    found = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    visible = [name for name in found if not any(part.startswith(".") for part in name.split("/"))]
    return [name for name in visible if not any(fnmatch.fnmatchcase(name, pattern) for pattern in NOT_PUSHED)]


def _is_text(path: Path) -> bool:
    is_small = path.stat().st_size <= _LARGEST_TEXT
    return path.suffix in _TEXTS and is_small and _VOCABULARY.fullmatch(path.name) is None


def refuse_secrets(text: str, path: Path, source: Path) -> None:
    """Refuses a text with a token of the Hub, or a path below the user's home or the folder itself.

    Args:
        text: What would be uploaded.
        path: Its file.
        source: The folder.

    Raises:
        ConfigError: File and line are named, a token is not repeated.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if _TOKEN.search(line):
            raise ConfigError(f"`{path}`, line {number}: holds a token of the Hub; remove it there, and revoke it on the Hub")
        for private in {f"{Path.home()}/", str(source.resolve())} - {"//"}:
            if private in line:
                raise ConfigError(f"`{path}`, line {number}: tells `{private}`, a path of this machine; remove it there")


def _portable_json(path: Path, text: str, base_model: str | None) -> str | None:
    """The same without paths of this machine; None where there are none (or it is no JSON, which is not ours to judge)."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    changed = _without_paths(values)
    if path.name == _ADAPTER and isinstance(values, dict):
        changed["base_model_name_or_path"] = _adapters_base(path, values.get("base_model_name_or_path"), base_model)
    return None if changed == values else json.dumps(changed, indent=2, ensure_ascii=False) + "\n"


def _without_paths(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _without_paths(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_without_paths(value) for value in values]
    if isinstance(values, str) and _is_path_here(values):
        return Path(values).name
    return values


def _is_path_here(text: str) -> bool:
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
