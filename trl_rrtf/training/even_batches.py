"""Streams on several processes: each row on one of them, and a step on all as long as one has rows.

Shards of a stream differ in length, and a process that stops earlier leaves the others waiting for it. It runs an *idle* group
instead, which counts nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from trl_rrtf.training.losses.pairs import UNKNOWN
from trl_rrtf.training.objective import REFERENCE_COLUMN

IDLE = -1
"""`group_index` of an idle group."""


def idle_group() -> dict[str, Any]:
    """A tokenised group that runs through the model and counts nowhere."""
    return {
        "prompt_ids": [0],
        "completion_ids": [[0], [0]],
        "scores": [0.0, 0.0],
        "sources": [UNKNOWN, UNKNOWN],
        "num_dropped": 0,
        "group_index": IDLE,
        REFERENCE_COLUMN: [0.0, 0.0],
    }


def counted(batch: dict[str, Any]) -> Tensor:
    """(G,) bool: the groups of a batch that are not idle."""
    is_counted: Tensor = batch["group_index"] != IDLE
    return is_counted


def most_of_all(number: int, accelerator: Accelerator) -> int:
    """The largest of a number that each process has its own of."""
    if accelerator.num_processes == 1:
        return number
    return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())


class EvenBatches:
    """The batches of a stream for an evaluation on several processes.

    accelerate would repeat rows to fill the last batches, or let the processes stop at different times. Here each row is on one
    process, once, whatever the shards and the workers of the loaders.

    Args:
        dataset: The stream, the same on all processes.
        collate: Groups -> batch.
        accelerator: The trainer's.
        args: Batch size and loaders.
    """

    def __init__(
        self, dataset: IterableDataset, collate: Callable[[Any], Any], accelerator: Accelerator, args: TrainingArguments
    ) -> None:
        self.dataset = split_dataset_by_node(dataset, rank=accelerator.process_index, world_size=accelerator.num_processes)
        self._accelerator = accelerator
        self._collate = collate
        self._loader = DataLoader(
            self.dataset,
            batch_size=args.per_device_eval_batch_size,
            collate_fn=collate,
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            pin_memory=args.dataloader_pin_memory,
            multiprocessing_context=getattr(args, "dataloader_multiprocessing_context", None),  # of transformers 5
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """As many batches on each process as the one with the most has."""
        batches: Iterator[dict[str, Any]] = iter(self._loader)
        while True:
            batch = next(batches, None)
            if not most_of_all(batch is not None, self._accelerator):
                return
            yield self._collate([idle_group()]) if batch is None else batch
