"""The only file that touches TRL beyond its documented surface (TRL 1.16.0).

What it relies on, each checked by `tests/training/test_trl_contract.py`:

- `SFTTrainer._prepare_dataset(dataset, processing_class, args, packing, formatting_func, dataset_name)`, called for each data
  set by `__init__` and `evaluate`.
- `model(..., labels=, fused_lm_head=True)` returns `log_probs` (R, T - 1), zero where the label is -100: `add_fused_lm_head`,
  installed by `SFTTrainer.__init__`.
- `_tag_names`, `_name`, `_paper` of `_BaseTrainer`, read by the model card and the Hub tags.
- `loss_is_scaled_for_ga` of `_BaseTrainer` (documented in `transformers.Trainer` since 5.19).
- `aux_loss_enabled` of `SFTTrainer`, set by `__init__` for mixture-of-experts models.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from trl import SFTTrainer


class SFTTrainerHooks(SFTTrainer):
    """`SFTTrainer` with its internals behind three public hooks."""

    _tag_names = ["trl", "rrtf"]  # noqa: RUF012  (TRL declares it as a plain class attribute)
    _name = "RRTF"
    _paper = {  # noqa: RUF012
        "title": "PanGu-Coder2: Boosting Large Language Models for Code with Ranking Feedback",
        "id": "2307.14936",
    }
    # The loss is divided by the groups of the whole update, so `Trainer` must not divide it again.
    loss_is_scaled_for_ga = True

    def prepare_groups(self, dataset: Any, processing_class: Any, args: Any, name: str) -> Any:
        """Tokenises a data set; called for each by `__init__` (before `self.args` is set) and by `evaluate`."""
        raise NotImplementedError

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: Any, formatting_func: Any, dataset_name: str
    ) -> Any:
        return self.prepare_groups(dataset, processing_class, args, dataset_name)

    def token_log_probs(self, model: nn.Module, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> Tensor:
        """Log-probability of each completion token, by TRL's fused LM head (no vocabulary-wide logits are kept).

        Args:
            model: The (wrapped) model.
            input_ids: (R, T)
            attention_mask: (R, T)
            completion_mask: (R, T)

        Returns:
            (R, T - 1), entry t scores token t + 1; zero outside the completion. With prompt-learning adapters longer by the
            virtual tokens, which are zero too.
        """
        labels = input_ids.masked_fill(completion_mask == 0, -100)
        outputs = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, fused_lm_head=True)
        log_probs: Tensor = outputs.log_probs
        return log_probs

    @property
    def has_router_loss(self) -> bool:
        """Whether the model is a mixture of experts that adds a load-balancing loss."""
        return bool(self.aux_loss_enabled)
