"""From a prompt to token ids: one way for all engines that hold the model's tokenizer, so that the same draws mean the same."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from trl_rrtf.errors import ConfigError
from trl_rrtf.rows.records import Messages


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str | Messages) -> list[int]:
    """The token ids of a prompt.

    Args:
        tokenizer: The model's.
        prompt: Text as it is, or messages for its chat template.

    Returns:
        At least one token: where the prompt has none, that which begins a text.

    Raises:
        ConfigError: The prompt is messages and there is no chat template, or it is empty and no token begins a text.
    """
    if isinstance(prompt, str):
        tokens: list[int] = tokenizer(prompt)["input_ids"]
    elif tokenizer.chat_template is None:
        raise ConfigError(
            "`prompt_style`: the prompts are messages and the tokenizer has no chat template; use `paper` or `completion`, or "
            "an instruction-tuned model"
        )
    else:
        chat = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
        tokens = chat["input_ids"]
    if tokens:
        return tokens
    if tokenizer.bos_token_id is None:
        raise ConfigError("`prompt`: it is empty, and the tokenizer has no token that begins a text; give one that is not")
    return [tokenizer.bos_token_id]
