"""The `onnx` engine: an exported model in ONNX Runtime, through `optimum.onnxruntime.ORTModelForCausalLM`."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from trl_rrtf.errors import ConfigError
from trl_rrtf.models.onnx_runtime import choose_provider, make_session, require_onnx_model
from trl_rrtf.rows.records import Messages
from trl_rrtf.sampling.draws import Draws
from trl_rrtf.sampling.engines.options import OnnxOptions
from trl_rrtf.sampling.engines.transformers import TransformersSampler


class OnnxSampler(TransformersSampler):
    """Samples with ONNX Runtime.

    Args:
        model: An `ORTModelForCausalLM`.
        tokenizer: Its tokenizer.
    """

    _tokens_per_piece = sys.maxsize
    """`ORTModelForCausalLM` cannot go on from a cache with fewer rows."""

    def sample(self, prompts: Sequence[str | Messages], draws: Draws) -> list[list[str]]:
        """Draws texts, see [`Sampler.sample`][trl_rrtf.sampling.draws.Sampler.sample]."""
        with one_torch_thread():
            return super().sample(prompts, draws)

    def _repeat(self, encoded: dict[str, torch.Tensor], times: int) -> dict[str, Any]:
        """Repeats each prompt for its candidates; the cache of `ORTModelForCausalLM` cannot be repeated."""
        return {name: value.repeat_interleave(times, dim=0) for name, value in encoded.items()}


def load_sampler(model: str, options: OnnxOptions) -> OnnxSampler:
    """Loads an exported model.

    Args:
        model: Folder that `trl-rrtf export` wrote, or a Hub id of one.
        options: Where it runs.

    Raises:
        LoadError: The folder is not complete.
        ConfigError: CUDA was asked for and is not there, or optimum-onnx is not installed.
    """
    if importlib.util.find_spec("optimum") is None:
        raise ConfigError(
            "`engine`: onnx needs optimum-onnx, which needs transformers 4; install `trl-rrtf[onnx]` in an environment with it "
            "(the exported folder works there too)"
        )
    return OnnxSampler(load_onnx_model(model, options.device), AutoTokenizer.from_pretrained(model))


def load_onnx_model(model: str, device: str | None = None) -> Any:
    """Loads an exported model as `ORTModelForCausalLM`, with IO binding on CUDA.

    Args:
        model: Folder or Hub id.
        device: `cpu`, `cuda`, or None for CUDA where it is, else the CPU.
    """
    from optimum.onnxruntime import ORTModelForCausalLM

    provider = choose_provider(device)
    if Path(model).exists():
        make_session(require_onnx_model(model), provider)  # tells what is wrong with it
    loaded = ORTModelForCausalLM.from_pretrained(model, provider=provider, use_io_binding=provider != "CPUExecutionProvider")
    # Where heads are wider than their share of the hidden size (Qwen3), Optimum would start with a cache of a wrong size.
    loaded.embed_size_per_head = loaded.input_shapes["past_key_values.0.key"][-1]
    loaded.num_key_value_heads = loaded.input_shapes["past_key_values.0.key"][1]
    return loaded


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
