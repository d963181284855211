"""How a problem becomes the text that a model sees.

Sampling, ranking and evaluation use the same style, so that a model is trained on the prompts that it will meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trl_rrtf.options import check_choice
from trl_rrtf.rows.checks import message_text
from trl_rrtf.rows.records import Messages, Problem


def _paper(statement: str) -> str:
    """The paper's training text: the problem in a pair of triple double quotes, then only code."""
    return f'"""\n{statement.strip()}\n"""\n'


def _chat(statement: str) -> Messages:
    """One user message, for instruction-tuned models."""
    return [{"role": "user", "content": f"Write a Python program for this task. Answer with code only.\n\n{statement.strip()}"}]


def _completion(statement: str) -> str:
    """The statement as it is (a signature with its docstring, say), for base models."""
    return statement.rstrip("\n")


PROMPT_STYLES: dict[str, Callable[[str], str | Messages]] = {"chat": _chat, "paper": _paper, "completion": _completion}
"""Name -> function from a problem's statement to a prompt."""


def render_prompt(problem: Problem, style: str) -> str | Messages:
    """Renders the prompt of a problem.

    Args:
        problem: The problem. A prompt that is messages already is left as it is, but for content that is a list of text parts:
            the parts are joined, since few chat templates take a list.
        style: A key of [`PROMPT_STYLES`][trl_rrtf.rows.prompts.PROMPT_STYLES].

    Returns:
        Text, or messages for a chat model.

    Raises:
        ConfigError: The style is unknown.
        RowError: The content of a message is no text, or has a part that is none.
    """
    check_choice("prompt_style", style, PROMPT_STYLES)
    if isinstance(problem.prompt, str):
        return PROMPT_STYLES[style](problem.prompt)
    return [_with_text(message, f"problem {problem.problem_id!r}", i) for i, message in enumerate(problem.prompt)]


def _with_text(message: dict[str, Any], where: str, number: int) -> dict[str, Any]:
    text = message_text(message, where, f"prompt[{number}]")
    return message if message.get("content") is None else {**message, "content": text}
