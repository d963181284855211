"""An exported model with `generate`: one ONNX Runtime session under transformers' generation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AutoConfig, DynamicCache, GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from trl_rrtf.errors import ConfigError, LoadError
from trl_rrtf.models.key_value_cache import CACHE
from trl_rrtf.models.onnx_runtime import (
    choose_provider,
    make_session,
    position_cap,
    require_onnx_model,
    require_within,
)
from trl_rrtf.models.onnx_step import OnnxStep

_LOGGER = logging.getLogger(__name__)

_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.onnx", "*.onnx_data")
"""What is fetched from the Hub."""


_NOT_GENERATED = {
    "cache_implementation": "an ONNX model takes a dynamic cache",
    "assistant_early_exit": "an ONNX model runs all its layers (`assistant_model` and `prompt_lookup_num_tokens` work)",
    "dola_layers": "an ONNX model gives no layer's logits but the last's",
    "penalty_alpha": "an ONNX model gives no hidden states for contrastive search",
}
"""Settings of `generate` that need what a graph does not give."""


class OnnxCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]  # transformers ships no complete types
    """A causal language model that ONNX Runtime runs, for the folders of `trl-rrtf export`; works with transformers 4.57 and 5.

    ```python
    model = OnnxCausalLM.from_pretrained("runs/model-int8")
    tokenizer = AutoTokenizer.from_pretrained("runs/model-int8")
    output = model.generate(**tokenizer("def add(a, b):", return_tensors="pt"), max_new_tokens=64)
    ```

    `generate` is that of transformers: sampling, beams, stop strings, streamers, chunked prefill, lists of end tokens. The
    cache is a `DynamicCache` of plain layers, also for models with sliding windows, whose graphs mask it. Padding stands on the
    left.

    Args:
        session: A session over a graph with a key-value cache.
        config: The model's configuration.
        generation_config: How it generates by default; by default what the configuration says.

    Attributes:
        session: The session.
        config: The model's configuration.
        generation_config: How it generates by default.

    Raises:
        LoadError: The graph has no cache of keys and values.
    """

    _supports_sdpa = True  # attention is the graph's; the configuration may name any way of computing it

    def __init__(self, session: Any, config: PretrainedConfig, generation_config: GenerationConfig | None = None) -> None:
        super().__init__(config)
        self.session = session
        self.generation_config = generation_config or GenerationConfig.from_model_config(config)
        is_on_gpu = session.get_providers()[0] == "CUDAExecutionProvider"
        self._device = torch.device("cuda", 0) if is_on_gpu else torch.device("cpu")
        self._cap = position_cap(session)
        self._step = OnnxStep(session, self._device, config.get_text_config().vocab_size)

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, device: str | None = None, threads: int | None = None, revision: str | None = None
    ) -> Self:
        """Loads an exported model.

        Args:
            model: Folder that `trl-rrtf export` wrote, or a Hub id of one.
            device: `cpu`, `cuda`, or None for CUDA where it is and starts, else the CPU, with a warning if CUDA is
                there.
            threads: Threads of an operator; by default one per core.
            revision: Branch, tag or commit on the Hub.

        Raises:
            LoadError: It is not there, or not complete.
            ConfigError: CUDA was asked for and is not there or does not start, or `threads` is below 1.
        """
        if threads is not None and threads < 1:
            raise ConfigError(f"`threads`: expected at least 1, or None for one per core, got {threads}")
        folder = require_onnx_model(exported_folder(model, revision))
        provider = choose_provider(device)
        try:
            _require_cuda_of_torch(provider)
            session = make_session(folder, provider, threads)
        except ConfigError as error:
            if device is not None:
                raise
            _LOGGER.warning("CUDA cannot be used, and the CPU is, as no `device` was asked for. %s", error)
            session = make_session(folder, choose_provider("cpu"), threads)
        has_settings = (folder / "generation_config.json").is_file()
        settings = GenerationConfig.from_pretrained(folder) if has_settings else None
        return cls(session, AutoConfig.from_pretrained(folder), settings)

    @property
    def device(self) -> torch.device:
        """Where the session computes."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the cache."""
        return self._step.dtype

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Refused: the folder that it was loaded from is the model.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("`save_pretrained`: an exported model is saved already; copy its folder, or export again")

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to`, `half`, `cuda` and their like come down to: a graph stays where it is, in its precision."""
        own = torch.empty(0, dtype=self.dtype, device=self.device)
        moved = function(own)
        if (moved.device.type, moved.dtype) != (own.device.type, own.dtype):
            raise ConfigError(
                f"an exported model stays on {own.device.type} in {own.dtype}; load it with `device`, or export it in another "
                "precision"
            )
        return self

    def generate(
        self, inputs: Tensor | None = None, generation_config: GenerationConfig | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Generates as transformers' models do; see `GenerationMixin.generate`.

        Raises:
            ConfigError: The cache, or a way of decoding, needs a model in PyTorch.
        """
        settings = generation_config or self.generation_config
        for name, reason in _NOT_GENERATED.items():
            value = kwargs.get(name, getattr(settings, name, None))
            if value is not None and not (name == "cache_implementation" and value.startswith("dynamic")):
                raise ConfigError(f"`{name}`: {reason}, got {value!r}; leave it out")
        return super().generate(inputs, generation_config, *args, **kwargs)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: DynamicCache | None = None,
        past_key_values: DynamicCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
        **unused: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Runs new tokens.

        Args:
            input_ids: (B, S) the new tokens.
            attention_mask: (B, T) of all tokens, the cached ones too; 0 is padding, on the left. By default there is none.
            position_ids: (B, S); by default the mask is counted, so that padding has none. (Without a mask's count, PyTorch's
                models number the padding too; `generate` counts the mask for both.)
            cache: Keys and values of the T - S tokens before; it is extended in place.
            past_key_values: The same under the name that it had before transformers 5.24.
            labels: (B, S) token ids for a loss, -100 where there is none.
            use_cache: Whether the extended cache is returned; by default it is.
            logits_to_keep: Only the logits of the last so many tokens are returned; 0 for all.
            return_dict: False for a plain tuple.
            unused: What else transformers passes to every model.

        Returns:
            Logits (B, S, V) in float32, the cache, and with `labels` the mean loss.

        Raises:
            ConfigError: A token is beyond the vocabulary, the mask has not one entry per token, the cache is of another kind,
                the text is longer than the graph is right for, or there is something to compute that the graph does not.
        """
        cache = past_key_values if cache is None else cache
        _refuse(unused)
        if cache is not None and not isinstance(cache, DynamicCache):
            raise ConfigError(
                f"`cache_implementation`: an ONNX model takes a dynamic cache, got {type(cache).__name__}; leave it out"
            )
        if cache is None:
            cache = DynamicCache()
        past = cache.get_seq_length()
        batch, length = input_ids.shape
        if attention_mask is None:
            attention_mask = torch.ones(batch, past + length, dtype=torch.long, device=self.device)
        if tuple(attention_mask.shape) != (batch, past + length):
            raise ConfigError(
                f"`attention_mask`: expected an entry for each of the {past} cached and {length} new tokens of {batch} rows, "
                f"got shape {tuple(attention_mask.shape)}"
            )
        require_within(self._cap, past + length)
        self._require_ids(input_ids)
        if position_ids is None:
            position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -length:]
        position_ids = position_ids.expand(batch, -1)  # transformers may give one row for all
        inputs = tuple(tensor.to(self.device, torch.long) for tensor in (input_ids, attention_mask, position_ids))
        states = [states for layer in cache.layers for states in (layer.keys, layer.values)] if past else []
        last = 0 if labels is not None else logits_to_keep
        logits, new = self._step(*inputs, states=states, last=last)
        _replace(cache, new)
        logits = logits.float()
        loss = None if labels is None else self.loss_function(logits=logits, labels=labels, vocab_size=self._step.vocabulary)
        kept = logits[:, -logits_to_keep:] if logits_to_keep else logits
        output = CausalLMOutputWithPast(loss=loss, logits=kept, **({} if use_cache is False else {CACHE: cache}))
        return output.to_tuple() if return_dict is False else output

    def _require_ids(self, input_ids: Tensor) -> None:
        """Refuses ids beyond the vocabulary; ONNX Runtime would name an operator, or nothing."""
        if input_ids.numel():
            lowest, highest = (int(end) for end in input_ids.aminmax())
            if not 0 <= lowest <= highest < self._step.vocabulary:
                raise ConfigError(f"`input_ids`: expected ids from 0 to {self._step.vocabulary - 1}, got {lowest} to {highest}")


def _require_cuda_of_torch(provider: str) -> None:
    """Refuses a torch without CUDA beside a session with it: the tensors lie where torch can put them."""
    if provider == "CUDAExecutionProvider" and not torch.cuda.is_available():
        reason = "is built without it" if torch.version.cuda is None else "finds no GPU that it can use"
        raise ConfigError(
            f"`device`: onnxruntime has CUDA and torch ({torch.__version__}) {reason}; install a CUDA build of torch and the "
            "driver, or use `--device cpu`"
        )


def exported_folder(model: str | Path, revision: str | None = None) -> Path:
    """The folder of an exported model, fetched from the Hub where the name is none.

    Args:
        model: Folder that `trl-rrtf export` wrote, or a Hub id of one.
        revision: Branch, tag or commit on the Hub.

    Raises:
        LoadError: It is not there.
    """
    if Path(model).exists():
        return Path(model)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(model), revision=revision, allow_patterns=list(_FILES)))
    except Exception as error:  # the Hub's client raises many kinds; each means that the model is not there
        raise LoadError(
            f"`model`: `{model}` is neither a folder here nor a model on the Hub that can be reached ({type(error).__name__}: "
            f"{error}); check the name and the network"
        ) from error


def _refuse(unused: dict[str, Any]) -> None:
    """Refuses what would change the result, if it were not ignored."""
    for name in ("inputs_embeds", "output_attentions", "output_hidden_states"):
        if (value := unused.get(name)) is not None and value is not False:
            raise ConfigError(f"`{name}`: an ONNX model has only tokens in and logits out; leave it out")


def _replace(cache: DynamicCache, states: Sequence[Tensor]) -> None:
    """Puts extended keys and values into a cache, in place: whoever holds it goes on with them."""
    if not cache.get_seq_length():  # transformers may have made layers that keep a window alone
        plain = DynamicCache()
        for layer, (keys, values) in enumerate(zip(states[::2], states[1::2], strict=True)):
            plain.update(keys[:, :, :0], values[:, :, :0], layer)  # of nothing: it copies what it gets
        cache.layers = plain.layers
    for layer, keys, values in zip(cache.layers, states[::2], states[1::2], strict=True):
        layer.keys, layer.values = keys, values
