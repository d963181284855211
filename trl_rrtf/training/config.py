"""`RRTFConfig`: TRL's `SFTConfig` with the options of RRTF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from trl import SFTConfig

from trl_rrtf.errors import ConfigError
from trl_rrtf.options import Range, check_options, check_range, option, settings_of
from trl_rrtf.training.losses import LOSS_OPTIONS, RANK_LOSSES
from trl_rrtf.training.options import RRTFOptions

WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "where the run lies, and which part of it is done": (
        "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "do_train", "do_eval", "do_predict",
    ),
    "what is told of it": (
        "log_level", "log_level_replica", "log_on_each_node", "logging_dir", "logging_strategy", "logging_first_step",
        "logging_steps", "logging_nan_inf_filter", "disable_tqdm", "report_to", "run_name", "project", "trackio_space_id",
        "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics", "tpu_metrics_debug", "debug",
        "include_tokens_per_second", "include_num_input_tokens_seen",
    ),
    "when and how checkpoints are saved": (
        "save_strategy", "save_steps", "save_total_limit", "save_safetensors", "save_on_each_node", "save_only_model",
        "enable_jit_checkpoint", "restore_callback_states_from_checkpoint",
    ),
    "the Hub": (
        "push_to_hub", "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo", "hub_always_push", "hub_revision",
        "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token",
    ),
    "evaluation, which looks at the weights": (
        "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "per_device_eval_batch_size",
        "per_gpu_eval_batch_size", "eval_accumulation_steps", "prediction_loss_only", "include_inputs_for_metrics",
        "include_for_metrics", "eval_do_concat_batches", "eval_use_gather_object", "batch_eval_metrics", "bf16_full_eval",
        "fp16_full_eval", "jit_mode_eval", "metric_for_best_model", "greater_is_better",
    ),
    "where and by how many helpers the same numbers are computed": (
        "use_cpu", "no_cuda", "use_mps_device", "local_rank", "ray_scope", "tpu_num_cores", "dataset_num_proc",
        "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory", "dataloader_persistent_workers",
        "dataloader_multiprocessing_context", "ddp_backend", "ddp_timeout", "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters", "ddp_static_graph",
    ),
    "what is kept in memory, and what is computed again": (
        "gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_checkpointing",
        "activation_checkpointing_kwargs", "activation_offloading", "torch_empty_cache_steps",
    ),
}  # fmt: skip
"""Options that cannot change the trained weights, by the reason; both lines of transformers have some of their own."""

CHOOSE_BY_EVALUATION = {
    "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "bf16_full_eval", "fp16_full_eval", "logging_steps",
    "metric_for_best_model", "greater_is_better", "save_strategy", "save_steps",
}  # fmt: skip
"""Those of them that decide after all where an evaluation chooses: the best checkpoint, or the moment of a lower learning
rate. `logging_steps` is where `eval_steps` comes from."""

_RANGES = {
    "learning_rate": Range(at_least=0),
    "weight_decay": Range(at_least=0),
    "per_device_train_batch_size": Range(at_least=1),
    "per_device_eval_batch_size": Range(at_least=1),
    "gradient_accumulation_steps": Range(at_least=1),
    "max_length": Range(at_least=1),
}
"""Ranges of options of TRL and transformers, which refuse them with errors of their own and when training begins."""

# Option -> (values that RRTF can honour, what to do instead).
_UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "packing": ((False,), "groups are packed by `prefix_sharing` and `row_token_budget`; leave it out"),
    "eval_packing": ((None, False), "groups are packed by `prefix_sharing` and `row_token_budget`; leave it out"),
    "padding_free": ((False,), "groups are packed by `prefix_sharing` and `row_token_budget`; leave it out"),
    "assistant_only_loss": ((False,), "RRTF always scores the completion alone; leave it out"),
    "completion_only_loss": ((None, True), "RRTF always scores the completion alone; leave it out"),
    "loss_type": (("nll",), "choose the objective with `rank_loss`"),
    "truncation_mode": (("keep_start",), "candidates longer than `max_length` are dropped, never cut"),
    "label_smoothing_factor": ((0.0,), "RRTF has no label smoothing; leave it out"),
    "dataset_kwargs": ((None,), "the trainer always prepares ranked groups itself"),
    "group_by_length": ((False,), "rows of a ranked group differ in length; leave it out"),
    "train_sampling_strategy": (("random", "sequential"), "rows of a ranked group differ in length; leave it out"),
    "average_tokens_across_devices": ((True,), "the loss is a mean over all groups of an update, on all devices"),
    "remove_unused_columns": ((False,), "the trainer keeps just the columns that it needs; leave it out"),
    "batch_eval_metrics": ((False,), "RRTF computes its own ranking metrics"),
    "include_inputs_for_metrics": ((False,), "RRTF computes its own ranking metrics; leave it out"),
    "include_for_metrics": (([],), "RRTF computes its own ranking metrics; leave it out"),
    "eval_use_gather_object": ((False,), "an evaluation gathers numbers alone; leave it out"),
    "use_legacy_prediction_loop": ((False,), "it would leave out the ranking metrics; leave it out"),
    "jit_mode_eval": ((False,), "the model is not traced; leave it out"),
    "past_index": ((-1,), "a completion is scored at once, without earlier states; leave it out"),
    "label_names": ((None,), "the labels are those of the collator; leave it out"),
    "length_column_name": (("length",), "rows are not grouped by length; leave it out"),
    "dataset_text_field": (("text",), "rows are ranked groups (`prompt`, `completions`, `scores`); leave it out"),
    "packing_strategy": (("bfd",), "groups are packed by `prefix_sharing` and `row_token_budget`; leave it out"),
    "include_num_input_tokens_seen": ((False, "no"), "the tokens are always counted and logged (`num_tokens`); leave it out"),
    "include_tokens_per_second": ((False,), "`num_tokens` and the times are logged; leave it out"),
}

WITHOUT_MEANING = (
    "do_train", "do_eval", "do_predict", "prediction_loss_only", "eval_accumulation_steps", "eval_do_concat_batches",
    "logging_nan_inf_filter", "mp_parameters", "fp16_backend", "half_precision_backend", "fp16_opt_level",
)  # fmt: skip
"""Options that are taken and mean nothing here; the documentation says why. Each has a default that is what happens anyway."""


@dataclass
class RRTFConfig(RRTFOptions, SFTConfig):
    """Configuration of [`RRTFTrainer`][trl_rrtf.RRTFTrainer].

    Every option of TRL's `SFTConfig` (and so of `transformers.TrainingArguments`) stands beside RRTF's own. One that RRTF
    cannot honour is refused with what to do instead: packing, padding-free batches, assistant-only loss, truncation,
    label smoothing, other loss types; `docs/trainer.md` lists them, and those of `WITHOUT_MEANING`.

    Defaults that differ from `SFTConfig`: `remove_unused_columns` is `False` (the trainer keeps just what it needs); `bf16` is
    on only where there is an accelerator, so that a script runs unchanged on a CPU.

    Batch sizes count *groups*: `per_device_train_batch_size=4` is four prompts with all their candidates. The loss is a mean
    over the groups of an update, so it does not depend on how an update is split into batches or over devices.

    Args:
        rank_loss: Ranking objective, a key of [`RANK_LOSSES`][trl_rrtf.training.losses.RANK_LOSSES].
        rank_weight: Weight of the ranking term.
        pair_scope: Which candidates of a group are compared: `"teacher_student"`, `"all"` (of unequal scores) or
            `"best_against_rest"`; by default what the objective's paper does. Not with a listwise objective.
        length_normalization: Exponent of the length that a candidate's log-likelihood is divided by: 1 for the mean per token,
            0 for the sum.
        beta: Inverse temperature of `logistic`, `plackett_luce` and `lambda`.
        rank_margin: By how much a pair should be apart, in the unit of the normalised log-probabilities, for `hinge` and
            `logistic`.
        margin_scaling: `"constant"`, or the margin grows with the pair's difference of `"rank"` or `"score"`.
        tie_bonus: Added to the score of every teacher's candidate; choose it smaller than the gap between two scores.
        use_reference_model: The ranking term uses log-probabilities relative to the initial model's. They are computed before
            training and kept in `output_dir`; no second model stays in memory.
        best_logp_penalty: Weight of a penalty on what the fine-tuning target's log-probability falls below the initial model's.
        sft_weight: Weight of the fine-tuning term.
        sft_reduction: `"mean"` or `"sum"` over the tokens of the fine-tuning target. The paper prints a sum, RRHF's code has
            a mean; the default is the mean, because a sum outweighs the ranking term by the length of the target.
        groups_without_pairs: `"sft"` keeps a group without an ordered pair for the fine-tuning term, `"drop"` leaves it out.
        prefix_sharing: Whether a group's candidates share their prompt in one row; None for where it is proved.
        row_token_budget: Tokens of a row that groups are packed into, with `prefix_sharing`; None for the batch's longest.
        max_tokens_per_forward: A batch of more tokens is run in parts, twice, with the same gradients; None for one part.

    Raises:
        ConfigError: An option is out of range, or RRTF cannot honour it.
    """

    remove_unused_columns: bool = option("Always false: the trainer keeps just the columns that it needs.", default=False)
    output_dir: str | None = option(
        "Folder of the checkpoints and the trained model.", default=None, is_output=True, decides_output=False
    )

    def __post_init__(self) -> None:
        """Checks every option, then those that RRTF cannot honour."""
        # `true` is the newest checkpoint, as `Trainer.train` takes it; it is text on the command line, and not in a YAML file.
        given = vars(self)["resume_from_checkpoint"]
        given = {"true": True, "false": None}.get(str(given).lower(), given)
        self.resume_from_checkpoint: Any = None if given is True else given
        check_options(self)
        self.resume_from_checkpoint = given
        for name, allowed in _RANGES.items():
            if (number := getattr(self, name)) is not None:
                check_range(name, number, allowed)
        self._given = self._snapshot()
        if self.bf16 is None and not torch.accelerator.is_available():
            self.bf16: bool | None = False
        super().__post_init__()
        if not isinstance(self.model_init_kwargs, dict | None):  # JSON was parsed by now
            raise ConfigError(f"`model_init_kwargs`: expected keys with values, got {self.model_init_kwargs!r}")
        self._check_contradictions()
        for name, (honoured, instead) in _UNSUPPORTED.items():
            value = getattr(self, name, honoured[0])
            if value not in honoured:
                raise ConfigError(f"`{name}={value!r}` is not supported by RRTF: {instead}")
        if self.activation_offloading and (self.use_cpu or not torch.accelerator.is_available()):
            raise ConfigError(
                "`activation_offloading` moves activations from an accelerator to the CPU, and there is none; leave it out"
            )
        self._keep_groups_whole()
        self._filled_in = self._snapshot()

    def __getstate__(self) -> dict[str, Any]:
        """What transformers pickles beside each checkpoint and uploads (`training_args.bin`): all but the Hub's token."""
        return {**vars(self), **dict.fromkeys(vars(self).keys() & {"hub_token", "push_to_hub_token"})}

    def __copy__(self) -> Self:
        """A copy stays in this process, with the token: without this, `copy.copy` takes what is pickled."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def deciding_options(self) -> dict[str, Any]:
        """The options that decide the trained weights, JSON-able: all but those of `WITHOUT_EFFECT`.

        They are as they were given, not as this machine fills them in (`bf16` where there is an accelerator), so that the same
        command says the same everywhere.
        """
        chooses = self.load_best_model_at_end or self.lr_scheduler_type == "reduce_lr_on_plateau"
        options = {}
        for name, value in self._snapshot().items():
            if chooses or name not in CHOOSE_BY_EVALUATION:
                given = self._given[name]
                was_changed = value != self._filled_in[name]  # by whoever made this configuration
                is_parsed = isinstance(given, str) and isinstance(value, dict)  # JSON on the command line
                options[name] = value if was_changed or is_parsed else given
        return options

    def _snapshot(self) -> dict[str, Any]:
        without = {name for names in WITHOUT_EFFECT.values() for name in names}
        return settings_of(self, without=without - CHOOSE_BY_EVALUATION)

    def _check_contradictions(self) -> None:
        """Refuses options that say opposite things, and options that the chosen loss does not have."""
        loss = RANK_LOSSES[self.rank_loss]
        if self.rank_weight == 0 and self.sft_weight == 0:
            raise ConfigError("`rank_weight` and `sft_weight` are both 0, so nothing would be learnt; raise one of them")
        for name in LOSS_OPTIONS:
            default = RRTFOptions.__dataclass_fields__[name].default
            if getattr(self, name) != default and name not in loss.options:
                takers = ", ".join(f"`{other}`" for other, entry in RANK_LOSSES.items() if name in entry.options)
                got = f"`{name}={getattr(self, name)!r}`"
                raise ConfigError(f"{got} says nothing to `rank_loss={self.rank_loss!r}`; leave it out, or use {takers}")
        if self.margin_scaling != "constant" and self.rank_margin == 0:
            raise ConfigError(f"`margin_scaling={self.margin_scaling!r}` scales a `rank_margin` of 0; set `rank_margin` too")
        if loss.listwise and self.pair_scope is not None:
            raise ConfigError(f"`pair_scope`: `rank_loss={self.rank_loss!r}` reads the whole order of a group; leave it out")
        if self.row_token_budget is not None and self.prefix_sharing is False:
            raise ConfigError("`row_token_budget` packs groups of the shared layout, but `prefix_sharing` is off; drop one")
        if self.rank_weight == 0 and self.use_reference_model:
            raise ConfigError("`use_reference_model` changes the ranking term, but `rank_weight` is 0; leave one out")
        if self.sft_weight == 0 and self.groups_without_pairs == "sft":
            self.groups_without_pairs = "drop"  # without the fine-tuning term such a group has nothing to say

    def _keep_groups_whole(self) -> None:
        """Each process reads its own groups: accelerate would cut a batch that one process reads for all between two rows."""
        if self.accelerator_config.dispatch_batches:
            raise ConfigError(
                "`accelerator_config.dispatch_batches=True` is not supported by RRTF: it would cut groups apart; leave it out"
            )
        self.accelerator_config.dispatch_batches = False
