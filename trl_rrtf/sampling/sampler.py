"""What every sampling engine does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trl_rrtf.groups import Messages
from trl_rrtf.sampling.config import SamplingConfig


class Sampler(Protocol):
    """Draws texts from a model."""

    def sample(
        self,
        prompts: Sequence[str | Messages],
        *,
        num_generations: int,
        temperature: float,
        top_p: float,
        top_k: int,
        max_new_tokens: int,
        stop_strings: Sequence[str],
        seed: int,
    ) -> list[list[str]]:
        """Draws `num_generations` texts for each prompt.

        Args:
            prompts: Texts, or messages for a chat model.
            num_generations: Texts per prompt.
            temperature: 0 is greedy.
            top_p: Nucleus.
            top_k: Only the so many likeliest tokens, or 0 for all.
            max_new_tokens: Longest text, in tokens.
            stop_strings: A text ends before the first of them.
            seed: The same prompts and seed give the same texts.

        Returns:
            One list per prompt; the texts are without prompt and special tokens.
        """
        ...


def make_sampler(config: SamplingConfig) -> Sampler:
    """Loads the model of a configuration.

    Raises:
        LoadError: The model is not there.
    """
    if config.engine == "onnx":
        from trl_rrtf.sampling.onnx_sampler import OnnxSampler

        return OnnxSampler(config.model, config.device)
    from trl_rrtf.sampling.transformers_sampler import TransformersSampler  # imports torch

    return TransformersSampler(config.model, dtype=config.dtype)
