"""The `vllm` engine: vLLM in this process, for GPUs. A running vLLM server is reached through the `openai` engine.

What a draw means is the `transformers` engine's business: prompts become token ids here, by the model's own tokenizer, and the
token ids that vLLM draws become texts here. Given texts, vLLM would tokenize a rendered chat again, with a second
beginning-of-sequence token, and give back texts that depend on how the prompt ends.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from trl_rrtf.errors import ConfigError, LoadError
from trl_rrtf.models.causal_lm import load_tokenizer, tokenizer_source
from trl_rrtf.models.paths import base_model, require_model
from trl_rrtf.rows.records import Messages
from trl_rrtf.sampling.draws import Draws
from trl_rrtf.sampling.engines.options import VLLMOptions
from trl_rrtf.sampling.engines.prompt_tokens import prompt_tokens
from trl_rrtf.sampling.engines.transformers import cut_at_stop

TEMPERATURES = (0.01, 2.0)
"""What vLLM samples at, besides 0: it raises a smaller one to 0.01 (0.22 to 0.31), and refuses a larger one (0.31)."""

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for (`MaxLoRARanks`)."""


class VLLMSampler:
    """Samples with `vllm.LLM`: continuous batching, the prompts of a group share their cache.

    Args:
        model: Folder (also of a LoRA adapter) or Hub id.
        options: Precision of the weights, and how much of which GPUs.

    Raises:
        ConfigError: vLLM is not installed, torch sees too few GPUs, or the adapter is of a kind that vLLM does not know.
        LoadError: The model is not there.
    """

    def __init__(self, model: str, options: VLLMOptions) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError("`engine`: vllm needs the package vllm and a GPU; install `trl-rrtf[vllm]`, or use transformers")
        require_model(model)
        adapter = None if (base := base_model(model)) is None else Path(model)
        for_adapter = {} if adapter is None else {"enable_lora": True, "max_lora_rank": _lora_rank(adapter)}
        _require_gpus(options.tensor_parallel_size)
        weights = base or model
        self._tokenizer: Any = load_tokenizer(model)
        config = _config_of(weights)
        dtype = _dtype(options.dtype, config)
        if adapter is not None and dtype == "float32":
            raise ConfigError(
                f"`dtype`: vLLM applies adapters in bfloat16 and float16 alone, got {options.dtype} for `{weights}` in "
                "float32; choose one of them, or use the engine transformers"
            )
        self._end_tokens = _end_tokens(weights, config, self._tokenizer)

        import vllm
        from vllm.lora.request import LoRARequest

        self._sampling_params = vllm.SamplingParams
        self._lora_request = None if adapter is None else LoRARequest("adapter", 1, os.path.abspath(adapter))
        self._llm = vllm.LLM(
            model=weights,
            tokenizer=tokenizer_source(model),
            tokenizer_mode="hf",  # not Mistral's own, whose token ids may be others
            dtype=dtype,
            tensor_parallel_size=options.tensor_parallel_size,
            gpu_memory_utilization=options.gpu_memory_utilization,
            max_model_len=options.max_model_len,
            enable_prefix_caching=True,
            **for_adapter,
        )

    def sample(self, prompts: Sequence[str | Messages], draws: Draws) -> list[list[str]]:
        """Draws texts, see [`Sampler.sample`][trl_rrtf.sampling.draws.Sampler.sample].

        Raises:
            ConfigError: A prompt is messages and the tokenizer has no chat template, a prompt leaves no room for
                `max_new_tokens`, or vLLM does not sample at this temperature.
        """
        _check_temperature(draws.temperature)
        encoded = [prompt_tokens(self._tokenizer, prompt) for prompt in prompts]
        self._check_lengths(encoded, draws.max_new_tokens)
        requests = [(ids, seed) for ids, own in zip(encoded, draws.seeds, strict=True) for seed in own]
        outputs = self._llm.generate(
            [{"prompt_token_ids": ids} for ids, _ in requests],
            [self._parameters(draws, seed) for _, seed in requests],
            use_tqdm=False,
            lora_request=self._lora_request,
        )
        texts = self._tokenizer.batch_decode(
            [list(output.outputs[0].token_ids) for output in outputs],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        drawn = iter([cut_at_stop(text, draws.stop_strings) for text in texts])
        return [[next(drawn) for _ in own] for own in draws.seeds]

    def _parameters(self, draws: Draws, seed: int) -> Any:
        """A request's settings; each is given, so that none is the model's own default."""
        return self._sampling_params(
            temperature=draws.temperature,
            top_p=draws.top_p,
            top_k=draws.top_k,
            max_tokens=draws.max_new_tokens,
            seed=seed,
            # The tokens that end a text are those of the transformers engine; vLLM would add the tokenizer's to them.
            ignore_eos=True,
            stop_token_ids=self._end_tokens,
            # vLLM's own text is for its search of the stop strings alone, which may be special tokens.
            stop=list(draws.stop_strings),
            detokenize=bool(draws.stop_strings),
            skip_special_tokens=False,
        )

    def room_for(self, prompt: str | Messages) -> int | None:
        """How many tokens fit behind a prompt."""
        longest: int = self._llm.model_config.max_model_len
        return longest - len(prompt_tokens(self._tokenizer, prompt))

    def _check_lengths(self, encoded: list[list[int]], max_new_tokens: int) -> None:
        """Refuses a prompt that vLLM would refuse, or whose texts it would cut short in silence."""
        limit = self._llm.model_config.max_model_len
        longest = max(map(len, encoded), default=0)
        if longest + max_new_tokens > limit:
            raise ConfigError(
                f"`max_new_tokens`: a prompt of {longest} tokens and {max_new_tokens} new ones are more than the {limit} that "
                "the model has room for here; lower `max_new_tokens`, raise `max_model_len` if it is what bounds it, or leave "
                "out problems as long as this one"
            )


def _require_gpus(number: int) -> None:
    if torch.cuda.device_count() < number:
        raise ConfigError(
            f"`tensor_parallel_size`: expected {number} GPU{'s' if number > 1 else ''}, and torch sees "
            f"{torch.cuda.device_count()}; lower it, look at CUDA_VISIBLE_DEVICES, or use the engine transformers"
        )


def _config_of(weights: str) -> Any:
    try:
        return AutoConfig.from_pretrained(weights)
    except (OSError, ValueError) as error:
        raise LoadError(
            f"`model`: cannot read the configuration of `{weights}` ({error}); an adapter on the Hub must be a folder here for "
            "the engine vllm: download it"
        ) from error


def _end_tokens(weights: str, config: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a text: the generation configuration's, else the tokenizer's, as in the transformers engine."""
    try:
        generation_config = GenerationConfig.from_pretrained(weights)
    except OSError:  # a model need not have one
        generation_config = GenerationConfig.from_model_config(config)
    ends = generation_config.eos_token_id or tokenizer.eos_token_id
    return [token for token in (ends if isinstance(ends, list) else [ends]) if token is not None]


def _dtype(asked: str, config: Any) -> str:
    """`auto` is the precision of the files; vLLM's own `auto` makes half precision of float32."""
    return "float32" if asked == "auto" and config.dtype == torch.float32 else asked


def _check_temperature(temperature: float) -> None:
    lowest, highest = TEMPERATURES
    if temperature and not lowest <= temperature <= highest:
        raise ConfigError(
            f"`temperature`: vLLM samples at 0, or from {lowest:g} to {highest:g}, got {temperature:g}; choose another one, or "
            "the engine transformers"
        )


_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),  # the others change the base model's weights
    **dict.fromkeys(
        [
            *("modules_to_save", "use_dora", "use_qalora", "lora_bias", "rank_pattern", "alpha_pattern", "layer_replication"),
            *("trainable_token_indices", "target_parameters", "use_bdlora", "alora_invocation_tokens", "arrow_config"),
            *("kasa_config", "monteclora_config"),
        ],
        (None, False, {}, []),
    ),
}
"""What an adapter's configuration must hold for vLLM to apply it; some of it vLLM refuses late, most it ignores."""


def _lora_rank(adapter: Path) -> int:
    """The rank that vLLM makes room for.

    Raises:
        ConfigError: The adapter has what vLLM does not know, or more ranks than it has room for.
    """
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    unknown = [f"{name}={config[name]!r}" for name, neutral in _NEUTRAL.items() if config.get(name, neutral[0]) not in neutral]
    rank = config.get("r", 0)
    if not unknown and rank > LORA_RANKS[-1]:
        unknown = [f"r={rank}"]
    if unknown:
        raise ConfigError(
            f"`model`: the adapter `{adapter}` has {', '.join(unknown)}, which vLLM does not apply; merge it into its base "
            "model (peft's `merge_and_unload`), or use the engine transformers"
        )
    return next(room for room in LORA_RANKS if room >= rank)
