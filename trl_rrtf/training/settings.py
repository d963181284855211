"""What decides the trained weights, kept beside them: a folder with another training's checkpoints is not gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from trl import ModelConfig

from trl_rrtf.errors import OutputError
from trl_rrtf.models.paths import model_fingerprint
from trl_rrtf.options import settings_of
from trl_rrtf.rows.files import fingerprint, read_object
from trl_rrtf.training.config import RRTFConfig
from trl_rrtf.training.options import TrainArguments

SETTINGS_FILE = "train_settings.json"
"""What decides the trained weights."""

_FILES = ("chat_template_path", "deepspeed")
"""Options that name a file whose content decides."""

_ADVICE = "choose another `output_dir`, or remove this one to train anew"


def training_settings(model: str, arguments: TrainArguments, config: RRTFConfig, model_config: ModelConfig) -> dict[str, Any]:
    """Everything that decides the trained weights, JSON-able.

    Args:
        model: The model to train, as it was given.
        arguments: The data.
        config: Compared but for `WITHOUT_EFFECT`.
        model_config: Compared but for the model's name, which is `model`.
    """
    paths = {name: getattr(config, name) for name in _FILES}
    return {
        "model": model,
        "model_fingerprint": model_fingerprint(model),
        "dataset": fingerprint(arguments.input),
        "eval_dataset": fingerprint(arguments.eval_dataset) if arguments.eval_dataset else None,
        "resumed_from": _resumed_from(config),
        "processes": config.world_size,
        "groups_per_update": config.train_batch_size * config.gradient_accumulation_steps * config.world_size,
        **config.deciding_options(),
        **settings_of(model_config, without=("model_name_or_path",)),
        **{f"{name}_fingerprint": fingerprint(path) for name, path in paths.items() if isinstance(path, str) and path},
    }


def starts_elsewhere(config: RRTFConfig) -> bool:
    """Whether `resume_from_checkpoint` names a checkpoint of another folder, which then decides the weights."""
    given = config.resume_from_checkpoint
    if given is True:  # the newest of this folder
        return False
    return bool(given) and not Path(str(given)).resolve().is_relative_to(Path(str(config.output_dir)).resolve())


def _resumed_from(config: RRTFConfig) -> str | None:
    return fingerprint(str(config.resume_from_checkpoint)) if starts_elsewhere(config) else None


def require_same_training(output_dir: Path, settings: Mapping[str, Any], *, is_finished: bool) -> None:
    """Refuses a folder that holds another training.

    Options that an earlier version of a library did not have, or that this one no longer has, stand for their defaults.

    Args:
        output_dir: The folder.
        settings: Those of this run.
        is_finished: Whether the training in the folder is.

    Raises:
        OutputError: It names each setting that changed, with both values; or what is in the folder cannot be told.
    """
    settings_file = output_dir / SETTINGS_FILE
    if not settings_file.exists():
        if is_finished or any(output_dir.glob("checkpoint-*")):
            raise OutputError(
                f"`output_dir`: `{output_dir}` holds a training, but no {SETTINGS_FILE} that tells which; {_ADVICE}"
            )
        return
    earlier = read_object(settings_file, _ADVICE)
    defaults = {field.name: _default(field) for kind in (RRTFConfig, ModelConfig) for field in fields(kind)}
    if earlier.get("groups_per_update") == settings["groups_per_update"]:  # 2 processes x 4 batches = 1 process x 8
        free = {"processes", "gradient_accumulation_steps"}
    else:  # one process may push what several have trained
        free = {"processes", "groups_per_update"} if is_finished else set()
    changed = [
        f"`{name}` (was {old!r}, is {value!r})"
        for name, value in settings.items()
        if (old := earlier.get(name, defaults.get(name, value))) != value and name not in free
    ]
    if changed:
        raise OutputError(
            f"`output_dir`: `{output_dir}` holds a training with another {', '.join(changed)}; give back the old value to go "
            "on, choose another folder, or remove this one"
        )


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default
