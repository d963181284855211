"""A callback that shows how the model ranks a few groups while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trl_rrtf.rows.records import Messages, RankedGroup
from trl_rrtf.training.losses.log_probs import length_normalized
from trl_rrtf.training.ranked_dataset import to_ranked_group

if TYPE_CHECKING:
    from trl_rrtf.training.trainer import RRTFTrainer

_SHOWN_CHARACTERS = 200


class RankedGroupsCallback(TrainerCallback):
    """Shows, at every evaluation, the candidates of some groups with outcomes, scores and log-probabilities.

    Prints a table per group and writes `ranked_groups/step-N.parquet` into the run's folder, a row per candidate: `step`,
    `group`, `candidate`, `source`, `outcome` (of the row's `outcomes`, or null), `score`, `logp` (length-normalised), `rank`
    (1 for the likeliest), `completion`.

    ```python
    trainer.add_callback(RankedGroupsCallback(trainer, eval_rows[:2]))
    ```

    Args:
        trainer: The trainer.
        rows: Ranked groups or preference rows, as given to the trainer.
        print_tables: Whether the tables are printed; the files are always written.

    Raises:
        RowError: A row breaks the format.
    """

    def __init__(self, trainer: RRTFTrainer, rows: Sequence[dict[str, Any]] | Dataset, print_tables: bool = True) -> None:
        self._trainer = trainer
        self._print_tables = print_tables
        self._groups = [to_ranked_group(row, f"`rows`, row {index}") for index, row in enumerate(rows)]
        self._tokenized = trainer.tokenize_rows(rows)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Runs the groups through the model; every process takes part, the main one shows."""
        rows = []
        for number, (group, tokenized) in enumerate(zip(self._groups, self._tokenized, strict=True)):
            log_likelihoods = self._trainer.log_likelihoods([tokenized])
            lengths = log_likelihoods.new_tensor([len(ids) for ids in tokenized["completion_ids"]])
            logps = length_normalized(log_likelihoods, lengths, self._trainer.args.length_normalization).tolist()
            rows.append(_candidate_rows(group, logps, state.global_step, number))
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / "ranked_groups"
        folder.mkdir(parents=True, exist_ok=True)
        flat = [row for group_rows in rows for row in group_rows]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), folder / f"step-{state.global_step}.parquet")
        if self._print_tables:
            for group_rows in rows:
                Console().print(_table(group_rows))


def _candidate_rows(group: RankedGroup, logps: list[float], step: int, number: int) -> list[dict[str, Any]]:
    order = sorted(logps, reverse=True)
    return [
        {
            "step": step,
            "group": number,
            "candidate": index,
            "source": candidate.source,
            "outcome": candidate.outcome,
            "score": candidate.score,
            "logp": logp,
            "rank": 1 + order.index(logp),
            "completion": _text(candidate.completion),
        }
        for index, (candidate, logp) in enumerate(zip(group.candidates, logps, strict=True))
    ]


def _text(completion: str | Messages) -> str:
    return completion if isinstance(completion, str) else "\n".join(message["content"] for message in completion)


def _table(rows: list[dict[str, Any]]) -> Table:
    """Candidates, the best-scored first."""
    table = Table(title=f"step {rows[0]['step']}, group {rows[0]['group']}", show_lines=True)
    for column in ("score", "source", "outcome", "logp", "rank", "completion"):
        table.add_column(column)
    for row in sorted(rows, key=lambda row: -row["score"]):
        shown = [f"{row['score']:g}", row["source"] or "", row["outcome"] or "", f"{row['logp']:.3f}", str(row["rank"])]
        table.add_row(*shown, Text(row["completion"][:_SHOWN_CHARACTERS]))
    return table
