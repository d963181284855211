"""`DataCollatorForRankedGroups`: groups of different sizes in one batch, each candidate with its prompt or all sharing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trl_rrtf.errors import ConfigError

PREFIX_SEGMENT = 0
"""`segment_ids` of the shared prompt; candidates have 1, 2, ..."""

PADDING_BLOCK = -1
"""`block_ids` of padding."""


@dataclass(frozen=True)
class _Block:
    """A prompt and some candidates of one group, laid out one after the other."""

    prompt_ids: list[int]
    candidates: list[tuple[int, list[int]]]  # (number in the batch, token ids)

    def __len__(self) -> int:
        """Tokens of the block."""
        return max(len(self.prompt_ids) - 1, 0) + sum(_segment_length(self.prompt_ids, ids) for _, ids in self.candidates)


def _segment_length(prompt_ids: list[int], completion_ids: list[int]) -> int:
    """Positions of a candidate: the prompt's last token predicts its first one, its last token predicts nothing."""
    return len(completion_ids) if prompt_ids else len(completion_ids) - 1


@dataclass
class DataCollatorForRankedGroups:
    """Lays ranked groups out for the model, in one of two layouts that give the same log-probabilities.

    **Padded** (`prefix_sharing=False`): each row is a prompt and one candidate, padded on the right.

    **Shared** (`prefix_sharing=True`): a group is one *block*: the prompt without its last token, then a *segment* per
    candidate, that begins with the prompt's last token. Position ids restart in each segment, so that every candidate
    follows the prompt directly; a segment attends to the prompt and to itself (see `prefix_sharing.attention_rule`).
    Several blocks are packed into a row up to a token budget. The prompt runs through the model once instead of once per
    candidate.

    ```
    tokens       p0 p1 | p2 a0 a1 | p2 b0        (prompt p0 p1 p2, candidates a0 a1 a2 and b0 b1)
    positions     0  1    2  3  4    2  3
    labels        .  .   a0 a1 a2   b0 b1
    ```

    Padding is told by masks, never by a token id, so that a model whose padding and end-of-sequence tokens are the same learns
    to end. Labels are shifted already.

    Args:
        pad_token_id: Token to pad with.
        pad_to_multiple_of: Pads the length of rows to a multiple of this, or None.
        prefix_sharing: Whether the candidates of a group share their prompt.
        row_token_budget: Tokens of a row in the shared layout; None for the batch's longest block. A longer group has a row of
            its own.
        max_tokens_per_forward: A batch with more tokens, padding included, is cut into parts of at most that many; a single
            candidate that is longer makes a part of its own. None for one part.
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None
    prefix_sharing: bool = False
    row_token_budget: int | None = None
    max_tokens_per_forward: int | None = None

    def __post_init__(self) -> None:
        """Checks the budgets."""
        for name in ("pad_to_multiple_of", "row_token_budget", "max_tokens_per_forward"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"`{name}`: expected a positive number or None, got {value}")

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collates tokenised groups, the rows of `trl_rrtf.training.ranked_dataset.prepare_ranked_groups`.

        Returns:
            `group_index`, `num_dropped` (G,); `scores` (R,) float32; `sources`, `group_ids` (R,); `reference_log_likelihoods`
            (R,) float32 where the rows have them; `parts`, a list of dictionaries with `input_ids`, `position_ids`, `labels`
            (the token to predict, -100 where none), `candidate_ids` (the candidate that the label belongs to, 0 .. R - 1, or
            -1), each (B, L), and `attention_mask` (B, L) in the padded layout, `block_ids`, `segment_ids` (B, L) in the shared.
        """
        sizes = [len(example["completion_ids"]) for example in examples]
        batch: dict[str, Any] = {
            "group_index": torch.tensor([example["group_index"] for example in examples]),
            "num_dropped": torch.tensor([example["num_dropped"] for example in examples]),
            "group_ids": torch.repeat_interleave(torch.arange(len(examples)), torch.tensor(sizes)),
            "scores": torch.tensor([score for example in examples for score in example["scores"]], dtype=torch.float32),
            "sources": torch.tensor([source for example in examples for source in example["sources"]]),
        }
        if "reference_log_likelihoods" in examples[0]:
            values = [value for example in examples for value in example["reference_log_likelihoods"]]
            batch["reference_log_likelihoods"] = torch.tensor(values, dtype=torch.float32)
        rows = self._rows(self._blocks(examples))
        batch["parts"] = [self._part(rows_of_part) for rows_of_part in self._cut(rows)]
        return batch

    def _blocks(self, examples: Sequence[Mapping[str, Any]]) -> list[_Block]:
        """The shared layout keeps a group together as far as the budget allows, the padded one has a block per candidate."""
        blocks = []
        number = 0
        for example in examples:
            prompt_ids = list(example["prompt_ids"])
            block = _Block(prompt_ids, [])
            for completion_ids in example["completion_ids"]:
                longer = _Block(prompt_ids, [*block.candidates, (number, list(completion_ids))])
                is_full = self.max_tokens_per_forward is not None and len(longer) > self.max_tokens_per_forward
                if block.candidates and (is_full or not self.prefix_sharing):
                    blocks.append(block)
                    longer = _Block(prompt_ids, longer.candidates[-1:])
                block = longer
                number += 1
            blocks.append(block)
        return blocks

    def _rows(self, blocks: list[_Block]) -> list[list[_Block]]:
        """Packs blocks into rows: the longest first, each into the first row that has room."""
        if not self.prefix_sharing:
            return [[block] for block in blocks]
        budget = self.row_token_budget or max(map(len, blocks))
        if self.max_tokens_per_forward is not None:
            budget = min(budget, self.max_tokens_per_forward)
        rows: list[list[_Block]] = []
        for block in sorted(blocks, key=len, reverse=True):
            room = (row for row in rows if sum(map(len, row)) + len(block) <= budget)
            row = next(room, None)
            if row is None:
                rows.append([block])
            else:
                row.append(block)
        return rows

    def _cut(self, rows: list[list[_Block]]) -> list[list[list[_Block]]]:
        """Splits the rows into parts that go through the model one after the other."""
        if self.max_tokens_per_forward is None:
            return [rows]
        parts: list[list[list[_Block]]] = []
        for row in rows:
            longest = max((self._row_length(other) for other in [*parts[-1], row]), default=0) if parts else 0
            if not parts or (len(parts[-1]) + 1) * longest > self.max_tokens_per_forward:
                parts.append([])
            parts[-1].append(row)
        return parts

    def _row_length(self, row: list[_Block]) -> int:
        length = sum(map(len, row))
        return length + (-length % self.pad_to_multiple_of if self.pad_to_multiple_of else 0)

    def _part(self, rows: list[list[_Block]]) -> dict[str, Tensor]:
        columns: dict[str, list[Tensor]] = {}
        for row in rows:
            for name, values in _lay_out(row).items():
                columns.setdefault(name, []).append(torch.tensor(values))
        fill = {"input_ids": self.pad_token_id, "labels": -100, "candidate_ids": -1, "block_ids": PADDING_BLOCK}
        part = {name: self._pad(values, fill.get(name, 0)) for name, values in columns.items()}
        if not self.prefix_sharing:
            part["attention_mask"] = (part.pop("block_ids") != PADDING_BLOCK).long()
            del part["segment_ids"]
        return part

    def _pad(self, rows: list[Tensor], value: int) -> Tensor:
        padded = pad_sequence(rows, batch_first=True, padding_value=value)
        if self.pad_to_multiple_of is not None and (extra := -padded.shape[1] % self.pad_to_multiple_of):
            padded = torch.nn.functional.pad(padded, (0, extra), value=value)
        return padded


def _lay_out(row: list[_Block]) -> dict[str, list[int]]:
    """The columns of one row."""
    columns: dict[str, list[int]] = {
        name: [] for name in ("input_ids", "position_ids", "labels", "candidate_ids", "block_ids", "segment_ids")
    }

    def add(tokens: list[int], labels: list[int], first_position: int, candidate: int, block: int, segment: int) -> None:
        columns["input_ids"] += tokens
        columns["position_ids"] += range(first_position, first_position + len(tokens))
        columns["labels"] += labels
        columns["candidate_ids"] += [candidate] * len(tokens)
        columns["block_ids"] += [block] * len(tokens)
        columns["segment_ids"] += [segment] * len(tokens)

    for number, block in enumerate(row):
        prefix, last = block.prompt_ids[:-1], block.prompt_ids[-1:]
        add(prefix, [-100] * len(prefix), 0, -1, number, PREFIX_SEGMENT)
        for segment, (candidate, completion_ids) in enumerate(block.candidates, start=PREFIX_SEGMENT + 1):
            tokens = [*last, *completion_ids]
            add(tokens[:-1], tokens[1:], len(prefix), candidate, number, segment)
    return columns
