"""`DataCollatorForRankedGroups`: several groups of different sizes in one flat, padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass
class DataCollatorForRankedGroups:
    """Lays the candidates of all groups in one flat batch of R rows, padded on the right.

    Each row is a prompt and one candidate. Padding is told by the attention mask, never by a token id, so that a model whose
    padding and end-of-sequence tokens are the same learns to end.

    Args:
        pad_token_id: Token to pad with.
        pad_to_multiple_of: Pads the length to a multiple of this, or None.
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collates tokenised groups, the rows of `trl_rrtf.training.ranked_dataset.prepare_ranked_groups`.

        Returns:
            `input_ids`, `attention_mask`, `completion_mask` (R, T); `scores` (R,) float32; `sources`, `group_ids` (R,);
            `group_index`, `num_dropped` (G,).
        """
        rows, masks, scores, sources, group_ids = [], [], [], [], []
        for group_id, example in enumerate(examples):
            prompt_ids = list(example["prompt_ids"])
            for completion_ids in example["completion_ids"]:
                rows.append(torch.tensor(prompt_ids + list(completion_ids)))
                masks.append(torch.tensor([0] * len(prompt_ids) + [1] * len(completion_ids)))
                group_ids.append(group_id)
            scores.extend(example["scores"])
            sources.extend(example["sources"])
        return {
            "input_ids": self._pad(rows, self.pad_token_id),
            "attention_mask": self._pad([torch.ones_like(row) for row in rows], 0),
            "completion_mask": self._pad(masks, 0),
            "scores": torch.tensor(scores, dtype=torch.float32),
            "sources": torch.tensor(sources),
            "group_ids": torch.tensor(group_ids),
            "group_index": torch.tensor([example["group_index"] for example in examples]),
            "num_dropped": torch.tensor([example["num_dropped"] for example in examples]),
        }

    def _pad(self, rows: list[Tensor], value: int) -> Tensor:
        padded = pad_sequence(rows, batch_first=True, padding_value=value)
        if self.pad_to_multiple_of is not None and (extra := -padded.shape[1] % self.pad_to_multiple_of):
            padded = torch.nn.functional.pad(padded, (0, extra), value=value)
        return padded
