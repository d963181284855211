"""What is drawn from a model, one object from the stage to the engine, and what every engine does with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from trl_rrtf.rows.records import Messages


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How texts are drawn.

    Attributes:
        seeds: For each prompt the seeds of its texts, equally many. A text depends on its own seed and prompt alone (up to
            rounding, where prompts share a batch).
        temperature: 0 is greedy.
        top_p: Nucleus.
        top_k: Only the `top_k` likeliest tokens, or 0 for all.
        max_new_tokens: Longest text, in tokens.
        stop_strings: A text ends before the first of them.
    """

    seeds: Sequence[Sequence[int]]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 512
    stop_strings: Sequence[str] = ()


class Sampler(Protocol):
    """Draws texts from a model."""

    def sample(self, prompts: Sequence[str | Messages], draws: Draws) -> list[list[str]]:
        """Draws texts for each prompt, one per seed.

        Args:
            prompts: Texts, or messages for a chat model.
            draws: How, with the seeds of each prompt's texts.

        Returns:
            One list per prompt; the texts are without prompt and special tokens.
        """
        ...


def room_of(sampler: Sampler, prompt: str | Messages) -> int | None:
    """How many tokens the model's context has room for behind a prompt, negative where the prompt itself is too long.

    Args:
        sampler: It can tell if it has a method `room_for(prompt)`, which may return None too.
        prompt: The prompt.

    Returns:
        The number, or None where the sampler cannot tell.
    """
    room: int | None = sampler.room_for(prompt) if hasattr(sampler, "room_for") else None
    return room


@runtime_checkable
class StreamingSampler(Sampler, Protocol):
    """A sampler that answers prompt by prompt, such as an endpoint."""

    def stream(self, prompts: Sequence[str | Messages], draws: Draws) -> Iterator[tuple[int, list[str]]]:
        """Yields (index of the prompt, its texts) as each is answered; otherwise as `sample`."""
        ...
