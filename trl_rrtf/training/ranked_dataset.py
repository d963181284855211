"""From rows of text to tokenised ranked groups: checks, preference rows as groups of two, lengths, groups without signal."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase
from trl import extract_prompt

from trl_rrtf.errors import ConfigError, RowError
from trl_rrtf.rows.files import iterate_rows
from trl_rrtf.rows.records import RankedCandidate, RankedGroup
from trl_rrtf.training.config import RRTFConfig
from trl_rrtf.training.losses.pairs import STUDENT, TEACHER, UNKNOWN
from trl_rrtf.training.objective import scores_and_pairs
from trl_rrtf.training.options import RRTFOptions

logger = logging.getLogger(__name__)

TOKENIZED_COLUMN = "completion_ids"
"""A data set with this column is tokenised already."""

TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")
"""TRL's columns for the chat template, in rows of messages: tools that it shows, and further variables."""


def read_ranked_groups(input: str) -> Dataset:
    """Reads and checks every row of an input; TRL's preference rows pass too, as groups of two.

    Args:
        input: As in [`iterate_rows`][trl_rrtf.rows.files.iterate_rows].

    Raises:
        LoadError: The input is not there or cannot be read.
        RowError: A row breaks the format; its file, line and column are named.
        ConfigError: The input has no row.
    """
    rows = [
        {**replace(to_ranked_group(row, where), extra={}).to_row(), **{name: row.get(name) for name in TEMPLATE_COLUMNS}}
        for where, row in iterate_rows(input)
    ]
    if not rows:
        raise ConfigError(f"`{input}` has no row; give at least one ranked group")
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if any(row.get(name) for row in rows)]
    return Dataset.from_list([{name: row.get(name) for name in columns} for row in rows])


def to_ranked_group(row: Mapping[str, Any], where: str) -> RankedGroup:
    """Checks a ranked row, or turns a TRL preference row (`chosen`, `rejected`) into a group of two.

    Raises:
        RowError: The row breaks the format.
    """
    if "completions" in row or not {"chosen", "rejected"} <= set(row):
        return RankedGroup.from_row(row, where)
    if row.get("prompt") is None:  # an implicit prompt: the messages that both share
        row = {**row, **extract_prompt(dict(row))}
    return RankedGroup.from_row(
        {
            "prompt": row["prompt"],
            "completions": [row["chosen"], row["rejected"]],
            "scores": [1.0, 0.0],
            "sources": ["teacher", "student"],
        },
        where,
    )


def check_rows(dataset: Any, name: str) -> None:
    """Checks the rows of a data set before a model is loaded; of a stream, the first one (the rest as they come).

    Args:
        dataset: A `Dataset`, an `IterableDataset`, a dictionary of them, or None.
        name: The argument's name, for the error message.

    Raises:
        RowError: A row breaks the format.
        ConfigError: The data set is of another type, or empty.
    """
    if dataset is None:
        return
    if isinstance(dataset, dict):
        for key, part in dataset.items():
            check_rows(part, f"{name}[{key!r}]")
        return
    if not isinstance(dataset, Dataset | IterableDataset):
        raise ConfigError(f"`{name}`: expected a `Dataset` or an `IterableDataset`, got {type(dataset).__name__}")
    empty = True
    for index, row in enumerate(dataset):
        empty = False
        if TOKENIZED_COLUMN in row:
            break
        if "image" in row or "images" in row:
            raise ConfigError(f"`{name}`: RRTF does not train vision models; remove the image columns")
        to_ranked_group(row, f"`{name}`, row {index}")
        if isinstance(dataset, IterableDataset):
            break
    if empty:
        raise ConfigError(f"`{name}`: the data set is empty; give at least one ranked group")


def prepare_ranked_groups(
    dataset: Dataset | IterableDataset, processing_class: PreTrainedTokenizerBase, args: RRTFConfig, name: str
) -> Dataset | IterableDataset:
    """Tokenises a data set of ranked groups.

    Args:
        dataset: Ranked rows, or TRL preference rows. One that is tokenised already is returned as it is.
        processing_class: The tokenizer.
        args: `max_length`, `groups_without_pairs`, the objective, `dataset_num_proc`.
        name: `train`, `eval` or the evaluation set's key, for messages.

    Returns:
        Columns `prompt_ids` (P,), `completion_ids` (N, T_i), `scores` (N,), `sources` (N,) codes, `num_dropped` (candidates
        longer than `max_length`, which are left out, never cut) and `group_index` (row number in the data set given).

    Raises:
        RowError: A row breaks the format, or nothing is left of the data set.
    """
    columns = list(next(iter(dataset), ()))
    if not columns:
        raise ConfigError(f"`{name}`: the data set is empty; give at least one ranked group")
    if TOKENIZED_COLUMN in columns:
        return dataset
    tokenize = partial(tokenize_row, name=name, processing_class=processing_class, max_length=args.max_length)
    # The plain options, so that `datasets` finds its cache again: a trainer's configuration holds times and folders.
    options = RRTFOptions(**{option.name: getattr(args, option.name) for option in fields(RRTFOptions)})
    keep = partial(_is_kept, options=options)
    if isinstance(dataset, IterableDataset):
        return dataset.map(tokenize, with_indices=True, remove_columns=columns).filter(keep)
    with PartialState().main_process_first():
        tokenized = dataset.map(
            tokenize,
            with_indices=True,
            remove_columns=columns,
            num_proc=args.dataset_num_proc,
            desc=f"Tokenizing {name} groups",
        )
        kept = tokenized.filter(keep, num_proc=args.dataset_num_proc, desc=f"Filtering {name} groups")
    _report_losses(tokenized, kept, args, name)
    return kept


def _report_losses(tokenized: Dataset, kept: Dataset, args: RRTFConfig, name: str) -> None:
    """Says how much was left out; an empty rest is an error."""
    dropped = sum(tokenized["num_dropped"])
    total = dropped + sum(map(len, tokenized["scores"]))
    if dropped:
        logger.warning(
            "%s: %d of %d candidates are longer than `max_length=%s` and are dropped", name, dropped, total, args.max_length
        )
    if len(kept) < len(tokenized):
        logger.warning(
            "%s: %d of %d groups are dropped: no candidate fits `max_length`, or no ordered pair is left and "
            "`groups_without_pairs` is `drop`",
            name,
            len(tokenized) - len(kept),
            len(tokenized),
        )
    if not len(kept):
        raise RowError(
            name,
            None,
            f"none of the {len(tokenized)} groups is left; raise `max_length` (now {args.max_length}) or check the scores",
        )


def tokenize_row(
    row: Mapping[str, Any], index: int, name: str, processing_class: PreTrainedTokenizerBase, max_length: int | None
) -> dict[str, Any]:
    """One row of `prepare_ranked_groups`; `name` and `index` say where it stands, for messages."""
    group = to_ranked_group(row, f"`{name}`, row {index}")
    prompt_ids, completion_ids = tokenize_group(group, processing_class, template_options(row))
    fits = [max_length is None or len(prompt_ids) + len(ids) <= max_length for ids in completion_ids]
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": [ids for ids, fit in zip(completion_ids, fits, strict=True) if fit],
        "scores": [candidate.score for candidate, fit in zip(group.candidates, fits, strict=True) if fit],
        "sources": [_source_code(candidate) for candidate, fit in zip(group.candidates, fits, strict=True) if fit],
        "num_dropped": fits.count(False),
        "group_index": index,
    }


def _source_code(candidate: RankedCandidate) -> int:
    if candidate.source is None:
        return UNKNOWN
    return TEACHER if candidate.is_teachers else STUDENT


def _is_kept(row: Mapping[str, Any], *, options: RRTFOptions) -> bool:
    if not row["scores"]:
        return False
    if options.groups_without_pairs == "sft":
        return True
    scores = torch.tensor(row["scores"])
    _, pairs = scores_and_pairs(options, scores, torch.zeros(len(scores)), torch.tensor(row["sources"]))
    return bool(pairs.any())


def template_options(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of messages says to the chat template, as TRL reads it."""
    return {"tools": row.get("tools"), **(row.get("chat_template_kwargs") or {})}


def tokenize_group(
    group: RankedGroup, processing_class: PreTrainedTokenizerBase, template_options: Mapping[str, Any] | None = None
) -> tuple[list[int], list[list[int]]]:
    """Tokenises a group as TRL's `SFTTrainer` does a prompt and its completion, with one prompt for all candidates.

    Text completions get an end-of-sequence token; conversations end as the chat template says. As in TRL, a completion
    starts where its tokens and the prompt's diverge, here at the first such place among all candidates.

    Args:
        group: Text or messages.
        processing_class: The tokenizer.
        template_options: Keyword arguments of the chat template; text has none.

    Returns:
        The prompt's ids (P,) and each candidate's ids (N, T_i).
    """
    completions: list[Any] = [candidate.completion for candidate in group.candidates]
    if isinstance(group.prompt, str):
        eos = processing_class.eos_token
        prompt_ids = processing_class(group.prompt)["input_ids"]
        texts = [text if eos is None or text.endswith(eos) else text + eos for text in completions]
        full_ids = [processing_class(group.prompt + text)["input_ids"] for text in texts]
    else:
        apply = partial(processing_class.apply_chat_template, tokenize=True, return_dict=True, **(template_options or {}))
        prompt_ids = apply(group.prompt, add_generation_prompt=True)["input_ids"]
        full_ids = [apply(group.prompt + messages)["input_ids"] for messages in completions]
    shared = min(_common_prefix_length(prompt_ids, ids) for ids in full_ids)
    if shared < len(prompt_ids):
        logger.warning(
            "a prompt's tokens are not a prefix of prompt and completion (they end in %r); completions are scored from where "
            "they diverge. End prompts on a token boundary, or use a chat template that renders both alike",
            processing_class.decode(prompt_ids[shared:]),
        )
    return prompt_ids[:shared], [ids[shared:] for ids in full_ids]


def _common_prefix_length(first: list[int], second: list[int]) -> int:
    for position, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return position
    return min(len(first), len(second))
