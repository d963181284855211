"""Whether an exported graph computes what the PyTorch model does: logits, greedy text, and how it reads longer texts."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from trl_rrtf.errors import ConfigError, TrlRrtfError
from trl_rrtf.export.report import Parity, Probe
from trl_rrtf.export.rotary import Positions, positions_of
from trl_rrtf.export.weights import Array
from trl_rrtf.models.checkpoint_log_probs import PROBE_TEXT
from trl_rrtf.models.onnx_runtime import OnnxDecoder

_CACHED_STEPS = 4
_NEW_TOKENS = 24
_FEWEST_POSITIONS = 8
"""Positions below which there is no room for a prompt, steps over its cache, and new tokens."""

_TEXT_TOKENS = 512
_TAIL_TOKENS = 128
"""Of the probes at the last positions and beyond a boundary: half of them before it, half behind."""

_BEYOND = 64
_LONGEST_TEXT = 4096 + _BEYOND
_CHUNK = 512
"""Tokens that a graph reads at once; the logits of more would need more memory than many models."""

_PROMPTS = (
    'def add(a, b):\n    """Return the sum."""\n',
    "Write a Python function that returns the largest number of a list, or None if the list is empty.",
    "import re\n\ndef words(text):",
)
"""Of different lengths, so that a batch of them is padded."""


@dataclass(frozen=True)
class _Reading:
    """How PyTorch reads a text.

    Attributes:
        input_ids: (1, T).
        first_position: Position of the first token.
        tail: How many of the last tokens are looked at, C.
        choices: (C,) the likeliest next token of each.
        perplexity: Of the last C - 1 tokens.
    """

    input_ids: Array
    first_position: int
    tail: int
    choices: Array
    perplexity: float


@dataclass(frozen=True)
class Reference:
    """What a PyTorch model computes; once it is here, the model may go.

    Attributes:
        input_ids: (B, T) prompts, padded on the left.
        attention_mask: (B, T).
        logits: (B, T, V).
        greedy: (B, N) tokens that follow greedily.
        ends: Tokens that it may not generate.
        readings: Texts by name: `text`; `far` at the last positions that the model knows, if there are others; `long` beyond
            the lengths after which something changes inside, if there are such.
    """

    input_ids: Array
    attention_mask: Array
    logits: Array
    greedy: Array
    ends: list[int]
    readings: dict[str, _Reading]


def make_reference(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, longest: int | None = None) -> Reference:
    """Runs the PyTorch model on everything that is compared.

    Args:
        model: In float32, in evaluation mode.
        tokenizer: Its tokenizer.
        longest: Tokens that the longest text has at least; None for one that passes the model's windows alone.

    Raises:
        ConfigError: The model reads no text of `longest` tokens, or too few for any comparison, or PyTorch cannot run it.
    """
    positions = positions_of(model.config)
    if positions.usable is not None and positions.usable < _FEWEST_POSITIONS:
        raise ConfigError(
            f"`model`: it reads texts of at most {positions.usable} tokens (`max_position_embeddings`), and an export is "
            f"compared on {_FEWEST_POSITIONS} at least; run the checkpoint in PyTorch"
        )
    try:
        return _reference(model, tokenizer, positions, longest)
    except TrlRrtfError:
        raise
    except Exception as error:  # of a model's code, for texts that it cannot read
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"`model`: PyTorch itself cannot run this `{model.config.model_type}` model on the texts that an export is "
            f"compared on ({type(error).__name__}: {reason}); mend the checkpoint"
        ) from error


def _reference(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, positions: Positions, longest: int | None
) -> Reference:
    new_tokens = min(_NEW_TOKENS, (positions.usable or _TEXT_TOKENS) // 2)
    longest_prompt = (positions.usable or _TEXT_TOKENS) - new_tokens
    batch = _padded([_tokens(tokenizer, prompt, longest_prompt) for prompt in _PROMPTS])
    text = _tokens(tokenizer, PROBE_TEXT, min(_TEXT_TOKENS, positions.usable or _TEXT_TOKENS))
    readings = {"text": _read(model, text, 0, len(text))}
    far = text[-_TAIL_TOKENS:]
    if positions.usable and positions.usable - len(far) > len(text):
        readings["far"] = _read(model, far, positions.usable - len(far), len(far))
    if length := long_tokens(positions, longest):
        ids = _tokens(tokenizer, _long_text(tokenizer, length), length)
        readings["long"] = _read(model, ids, 0, min(_TAIL_TOKENS, length))
    ends = model.generation_config.eos_token_id
    return Reference(
        *batch,
        logits=_logits(model, *batch),
        greedy=_greedy(model, *batch, new_tokens),
        ends=[] if ends is None else [ends] if isinstance(ends, int) else list(ends),
        readings=readings,
    )


def long_tokens(positions: Positions, asked: int | None = None) -> int | None:
    """Length of a text that passes every boundary inside of a model, as far as that is affordable; None if there is none.

    Args:
        positions: The model's.
        asked: Length that the text has at least.

    Raises:
        ConfigError: The model reads no such text.
    """
    if asked is not None and positions.usable is not None and asked > positions.usable:
        raise ConfigError(f"`parity_tokens`: the graph is right for {positions.usable} tokens, got {asked}; ask for fewer")
    within = [length for length in positions.boundaries if length + _BEYOND <= max(_LONGEST_TEXT, asked or 0)]
    if not within:
        return asked
    return max(asked or 0, min(max(within) + _BEYOND, positions.usable or _LONGEST_TEXT))


def compare(reference: Reference, decoder: OnnxDecoder) -> tuple[Parity, dict[str, Probe]]:
    """Runs an exported graph on what the PyTorch model was run on.

    Args:
        reference: What PyTorch computed.
        decoder: The exported graph.

    Returns:
        Differences of logits and text, and how each longer text is read.
    """
    batch = reference.input_ids, reference.attention_mask
    is_token = batch[1] == 1
    ours, _ = decoder.step(*batch)
    differences = np.abs(ours - reference.logits)[is_token]
    deviation = float(reference.logits[is_token].std())
    one_by_one = _logits_one_by_one(decoder, *batch)
    cached_differences = np.abs(one_by_one - reference.logits[:, -one_by_one.shape[1] :])
    probes = {
        name: _probe(reading, decoder)
        for name, reading in reference.readings.items()
        if decoder.takes_positions or not reading.first_position
    }
    parity = Parity(
        largest_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        relative_difference=float(differences.mean()) / deviation,
        cached_largest_difference=float(cached_differences.max()),
        cached_relative_difference=float(cached_differences.mean()) / deviation,
        next_token_agreement=probes["text"].next_token_agreement,
        greedy_agreement=_greedy_agreement(reference, decoder),
        perplexity=probes["text"].perplexity,
        perplexity_of_pytorch=probes["text"].perplexity_of_pytorch,
    )
    return parity, probes


def _probe(reading: _Reading, decoder: OnnxDecoder) -> Probe:
    """Reads a text in chunks over the cache."""
    length = reading.input_ids.shape[1]
    cache, found = None, []
    for start in range(0, length, _CHUNK):
        end = min(start + _CHUNK, length)
        mask = np.ones((1, end), dtype=np.int64)
        logits, cache = decoder.step(reading.input_ids[:, start:end], mask, cache, first_position=reading.first_position)
        kept = logits[0, max(0, length - reading.tail - start) :]
        if len(kept):
            found.append(_choices(kept, reading.input_ids[0, end - len(kept) + 1 : end + 1]))
    choices, log_probs = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Probe(
        tokens=length,
        first_position=reading.first_position,
        next_token_agreement=float((choices == reading.choices).mean()),
        perplexity=float(np.exp(-log_probs.mean())),
        perplexity_of_pytorch=reading.perplexity,
    )


def _read(model: PreTrainedModel, ids: list[int], first_position: int, tail: int) -> _Reading:
    input_ids = np.array([ids], dtype=np.int64)
    logits = _logits(model, input_ids, np.ones_like(input_ids), first_position=first_position, last=tail)[0]
    choices, log_probs = _choices(logits, input_ids[0, len(ids) - tail + 1 :])
    return _Reading(input_ids, first_position, tail, choices, float(np.exp(-log_probs.mean())))


def _choices(logits: Array, following: Array) -> tuple[Array, Array]:
    """The likeliest token after each token, and the log-probability of the one that follows; the last may have none."""
    chosen = torch.from_numpy(logits[: len(following)]).log_softmax(dim=-1)
    log_probs = chosen.gather(1, torch.from_numpy(following[:, None]))[:, 0].double().numpy()
    return logits.argmax(axis=-1), log_probs


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str, length: int) -> list[int]:
    return list(tokenizer(text)["input_ids"][:length])


def _long_text(tokenizer: PreTrainedTokenizerBase, length: int) -> str:
    """The fixed text again and again, its lines in another order each time, the same on every machine."""
    lines, order = PROBE_TEXT.splitlines(keepends=True), random.Random(0)
    text = PROBE_TEXT
    while len(tokenizer(text)["input_ids"]) < length:
        text += "".join(order.sample(lines, len(lines)))
    return text


def _padded(rows: Sequence[list[int]]) -> tuple[Array, Array]:
    """Token ids and mask (B, T), padded on the left."""
    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return np.array(ids, dtype=np.int64), np.array(mask, dtype=np.int64)


@torch.inference_mode()
def _logits(
    model: PreTrainedModel, input_ids: Array, attention_mask: Array, *, first_position: int = 0, last: int | None = None
) -> Array:
    """(B, S, V) logits, of all tokens or the last ones."""
    mask = torch.from_numpy(attention_mask)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0) + first_position
    taken = inspect.signature(model.forward).parameters
    wanted = {"position_ids": positions, **({"logits_to_keep": last} if last else {})}
    outputs = model(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=mask,
        use_cache=False,
        **{name: value for name, value in wanted.items() if name in taken},
    )
    logits: Array = outputs.logits[:, -last if last else 0 :].float().numpy()
    return logits


def _logits_one_by_one(decoder: OnnxDecoder, input_ids: Array, attention_mask: Array) -> Array:
    """(B, C, V) logits of the last C tokens, each run alone over the cache of those before; half of a short batch at most."""
    start = input_ids.shape[1] - min(_CACHED_STEPS, input_ids.shape[1] // 2)
    _, cache = decoder.step(input_ids[:, :start], attention_mask[:, :start])
    found = []
    for end in range(start + 1, input_ids.shape[1] + 1):
        logits, cache = decoder.step(input_ids[:, end - 1 : end], attention_mask[:, :end], cache)
        found.append(logits)
    return np.concatenate(found, axis=1)


@torch.inference_mode()
def _greedy(model: PreTrainedModel, input_ids: Array, attention_mask: Array, new_tokens: int) -> Array:
    """(B, N) tokens that the model goes on with, in a batch."""
    shipped = model.generation_config
    # What a model ships (a repetition penalty, say) is no matter of the graph.
    model.generation_config = GenerationConfig(eos_token_id=shipped.eos_token_id, pad_token_id=0)
    try:
        tokens: Array = model.generate(
            torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(attention_mask),
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
        )[:, input_ids.shape[1] :].numpy()
    finally:
        model.generation_config = shipped
    return tokens


def _greedy_agreement(reference: Reference, decoder: OnnxDecoder) -> float:
    """The graph goes on greedily from the same prompts, in a batch."""
    attention_mask = reference.attention_mask
    ours, (logits, cache) = [], decoder.step(reference.input_ids, attention_mask)
    for _ in range(reference.greedy.shape[1]):
        last = logits[:, -1].copy()
        last[:, reference.ends] = -np.inf  # as `min_new_tokens` does
        ours.append(last.argmax(axis=-1))
        attention_mask = np.concatenate([attention_mask, np.ones_like(attention_mask[:, :1])], axis=1)
        logits, cache = decoder.step(ours[-1][:, None], attention_mask, cache)
    same = np.stack(ours, axis=1) == reference.greedy
    return float(np.minimum.accumulate(same, axis=1).mean())
