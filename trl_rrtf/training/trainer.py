"""`RRTFTrainer`: TRL's `SFTTrainer` over ranked groups of candidates."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled

from trl_rrtf.errors import ConfigError, RowError
from trl_rrtf.models.checkpoint_log_probs import PROBE_TEXT, CheckpointLogProbs
from trl_rrtf.models.paths import require_model
from trl_rrtf.training import prefix_sharing
from trl_rrtf.training._trl import SFTTrainerHooks
from trl_rrtf.training.checks import (
    give_pad_token,
    refuse_adapter,
    refuse_arguments,
    refuse_non_finite,
    refuse_two_pad_tokens,
    refuse_unsupported_model,
    require_best_metric,
    require_pairs,
)
from trl_rrtf.training.collator import PADDING_BLOCK, DataCollatorForRankedGroups
from trl_rrtf.training.config import RRTFConfig
from trl_rrtf.training.even_batches import IDLE, EvenBatches, counted, idle_group
from trl_rrtf.training.layout import choose_layout
from trl_rrtf.training.losses.log_probs import sum_by_candidate
from trl_rrtf.training.metrics import STATISTICS, group_statistics, summarize
from trl_rrtf.training.model_card import write_model_card
from trl_rrtf.training.objective import REFERENCE_COLUMN, GroupLosses, group_losses
from trl_rrtf.training.ranked_dataset import check_rows, prepare_ranked_groups, tokenize_row
from trl_rrtf.training.reference import add_reference_log_likelihoods
from trl_rrtf.training.two_passes import loss_in_two_passes

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

logger = logging.getLogger(__name__)


class RRTFTrainer(SFTTrainerHooks):
    """Trains a causal language model on ranked groups of candidates (RRTF, arXiv 2307.14936).

    The loss of a group is `rank_weight` * L_rank + `sft_weight` * L_ft + `best_logp_penalty` * L_penalty, and the loss of an
    update is the mean over all of its groups, on all devices and in all accumulated batches. Model loading, PEFT, quantisation,
    chat templates, fused LM head, evaluation and Hub push are those of
    [`trl.SFTTrainer`](https://huggingface.co/docs/trl/sft_trainer).

    ```python
    trainer = RRTFTrainer(model="path/or/hub-id", args=RRTFConfig(output_dir="out"), train_dataset=ranked_groups)
    trainer.train()
    ```

    Args:
        model: Hub id or folder, a model, or a `PeftModel`.
        args: Configuration; by default `RRTFConfig` with an `output_dir` made from the model's name.
        data_collator: By default [`DataCollatorForRankedGroups`][trl_rrtf.DataCollatorForRankedGroups].
        train_dataset: Ranked groups (`prompt`, `completions`, `scores`, optional `sources`), text or conversational, or TRL
            preference rows (`prompt`, `chosen`, `rejected`) as groups of two.
        eval_dataset: The same, or a dictionary of them.
        processing_class: Tokenizer; by default the model's.
        callbacks: As in `transformers.Trainer`.
        optimizers: As in `transformers.Trainer`.
        optimizer_cls_and_kwargs: As in `transformers.Trainer`.
        quantization_config: As in `trl.SFTTrainer`.
        peft_config: As in `trl.SFTTrainer`.
        refused: Arguments of other trainers, for an error that says what to do instead.

    Raises:
        ConfigError: An argument that RRTF cannot honour, or a data set of a wrong type.
        RowError: A row breaks the format; found before the model is loaded.
        LoadError: `model` names a folder that is not there.
    """

    train_dataset: Any
    eval_dataset: Any

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: RRTFConfig | None = None,
        data_collator: DataCollatorForRankedGroups | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        quantization_config: Any = None,
        peft_config: PeftConfig | None = None,
        **refused: Any,
    ) -> None:
        refuse_arguments(refused)
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = RRTFConfig(f"{name.rstrip('/').split('/')[-1]}-RRTF")
        if not isinstance(args, RRTFConfig):
            raise ConfigError(f"`args`: expected an `RRTFConfig`, got {type(args).__name__}")
        if isinstance(processing_class, ProcessorMixin):
            raise ConfigError("`processing_class`: RRTF does not train vision models; pass the tokenizer of a text model")
        if train_dataset is None:
            raise ConfigError("`train_dataset`: got None; give ranked groups (`prompt`, `completions`, `scores`)")
        if isinstance(model, str):
            require_model(model)
        check_rows(train_dataset, "train_dataset", args.tie_bonus)
        check_rows(eval_dataset, "eval_dataset", args.tie_bonus)
        refuse_adapter(peft_config, model, args)

        self._train_sums: Tensor | None = None
        self._eval_statistics: list[tuple[Tensor, Tensor]] = []
        own_collator = DataCollatorForRankedGroups(
            pad_token_id=0,  # filled in below, when the tokenizer is known
            pad_to_multiple_of=args.pad_to_multiple_of if isinstance(args.pad_to_multiple_of, int) else None,
            row_token_budget=args.row_token_budget,
            max_tokens_per_forward=args.max_tokens_per_forward,
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator or own_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )
        refuse_unsupported_model(self)
        if data_collator is None:
            self.data_collator.pad_token_id = self.processing_class.pad_token_id
        refuse_two_pad_tokens(args, self.data_collator, self.processing_class)
        self.model.config.get_text_config().pad_token_id = self.processing_class.pad_token_id
        self.model.generation_config.pad_token_id = self.processing_class.pad_token_id
        self.score_only_completions()
        if data_collator is None:
            self.data_collator.prefix_sharing = choose_layout(self)
        require_pairs(args, self.eval_dataset)
        if args.needs_reference:
            self._add_reference_to_datasets()

    def tokenize_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Tokenises ranked groups or preference rows as the training data, whatever their length."""
        tokenized = [tokenize_row(row, index, "rows", self.processing_class, max_length=None) for index, row in enumerate(rows)]
        return [{name: value for name, value in row.items() if name != "flaws"} for row in tokenized]

    def log_likelihoods(
        self, groups: Sequence[Mapping[str, Any]], collator: DataCollatorForRankedGroups | None = None
    ) -> Tensor:
        """Log-likelihoods under the model as it is, without gradient or dropout; every process must take part.

        Args:
            groups: Tokenised groups.
            collator: By default the trainer's.

        Returns:
            (R,) nats, the candidates of all groups.
        """
        batch = self._prepare_inputs((collator or self.data_collator)(groups))
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            values = [self._log_likelihoods(self.model_wrapped, part, len(batch["scores"])) for part in batch["parts"]]
        self.model.train(was_training)
        return torch.stack(values).sum(dim=0)

    def _add_reference_to_datasets(self) -> None:
        self.train_dataset = self._with_reference(self.train_dataset, "train")
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {name: self._with_reference(part, name) for name, part in self.eval_dataset.items()}
        elif self.eval_dataset is not None:
            self.eval_dataset = self._with_reference(self.eval_dataset, "eval")

    def _with_reference(self, dataset: Dataset | IterableDataset, name: str) -> Dataset:
        """Adds the initial model's log-likelihoods to a tokenised data set."""
        if isinstance(dataset, IterableDataset):
            raise ConfigError(f"`{name}_dataset`: a reference model needs a `Dataset`, got an `IterableDataset`")
        if REFERENCE_COLUMN in dataset.column_names:
            return dataset
        if self.is_deepspeed_enabled and is_deepspeed_zero3_enabled():
            raise ConfigError("`use_reference_model` cannot run before training under ZeRO-3; use ZeRO-2 or FSDP2")
        if self.state.global_step > 0:
            raise ConfigError(
                f"`{name}_dataset`: the initial model that `use_reference_model` and `best_logp_penalty` compare with has been "
                "trained since; give the data set to the trainer when it is made"
            )
        if self.model.device != self.args.device:  # FSDP leaves the model where it was loaded until training begins
            self.model.to(self.args.device)
        return add_reference_log_likelihoods(
            dataset,
            log_likelihoods_of=self.log_likelihoods,
            weights_digest=self.weights_digest(self.model),
            batch_size=self.args.per_device_eval_batch_size,
            folder=Path(self.args.output_dir),
            name=name,
        )

    def prepare_groups(
        self,
        dataset: Dataset | IterableDataset,
        processing_class: PreTrainedTokenizerBase,
        args: RRTFConfig,
        name: str,
    ) -> Dataset | IterableDataset:
        """Tokenises a data set of ranked groups."""
        if isinstance(processing_class, ProcessorMixin):  # found by `SFTTrainer` beside the model
            raise ConfigError("`model`: RRTF does not train vision models; use a text model")
        give_pad_token(processing_class, args)
        prepared = prepare_ranked_groups(dataset, processing_class, args, name)
        # Those of `__init__` get their reference later, when the model is ready.
        return self._with_reference(prepared, name) if args.needs_reference and hasattr(self, "state") else prepared

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Collects the batches of an update and counts its groups on all processes; the loss is divided by that number.

        Of a stream, whose shards differ in length, idle batches fill up: all processes take the same number of steps, and the
        last update of an epoch is made.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        groups = sum(int(counted(batch).sum()) for batch in batches)
        tokens = sum(_num_tokens(part) for batch in batches for part in batch["parts"])
        counts = self.accelerator.reduce(torch.tensor([groups, tokens], device=device), reduction="sum")
        self.state.num_input_tokens_seen += int(counts[1])
        if counts[0] > 0 and isinstance(self.train_dataset, IterableDataset):
            batches += [self.data_collator([idle_group()]) for _ in range(num_batches - len(batches))]
        return batches, counts[0]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Operations of a forward and a backward pass over a batch."""
        return sum(super(RRTFTrainer, self).floating_point_ops(part) for part in inputs["parts"])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Loss of one batch: the sum over its groups, divided by the number of groups of the whole update.

        Args:
            model: The (wrapped) model.
            inputs: A batch of [`DataCollatorForRankedGroups`][trl_rrtf.DataCollatorForRankedGroups].
            return_outputs: Not supported; the fused LM head keeps no logits.
            num_items_in_batch: Groups of the update on all processes; None in evaluation, for the groups of this batch.
        """
        if return_outputs:
            raise ConfigError("`return_outputs=True` is not supported by RRTF: the fused LM head keeps no logits")
        parts: list[dict[str, Tensor]] = inputs["parts"]
        num_candidates = len(inputs["scores"])
        lengths = torch.stack([_num_scored(part, num_candidates) for part in parts]).sum(dim=0)
        parts = self._as_many_parts_everywhere(parts, num_candidates)

        def log_likelihoods_of(part: dict[str, Tensor]) -> Tensor:
            return self._log_likelihoods(model, part, num_candidates)

        def loss_of(log_likelihoods: Tensor) -> Tensor:
            losses = group_losses(self.args, log_likelihoods, lengths, inputs)
            self._keep_statistics(losses, lengths, inputs)
            total = (losses.total * counted(inputs)).sum()
            if num_items_in_batch is None:
                return total / counted(inputs).sum().clamp(min=1)
            refuse_non_finite(losses.total, log_likelihoods, inputs, self.state.global_step + 1)
            # Data-parallel training averages the gradients of the processes; the factor makes that a sum.
            num_processes: int = self.accelerator.num_processes
            return total / num_items_in_batch * num_processes

        if len(parts) > 1 and torch.is_grad_enabled():
            return loss_in_two_passes(
                parts, log_likelihoods_of, loss_of, self.accelerator.backward, lambda: self._no_sync(model)
            )
        return loss_of(torch.stack([log_likelihoods_of(part) for part in parts]).sum(dim=0))

    def _keep_statistics(self, losses: GroupLosses, lengths: Tensor, inputs: dict[str, Any]) -> None:
        """Adds up what `log` and `evaluation_loop` report."""
        is_counted = counted(inputs)
        statistics = group_statistics(losses, lengths, inputs["group_ids"], inputs["num_dropped"])[is_counted]
        if not self.model.training:
            # The row number tells groups apart that a distributed sampler repeats to fill the last batch.
            self._eval_statistics.append((inputs["group_index"][is_counted], statistics))
            return
        sums = statistics.sum(dim=0)
        self._train_sums = sums if self._train_sums is None else self._train_sums + sums

    def _log_likelihoods(self, model: nn.Module, part: dict[str, Tensor], num_candidates: int) -> Tensor:
        """(R,) log-likelihoods in nats of the candidates in a part of a batch, 0 for the others."""
        inputs: dict[str, Any] = {"input_ids": part["input_ids"]}
        if "block_ids" in part:
            config = self.model.config.get_text_config()
            inputs["position_ids"] = part["position_ids"]
            inputs["attention_mask"] = prefix_sharing.attention_mask(config, part, self.model.dtype)
        else:
            inputs["attention_mask"] = part["attention_mask"]
        token_log_probs = self.token_log_probs(model, inputs, part["labels"])
        candidate_ids = part["candidate_ids"][part["labels"] != -100]
        return sum_by_candidate(token_log_probs, candidate_ids, num_candidates + 1)[:num_candidates]

    def _as_many_parts_everywhere(self, parts: list[dict[str, Tensor]], num_candidates: int) -> list[dict[str, Tensor]]:
        """Every process must run the model equally often where its weights are sharded; parts of no candidate fill up."""
        if self.args.max_tokens_per_forward is None or self.accelerator.num_processes == 1:
            return parts
        most = int(self.accelerator.gather(torch.tensor([len(parts)], device=self.accelerator.device)).max())
        idle = {**parts[0], "candidate_ids": torch.full_like(parts[0]["candidate_ids"], num_candidates)}
        return parts + [idle] * (most - len(parts))

    def _no_sync(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Sharded weights have sharded gradients, which are exchanged at once; whole ones wait for the last part."""
        return nullcontext() if self.is_fsdp_enabled else self.accelerator.no_sync(model)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:
        """Evaluates one batch; there are no logits to return."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        return loss, None, None

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The batches of an evaluation set; those of a stream on several processes without repetitions."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]
        return self._even_batches(dataset) or super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """The same, of a set to predict."""
        return self._even_batches(test_dataset) or super().get_test_dataloader(test_dataset)

    def _even_batches(self, dataset: Any) -> EvenBatches | None:
        if not isinstance(dataset, IterableDataset) or self.accelerator.num_processes == 1:
            return None
        return EvenBatches(dataset, self.data_collator, self.accelerator, self.args)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluates rows, or tokenised groups; the metrics are means over groups, each counted once."""
        if not isinstance(eval_dataset, str):
            check_rows(eval_dataset, "eval_dataset", self.args.tie_bonus)
        metrics: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        if self.is_in_train and metric_key_prefix == "eval":  # each of several sets has a prefix of its own
            require_best_metric(self.args, metrics)
        return metrics

    def predict(self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test") -> Any:
        """Metrics of rows, or of tokenised groups; there are no predictions, the fused LM head keeps no logits."""
        check_rows(test_dataset, "test_dataset", self.args.tie_bonus)
        prepared = self.prepare_groups(test_dataset, self.processing_class, self.args, metric_key_prefix)
        return super().predict(prepared, ignore_keys, metric_key_prefix)

    def evaluation_loop(self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluates a data set; the metrics are means over its groups, each counted once, whatever the batches."""
        self._eval_statistics = []
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        sums = self._gathered_eval_sums(dataloader.dataset)
        groups = sums[STATISTICS.index("groups")]
        if not groups:
            raise RowError(metric_key_prefix, None, "no group is left; raise `max_length` or check the scores")
        metrics = {"loss": float(sums[STATISTICS.index("loss")] / groups), **summarize(sums)}
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output._replace(num_samples=int(groups))

    def _gathered_eval_sums(self, dataset: Any) -> Tensor:
        """Sums (S,) over the groups of all processes, each row of the data set once."""
        device, nothing = self.accelerator.device, (torch.empty(0, dtype=torch.long), torch.empty(0, len(STATISTICS)))
        columns = zip(*(self._eval_statistics or [nothing]), strict=True)
        numbers, rows = (torch.cat([*column]).to(device) for column in columns)
        if self.accelerator.num_processes > 1:
            numbers = self.accelerator.gather(self.accelerator.pad_across_processes(numbers, dim=0, pad_index=IDLE))
            rows = self.accelerator.gather(self.accelerator.pad_across_processes(rows, dim=0))
            rows, numbers = rows[numbers != IDLE], numbers[numbers != IDLE]
            # A stream is read without repetitions, and numbers of its shards meet.
            if not isinstance(dataset, IterableDataset):
                first_of_each = {number: place for place, number in reversed([*enumerate(numbers.tolist())])}
                if len(first_of_each) < len(dataset) and not self.args.dataloader_drop_last:
                    raise ConfigError(
                        f"`eval_dataset`: {len(dataset)} groups have {len(first_of_each)} row numbers (`group_index`), as in "
                        "tokenised sets that were joined; give it to `evaluate`, or to the trainer when it is made"
                    )
                rows = rows[sorted(first_of_each.values())]
        return rows.cpu().double().sum(dim=0)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the training metrics since the last log, summed over all processes."""
        if self._train_sums is not None and "loss" in logs:
            sums = self.accelerator.reduce(self._train_sums, reduction="sum")
            self._train_sums = None
            logs.update(summarize(sums.cpu()))
            logs["num_tokens"] = float(self.state.num_input_tokens_seen)
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model, and beside it what it says of a fixed text, so that an export can prove that it reads it right."""
        log_probs = self._log_probs_of_fixed_text()
        if self.is_world_process_zero():
            log_probs.save(Path(output_dir or self.args.output_dir))
        super().save_model(output_dir, _internal_call)  # pushes the folder, where that is asked for

    def _log_probs_of_fixed_text(self) -> CheckpointLogProbs:
        """Every process must take part where the weights are sharded."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 512
        input_ids = self.processing_class(PROBE_TEXT)["input_ids"][: min(512, positions)]
        row = torch.tensor([input_ids], device=self.model.device)
        labels = torch.cat([row[:, 1:], torch.full_like(row[:, :1], -100)], dim=1)
        model = self.model_wrapped if self.is_fsdp_enabled or self.is_deepspeed_enabled else self.model
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            log_probs = self.token_log_probs(model, {"input_ids": row, "attention_mask": torch.ones_like(row)}, labels)
        self.model.train(was_training)
        dtype = torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else self.model.dtype
        return CheckpointLogProbs(
            text=PROBE_TEXT,
            input_ids=input_ids,
            log_probs=[round(value, 6) for value in log_probs.tolist()],
            dtype=str(dtype).removeprefix("torch."),
            quantized=getattr(self.model, "is_quantized", False),
            transformers=transformers.__version__,
        )

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """Writes `README.md` into the output folder: base model, objective, settings, citations."""
        if self.is_world_process_zero():
            write_model_card(
                self.args,
                base_model=self.model.config._name_or_path,
                log_history=self.state.log_history,
                model_name=model_name,
                dataset_name=dataset_name,
                tags=tags,
            )


def _num_tokens(part: dict[str, Tensor]) -> int:
    """Tokens that run through the model, without padding."""
    is_token = part["block_ids"] != PADDING_BLOCK if "block_ids" in part else part["attention_mask"] == 1
    return int(is_token.sum())


def _num_scored(part: dict[str, Tensor], num_candidates: int) -> Tensor:
    """(R,) scored tokens of each candidate."""
    candidate_ids = part["candidate_ids"][part["labels"] != -100]
    return torch.bincount(candidate_ids, minlength=num_candidates)
