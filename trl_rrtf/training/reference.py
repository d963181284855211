"""Log-likelihoods of the candidates under the initial model, computed once before training and kept in the run's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm

from trl_rrtf.rows.files import read_json, write_json
from trl_rrtf.training.objective import REFERENCE_COLUMN


def add_reference_log_likelihoods(
    dataset: Dataset,
    *,
    log_likelihoods_of: Callable[[Sequence[Mapping[str, Any]]], Tensor],
    weights_digest: str,
    batch_size: int,
    folder: Path,
    name: str,
) -> Dataset:
    """Adds the column `reference_log_likelihoods`; the processes share the work.

    Args:
        dataset: Tokenised groups.
        log_likelihoods_of: Groups -> (R,) log-likelihoods of their candidates, nats.
        weights_digest: Names the initial model; another model or other rows are computed anew.
        batch_size: Groups that run at once.
        folder: Where the numbers are kept.
        name: The data set's name, for the progress bar.

    Returns:
        The data set with the column.
    """
    cache = folder / f"reference_{_digest(dataset, weights_digest)}.json"
    state = PartialState()
    # The main process alone looks, so that all take the same way where nodes have disks of their own.
    found = [read_json(cache, "remove it; it is computed again") if state.is_main_process and cache.exists() else None]
    values = broadcast_object_list(found)[0]
    if values is None:
        mine = range(state.process_index, len(dataset), state.num_processes)
        computed: list[tuple[int, list[float]]] = []
        starts = range(0, len(mine), batch_size)
        for start in tqdm(starts, desc=f"Reference log-probabilities of {name} groups", disable=not state.is_main_process):
            indices = list(mine[start : start + batch_size])
            rows = [dataset[index] for index in indices]
            flat = log_likelihoods_of(rows).float().cpu()
            sizes = [len(row["scores"]) for row in rows]
            computed += zip(indices, (part.tolist() for part in torch.split(flat, sizes)), strict=True)
        everybodys = dict(gather_object(computed))
        values = [everybodys[index] for index in range(len(dataset))]
        if state.is_main_process:
            write_json(cache, values)
    return dataset.add_column(REFERENCE_COLUMN, values)


def _digest(dataset: Dataset, weights_digest: str) -> str:
    digest = hashlib.sha256(weights_digest.encode())
    for row in dataset:
        digest.update(repr((row["prompt_ids"], row["completion_ids"])).encode())
    return digest.hexdigest()[:16]
