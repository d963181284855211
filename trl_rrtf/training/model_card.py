"""The model card that is saved beside a trained model."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

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
        base_model: Folder or Hub id of the model that was trained, or None.
        log_history: What training logged.
        model_name: Name in the title; by default that of the output folder.
        dataset_name: Name of the training data, or None.
        tags: Further tags.
    """
    base_model = base_model or "an unnamed model"
    is_on_hub = not Path(base_model).is_dir() and base_model.count("/") == 1 and not base_model.startswith(("/", "."))
    extra_tags = [tags] if isinstance(tags, str) else list(tags or [])
    logged = [entry for entry in log_history if "loss/rank" in entry]
    card = ModelCard.from_template(
        ModelCardData(
            base_model=base_model if is_on_hub else None,
            datasets=dataset_name,
            library_name="transformers",
            tags=["generated_from_trainer", "trl", "rrtf", *extra_tags],
        ),
        template_path=str(Path(__file__).with_suffix(".md")),
        model_name=model_name or args.hub_model_id or Path(str(args.output_dir)).name,
        # Of a folder only the name is told: where it lies on the author's disk is nobody's business.
        base_model=base_model if is_on_hub else Path(base_model).name,
        base_model_is_on_hub=is_on_hub,
        dataset_name=dataset_name,
        settings={name: getattr(value, "value", value) for name in _SETTINGS if (value := getattr(args, name)) is not None},
        metrics={name: f"{value:.4g}" for name, value in logged[-1].items() if "/" in name} if logged else {},
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
    )
    folder = Path(str(args.output_dir))
    folder.mkdir(parents=True, exist_ok=True)
    card.save(folder / "README.md")
