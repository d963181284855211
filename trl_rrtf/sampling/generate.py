"""The `generate` command: one prompt in, texts out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.model_paths import require_model
from trl_rrtf.sampling.config import DEVICES


@dataclass
class GenerateConfig:
    """A prompt and how it is answered.

    Attributes:
        model: An exported ONNX folder, or a checkpoint; or a Hub id of a checkpoint.
        prompt: The prompt.
        chat: Whether the prompt becomes a user's message in the model's chat template; by default where it has one.
        device: `cpu` or `cuda`, for ONNX models; by default CUDA where it is.
        num_generations: Texts.
        max_new_tokens: Longest text.
        temperature: 0 is greedy.
        top_p: Nucleus.
        seed: The same seed gives the same texts.
    """

    model: str = field(metadata={"help": "An exported ONNX folder, or a checkpoint folder or Hub id."})
    prompt: str = field(metadata={"help": "The prompt."})
    chat: bool | None = field(
        default=None, metadata={"help": "Put the prompt into the model's chat template. Default: where the model has one."}
    )
    device: str | None = field(
        default=None, metadata={"help": "cpu or cuda, for ONNX models. Default: cuda where it is, else cpu."}
    )
    num_generations: int = field(default=1, metadata={"help": "How many texts."})
    max_new_tokens: int = field(default=256, metadata={"help": "Longest text, in tokens."})
    temperature: float = field(default=0.0, metadata={"help": "0 is greedy."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus."})
    seed: int = field(default=0, metadata={"help": "The same seed gives the same texts."})

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.device not in (*DEVICES, None):
            raise ConfigError(f"`device`: expected one of {', '.join(DEVICES)}, got {self.device!r}")
        if self.num_generations < 1 or self.max_new_tokens < 1:
            raise ConfigError("`num_generations` and `max_new_tokens`: expected at least 1")
        if self.temperature == 0 and self.num_generations > 1:
            raise ConfigError("`num_generations`: greedy generation gives one text; raise the temperature, or ask for one")


def run_generate(config: GenerateConfig) -> dict[str, Any]:
    """Answers a prompt; prints the texts.

    Args:
        config: Model and prompt.

    Returns:
        A summary: texts, characters, seconds.

    Raises:
        LoadError: The model is not there.
    """
    require_model(config.model)
    is_onnx = (Path(config.model) / "model.onnx").is_file()
    if is_onnx:
        from trl_rrtf.sampling.onnx_sampler import OnnxSampler

        sampler: Any = OnnxSampler(config.model, config.device)
    else:
        from trl_rrtf.sampling.transformers_sampler import TransformersSampler

        sampler = TransformersSampler(config.model)
    chat = config.chat if config.chat is not None else sampler.tokenizer.chat_template is not None
    prompt: Any = [{"role": "user", "content": config.prompt}] if chat else config.prompt
    started = time.monotonic()
    [texts] = sampler.sample(
        [prompt],
        seeds=[range(config.seed, config.seed + config.num_generations)],
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=0,
        max_new_tokens=config.max_new_tokens,
        stop_strings=[],
    )
    seconds = time.monotonic() - started
    for text in texts:
        print(text)
    return {"texts": len(texts), "characters": sum(map(len, texts)), "seconds": round(seconds, 2)}
