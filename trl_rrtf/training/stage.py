"""The `train` stage: ranked groups in, a checkpoint with tokenizer and model card out."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import ModelConfig, get_peft_config, get_quantization_config

from trl_rrtf.errors import ConfigError, LoadError, TrlRrtfError
from trl_rrtf.models.causal_lm import fit_vocabulary, load_tokenizer
from trl_rrtf.models.hub import NOT_PUSHED, create_repository, push_folder
from trl_rrtf.models.paths import base_model, model_name, require_model
from trl_rrtf.options import check_options, check_paths, refuse_idle
from trl_rrtf.rows.files import full_disk_errors, write_json
from trl_rrtf.rows.resumable import output_lock
from trl_rrtf.rows.summary import Summary, of_this_run
from trl_rrtf.training.adapters import require_same_adapter
from trl_rrtf.training.callbacks import RankedGroupsCallback
from trl_rrtf.training.checkpoints import newest_whole_checkpoint, require_whole_checkpoint
from trl_rrtf.training.config import RRTFConfig
from trl_rrtf.training.options import TrainArguments
from trl_rrtf.training.ranked_dataset import read_ranked_groups
from trl_rrtf.training.settings import SETTINGS_FILE, require_same_training, starts_elsewhere, training_settings
from trl_rrtf.training.trainer import RRTFTrainer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

CURVES_FILE = "training_curves.png"
"""The curves of the training, drawn where matplotlib is installed."""

RESULT_FILE = "train_result.json"
"""Written when training is done, into the output folder: the summary, and the mark that nothing is left to train."""


@dataclass(kw_only=True)
class TrainSummary(Summary):
    """What a training did.

    Attributes:
        steps: Updates.
        seconds: Of the run that ended it.
        train_first: The first metrics that were logged.
        train_last: The last ones.
        eval_first: Metrics of the first evaluation; empty where there was none.
        eval_last: Those of the last one.
        pushed_to: Address on the Hub, once the folder is there; None before.
        output: The folder of the model.
    """

    steps: int
    seconds: float | None
    train_first: dict[str, float]
    train_last: dict[str, float]
    eval_first: dict[str, float]
    eval_last: dict[str, float]
    pushed_to: str | None = None
    output: str = of_this_run("")

    def table(self) -> dict[str, Any]:
        """Without the address where nothing was pushed."""
        return {label: value for label, value in super().table().items() if label != "pushed to" or value is not None}


@dataclass(frozen=True)
class _Found:
    """What stands in the output folder already."""

    summary: TrainSummary | None  # of a training that is done
    checkpoint: str | None  # to go on from


def run_train(arguments: TrainArguments, config: RRTFConfig, model_config: ModelConfig) -> TrainSummary:
    """Trains a model, or goes on with an interrupted training from its last whole checkpoint.

    A finished training that is run again trains nothing; where `push_to_hub` is asked for and the folder is not on the Hub yet,
    it is uploaded.

    Args:
        arguments: The model and the data.
        config: The trainer's configuration; `output_dir` is where the model goes.
        model_config: TRL's model options: `dtype`, `attn_implementation`, LoRA, quantisation.

    Returns:
        Steps, seconds, metrics before and after, where the model lies.

    Raises:
        ConfigError: An option is wrong, or `output_dir` is the model's own folder.
        RowError: A row breaks the format; its file, line and column are named, before the model is loaded.
        LoadError: The model or the data are not there.
        OutputError: The folder holds a training with other data or settings, another run writes it, or the Hub refused.
    """
    check_options(model_config)
    _refuse_idle_model_options(model_config)
    model = arguments.model or model_config.model_name_or_path
    if not model:
        raise ConfigError("`model`: got nothing; give a folder or a Hub id (`--model PATH`)")
    arguments = replace(arguments, model=model)
    check_paths(arguments, config)
    require_model(model)
    if _is_adapter(model):
        require_same_adapter(model, get_peft_config(model_config))
    train_dataset = read_ranked_groups(arguments.input, config.tie_bonus)
    eval_dataset = read_ranked_groups(arguments.eval_dataset, config.tie_bonus) if arguments.eval_dataset else None
    with _output(model, arguments, config, model_config) as found:
        summary = found.summary
        if summary is None:
            with full_disk_errors(_folder(config)):
                trainer = _make_trainer(model, train_dataset, eval_dataset, config, model_config)
                if eval_dataset is not None and arguments.show_groups:
                    shown = eval_dataset.select(range(min(arguments.show_groups, len(eval_dataset))))
                    trainer.add_callback(RankedGroupsCallback(trainer, shown))
                summary = _train(trainer, found.checkpoint, data_name=model_name(arguments.input))
        if config.push_to_hub and config.process_index == 0:
            summary = _push(summary, config)
    _leave_process_group()
    return replace(summary, output=str(_folder(config)))


@contextlib.contextmanager
def _output(model: str, arguments: TrainArguments, config: RRTFConfig, model_config: ModelConfig) -> Iterator[_Found]:
    """Holds the output folder and looks what stands there; the main process does, and tells the others."""
    with contextlib.ExitStack() as held:
        found: list[_Found | TrlRrtfError | None] = [None]
        if config.process_index == 0:
            try:
                held.enter_context(output_lock(_folder(config)))
                found = [_look(model, arguments, config, model_config)]
            except TrlRrtfError as error:  # the others are waiting
                found = [error]
        answer = broadcast_object_list(found)[0]
        if isinstance(answer, TrlRrtfError):
            raise answer
        yield answer


def _look(model: str, arguments: TrainArguments, config: RRTFConfig, model_config: ModelConfig) -> _Found:
    output_dir = _folder(config)
    is_finished = (output_dir / RESULT_FILE).exists()
    settings = training_settings(model, arguments, config, model_config)
    require_same_training(output_dir, settings, is_finished=is_finished)
    if is_finished:
        advice = "remove it to end the training again, from its last checkpoint"
        return _Found(TrainSummary.load(output_dir / RESULT_FILE, advice), None)
    given = _checkpoint_to_go_on_from(config)
    if given:
        require_whole_checkpoint(given)
    if config.push_to_hub:
        create_repository(_repository(config), private=config.hub_private_repo, token=config.hub_token)
    write_json(output_dir / SETTINGS_FILE, settings)
    newest = None if given and not starts_elsewhere(config) else newest_whole_checkpoint(output_dir)
    if config.save_only_model and newest is not None:
        logger.warning("`%s` holds no state of the optimizer (`save_only_model`), which begins anew", newest)
    return _Found(None, newest or given)


def _checkpoint_to_go_on_from(config: RRTFConfig) -> str | None:
    """The checkpoint that was asked for; `true` is the newest, which is gone on with anyway, and has to be there."""
    given: Any = config.resume_from_checkpoint
    if given is not True:
        return str(given) if given else None
    if not any(_folder(config).glob("checkpoint-*")):
        raise LoadError(
            f"`resume_from_checkpoint`: there is no checkpoint in `{_folder(config)}` to go on from; leave it out to begin, or "
            "to go on where there is one"
        )
    return None


def _refuse_idle_model_options(model_config: ModelConfig) -> None:
    """Options of LoRA without LoRA, and of quantisation without it."""
    names = {field.name for field in fields(model_config)}
    if not model_config.use_peft:
        refuse_idle(
            model_config, {name for name in names if name.startswith(("lora_", "use_rslora", "use_dora"))}, "`use_peft` is off"
        )
    if not model_config.load_in_4bit:
        refuse_idle(model_config, {name for name in names if "bnb" in name}, "`load_in_4bit` is off")


def _is_adapter(model: str) -> bool:
    return (Path(model) / "adapter_config.json").is_file()


def _make_trainer(
    model: str, train_dataset: Dataset, eval_dataset: Dataset | None, config: RRTFConfig, model_config: ModelConfig
) -> RRTFTrainer:
    load_options = {
        "revision": model_config.model_revision,
        "attn_implementation": model_config.attn_implementation,
        "dtype": model_config.dtype,
        **(config.model_init_kwargs or {}),
    }
    quantization = get_quantization_config(model_config)
    args = copy.copy(config)  # the caller's stays as it was given
    datasets = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
    if _is_adapter(model):
        load_options |= {"quantization_config": quantization, "trust_remote_code": config.trust_remote_code}
        adapter, tokenizer = _load_adapter(model, load_options)
        args.model_init_kwargs = None
        return RRTFTrainer(model=adapter, args=args, processing_class=tokenizer, **datasets)
    args.model_init_kwargs = load_options
    peft_config = get_peft_config(model_config)
    return RRTFTrainer(model=model, args=args, quantization_config=quantization, peft_config=peft_config, **datasets)


def _load_adapter(folder: str, options: dict[str, Any]) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """An adapter that an earlier training made, on its base model, to be trained on (as in the later rounds of a run)."""
    from peft import PeftConfig, PeftModel

    options = {name: value for name, value in options.items() if value is not None}
    options["revision"] = PeftConfig.from_pretrained(folder).revision
    base = AutoModelForCausalLM.from_pretrained(base_model(folder), **options)
    fit_vocabulary(base, folder)
    return PeftModel.from_pretrained(base, folder, is_trainable=True), load_tokenizer(folder)


def _train(trainer: RRTFTrainer, checkpoint: str | None, *, data_name: str) -> TrainSummary:
    """Trains to the end, and saves everything; the result last, which says that it is done."""
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(_internal_call=True)  # otherwise it is pushed before the result stands
    trainer.save_state()
    trainer.create_model_card(dataset_name=data_name)
    summary = _summary(trainer.state.log_history, trainer.state.global_step)
    if trainer.is_world_process_zero():
        output_dir = Path(trainer.args.output_dir)
        _plot(trainer.state.log_history, output_dir / CURVES_FILE)
        write_json(output_dir / RESULT_FILE, summary.to_json())
    return summary


def _plot(log_history: list[dict[str, Any]], path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        logger.info("`%s` is not drawn: matplotlib is not installed (`pip install 'trl-rrtf[plots]'`)", path)
        return
    from trl_rrtf.training.curves import plot_training_curves

    plot_training_curves(log_history, path)


def _folder(config: RRTFConfig) -> Path:
    return Path(str(config.output_dir))  # transformers fills it in where nothing was given


def _repository(config: RRTFConfig) -> str:
    return config.hub_model_id or _folder(config).absolute().name


def _push(summary: TrainSummary, config: RRTFConfig) -> TrainSummary:
    """Uploads the folder, unless it is there already; only then the result says so."""
    repository = _repository(config)
    branch = f"/tree/{config.hub_revision}" if config.hub_revision else ""
    if (summary.pushed_to or "").endswith(f"/{repository}{branch}"):
        return summary
    address = push_folder(
        _folder(config),
        repository,
        message="End of training",
        private=config.hub_private_repo,
        token=config.hub_token,
        revision=config.hub_revision,
        ignore=[*NOT_PUSHED, RESULT_FILE],  # the result says where the folder lies on this disk
    )
    summary = replace(summary, pushed_to=f"{address}{branch}")
    write_json(_folder(config) / RESULT_FILE, summary.to_json())
    return summary


def _leave_process_group() -> None:
    """A launched process has nothing else to do; left open, its group may abort it."""
    state = PartialState()
    if state.num_processes > 1:
        state.wait_for_everyone()
        # A thread of gloo gives back the barrier's tensor, for which it needs the interpreter's lock; if it still waits for
        # that when the interpreter ends, the process aborts (torch 2.13). Sleeping lets it have the lock.
        time.sleep(0.2)
        state.destroy_process_group()


def _summary(log_history: list[dict[str, float]], steps: int) -> TrainSummary:
    """First and last logged metrics, so that before and after stand in one table."""
    train_logs = [entry for entry in log_history if "loss/rank" in entry]
    eval_logs = [entry for entry in log_history if "eval_loss/rank" in entry]
    return TrainSummary(
        steps=steps,
        seconds=next((entry["train_runtime"] for entry in reversed(log_history) if "train_runtime" in entry), None),
        train_first=_metrics(train_logs[:1]),
        train_last=_metrics(train_logs[-1:]),
        eval_first=_metrics(eval_logs[:1]),
        eval_last=_metrics(eval_logs[-1:]),
    )


def _metrics(entries: list[dict[str, float]]) -> dict[str, float]:
    return {name: value for entry in entries for name, value in entry.items() if "/" in name or name in ("loss", "eval_loss")}
