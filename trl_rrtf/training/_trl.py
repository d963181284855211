"""The only file that touches TRL beyond its documented surface (TRL 1.16.0).

What it relies on, each checked by `tests/training/test_trl_contract.py`:

- `SFTTrainer._prepare_dataset(dataset, processing_class, args, packing, formatting_func, dataset_name)`, called for each data
  set by `__init__` and `evaluate`.
- `model(..., shift_labels=, fused_lm_head=True)` scores every position of the backbone's output against labels that are shifted
  already, and returns `log_probs`: `add_fused_lm_head`, installed by `SFTTrainer.__init__`. It runs `base_model`.
- `hash_module(module)`, a digest of the weights.
- `_tag_names`, `_name`, `_paper` of `_BaseTrainer`, read by the model card and the Hub tags.
- `loss_is_scaled_for_ga` of `_BaseTrainer` (documented in `transformers.Trainer` since 5.19).
- `aux_loss_enabled` of `SFTTrainer`, set by `__init__` for mixture-of-experts models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from accelerate.utils import is_peft_model
from torch import Tensor, nn
from trl import SFTTrainer
from trl.trainer.utils import add_fused_lm_head, hash_module


class ScoredPositions:
    """A forward hook of the backbone that keeps the hidden states of some positions alone.

    The fused LM head projects every position that it is given, on a CPU also those without a label; prompts and padding would
    cost as much as completions.
    """

    def __init__(self) -> None:
        self._mask: Tensor | None = None

    @contextlib.contextmanager
    def are(self, mask: Tensor) -> Iterator[None]:
        """Inside, the backbone's output is (1, M, H): the M positions where `mask` (B, L) is true."""
        self._mask = mask
        try:
            yield
        finally:
            self._mask = None

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Called by torch after the backbone's forward."""
        if self._mask is not None:
            # Prompt-learning adapters put virtual tokens before each row.
            hidden_states = output.last_hidden_state[:, -self._mask.shape[1] :]
            output.last_hidden_state = hidden_states[self._mask][None]
        return output


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

    def score_only_completions(self) -> None:
        """Lets the LM head see the positions alone that `token_log_probs` asks for; called once, after `__init__`."""
        causal_lm = self.model.get_base_model() if is_peft_model(self.model) else self.model
        if causal_lm.base_model is causal_lm:  # Gemma 3 of transformers 4 names another attribute than the one it has
            causal_lm.base_model_prefix = "model"
        # Once more, without the entropy and accuracy that `SFTTrainer` asks for: each costs a pass over the vocabulary.
        add_fused_lm_head(causal_lm, outputs=("log_probs",))
        self._scored_positions = ScoredPositions()
        causal_lm.base_model.register_forward_hook(self._scored_positions)

    def token_log_probs(self, model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> Tensor:
        """Log-probability of each label, by TRL's fused LM head: only labelled positions are projected, in chunks.

        Args:
            model: The (wrapped) model.
            inputs: What the model is called with: `input_ids` (B, L) and masks.
            labels: (B, L) the token that each position predicts, or -100.

        Returns:
            (M,) nats, the labelled positions in the order of the rows.
        """
        scored = labels != -100
        with self._scored_positions.are(scored):
            outputs = model(**inputs, shift_labels=labels[scored][None], fused_lm_head=True)
        log_probs: Tensor = outputs.log_probs
        return log_probs[0]

    @staticmethod
    def weights_digest(module: nn.Module) -> str:
        """SHA-256 of a module's weights."""
        digest: str = hash_module(module)
        return digest

    @property
    def has_router_loss(self) -> bool:
        """Whether the model is a mixture of experts that adds a load-balancing loss."""
        return bool(self.aux_loss_enabled)
