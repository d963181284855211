"""The `genai` engine: an exported model in onnxruntime-genai."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, LogitsProcessor
from transformers.generation.streamers import BaseStreamer

from trl_rrtf.errors import ConfigError, LoadError
from trl_rrtf.models.onnx_causal_lm import exported_folder
from trl_rrtf.models.onnx_runtime import GENAI_FILE
from trl_rrtf.rows.records import Messages
from trl_rrtf.sampling.draws import Draws
from trl_rrtf.sampling.engines.onnx import one_torch_thread
from trl_rrtf.sampling.engines.options import GenaiOptions
from trl_rrtf.sampling.engines.prompt_tokens import prompt_tokens
from trl_rrtf.sampling.engines.transformers import SeededChoice, cut_at_stop, warpers

_STEPS_BETWEEN_LOOKS = 8
"""Texts are looked through for stop strings after so many tokens; what stands behind one is cut."""


class GenaiSampler:
    """Samples with onnxruntime-genai's own loop and cache.

    Prompts of equal length share a batch, others follow one another: genai gives padding on the left no positions of its own.
    Tokens are drawn as the engine `transformers` draws them, and are the same where the logits are.

    Args:
        model: Folder that `trl-rrtf export` wrote, or a Hub id of one.
        options: Where it runs.

    Raises:
        LoadError: The folder is not complete, or genai cannot load it.
        ConfigError: genai is not installed, or CUDA was asked for and is not there.
    """

    def __init__(self, model: str, options: GenaiOptions) -> None:
        if importlib.util.find_spec("onnxruntime_genai") is None:
            raise ConfigError(
                "`engine`: genai needs the package onnxruntime-genai; install `trl-rrtf[genai]` (onnxruntime-genai-cuda on a "
                "GPU), or use onnx"
            )
        import onnxruntime_genai

        folder = exported_folder(model)
        settings = folder / GENAI_FILE
        if not settings.is_file():
            raise LoadError(
                f"`model`: `{folder}` has no {GENAI_FILE}; its export_report.json says why (`not_for_genai`), or it is of an "
                "earlier version: export it again, or use the engine onnx"
            )
        has_cuda = onnxruntime_genai.is_cuda_available()
        if options.device == "cuda" and not has_cuda:
            raise ConfigError(
                f"`device`: cuda was asked for, and this onnxruntime-genai ({onnxruntime_genai.__version__}) has none; install "
                "onnxruntime-genai-cuda in its place, or use `--device cpu`"
            )
        try:
            config = onnxruntime_genai.Config(str(folder))
            config.clear_providers()
            # Left alone, genai takes half of the cores where each of them counts as two.
            threads = {"intra_op_num_threads": torch.get_num_threads()}
            config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
            if has_cuda and options.device != "cpu":
                config.append_provider("cuda")
            self._model = onnxruntime_genai.Model(config)
        except Exception as error:  # genai raises RuntimeError and its own kinds, of a damaged file as of a missing library
            raise LoadError(f"`model`: onnxruntime-genai cannot load `{folder}` ({error})") from error
        self._genai = onnxruntime_genai
        described = json.loads(settings.read_text(encoding="utf-8"))["model"]
        ends = described["eos_token_id"]
        self._ends = set(ends if isinstance(ends, list) else [ends])
        self._longest = described["context_length"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def sample(self, prompts: Sequence[str | Messages], draws: Draws, streamer: BaseStreamer | None = None) -> list[list[str]]:
        """Draws texts, see [`Sampler.sample`][trl_rrtf.sampling.draws.Sampler.sample].

        Args:
            prompts: The prompts.
            draws: Seeds and settings.
            streamer: Gets the tokens as they are drawn, where a single text is.

        Raises:
            ConfigError: A prompt is messages and the tokenizer has no chat template, has no token, or leaves no room.
        """
        encoded = [prompt_tokens(self.tokenizer, prompt) for prompt in prompts]
        self._require_room(encoded, draws.max_new_tokens)
        by_length: dict[int, list[tuple[int, int]]] = {}
        for number, (ids, seeds) in enumerate(zip(encoded, draws.seeds, strict=True)):
            by_length.setdefault(len(ids), []).extend((number, seed) for seed in seeds)
        texts: list[list[str]] = [[] for _ in prompts]
        with one_torch_thread():
            for rows in by_length.values():
                answers = self._draw([encoded[number] for number, _ in rows], [seed for _, seed in rows], draws, streamer)
                for (number, _), answer in zip(rows, answers, strict=True):
                    texts[number].append(cut_at_stop(answer, draws.stop_strings))
        return texts

    def room_for(self, prompt: str | Messages) -> int:
        """How many tokens fit behind a prompt."""
        return int(self._longest) - len(prompt_tokens(self.tokenizer, prompt))

    def _require_room(self, encoded: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        longest = max(map(len, encoded))
        if longest + max_new_tokens > self._longest:
            raise ConfigError(
                f"`max_new_tokens`: a prompt of {longest} tokens and {max_new_tokens} new ones are more than the "
                f"{self._longest} that the graph is right for; lower it, or leave long prompts out"
            )

    def _draw(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int], draws: Draws, streamer: BaseStreamer | None
    ) -> list[str]:
        """Texts for prompts (B, T) of equal length."""
        generator = self._generator(len(rows), len(rows[0]), draws.max_new_tokens)
        generator.append_tokens(np.array(rows, dtype=np.int32))
        processors: list[LogitsProcessor] = []
        if draws.temperature:
            processors = [*warpers(draws), SeededChoice(seeds, len(rows[0]), draws.max_new_tokens)]
        if streamer is not None:
            streamer.put(torch.tensor(rows))
        answers: list[list[int]] = [[] for _ in rows]
        texts = [""] * len(rows)
        for step in range(draws.max_new_tokens):
            if processors:
                _choose(generator, processors, torch.empty(len(rows), len(rows[0]) + step, dtype=torch.long))
            generator.generate_next_token()
            drawn = [int(token) for token in generator.get_next_tokens()]
            if streamer is not None:
                streamer.put(torch.tensor(drawn))
            for answer, token in zip(answers, drawn, strict=True):
                if not answer or answer[-1] not in self._ends:
                    answer.append(token)
            is_last = generator.is_done() or step + 1 == draws.max_new_tokens
            if is_last or (draws.stop_strings and (streamer is not None or step % _STEPS_BETWEEN_LOOKS == 0)):
                texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                if is_last or all(map(self._has_ended, answers, texts, [draws.stop_strings] * len(rows))):
                    break
        if streamer is not None:
            streamer.end()
        return texts

    def _generator(self, batch: int, length: int, max_new_tokens: int) -> Any:
        """A generator that adds nothing of its own to greedy choice: what the folder ships as defaults is undone."""
        parameters = self._genai.GeneratorParams(self._model)
        parameters.set_search_options(
            batch_size=batch,
            max_length=length + max_new_tokens,
            min_length=0,
            do_sample=False,
            temperature=1.0,
            top_k=1,
            top_p=1.0,
            repetition_penalty=1.0,
            num_beams=1,
        )
        return self._genai.Generator(self._model, parameters)

    def _has_ended(self, answer: Sequence[int], text: str, stop_strings: Sequence[str]) -> bool:
        return answer[-1] in self._ends or any(stop in text for stop in stop_strings)


def _choose(generator: Any, processors: Sequence[LogitsProcessor], texts: torch.Tensor) -> None:
    """Draws each row's token, and leaves genai no other choice."""
    logits = generator.get_logits()
    scores = torch.from_numpy(logits[:, -1].copy())
    for processor in processors:
        scores = processor(texts, scores)
    generator.set_logits(scores[:, None].numpy())
