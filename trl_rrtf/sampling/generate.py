"""The `generate` command: one prompt in, texts out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl_rrtf.models.paths import require_model
from trl_rrtf.rows.summary import Summary
from trl_rrtf.sampling.config import GenerateConfig, SamplingConfig
from trl_rrtf.sampling.draws import Draws
from trl_rrtf.sampling.sampler import make_sampler


@dataclass(kw_only=True)
class GenerateSummary(Summary):
    """What `generate` wrote.

    Attributes:
        texts: The texts.
        characters: Their length together.
        seconds: What they took, without loading the model.
    """

    texts: list[str]
    characters: int
    seconds: float

    def table(self) -> dict[str, Any]:
        """What to show, beside the texts themselves: label -> value."""
        return {"texts": len(self.texts), "characters": self.characters, "seconds": self.seconds}


def run_generate(config: GenerateConfig) -> GenerateSummary:
    """Answers a prompt; prints the texts.

    Args:
        config: Model and prompt.

    Returns:
        The texts, and what they took.

    Raises:
        LoadError: The model is not there.
        ConfigError: An option is none of the model's kind (a device, for a checkpoint), or a package is not installed.
    """
    from trl_rrtf.models.onnx_runtime import MODEL_FILE  # imports numpy

    require_model(config.model)
    sampling = SamplingConfig(
        model=config.model,
        engine="onnx" if (Path(config.model) / MODEL_FILE).is_file() else "transformers",
        device=config.device,
        num_generations=config.num_generations,
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
    )
    sampler: Any = make_sampler(sampling)
    chat = config.chat if config.chat is not None else sampler.tokenizer.chat_template is not None
    prompt: Any = [{"role": "user", "content": config.prompt}] if chat else config.prompt
    draws = Draws(
        seeds=[range(config.seed, config.seed + config.num_generations)],
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
    )
    started = time.monotonic()
    [texts] = sampler.sample([prompt], draws)
    seconds = time.monotonic() - started
    for text in texts:
        print(text)
    return GenerateSummary(texts=texts, characters=sum(map(len, texts)), seconds=round(seconds, 2))
