"""The `transformers` engine: batched generation with a KV cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from trl_rrtf.errors import ConfigError
from trl_rrtf.models.causal_lm import load_causal_lm, load_tokenizer
from trl_rrtf.models.key_value_cache import CACHE
from trl_rrtf.models.paths import require_model
from trl_rrtf.rows.records import Messages
from trl_rrtf.sampling import decode_attention
from trl_rrtf.sampling.draws import Draws
from trl_rrtf.sampling.engines.options import TransformersOptions
from trl_rrtf.sampling.engines.prompt_tokens import prompt_tokens


class TransformersSampler:
    """Samples with `transformers`' `generate`.

    Args:
        model: A loaded model, in evaluation mode; nothing of it is changed.
        tokenizer: Its tokenizer, which gets a padding token where it has none.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, model.device
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        end_of_sequence = self.model.generation_config.eos_token_id or self.tokenizer.eos_token_id
        ends = end_of_sequence if isinstance(end_of_sequence, list) else [end_of_sequence]
        self._end_tokens = set(ends)
        self._generation_config = GenerationConfig(
            eos_token_id=end_of_sequence, pad_token_id=self.tokenizer.pad_token_id, bos_token_id=self.tokenizer.bos_token_id
        )

    _tokens_per_piece = 16
    """After so many new tokens, rows that have ended leave the batch."""

    @torch.inference_mode()
    def sample(self, prompts: Sequence[str | Messages], draws: Draws, streamer: BaseStreamer | None = None) -> list[list[str]]:
        """Draws texts, see [`Sampler.sample`][trl_rrtf.sampling.draws.Sampler.sample].

        Args:
            prompts: The prompts.
            draws: Seeds and settings.
            streamer: Gets the tokens as they are drawn, where a single text is.

        Raises:
            ConfigError: A prompt is messages and the tokenizer has no chat template, or has no token.
        """
        num_generations = len(draws.seeds[0])
        inputs = self._repeat(self._encode(prompts), num_generations)
        processors, choice = LogitsProcessorList(), None
        if draws.temperature:
            row_seeds = [seed for prompt_seeds in draws.seeds for seed in prompt_seeds]
            choice = SeededChoice(row_seeds, inputs["input_ids"].shape[1], draws.max_new_tokens)
            processors = LogitsProcessorList([*warpers(draws), choice])
        with self._own_defaults():
            texts = self._generate(inputs, processors, choice, draws.max_new_tokens, list(draws.stop_strings), streamer)
        texts = [cut_at_stop(text, draws.stop_strings) for text in texts]
        return [texts[i : i + num_generations] for i in range(0, len(texts), num_generations)]

    def _generate(
        self,
        inputs: dict[str, Any],
        processors: LogitsProcessorList,
        choice: SeededChoice | None,
        max_new_tokens: int,
        stop_strings: list[str],
        streamer: BaseStreamer | None,
    ) -> list[str]:
        """Runs `generate` piece by piece; rows that have ended leave the batch in between, so that it gets smaller."""
        tokens_per_piece = self._tokens_per_piece if streamer is None else max_new_tokens  # a streamer ends with each piece
        stops = {"stop_strings": stop_strings, "tokenizer": self.tokenizer} if stop_strings else {}
        prompt_length = inputs["input_ids"].shape[1]
        texts = [""] * len(inputs["input_ids"])
        rows = list(range(len(texts)))
        while rows:
            drawn = inputs["input_ids"].shape[1] - prompt_length
            output = self.model.generate(
                **inputs,
                **stops,
                do_sample=False,
                logits_processor=processors,
                max_new_tokens=min(tokens_per_piece, max_new_tokens - drawn),
                return_dict_in_generate=True,
                streamer=streamer,
            )
            answers = output.sequences[:, prompt_length:]
            # Many tokenizers of transformers 4 clean up spaces by default, for prose: it makes `' '` of a program `''`.
            decoded = self.tokenizer.batch_decode(answers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for row, text in zip(rows, decoded, strict=True):
                texts[row] = text
            if answers.shape[1] >= max_new_tokens:
                break
            going_on = torch.tensor(self._unfinished(answers, stop_strings), dtype=torch.long)
            rows = [rows[number] for number in going_on.tolist()]
            if rows:
                inputs = _continue(inputs, output, going_on.to(self.device))
                if choice is not None:
                    choice.keep(going_on)
        return texts

    def _unfinished(self, answers: torch.Tensor, stop_strings: list[str]) -> list[int]:
        """The rows that neither an end-of-sequence token nor a stop string, which may be a special token's, has ended."""
        with_special_tokens = self.tokenizer.batch_decode(answers, clean_up_tokenization_spaces=False)
        return [
            number
            for number, text in enumerate(with_special_tokens)
            if self._end_tokens.isdisjoint(answers[number].tolist()) and not any(stop in text for stop in stop_strings)
        ]

    @contextlib.contextmanager
    def _own_defaults(self) -> Iterator[None]:
        """Defaults that a model ships (a temperature, say) would mix with the settings that are asked for."""
        shipped = self.model.generation_config
        self.model.generation_config = self._generation_config
        try:
            yield
        finally:
            self.model.generation_config = shipped

    def _repeat(self, encoded: dict[str, torch.Tensor], times: int) -> dict[str, Any]:
        """Repeats each prompt for its candidates; the prompt itself goes through the model once, its cache is repeated.

        `num_return_sequences` would run every copy of a prompt, which costs more than the candidates of short programs.
        """
        inputs: dict[str, Any] = {name: value.repeat_interleave(times, dim=0) for name, value in encoded.items()}
        if times > 1 and encoded["input_ids"].shape[1] > 1:
            mask = encoded["attention_mask"][:, :-1]
            cache = DynamicCache(config=self.model.config)
            self.model(
                input_ids=encoded["input_ids"][:, :-1],
                attention_mask=mask,
                position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
                use_cache=True,
                logits_to_keep=1,
                **{CACHE: cache},
            )
            cache.batch_repeat_interleave(times)
            inputs[CACHE] = cache
        return inputs

    def _encode(self, prompts: Sequence[str | Messages]) -> dict[str, torch.Tensor]:
        """Token ids and mask (P, T), padded on the left: generation goes on at the right end of each row."""
        rendered = [prompt_tokens(self.tokenizer, prompt) for prompt in prompts]
        width = max(map(len, rendered))
        padding = [width - len(ids) for ids in rendered]
        return {
            "input_ids": torch.tensor(
                [[self.tokenizer.pad_token_id] * pad + ids for pad, ids in zip(padding, rendered, strict=True)],
                device=self.device,
            ),
            "attention_mask": torch.tensor(
                [[0] * pad + [1] * len(ids) for pad, ids in zip(padding, rendered, strict=True)], device=self.device
            ),
        }

    def room_for(self, prompt: str | Messages) -> int | None:
        """How many tokens fit behind a prompt; None where the model's configuration names no longest text."""
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return None if longest is None else longest - len(prompt_tokens(self.tokenizer, prompt))


def load_sampler(model: str, options: TransformersOptions) -> TransformersSampler:
    """Loads a checkpoint.

    Args:
        model: Folder (also of a PEFT adapter) or Hub id.
        options: Precision of the weights, and where it runs.

    Raises:
        LoadError: The model is not there.
        ConfigError: CUDA was asked for and is not there, or see [`load_causal_lm`][trl_rrtf.models.causal_lm.load_causal_lm].
    """
    require_model(model)
    device = _device(options.device)
    loaded = load_causal_lm(model, dtype=options.dtype).to(device).eval()
    if device.type == "cpu" and loaded.config._attn_implementation == "sdpa":
        loaded.set_attn_implementation(decode_attention.NAME)
    return TransformersSampler(loaded, load_tokenizer(model))


def _device(asked: str | None) -> torch.device:
    """The device; a GPU that was asked for is never replaced in silence."""
    if asked == "cuda" and not torch.cuda.is_available():
        reason = "sees no GPU" if torch.version.cuda else "is a build for the CPU"
        raise ConfigError(
            f"`device`: cuda was asked for, and this torch ({torch.__version__}) {reason}; look at the driver and the build, "
            "or use `--device cpu`"
        )
    return torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))


def _continue(inputs: dict[str, Any], output: Any, going_on: torch.Tensor) -> dict[str, Any]:
    """The next piece's inputs: the texts so far of the rows that go on, with their cache."""
    sequences, mask = output.sequences[going_on], inputs["attention_mask"][going_on]
    new_tokens = sequences.shape[1] - mask.shape[1]
    continued = {
        "input_ids": sequences,
        "attention_mask": torch.cat([mask, mask.new_ones(len(mask), new_tokens)], dim=1),
    }
    cache = getattr(output, CACHE, None)
    if isinstance(cache, DynamicCache):  # without one the texts so far are run again
        if len(going_on) < len(output.sequences):
            cache.batch_select_indices(going_on)
        continued[CACHE] = cache
    return continued


def warpers(draws: Draws) -> list[LogitsProcessor]:
    """What `generate` does to the logits before it draws; a neutral setting costs nothing."""
    warpers: list[LogitsProcessor] = []
    if draws.temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(float(draws.temperature)))  # which refuses a whole number
    if draws.top_k:
        warpers.append(TopKLogitsWarper(draws.top_k))
    if draws.top_p < 1.0:
        warpers.append(TopPLogitsWarper(draws.top_p))
    return warpers


class SeededChoice(LogitsProcessor):  # type: ignore[misc]  # transformers ships no complete types
    """Draws each row's token with the row's own random numbers, and leaves only that one.

    `generate` draws a batch from one stream of random numbers, so that a row would depend on the others beside it. Here a row's
    token is where its number, uniform in [0, 1), falls among the summed-up probabilities.

    Args:
        seeds: One per row.
        prompt_length: Tokens of the (padded) prompts, T.
        max_new_tokens: Tokens that are drawn at most.
    """

    def __init__(self, seeds: Sequence[int], prompt_length: int, max_new_tokens: int) -> None:
        generators = (torch.Generator().manual_seed(seed) for seed in seeds)
        self._numbers = torch.stack([torch.rand(max_new_tokens, generator=generator) for generator in generators])
        self._prompt_length = prompt_length

    def keep(self, rows: torch.Tensor) -> None:
        """Goes on with these rows alone, by their places in the batch."""
        self._numbers = self._numbers[rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) in, the same with all but the drawn tokens at minus infinity out."""
        numbers = self._numbers[:, input_ids.shape[1] - self._prompt_length, None].to(scores.device)
        summed = scores.float().softmax(dim=-1).cumsum(dim=-1)
        drawn = torch.searchsorted(summed, numbers * summed[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, float("-inf")).scatter(1, drawn, 0.0)


def cut_at_stop(text: str, stop_strings: Sequence[str]) -> str:
    """Cuts a text before the first stop string."""
    ends = [position for stop in stop_strings if (position := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
