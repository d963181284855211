"""What a column of a row may hold: checks that name place and column, and a user's columns as JSON can hold them."""

from __future__ import annotations

import datetime
import decimal
import functools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from trl_rrtf.errors import RowError

logger = logging.getLogger(__name__)

Messages = list[dict[str, Any]]
"""A conversation: a list of `{"role": ..., "content": ...}`."""


def plain_columns(columns: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A user's columns as JSON can hold them: dates, times and decimals as text, a NaN as null; said once for each column.

    Args:
        columns: Column -> value.
        where: The place of the row, for the error message.

    Raises:
        RowError: A value has no plain form: bytes, an infinite number, an object, or one that is nested too deeply.
    """
    plain = {}
    for name, value in columns.items():
        try:
            plain[name] = _plain(value, name, where)
        except RecursionError as error:
            raise RowError(
                where, name, "nested too deeply to be carried through; flatten it, or leave the column out"
            ) from error
    return plain


def _plain(value: Any, column: str, where: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            _say_once(column, "NaN is written as null")
            return None
        if math.isfinite(value):
            return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, column, where) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, column, where) for entry in value]
    if isinstance(value, datetime.date | datetime.time):
        _say_once(column, "dates and times are written as text, in ISO 8601")
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        _say_once(column, f"{type(value).__name__} is written as text")
        return str(value)
    raise RowError(
        where,
        column,
        f"the format does not know this column, and JSON cannot hold {shown(value)}; make it text, or leave the column out",
    )


@functools.cache
def _say_once(column: str, what: str) -> None:
    logger.warning("column `%s`: %s", column, what)


def shown(value: Any) -> str:
    """A value for an error message: its type and its first characters."""
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def mapping(row: Any, where: str) -> Mapping[str, Any]:
    """A row with named columns."""
    if not isinstance(row, Mapping):
        raise RowError(where, None, f"expected an object with named columns, got {shown(row)}")
    return row


def required(row: Mapping[str, Any], column: str, where: str) -> Any:
    """A column that may not be missing."""
    if row.get(column) is None:
        raise RowError(where, column, f"the column is missing; the row has {', '.join(map(str, row)) or 'no column'}")
    return row[column]


def text(row: Mapping[str, Any], column: str, where: str) -> str:
    """A column of text."""
    value = required(row, column, where)
    if not isinstance(value, str):
        raise RowError(where, column, f"expected text, got {shown(value)}")
    return value


def optional_text(row: Mapping[str, Any], column: str, where: str) -> str | None:
    """A column of text that may be missing."""
    return None if row.get(column) is None else text(row, column, where)


def entries(row: Mapping[str, Any], column: str, where: str) -> list[Any]:
    """A column that is a list."""
    value = required(row, column, where)
    if not isinstance(value, list | tuple):
        raise RowError(where, column, f"expected a list, got {shown(value)}")
    return list(value)


def texts(row: Mapping[str, Any], column: str, where: str) -> list[str]:
    """A column that is a list of texts."""
    values = entries(row, column, where)
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise RowError(where, f"{column}[{i}]", f"expected text, got {shown(value)}")
    return values


def same_length(values: list[Any], column: str, where: str, length: int) -> list[Any]:
    """A list with an entry per candidate."""
    if len(values) != length:
        raise RowError(where, column, f"expected one entry per completion ({length}), got {len(values)}")
    return values


def optional_list(row: Mapping[str, Any], column: str, where: str, length: int) -> list[Any]:
    """A column that may be missing or null."""
    return [None] * length if row.get(column) is None else same_length(entries(row, column, where), column, where, length)


def optional_entries(
    row: Mapping[str, Any], column: str, where: str, length: int, is_right: Callable[[Any], bool], kind: str
) -> list[Any]:
    """A column that may be missing, and each of whose entries may be null."""
    values = optional_list(row, column, where, length)
    for i, value in enumerate(values):
        if value is not None and not is_right(value):
            raise RowError(where, f"{column}[{i}]", f"expected {kind}, or null, got {shown(value)}")
    return values


def scores(row: Mapping[str, Any], where: str, length: int) -> list[float]:
    """The scores of a ranked group, finite numbers."""
    values = same_length(entries(row, "scores", where), "scores", where, length)
    for i, score in enumerate(values):
        if not is_number(score):
            raise RowError(where, f"scores[{i}]", f"expected a finite number, got {shown(score)}")
    return [float(score) for score in values]


def count(row: Mapping[str, Any], name: str, where: str, column: str) -> int:
    """A number of tests."""
    value = row.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RowError(where, f"{column}.{name}", f"expected a number of tests, 0 or more, got {shown(value)}")
    return value


def seconds(row: Mapping[str, Any], where: str, column: str) -> float:
    """A time in seconds, 0 where it is missing."""
    value = row.get("seconds") or 0.0
    if not is_number(value) or value < 0:
        raise RowError(where, f"{column}.seconds", f"expected a finite number, 0 or more, got {shown(value)}")
    return float(value)


def is_number(value: Any) -> bool:
    """Whether a value is a number that JSON and a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False


def is_text(value: Any) -> bool:
    """Whether a value is text."""
    return isinstance(value, str)


def is_messages(value: Any) -> bool:
    """Whether a value is a conversation with at least one message."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, Mapping) and "role" in message and "content" in message for message in value)
    )


def texts_of(message: Mapping[str, Any]) -> list[str]:
    """What a message holds of text, whatever else is in it."""
    content = message.get("content")
    parts = [content] if isinstance(content, str) else content if isinstance(content, list | tuple) else []
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return [text for text in texts if isinstance(text, str)]


def prompt_texts(prompt: str | Messages) -> list[str]:
    """What a prompt holds of text."""
    return [prompt] if isinstance(prompt, str) else [text for message in prompt for text in texts_of(message)]


def message_text(message: Any, where: str, column: str) -> str:
    """The text of a message: its content, or the text parts of its content joined.

    Args:
        message: `{"role": ..., "content": ...}`; the content is text, or a list of `{"type": "text", "text": ...}`. One that
            only calls tools has no content.
        where: The place of the row, for the error message.
        column: The column, for the error message.

    Raises:
        RowError: It is no message, or a part of it is no text (an image, say).
    """
    if not isinstance(message, Mapping):
        raise RowError(where, column, f"expected a message (role, content), got {shown(message)}")
    content, column = message.get("content"), f"{column}.content"
    if isinstance(content, str):
        return content
    if content is None and message.get("tool_calls"):
        return ""
    if not isinstance(content, list | tuple):
        raise RowError(
            where, column, f'expected text, or a list of parts {{"type": "text", "text": ...}}, got {shown(content)}'
        )
    for i, part in enumerate(content):
        if not (isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise RowError(
                where, f"{column}[{i}]", f'expected {{"type": "text", "text": ...}}, got {shown(part)}; only text is read'
            )
    return "".join(part["text"] for part in content)


def prompt(row: Mapping[str, Any], where: str) -> str | Messages:
    """The prompt, text or messages, not empty."""
    value: str | Messages = required(row, "prompt", where)
    if not (is_text(value) and value) and not is_messages(value):
        raise RowError(where, "prompt", f"expected text or messages (role, content), got {shown(value)}")
    return value
