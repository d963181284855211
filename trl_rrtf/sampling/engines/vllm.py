"""The `vllm` engine: vLLM in this process, for GPUs. A running vLLM server is reached through the `openai` engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from trl_rrtf.errors import ConfigError
from trl_rrtf.rows.records import Messages
from trl_rrtf.sampling.draws import Draws
from trl_rrtf.sampling.engines.options import VLLMOptions


class VLLMSampler:
    """Samples with `vllm.LLM`: continuous batching, the prompts of a group share their cache.

    Args:
        model: Folder or Hub id.
        options: Precision of the weights.

    Raises:
        ConfigError: vLLM is not installed.
    """

    def __init__(self, model: str, options: VLLMOptions) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError("`engine`: vllm needs the package vllm and a GPU; install `trl-rrtf[vllm]`, or use transformers")
        import vllm

        self._sampling_params = vllm.SamplingParams
        self._llm = vllm.LLM(model=model, dtype=options.dtype, enable_prefix_caching=True)

    def sample(self, prompts: Sequence[str | Messages], draws: Draws) -> list[list[str]]:
        """Draws texts, see [`Sampler.sample`][trl_rrtf.sampling.draws.Sampler.sample]."""
        texts = [self._render(prompt) for prompt in prompts]
        requests = [(text, seed) for text, own in zip(texts, draws.seeds, strict=True) for seed in own]
        parameters = [
            self._sampling_params(
                temperature=draws.temperature,
                top_p=draws.top_p,
                top_k=draws.top_k or -1,
                max_tokens=draws.max_new_tokens,
                stop=list(draws.stop_strings),
                seed=seed,
            )
            for _, seed in requests
        ]
        outputs = self._llm.generate([text for text, _ in requests], parameters, use_tqdm=False)
        drawn = iter(output.outputs[0].text for output in outputs)
        return [[next(drawn) for _ in own] for own in draws.seeds]

    def _render(self, prompt: str | Messages) -> str:
        if isinstance(prompt, str):
            return prompt
        tokenizer: Any = self._llm.get_tokenizer()
        if tokenizer.chat_template is None:
            raise ConfigError(
                "`prompt_style`: the prompts are messages and the tokenizer has no chat template; use `paper` or `completion`"
            )
        text: str = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        return text
