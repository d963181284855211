"""A reward model of transformers: a sequence classifier with one label, as TRL's `RewardTrainer` trains them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trl_rrtf.errors import ConfigError, LoadError
from trl_rrtf.evaluation.config import SelectConfig
from trl_rrtf.models.paths import base_model
from trl_rrtf.rows.prompts import render_prompt
from trl_rrtf.rows.records import Problem


def check_reward_model(config: SelectConfig) -> None:
    """Reads the configuration and the tokenizer of a reward model, before the model itself is loaded.

    Raises:
        LoadError: It is not there.
        ConfigError: It is an adapter, or no sequence classifier with one label, or its tokenizer has no chat template for
            prompts in the style `chat`, or nothing to pad with.
    """
    from transformers import AutoConfig

    model = config.reward_model or ""
    if base_model(model):
        raise ConfigError(
            f"`reward_model`: `{model}` is an adapter; merge it into its base model (`merge_and_unload`) and give that"
        )
    try:
        found = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise LoadError(
            f"`reward_model`: cannot read the configuration of `{model}`: {error}; check the folder or Hub id"
        ) from error
    architectures = found.architectures or []
    if not any(name.endswith("ForSequenceClassification") for name in architectures) or found.num_labels != 1:
        raise ConfigError(
            "`reward_model`: expected a sequence classifier with one label, got "
            f"{', '.join(architectures) or 'no architecture'} with {found.num_labels} in `{model}`; give a model that TRL's "
            "`RewardTrainer` made, or one like it"
        )
    tokenizer = _tokenizer(model)
    if config.prompt_style == "chat" and not tokenizer.chat_template:
        raise ConfigError(
            f"`reward_model`: the tokenizer of `{model}` has no chat template, and `prompt_style` is chat; give it one, or "
            "another style"
        )


def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"`reward_model`: the tokenizer of `{model}` has neither a padding nor an end token; set its `pad_token`"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


class RewardModelScorer:
    """The loaded model.

    Args:
        config: Model, prompt style, precision and batch size.
    """

    def __init__(self, config: SelectConfig) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification

        self._config = config
        model = config.reward_model or ""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = _tokenizer(model)
        self._model = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=config.dtype)
        self._model.config.get_text_config().pad_token_id = self._tokenizer.pad_token_id  # it finds the last token by it
        self._model = self._model.to(device).eval()

    def scores(self, pairs: Sequence[tuple[Problem, str]]) -> list[float]:
        """A score per (problem, program), in order.

        Raises:
            ConfigError: A score is no finite number.
        """
        texts = [self._text(problem, program) for problem, program in pairs]
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
        scores = [0.0] * len(texts)
        for start in range(0, len(by_length), self._config.batch_size):
            places = by_length[start : start + self._config.batch_size]
            for place, score in zip(places, self._batch([texts[i] for i in places]), strict=True):
                if not math.isfinite(score):
                    raise ConfigError(
                        f"`reward_model`: gives {score} to a candidate of problem {pairs[place][0].problem_id!r}; try "
                        "`dtype=float32`, or another model"
                    )
                scores[place] = score
        return scores

    def _text(self, problem: Problem, program: str) -> str:
        prompt = render_prompt(problem, self._config.prompt_style)
        if isinstance(prompt, str):
            return prompt + program
        messages = [*prompt, {"role": "assistant", "content": program}]
        text: str = self._tokenizer.apply_chat_template(messages, tokenize=False)
        return text

    def _batch(self, texts: list[str]) -> list[float]:
        import torch

        inputs = self._tokenizer(
            text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False
        ).to(self._model.device)
        with torch.inference_mode():
            logits = self._model(**inputs).logits  # (batch, 1)
        values: list[float] = logits[:, 0].float().tolist()
        return values
