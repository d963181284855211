"""From rows of text to tokenised ranked groups: checks, preference rows as groups of two, lengths, groups without signal."""

from __future__ import annotations

import ctypes
import itertools
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pyarrow
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
from trl_rrtf.training.rendering import FLAWS, plain_messages, template_options, tokenize_group

logger = logging.getLogger(__name__)

TOKENIZED_COLUMN = "completion_ids"
"""A data set with this column is tokenised already."""

TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")
"""TRL's columns for the chat template, in rows of messages: tools that it shows, and further variables."""

_DROPPED_GROUPS = (
    "they are dropped: no candidate fits `max_length`, or no ordered pair is left and `groups_without_pairs` is `drop`"
)

_DOUBLE_ROUNDING = 4 * torch.finfo(torch.float64).eps
"""Scores that differ by less, relative to the larger, are the same number, computed in two ways."""


def read_ranked_groups(input: str, tie_bonus: float = 0.0) -> Dataset:
    """Reads and checks every row of an input; TRL's preference rows pass too, as groups of two.

    Args:
        input: As in [`iterate_rows`][trl_rrtf.rows.files.iterate_rows].
        tie_bonus: As the trainer's.

    Raises:
        LoadError: The input is not there or cannot be read.
        RowError: A row breaks the format; its file, line and column are named.
        ConfigError: The input has no row.
    """
    rows = []
    for where, row in iterate_rows(input):
        own = replace(to_ranked_group(row, where, tie_bonus), extra={}).to_row()
        # As JSON: Arrow would give every tool and every row the keys of all others.
        options = {name: json.dumps(row[name]) for name in TEMPLATE_COLUMNS if row.get(name) and not isinstance(row[name], str)}
        rows.append({**own, **{name: row.get(name) for name in TEMPLATE_COLUMNS}, **options})
    if not rows:
        raise ConfigError(f"`{input}` has no row; give at least one ranked group")
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if any(row.get(name) for row in rows)]
    try:
        return Dataset.from_list([{name: row.get(name) for name in columns} for row in rows])
    except pyarrow.ArrowException as error:
        raise ConfigError(
            f"`{input}`: the rows do not fit into one table ({error}); give a key of the messages the same type in all rows"
        ) from error


def to_ranked_group(row: Mapping[str, Any], where: str, tie_bonus: float = 0.0) -> RankedGroup:
    """Checks a ranked row, or turns a TRL preference row (`chosen`, `rejected`) into a group of two.

    Args:
        row: The row.
        where: Its place, for the error message.
        tie_bonus: What the trainer adds to a teacher's score, which may make another's of it.

    Raises:
        RowError: The row breaks the format, or the loss, in float32, cannot tell its scores apart.
    """
    template_options(row, where)
    if "completions" in row or not {"chosen", "rejected"} <= set(row):
        group = RankedGroup.from_row(row, where)
        _refuse_lost_scores(group, where, tie_bonus)
        return _with_plain_messages(group, where)
    if row.get("prompt") is None:  # an implicit prompt: the messages that both share
        row = {**row, **extract_prompt(dict(row))}
    group = RankedGroup.from_row(
        {
            "prompt": row["prompt"],
            "completions": [row["chosen"], row["rejected"]],
            "scores": [1.0, 0.0],
            "sources": ["teacher", "student"],
        },
        where,
    )
    return _with_plain_messages(group, where)


def _with_plain_messages(group: RankedGroup, where: str) -> RankedGroup:
    if isinstance(group.prompt, str):
        return group
    candidates: list[Any] = group.candidates
    plain = [
        replace(candidate, completion=plain_messages(candidate.completion, where, f"completions[{i}]"))
        for i, candidate in enumerate(candidates)
    ]
    return replace(group, prompt=plain_messages(group.prompt, where, "prompt"), candidates=plain)


def _refuse_lost_scores(group: RankedGroup, where: str, tie_bonus: float) -> None:
    """Refuses scores that float32 makes infinite, or a tie of."""
    bonuses = [tie_bonus if candidate.is_teachers else 0.0 for candidate in group.candidates]
    exact = [candidate.score + bonus for candidate, bonus in zip(group.candidates, bonuses, strict=True)]
    single = [
        _float32(_float32(candidate.score) + _float32(bonus))
        for candidate, bonus in zip(group.candidates, bonuses, strict=True)
    ]
    if math.inf in map(abs, single):
        i = [*map(abs, single)].index(math.inf)
        got = group.candidates[i].score
        raise RowError(where, f"scores[{i}]", f"expected a number that float32 can hold, got {got!r}; divide the scores")
    if len(set(single)) == len(set(exact)):
        return
    for j, i in itertools.combinations(range(len(exact)), 2):
        if single[i] == single[j] and abs(exact[i] - exact[j]) > _DOUBLE_ROUNDING * max(abs(exact[i]), abs(exact[j])):
            first, second = group.candidates[j].score, group.candidates[i].score
            raise RowError(
                where,
                f"scores[{i}]",
                f"float32 cannot tell {second!r} from {first!r} of `scores[{j}]`{' with `tie_bonus`' if tie_bonus else ''}, so "
                "they would be a tie; give scores that are further apart, relative to their size",
            )


def _float32(number: float) -> float:
    """The nearest number that float32 has; without a tensor, for the sake of large data sets."""
    return ctypes.c_float(number).value


def check_rows(dataset: Any, name: str, tie_bonus: float = 0.0) -> None:
    """Checks the rows of a data set before a model is loaded; of a stream, the first one (the rest as they come).

    Args:
        dataset: A `Dataset`, an `IterableDataset`, a dictionary of them, or None.
        name: The argument's name, for the error message.
        tie_bonus: As the trainer's.

    Raises:
        RowError: A row breaks the format.
        ConfigError: The data set is of another type, or empty.
    """
    if dataset is None:
        return
    if isinstance(dataset, dict):
        for key, part in dataset.items():
            check_rows(part, f"{name}[{key!r}]", tie_bonus)
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
        to_ranked_group(row, f"`{name}`, row {index}", tie_bonus)
        if isinstance(dataset, IterableDataset):
            break
    if empty:
        raise ConfigError(f"`{name}`: the data set is empty; give at least one ranked group")


def prepare_ranked_groups(
    dataset: Dataset | IterableDataset, processing_class: PreTrainedTokenizerBase, args: RRTFConfig, name: str
) -> Dataset | IterableDataset:
    """Tokenises a data set of ranked groups.

    Args:
        dataset: Ranked rows, or TRL preference rows. One that is tokenised already is returned as it is, but for row numbers
            that stand twice.
        processing_class: The tokenizer.
        args: `max_length`, `groups_without_pairs`, the objective, `dataset_num_proc`, `shuffle_dataset`.
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
        return _shuffled(_numbered(dataset), args)
    tokenize = partial(
        tokenize_row, name=name, processing_class=processing_class, max_length=args.max_length, tie_bonus=args.tie_bonus
    )
    # The plain options, so that `datasets` finds its cache again: a trainer's configuration holds times and folders.
    options = RRTFOptions(**{option.name: getattr(args, option.name) for option in fields(RRTFOptions)})
    keep = partial(_is_kept, options=options)
    if isinstance(dataset, IterableDataset):
        teller = _Teller(name)
        stream = dataset.map(partial(_without_flaws, tokenize=tokenize, tell=teller), with_indices=True, remove_columns=columns)
        return _shuffled(stream.filter(partial(_is_kept_of_a_stream, keep=keep, tell=teller)), args)
    with PartialState().main_process_first():
        tokenized = dataset.map(
            tokenize,
            with_indices=True,
            remove_columns=columns,
            num_proc=args.dataset_num_proc,
            desc=f"Tokenizing {name} groups",
        )
        kept = tokenized.filter(keep, num_proc=args.dataset_num_proc, desc=f"Filtering {name} groups")
    if PartialState().is_main_process:
        _report_flaws(tokenized, name)
        _report_losses(tokenized, kept, args, name)
    if not len(kept):
        raise RowError(
            name,
            None,
            f"none of the {len(tokenized)} groups is left; raise `max_length` (now {args.max_length}) or check the scores",
        )
    return _shuffled(kept.remove_columns("flaws"), args)


def _shuffled(dataset: Dataset | IterableDataset, args: RRTFConfig) -> Dataset | IterableDataset:
    """As TRL does it."""
    return dataset.shuffle(seed=args.seed) if args.shuffle_dataset else dataset


def _numbered(dataset: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """Gives rows numbers of their own, where those of tokenised sets that were joined meet."""
    if isinstance(dataset, IterableDataset) or len(set(dataset["group_index"])) == len(dataset):
        return dataset
    return dataset.remove_columns("group_index").add_column("group_index", list(range(len(dataset))))


def _report_flaws(tokenized: Dataset, name: str) -> None:
    """Says each kind of flaw once, with its number and the first row that has it."""
    rows = [*tokenized["flaws"]]
    totals = {"groups": len(rows), "candidates": sum(map(len, tokenized["scores"])) + sum(tokenized["num_dropped"])}
    for (unit, message), counts in zip(FLAWS.values(), zip(*rows, strict=True), strict=True):
        if sum(counts):
            first = next(i for i, count in enumerate(counts) if count)
            logger.warning("%s: %d of %d %s (the first in row %d): %s", name, sum(counts), totals[unit], unit, first, message)


class _Teller:
    """Says what is met in a stream, whose end nobody knows: at the first row, and not again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told: set[str] = set()

    def __call__(self, unit: str, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            logger.warning("%s, some %s (said once): %s", self._name, unit, message)


def _without_flaws(row: Mapping[str, Any], index: int, *, tokenize: Any, tell: _Teller) -> dict[str, Any]:
    """A row of a stream."""
    tokenized: dict[str, Any] = tokenize(row, index)
    for (unit, message), count in zip(FLAWS.values(), tokenized.pop("flaws"), strict=True):
        if count:
            tell(unit, message)
    if tokenized["num_dropped"]:
        tell("candidates", "they are longer than `max_length` and are dropped (`completions/dropped` counts them)")
    return tokenized


def _is_kept_of_a_stream(row: Mapping[str, Any], *, keep: Any, tell: _Teller) -> bool:
    is_kept: bool = keep(row)
    if not is_kept:
        tell("groups", _DROPPED_GROUPS)
    return is_kept


def _report_losses(tokenized: Dataset, kept: Dataset, args: RRTFConfig, name: str) -> None:
    """Says how much was left out."""
    dropped = sum(tokenized["num_dropped"])
    total = dropped + sum(map(len, tokenized["scores"]))
    if dropped:
        logger.warning(
            "%s: %d of %d candidates are longer than `max_length=%s` and are dropped", name, dropped, total, args.max_length
        )
    if len(kept) < len(tokenized):
        logger.warning("%s: %d of %d groups: %s", name, len(tokenized) - len(kept), len(tokenized), _DROPPED_GROUPS)


def tokenize_row(
    row: Mapping[str, Any],
    index: int,
    name: str,
    processing_class: PreTrainedTokenizerBase,
    max_length: int | None,
    tie_bonus: float = 0.0,
) -> dict[str, Any]:
    """One row of `prepare_ranked_groups`, and `flaws`; `name` and `index` say where it stands, for messages."""
    where = f"`{name}`, row {index}"
    group = to_ranked_group(row, where, tie_bonus)
    prompt_ids, completion_ids, flaws = tokenize_group(group, processing_class, template_options(row, where), where)
    fits = [max_length is None or len(prompt_ids) + len(ids) <= max_length for ids in completion_ids]
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": [ids for ids, fit in zip(completion_ids, fits, strict=True) if fit],
        "scores": [candidate.score for candidate, fit in zip(group.candidates, fits, strict=True) if fit],
        "sources": [_source_code(candidate) for candidate, fit in zip(group.candidates, fits, strict=True) if fit],
        "num_dropped": fits.count(False),
        "group_index": index,
        "flaws": flaws,
    }


def _source_code(candidate: RankedCandidate) -> int:
    if candidate.source is None:
        return UNKNOWN
    return TEACHER if candidate.is_teachers else STUDENT


def _is_kept(row: Mapping[str, Any], *, options: RRTFOptions) -> bool:
    if not row["scores"]:
        return False
    return options.groups_without_pairs == "sft" or has_ordered_pair(row, options)


def has_ordered_pair(row: Mapping[str, Any], options: RRTFOptions) -> bool:
    """Whether a tokenised group has a pair that the options compare."""
    scores = torch.tensor(row["scores"])
    _, pairs = scores_and_pairs(options, scores, torch.zeros(len(scores)), torch.tensor(row["sources"]))
    return bool(pairs.any())
