"""From a configuration to a loaded model and its draws."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from trl_rrtf.sampling.config import SamplingConfig
from trl_rrtf.sampling.draws import Draws, Sampler
from trl_rrtf.sampling.engines import ENGINES


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
