"""What every sampling engine does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from trl_rrtf.rows.records import Messages
from trl_rrtf.sampling.config import SamplingConfig
from trl_rrtf.sampling.draws import Draws
from trl_rrtf.sampling.engines import ENGINES


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


@runtime_checkable
class StreamingSampler(Sampler, Protocol):
    """A sampler that answers prompt by prompt, such as an endpoint."""

    def stream(self, prompts: Sequence[str | Messages], draws: Draws) -> Iterator[tuple[int, list[str]]]:
        """Yields (index of the prompt, its texts) as each is answered; otherwise as `sample`."""
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


def make_draws(config: SamplingConfig, problem_ids: Sequence[str], model: str) -> Draws:
    """What is drawn for a batch of problems.

    Args:
        config: How, and `num_generations` of each.
        problem_ids: The problems, in the order of their prompts.
        model: Name of the model.
    """
    return Draws(
        seeds=[candidate_seeds(config, problem_id, model) for problem_id in problem_ids],
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        max_new_tokens=config.max_new_tokens,
        stop_strings=config.stop_strings,
    )


def make_sampler(config: SamplingConfig) -> Sampler:
    """Loads the model of a configuration.

    Raises:
        LoadError: The model is not there.
        ConfigError: The engine's package is not installed, or what it needs is missing.
    """
    engine = ENGINES[config.engine]
    return engine.make(config.model, engine.options_in(config))
