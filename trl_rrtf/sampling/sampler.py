"""What every sampling engine does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from trl_rrtf.groups import Messages
from trl_rrtf.sampling.config import SamplingConfig


class Sampler(Protocol):
    """Draws texts from a model."""

    def sample(
        self,
        prompts: Sequence[str | Messages],
        *,
        seeds: Sequence[Sequence[int]],
        temperature: float,
        top_p: float,
        top_k: int,
        max_new_tokens: int,
        stop_strings: Sequence[str],
    ) -> list[list[str]]:
        """Draws texts for each prompt, one per seed.

        Args:
            prompts: Texts, or messages for a chat model.
            seeds: For each prompt the seeds of its texts, equally many. A text depends on its own seed and prompt alone (up to
                rounding, where prompts share a batch).
            temperature: 0 is greedy.
            top_p: Nucleus.
            top_k: Only the so many likeliest tokens, or 0 for all.
            max_new_tokens: Longest text, in tokens.
            stop_strings: A text ends before the first of them.

        Returns:
            One list per prompt; the texts are without prompt and special tokens.
        """
        ...


@runtime_checkable
class StreamingSampler(Sampler, Protocol):
    """A sampler that answers prompt by prompt, such as an endpoint."""

    def stream(self, prompts: Sequence[str | Messages], **settings: Any) -> Iterator[tuple[int, list[str]]]:
        """Yields (index of the prompt, its texts) as each is answered; settings as in `sample`."""
        ...


def candidate_seeds(config: SamplingConfig, problem_id: str, model: str) -> list[int]:
    """A seed for each candidate of a problem, that no other candidate of the run has.

    Args:
        config: Its `seed`, `temperature` and `num_generations`.
        problem_id: The problem.
        model: Name of the model.

    Returns:
        `num_generations` numbers below 2^31 (what endpoints take).
    """
    keys = (f"{config.seed}/{model}/{config.temperature}/{problem_id}/{number}" for number in range(config.num_generations))
    return [int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) >> 1 for key in keys]


def make_sampler(config: SamplingConfig) -> Sampler:
    """Loads the model of a configuration.

    Raises:
        LoadError: The model is not there.
    """
    if config.engine == "onnx":
        from trl_rrtf.sampling.onnx_sampler import OnnxSampler

        return OnnxSampler(config.model, config.device)
    if config.engine == "openai":
        from trl_rrtf.sampling.openai_sampler import OpenAISampler

        return OpenAISampler(config)
    if config.engine == "vllm":
        from trl_rrtf.sampling.vllm_sampler import VLLMSampler

        return VLLMSampler(config.model, dtype=config.dtype)
    from trl_rrtf.sampling.transformers_sampler import TransformersSampler  # imports torch

    return TransformersSampler(config.model, dtype=config.dtype)
