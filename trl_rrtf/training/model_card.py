"""The model card that is saved beside a trained model."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from trl_rrtf.models.hub import hub_id, told_name
from trl_rrtf.training.config import RRTFConfig
from trl_rrtf.training.options import RRTFOptions

_SETTINGS = (
    *(option.name for option in fields(RRTFOptions)),
    "max_length",
    "learning_rate",
    "lr_scheduler_type",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "seed",
)
_LIBRARIES = ("trl-rrtf", "trl", "transformers", "torch", "datasets")


def write_model_card(
    args: RRTFConfig,
    *,
    base_model: str | None,
    log_history: Sequence[Mapping[str, Any]],
    model_name: str | None,
    dataset_name: str | None,
    tags: str | list[str] | None,
) -> None:
    """Writes `README.md` into the trainer's output folder.

    Args:
        args: The trainer's configuration.
        base_model: Folder or Hub id of the model that was trained, or None. Only what is spelled as a Hub id and is no folder
            here goes into the metadata; of a folder the text tells the name.
        log_history: What training logged.
        model_name: Name in the title; by default that of the output folder.
        dataset_name: Name of the training data, or None; the same holds.
        tags: Further tags.
    """
    folder = Path(str(args.output_dir))
    extra_tags = [tags] if isinstance(tags, str) else list(tags or [])
    logged = [entry for entry in log_history if "loss/rank" in entry]
    card = ModelCard.from_template(
        ModelCardData(
            base_model=hub_id(base_model),
            datasets=hub_id(dataset_name),
            library_name="peft" if (folder / "adapter_config.json").is_file() else "transformers",
            tags=["generated_from_trainer", "trl", "rrtf", *extra_tags],
        ),
        template_path=str(Path(__file__).with_suffix(".md")),
        model_name=model_name or args.hub_model_id or folder.absolute().name,
        base_model=told_name(base_model) if base_model else None,
        base_model_id=hub_id(base_model),
        dataset_name=told_name(dataset_name) if dataset_name else None,
        dataset_id=hub_id(dataset_name),
        settings={name: getattr(value, "value", value) for name in _SETTINGS if (value := getattr(args, name)) is not None},
        metrics={name: f"{value:.4g}" for name, value in logged[-1].items() if "/" in name} if logged else {},
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
    )
    folder.mkdir(parents=True, exist_ok=True)
    card.save(folder / "README.md")
