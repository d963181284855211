"""`RRTFTrainer`: TRL's `SFTTrainer` over ranked groups of candidates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback

from trl_rrtf.errors import ConfigError
from trl_rrtf.model_paths import require_model
from trl_rrtf.training._trl import SFTTrainerHooks
from trl_rrtf.training.collator import DataCollatorForRankedGroups
from trl_rrtf.training.config import RRTFConfig
from trl_rrtf.training.losses import RANK_OBJECTIVES, mean_log_probs, sft_loss
from trl_rrtf.training.metrics import STATISTICS, group_statistics, summarize
from trl_rrtf.training.model_card import write_model_card
from trl_rrtf.training.ranked_dataset import check_rows, prepare_ranked_groups

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel


class RRTFTrainer(SFTTrainerHooks):
    """Trains a causal language model on ranked groups of candidates (RRTF, arXiv 2307.14936).

    The loss of a group is `rank_weight` * L_rank + `sft_weight` * L_ft, and the loss of an update is the mean over all of its
    groups, on all devices and in all accumulated batches. Model loading, PEFT, quantisation, chat templates, fused LM head,
    evaluation and Hub push are those of [`trl.SFTTrainer`](https://huggingface.co/docs/trl/sft_trainer).

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

    Raises:
        ConfigError: An argument that RRTF cannot honour, or a data set of a wrong type.
        RowError: A row breaks the format; found before the model is loaded.
        LoadError: `model` names a folder that is not there.
    """

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
    ) -> None:
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
        check_rows(train_dataset, "train_dataset")
        check_rows(eval_dataset, "eval_dataset")

        self._objective = RANK_OBJECTIVES[args.rank_loss]
        self._train_sums: Tensor | None = None
        self._eval_statistics: list[Tensor] = []
        pad_to = args.pad_to_multiple_of if isinstance(args.pad_to_multiple_of, int) else None
        super().__init__(
            model=model,
            args=args,
            # The padding token is filled in below, when the tokenizer is known.
            data_collator=data_collator or DataCollatorForRankedGroups(pad_token_id=0, pad_to_multiple_of=pad_to),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )
        self._refuse_unsupported_model()
        self._set_pad_token(fill_collator=data_collator is None)

    def _refuse_unsupported_model(self) -> None:
        if self.has_router_loss:
            raise ConfigError(
                "`router_aux_loss_coef`: RRTF does not add the load-balancing loss of mixture-of-experts models; set it to 0.0"
            )
        parallelism = self.accelerator.parallelism_config
        if parallelism is not None and parallelism.non_data_parallel_size > 1:
            raise ConfigError(
                "`parallelism_config`: RRTF splits groups over devices (DDP, FSDP, ZeRO), not a row over several; use data "
                "parallelism alone"
            )

    def _set_pad_token(self, *, fill_collator: bool) -> None:
        """Gives tokenizer and model a padding token, as `SFTTrainer` does for its own collator."""
        tokenizer = self.processing_class
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if fill_collator:
            self.data_collator.pad_token_id = tokenizer.pad_token_id
        self.model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        self.model.generation_config.pad_token_id = tokenizer.pad_token_id

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
        return prepare_ranked_groups(dataset, processing_class, args, name)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Collects the batches of an update and counts its groups on all processes; the loss is divided by that number."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        groups = sum(len(batch["group_index"]) for batch in batches)
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        counts = self.accelerator.reduce(torch.tensor([groups, tokens], device=device), reduction="sum")
        if self.args.include_num_input_tokens_seen in (False, "no"):  # else `Trainer` counts them, the same way
            self.state.num_input_tokens_seen += int(counts[1])
        return batches, counts[0]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
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
        statistics, group_losses = self._group_losses(model, inputs)
        if not self.model.training:
            # The row number tells groups apart that a distributed sampler repeats to fill the last batch.
            self._eval_statistics.append(torch.cat([inputs["group_index"][:, None].float(), statistics], dim=1))
            return group_losses.mean()
        sums = statistics.sum(dim=0)
        self._train_sums = sums if self._train_sums is None else self._train_sums + sums
        if num_items_in_batch is None:
            return group_losses.mean()
        # Data-parallel training averages the gradients of the processes; the factor makes that a sum.
        num_processes: int = self.accelerator.num_processes
        return group_losses.sum() / num_items_in_batch * num_processes

    def _group_losses(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Statistics (G, S) and weighted loss (G,) of each group of a batch."""
        scores, sources, group_ids = inputs["scores"], inputs["sources"], inputs["group_ids"]
        num_groups = len(inputs["group_index"])
        completion_mask = inputs["completion_mask"]
        token_log_probs = self.token_log_probs(model, inputs["input_ids"], inputs["attention_mask"], completion_mask)
        target_mask = completion_mask[:, 1:]
        token_log_probs = token_log_probs[:, -target_mask.shape[1] :]  # without the virtual tokens of prompt-learning adapters
        logps = mean_log_probs(token_log_probs, target_mask)
        lengths = target_mask.sum(dim=1)

        pairs = self._objective.pairs(scores, group_ids, sources)
        rank_losses = self._objective.rank_loss(logps, scores, group_ids, pairs, num_groups)
        targets = self._objective.sft_targets(scores, group_ids, sources)
        sft_losses = sft_loss(logps, lengths, targets, group_ids, num_groups, self.args.sft_reduction)
        losses = self.args.rank_weight * rank_losses + self.args.sft_weight * sft_losses
        statistics = group_statistics(
            loss=losses,
            rank_loss=rank_losses,
            sft_loss=sft_losses,
            logps=logps,
            scores=scores,
            lengths=lengths,
            group_ids=group_ids,
            pairs=pairs,
            num_dropped=inputs["num_dropped"],
        )
        return statistics, losses

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

    def evaluation_loop(self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluates a data set; the metrics are means over its groups, each counted once, whatever the batches."""
        self._eval_statistics = []
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        sums = self._gathered_eval_sums()
        metrics = {"loss": float(sums[STATISTICS.index("loss")] / sums[STATISTICS.index("groups")]), **summarize(sums)}
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def _gathered_eval_sums(self) -> Tensor:
        """Sums (S,) over the groups of all processes, each row of the data set once."""
        rows = torch.cat(self._eval_statistics)
        rows = self.accelerator.pad_across_processes(rows, dim=0, pad_index=-1)
        rows = self.accelerator.gather(rows).cpu().double()
        rows = rows[rows[:, 0] >= 0]
        first_of_each = {int(row[0]): row[1:] for row in rows}
        return torch.stack(list(first_of_each.values())).sum(dim=0)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the training metrics since the last log, summed over all processes."""
        if self._train_sums is not None and "loss" in logs:
            sums = self.accelerator.reduce(self._train_sums, reduction="sum")
            self._train_sums = None
            logs.update(summarize(sums.cpu()))
            logs["num_tokens"] = float(self.state.num_input_tokens_seen)
        super().log(logs, start_time)

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """Writes `README.md` into the output folder: base model, objective, settings, citations."""
        if self.is_world_process_zero():
            write_model_card(self, model_name=model_name, dataset_name=dataset_name, tags=tags)
