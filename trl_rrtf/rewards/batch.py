"""A batch as TRL's trainers hand it to a reward function: lists with an entry per completion, as problems and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trl_rrtf.errors import RowError
from trl_rrtf.rows import checks, public_tests
from trl_rrtf.rows.records import Problem
from trl_rrtf.sampling.extraction import extract_program

_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Where chat templates and servers put the thinking of a message."""
_NO_TESTS = (
    "the data set has no such column; it needs those of problem rows: `prompt`, `tests`, and `entry_point` where the tests "
    "call a function"
)


def read_batch(completions: Sequence[Any], columns: Mapping[str, Sequence[Any] | None]) -> list[tuple[Problem, str]]:
    """The problem and the program of each completion; "" where a completion has no text.

    Args:
        completions: Texts or messages.
        columns: `prompts`, `tests`, and `entry_point`, `setup_code` and `problem_id`, each None where the data set has no such
            column.

    Returns:
        Equal rows share one problem, so that their programs share a checker.

    Raises:
        RowError: The columns are not those of problem rows, or a completion is not text.
    """
    if columns["tests"] is None:
        raise RowError("the batch", "tests", _NO_TESTS)
    known: dict[str, Problem] = {}
    items = []
    for i, (row, completion) in enumerate(zip(_rows(columns, len(completions)), completions, strict=True)):
        where = f"row {i} of the batch" + ("" if row["problem_id"] is None else f" ({row['problem_id']})")
        key = repr([row[name] for name in ("prompts", "tests", "entry_point", "setup_code")])
        if key not in known:
            known[key] = _problem(row, str(len(known)), where)
        items.append((known[key], extract_program(_text(completion, where), known[key])))
    return items


def read_problem(row: Mapping[str, Any]) -> Problem:
    """The problem of one row of a data set, as TRL hands it to an environment.

    Args:
        row: Its columns: `prompt` and `tests`, and where it has them `entry_point`, `setup_code`, `problem_id` and
            `public_tests`. Others are left.

    Raises:
        RowError: The columns are not those of problem rows.
    """
    problem_id = "1" if row.get("problem_id") is None else str(row["problem_id"])
    where = f"problem {problem_id!r}"
    if row.get("tests") is None:
        raise RowError(where, "tests", _NO_TESTS)
    columns = {name: row.get(name) for name in ("tests", "entry_point", "setup_code", public_tests.COLUMN)}
    return Problem.from_row({"problem_id": problem_id, "prompt": _question(row.get("prompt")), **columns}, where)


def _rows(columns: Mapping[str, Sequence[Any] | None], length: int) -> list[dict[str, Any]]:
    """The batch by rows; a column that the data set does not have is None in each."""
    lists: dict[str, Sequence[Any]] = {}
    for name, values in columns.items():
        if values is not None and (not isinstance(values, list | tuple) or len(values) != length):
            got = len(values) if isinstance(values, list | tuple) else checks.shown(values)
            raise RowError("the batch", name, f"expected a list with one entry per completion ({length}), got {got}")
        lists[name] = [None] * length if values is None else values
    return [{name: values[i] for name, values in lists.items()} for i in range(length)]


def _problem(row: Mapping[str, Any], problem_id: str, where: str) -> Problem:
    columns = {name: row[name] for name in ("tests", "entry_point", "setup_code")}
    return Problem.from_row({"problem_id": problem_id, "prompt": _question(row["prompts"]), **columns}, where)


def _question(prompt: Any) -> Any:
    """The user's last message, which may hold the signature and the imports that a program goes on from; else the prompt."""
    if not checks.is_messages(prompt):
        return prompt
    questions = ["".join(checks.texts_of(message)) for message in prompt if message["role"] == "user"]
    return next(filter(None, reversed(questions)), prompt)


def _text(completion: Any, where: str) -> str:
    """What the model wrote: text, or the messages of its turns, without what tools answered."""
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, list | tuple):
        raise RowError(where, "completions", f"expected text or messages (role, content), got {checks.shown(completion)}")
    texts = [_message_text(message, where, f"completions[{i}]") for i, message in enumerate(completion)]
    return "\n".join(filter(None, texts))


def _message_text(message: Any, where: str, column: str) -> str:
    """The thinking of a message, between its tags, and its content; "" for a message of somebody else."""
    if not isinstance(message, Mapping):
        return checks.message_text(message, where, column)  # an error
    if message.get("role", "assistant") != "assistant":
        return ""
    # A model that only calls tools, or was cut off while it thought, has no content.
    content = "" if message.get("content") is None else checks.message_text(message, where, column)
    thinking = next((message[name] for name in _REASONING if isinstance(message.get(name), str) and message[name]), "")
    return f"<think>\n{thinking}\n</think>\n{content}" if thinking else content
