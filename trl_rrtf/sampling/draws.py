"""What is drawn from a model: one object, from the stage to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
