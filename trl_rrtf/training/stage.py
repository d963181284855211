"""The `train` stage: ranked groups in, a checkpoint with tokenizer and model card out."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_rrtf.errors import ConfigError, OutputError
from trl_rrtf.groups import RankedGroup
from trl_rrtf.model_paths import require_model
from trl_rrtf.row_files import fingerprint, iterate_rows, write_json
from trl_rrtf.training.options import RRTFOptions

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl import ModelConfig

    from trl_rrtf.training.config import RRTFConfig
    from trl_rrtf.training.trainer import RRTFTrainer

logger = logging.getLogger(__name__)

CURVES_FILE = "training_curves.png"
"""The curves of the training, drawn where matplotlib is installed."""

SETTINGS_FILE = "train_settings.json"
"""What decides the trained weights; a folder with other settings is not gone on with."""

RESULT_FILE = "train_result.json"
"""Written last into the output folder: the summary, and the mark that training is done."""


# What decides the trained weights, beside the model and the data.
_DECISIVE = (
    *(option.name for option in fields(RRTFOptions)),
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "warmup_ratio",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "max_length",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "seed",
    "data_seed",
    "bf16",
    "fp16",
)


@dataclass
class TrainArguments:
    """Model and data of the `train` stage, beside `RRTFConfig` and TRL's `ModelConfig`.

    Attributes:
        dataset: Ranked groups to train on.
        model: Model to train; the same as TRL's `model_name_or_path`.
        eval_dataset: Ranked groups to evaluate on, or None.
        show_groups: So many evaluation groups are shown at every evaluation.
    """

    dataset: str = field(metadata={"help": "Ranked groups to train on: a file, or a Hub data set id."})
    model: str | None = field(default=None, metadata={"help": "Model to train: a folder, or a Hub id."})
    eval_dataset: str | None = field(default=None, metadata={"help": "Ranked groups to evaluate on."})
    show_groups: int = field(
        default=0, metadata={"help": "Show so many groups of `eval_dataset` at every evaluation, as tables and Parquet files."}
    )


def run_train(arguments: TrainArguments, config: RRTFConfig, model_config: ModelConfig) -> dict[str, Any]:
    """Trains a model, or goes on with an interrupted training from its last checkpoint.

    Args:
        arguments: The model and the data.
        config: The trainer's configuration; `output_dir` is where the model goes.
        model_config: TRL's model options: `dtype`, `attn_implementation`, LoRA, quantisation.

    Returns:
        A summary: steps, seconds, metrics before and after, where the model lies.

    Raises:
        RowError: A row breaks the format; its file, line and column are named, before the model is loaded.
        LoadError: The model or the data are not there.
        OutputError: The folder holds a training with other data or settings.
    """
    model = arguments.model or model_config.model_name_or_path
    if not model:
        raise ConfigError("`model`: got nothing; give a folder or a Hub id (`--model PATH`)")
    require_model(model)
    train_dataset = _read_ranked_groups(arguments.dataset)
    eval_dataset = _read_ranked_groups(arguments.eval_dataset) if arguments.eval_dataset else None
    output_dir = Path(config.output_dir)
    _check_output_dir(output_dir, _settings(model, arguments, config, model_config))
    if (output_dir / RESULT_FILE).exists():
        summary: dict[str, Any] = json.loads((output_dir / RESULT_FILE).read_text(encoding="utf-8"))
        return {**summary, "output": str(output_dir)}
    with _disk_errors(output_dir):
        trainer = _train(model, train_dataset, eval_dataset, config, model_config, arguments.show_groups)
        trainer.save_model()
        trainer.save_state()
        if trainer.is_world_process_zero():
            _plot(trainer.state.log_history, output_dir / CURVES_FILE)
        trainer.create_model_card(dataset_name=Path(arguments.dataset).name)
    summary = _summary(trainer.state.log_history, trainer.state.global_step)
    if trainer.is_world_process_zero():
        write_json(output_dir / RESULT_FILE, summary)
    if config.push_to_hub:
        trainer.push_to_hub(dataset_name=arguments.dataset)
    if trainer.accelerator.num_processes > 1:  # a launched process has nothing else to do; left open, its group may abort it
        trainer.accelerator.wait_for_everyone()
        trainer.accelerator.end_training()
    return {**summary, "output": str(output_dir)}


@contextlib.contextmanager
def _disk_errors(output_dir: Path) -> Iterator[None]:
    """A full disk is told as such; the libraries that write checkpoints raise it as errors of their own."""
    try:
        yield
    except Exception as error:
        reasons = ("No space left on device", "File too large", "Disk quota exceeded", "file write failed")
        if not any(reason in str(error) for reason in reasons):
            raise
        raise OutputError(
            f"cannot write into `{output_dir}`: {error}; checkpoints that are complete are kept: free space and run the same "
            "command again"
        ) from error


def _settings(model: str, arguments: TrainArguments, config: RRTFConfig, model_config: ModelConfig) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in _DECISIVE if hasattr(config, name)}
    return {
        "model": model,
        "dataset": fingerprint(arguments.dataset),
        "eval_dataset": fingerprint(arguments.eval_dataset) if arguments.eval_dataset else None,
        **{name: getattr(value, "value", value) for name, value in values.items()},
        **asdict(model_config),
    }


def _read_ranked_groups(source: str) -> Dataset:
    """Reads and checks every row; TRL's preference rows pass too."""
    from datasets import Dataset

    from trl_rrtf.training.ranked_dataset import to_ranked_group

    groups: list[RankedGroup] = [to_ranked_group(row, where) for where, row in iterate_rows(source)]
    if not groups:
        raise ConfigError(f"`{source}` has no row; give at least one ranked group")
    columns = ("prompt", "completions", "scores", "sources")
    return Dataset.from_list([{name: getattr(group, name) for name in columns} for group in groups])


def _check_output_dir(output_dir: Path, settings: dict[str, Any]) -> None:
    """A folder with another training's checkpoints must not be gone on with."""
    settings_file = output_dir / SETTINGS_FILE
    if settings_file.exists() and (earlier := json.loads(settings_file.read_text(encoding="utf-8"))) != settings:
        changed = ", ".join(f"`{name}`" for name in settings if earlier.get(name) != settings[name])
        raise OutputError(
            f"`output_dir`: `{output_dir}` holds a training with another {changed}; choose another folder, or remove this one"
        )
    write_json(settings_file, settings)


def _plot(log_history: list[dict[str, Any]], path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        logger.info("`%s` is not drawn: matplotlib is not installed (`pip install 'trl-rrtf[plots]'`)", path)
        return
    from trl_rrtf.training.curves import plot_training_curves

    plot_training_curves(log_history, path)


def _train(
    model: str,
    train_dataset: Dataset,
    eval_dataset: Dataset | None,
    config: RRTFConfig,
    model_config: ModelConfig,
    show_groups: int,
) -> RRTFTrainer:
    from transformers.trainer_utils import get_last_checkpoint
    from trl import get_peft_config, get_quantization_config

    from trl_rrtf.training.trainer import RRTFTrainer

    load_options = {
        "revision": model_config.model_revision,
        "attn_implementation": model_config.attn_implementation,
        "dtype": model_config.dtype,
        **(config.model_init_kwargs or {}),
    }
    quantization = get_quantization_config(model_config)
    datasets = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
    if (Path(model) / "adapter_config.json").is_file():
        adapter, tokenizer = _load_adapter(model, {**load_options, "quantization_config": quantization})
        config.model_init_kwargs = None
        trainer = RRTFTrainer(model=adapter, args=config, processing_class=tokenizer, **datasets)
    else:
        config.model_init_kwargs = load_options
        peft_config = get_peft_config(model_config)
        trainer = RRTFTrainer(model=model, args=config, quantization_config=quantization, peft_config=peft_config, **datasets)
    if eval_dataset is not None and show_groups:
        from trl_rrtf.training.callbacks import RankedGroupsCallback

        rows = eval_dataset.select(range(min(show_groups, len(eval_dataset))))
        trainer.add_callback(RankedGroupsCallback(trainer, rows))
    checkpoint = config.resume_from_checkpoint or get_last_checkpoint(config.output_dir)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def _load_adapter(folder: str, options: dict[str, Any]) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """An adapter that an earlier training made, on its base model, to be trained on (as in the later rounds of a run)."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    options = {name: value for name, value in options.items() if value is not None}
    options.pop("revision", None)  # that of the adapter's own configuration
    return AutoPeftModelForCausalLM.from_pretrained(folder, is_trainable=True, **options), AutoTokenizer.from_pretrained(folder)


def _summary(log_history: list[dict[str, float]], steps: int) -> dict[str, Any]:
    """First and last logged metrics, so that before and after stand in one table."""
    train_logs = [entry for entry in log_history if "loss/rank" in entry]
    eval_logs = [entry for entry in log_history if "eval_loss/rank" in entry]
    return {
        "steps": steps,
        "seconds": next((entry["train_runtime"] for entry in reversed(log_history) if "train_runtime" in entry), None),
        "train first": _metrics(train_logs[:1]),
        "train last": _metrics(train_logs[-1:]),
        "eval first": _metrics(eval_logs[:1]),
        "eval last": _metrics(eval_logs[-1:]),
    }


def _metrics(entries: list[dict[str, float]]) -> dict[str, float]:
    return {name: value for entry in entries for name, value in entry.items() if "/" in name or name in ("loss", "eval_loss")}
