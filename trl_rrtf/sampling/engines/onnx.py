"""The `onnx` engine: an exported model in ONNX Runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from transformers import AutoTokenizer
from transformers.generation.streamers import BaseStreamer

from trl_rrtf.models.onnx_causal_lm import OnnxCausalLM
from trl_rrtf.rows.records import Messages
from trl_rrtf.sampling.draws import Draws
from trl_rrtf.sampling.engines.options import OnnxOptions
from trl_rrtf.sampling.engines.transformers import TransformersSampler


class OnnxSampler(TransformersSampler):
    """Samples with ONNX Runtime.

    Args:
        model: An [`OnnxCausalLM`][trl_rrtf.OnnxCausalLM].
        tokenizer: Its tokenizer.
    """

    def sample(self, prompts: Sequence[str | Messages], draws: Draws, streamer: BaseStreamer | None = None) -> list[list[str]]:
        """Draws texts, as the engine `transformers` does."""
        with one_torch_thread():
            return super().sample(prompts, draws, streamer)


def load_sampler(model: str, options: OnnxOptions) -> OnnxSampler:
    """Loads an exported model.

    Args:
        model: Folder that `trl-rrtf export` wrote, or a Hub id of one.
        options: Where it runs.

    Raises:
        LoadError: The folder is not complete.
        ConfigError: CUDA was asked for and is not there.
    """
    return OnnxSampler(OnnxCausalLM.from_pretrained(model, device=options.device), AutoTokenizer.from_pretrained(model))


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Inside, torch, which only chooses the tokens, leaves the cores to ONNX Runtime.

    The threads of both spin while they wait; on 2 cores the two together take a third longer per token.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
