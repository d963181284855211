"""The `generate` command: one prompt in, texts out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
    """Answers a prompt; prints the texts, or the single one as it is written.

    Args:
        config: Model and prompt.

    Returns:
        The texts, and what they took.

    Raises:
        LoadError: The model is not there.
        ConfigError: A package is not installed, the device is not there, or the prompt has no token.
    """
    from trl_rrtf.models.onnx_runtime import is_onnx_model  # imports numpy

    require_model(config.model)
    sampling = SamplingConfig(
        model=config.model,
        engine=config.engine or ("onnx" if is_onnx_model(config.model) else "transformers"),
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
        stop_strings=config.stop_strings,
    )
    streams = config.stream if config.stream is not None else sys.stdout.isatty() and config.num_generations == 1
    streamer = _printer(sampler.tokenizer, config.stop_strings) if streams else None
    started = time.monotonic()
    [texts] = sampler.sample([prompt], draws, streamer)
    seconds = time.monotonic() - started
    for text in [] if streams else texts:
        print(text)
    return GenerateSummary(texts=texts, characters=sum(map(len, texts)), seconds=round(seconds, 2))


def _printer(tokenizer: Any, stop_strings: Sequence[str]) -> Any:
    """A streamer that prints a text as it is written, and nothing of a stop string."""
    from transformers import TextStreamer  # imports torch

    from trl_rrtf.sampling.engines.transformers import cut_at_stop

    held_back = max(map(len, stop_strings), default=1) - 1  # characters that may begin a stop string

    class Printer(TextStreamer):  # type: ignore[misc]  # transformers ships no complete types
        text, printed = "", 0

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.text += text
            cut = cut_at_stop(self.text, stop_strings)
            is_whole = stream_end or len(cut) < len(self.text)
            end = len(cut) if is_whole else max(self.printed, len(cut) - held_back)
            print(cut[self.printed : end], end="\n" if stream_end else "", flush=True)
            self.printed = end

    return Printer(tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False)
