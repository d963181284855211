"""The checkpoint that a training goes on from: the newest that was written to its end."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import get_last_checkpoint

from trl_rrtf.errors import LoadError
from trl_rrtf.rows.files import output_errors

logger = logging.getLogger(__name__)

_STATE_FILE = "trainer_state.json"  # written last
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")
_TORCH_FILES = ("optimizer*", "scheduler.pt", "scaler.pt", "rng_state*.pth", *_WEIGHTS[1:])


def newest_whole_checkpoint(output_dir: Path) -> str | None:
    """The checkpoint to go on from, or None for the start.

    A newer one that a kill, a full disk or a loss of power left torn is renamed to `torn-checkpoint-N`, with a warning.

    Raises:
        OutputError: The folder cannot be written.
    """
    if not output_dir.is_dir():
        return None
    while (newest := get_last_checkpoint(str(output_dir))) is not None:
        flaw = find_flaw(Path(newest))
        if flaw is None:
            return str(newest)
        aside = _free_name(output_dir / f"torn-{Path(newest).name}")
        logger.warning(
            "`%s` is not whole (%s); it is set aside as `%s`, which may be removed, and training goes on from the one before, "
            "or from the start where there is none",
            newest,
            flaw,
            aside.name,
        )
        with output_errors(aside):
            Path(newest).rename(aside)
    return None


def require_whole_checkpoint(folder: str) -> None:
    """Refuses a checkpoint that was asked for and cannot be gone on from.

    Raises:
        LoadError: It is not there, or torn.
    """
    flaw = find_flaw(Path(folder)) if Path(folder).is_dir() else "there is no such folder"
    if flaw is not None:
        raise LoadError(
            f"`resume_from_checkpoint`: `{folder}` cannot be gone on from ({flaw}); name a whole checkpoint, or leave it out "
            "for the newest one of `output_dir`"
        )


def find_flaw(checkpoint: Path) -> str | None:
    """Says what is torn in a checkpoint, or None; opens its files without reading the numbers."""
    return next(_flaws(checkpoint), None)


def _flaws(checkpoint: Path) -> Iterator[str]:
    if not (checkpoint / _STATE_FILE).is_file():
        yield f"{_STATE_FILE} is missing"
    try:
        TrainerState.load_from_json(str(checkpoint / _STATE_FILE))
    except (ValueError, TypeError):
        yield f"{_STATE_FILE} is damaged"
    files = [path for pattern in _WEIGHTS for path in checkpoint.glob(pattern)]
    if not files and not any(path.is_dir() for path in checkpoint.iterdir()):  # sharded weights lie in a folder
        yield "the weights are missing"
    for index in checkpoint.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, TypeError, KeyError):
            yield f"{index.name} is damaged"
            continue
        yield from (f"{shard} is missing" for shard in sorted(shards) if not (checkpoint / shard).is_file())
    for path in checkpoint.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError):
            yield f"{path.name} is cut off"
    for path in (path for pattern in _TORCH_FILES for path in checkpoint.glob(pattern)):
        if path.is_file() and not zipfile.is_zipfile(path):
            yield f"{path.name} is cut off"


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
