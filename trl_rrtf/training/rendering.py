"""A group's texts or messages as tokens, and what is lost on the way: a template may drop text, or forget the end."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from trl_rrtf.errors import RowError
from trl_rrtf.rows import checks
from trl_rrtf.rows.checks import Messages
from trl_rrtf.rows.records import RankedGroup

FLAWS = {
    "boundary": (
        "groups",
        "the prompt's tokens are not a prefix of prompt and completion, so completions are scored from where they diverge; end "
        "prompts on a token boundary, or use a chat template that renders both alike",
    ),
    "text_missing": (
        "candidates",
        "the chat template leaves out some of the text, which is not trained on (the thinking, say, or calls of tools); use a "
        "template that keeps it (`chat_template_path`), or rows of text that are rendered already",
    ),
    "alike": (
        "groups",
        "different candidates become the same tokens, so that they are told apart by their scores alone; use a chat template "
        "that keeps where they differ (`chat_template_path`), or leave one of them out",
    ),
    "no_end": (
        "candidates",
        "no end token follows the completion, so the model does not learn to stop; use a chat template that ends a turn with "
        "one (`chat_template_path`), or a tokenizer that has one (`eos_token`)",
    ),
    "two_ends": (
        "candidates",
        "the completion ends with two end tokens; let the tokenizer add none (`add_eos_token=False`), or the text have none",
    ),
    "two_beginnings": (
        "groups",
        "the prompt begins with two beginning tokens; leave it out of the text, the tokenizer adds one",
    ),
}
"""What may be lost or doubled on the way to tokens -> what is counted, and what to say of it."""

_THINKING_TAG = re.compile(r"</?think(?:ing)?>")


class TokenizedGroup(NamedTuple):
    """A group as tokens.

    Attributes:
        prompt_ids: (P,)
        completion_ids: (N, T_i)
        flaws: How often each of `FLAWS` was met, in their order.
    """

    prompt_ids: list[int]
    completion_ids: list[list[int]]
    flaws: list[int]


def template_options(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a row of messages says to the chat template, as TRL reads it: `tools`, also as JSON, and further variables.

    Raises:
        RowError: A column is neither what it should be nor JSON of it.
    """
    tools = _decoded(row, "tools", list, "a list of tools", where)
    # Arrow gives every row the keys of all; those of other rows are null.
    variables = {
        name: value
        for name, value in (_decoded(row, "chat_template_kwargs", Mapping, "variables with values", where) or {}).items()
        if value is not None
    }
    return {"tools": tools or None, **variables}


def _decoded(row: Mapping[str, Any], column: str, kind: Any, words: str, where: str) -> Any:
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowError(where, column, f"expected {words}, or JSON of it, got {checks.shown(value)} ({error})") from error
    if value is not None and not isinstance(value, kind):
        raise RowError(where, column, f"expected {words}, or JSON of it, got {checks.shown(value)}")
    return value


def tokenize_group(
    group: RankedGroup,
    processing_class: PreTrainedTokenizerBase,
    template_options: Mapping[str, Any] | None = None,
    where: str = "a ranked group",
) -> TokenizedGroup:
    """Tokenises a group as TRL's `SFTTrainer` does a prompt and its completion, with one prompt for all candidates.

    Text completions get an end-of-sequence token; conversations end as the chat template says. A prompt that ends with an
    assistant's message is gone on with: its text belongs to the prompt, and the completion continues it in the same turn. As in
    TRL, a completion starts where its tokens and the prompt's diverge, here at the first such place among all candidates.

    Args:
        group: Text or messages; the content of a message is text, or a list of parts of text.
        processing_class: The tokenizer.
        template_options: Keyword arguments of the chat template; text has none.
        where: The place of the row, for error messages.

    Raises:
        RowError: The chat template refuses the messages, there is none, or a completion has no token.
    """
    completions: list[Any] = [candidate.completion for candidate in group.candidates]
    if isinstance(group.prompt, str):
        eos = processing_class.eos_token
        prompt_ids = processing_class(group.prompt)["input_ids"]
        texts = [text if eos is None or text.endswith(eos) else text + eos for text in completions]
        full_ids = [processing_class(group.prompt + text)["input_ids"] for text in texts]
        num_missing = 0
    else:
        chat = _Chat(processing_class, template_options or {}, where)
        prompt_ids, full_ids, num_missing = chat.tokenize(group.prompt, completions)
    shared = min(_common_prefix_length(prompt_ids, ids) for ids in full_ids)
    completion_ids = [ids[shared:] for ids in full_ids]
    for i, ids in enumerate(completion_ids):
        if not ids:
            raise RowError(
                where,
                f"completions[{i}]",
                f"the completion {checks.shown(completions[i])} has no token that could be scored; leave it out, or use a "
                "tokenizer with an end token (`eos_token`) and a chat template that renders it",
            )
    special = _special_ids(processing_class)
    eos_id, bos_id = processing_class.eos_token_id, processing_class.bos_token_id
    flaws = {
        "boundary": shared < len(prompt_ids),
        "text_missing": num_missing,
        "alike": any(
            ids == other_ids and completions[i] != completions[j]
            for i, ids in enumerate(completion_ids)
            for j, other_ids in enumerate(completion_ids[:i])
        ),
        "no_end": sum(not _ends(ids, special, processing_class) for ids in completion_ids),
        "two_ends": sum(eos_id is not None and ids[-2:] == [eos_id] * 2 for ids in completion_ids),
        "two_beginnings": bos_id is not None and prompt_ids[:2] == [bos_id] * 2,
    }
    return TokenizedGroup(prompt_ids[:shared], completion_ids, [int(flaws[name]) for name in FLAWS])


def plain_messages(messages: Messages, where: str, column: str) -> Messages:
    """Contents as text, without the keys that Arrow fills in for other rows' messages.

    Raises:
        RowError: A content is no text and no list of parts of text.
    """
    plain = []
    for number, message in enumerate(messages):
        text = checks.message_text(message, where, f"{column}[{number}]")
        plain.append({**{key: value for key, value in message.items() if value is not None}, "content": text})
    return plain


class _Chat:
    """Renders conversations with a tokenizer's chat template; its errors name the row."""

    def __init__(self, processing_class: PreTrainedTokenizerBase, options: Mapping[str, Any], where: str) -> None:
        if getattr(processing_class, "chat_template", "") is None:
            raise RowError(
                where,
                "prompt",
                "the row has messages, and the tokenizer has no chat template; give one (`chat_template_path`), or text",
            )
        self._apply = partial(processing_class.apply_chat_template, **options)
        self._where = where

    def tokenize(self, prompt: Messages, completions: Sequence[Messages]) -> tuple[list[int], list[list[int]], int]:
        """The ids of the prompt, those of prompt and completion, and how many candidates have lost text."""
        prompt = plain_messages(prompt, self._where, "prompt")
        parts = [plain_messages(messages, self._where, f"completions[{i}]") for i, messages in enumerate(completions)]
        last = prompt[-1]
        is_prefill = last["role"] == "assistant" and not last.get("tool_calls")
        ending = {"continue_final_message": True} if is_prefill else {"add_generation_prompt": True}
        prompt_text = self._render(prompt, "prompt", tokenize=False, **ending)
        prompt_ids = self._render(prompt, "prompt", tokenize=True, return_dict=True, **ending)["input_ids"]
        full_ids, num_missing = [], 0
        for i, messages in enumerate(parts):
            column = f"completions[{i}]"
            whole = prompt + messages
            if is_prefill:
                if messages[0]["role"] != "assistant":
                    raise RowError(
                        self._where,
                        column,
                        f"the prompt ends with an assistant's message, which the completion goes on with; got the role "
                        f"{messages[0]['role']!r}",
                    )
                whole = [
                    *prompt[:-1],
                    {**last, **messages[0], "content": last["content"] + messages[0]["content"]},
                    *messages[1:],
                ]
            full_ids.append(self._render(whole, column, tokenize=True, return_dict=True)["input_ids"])
            text = self._render(whole, column, tokenize=False)
            num_missing += not _is_in(messages, text[_common_prefix_length(prompt_text, text) :])
        return prompt_ids, full_ids, num_missing

    def _render(self, messages: Messages, column: str, **options: Any) -> Any:
        try:
            return self._apply(messages, **options)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:  # whatever a template does
            roles = ", ".join(str(message["role"]) for message in messages)
            raise RowError(
                self._where,
                column,
                f"the chat template does not take these messages (roles {roles}): {type(error).__name__}: {error}; change the "
                "row, or give another template (`chat_template_path`)",
            ) from error


def _is_in(messages: Messages, rendered: str) -> bool:
    """Whether the text of messages is in their rendering; templates write the tags of the thinking anew."""
    texts = [message.get(key) for message in messages for key in ("reasoning_content", "thinking", "content")]
    calls = [call for message in messages for call in message.get("tool_calls") or []]
    texts += [call.get("function", call).get("name") for call in calls if isinstance(call, Mapping)]
    pieces = [piece.strip() for text in texts if isinstance(text, str) for piece in _THINKING_TAG.split(text)]
    return all(piece in rendered for piece in pieces)


def _special_ids(processing_class: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that may end a turn: those that no text is made of."""
    added = getattr(processing_class, "added_tokens_decoder", {})
    special = {number for number, token in added.items() if token.special} | {processing_class.eos_token_id}
    return special - {processing_class.unk_token_id, None}


def _ends(ids: list[int], special: set[int], processing_class: PreTrainedTokenizerBase) -> bool:
    """Whether the last token that is no white space is a special one."""
    for token in reversed(ids):
        if token in special:
            return True
        if processing_class.decode([token]).strip():
            return False
    return False


def _common_prefix_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    for position, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return position
    return min(len(first), len(second))
