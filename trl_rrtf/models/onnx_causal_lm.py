"""An exported model with `generate`: one ONNX Runtime session under transformers' generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.onnx", "*.onnx_data")
"""What is fetched from the Hub."""

_TYPES = {"tensor(float)": (1, torch.float32), "tensor(float16)": (10, torch.float16), "tensor(bfloat16)": (16, torch.bfloat16)}
"""What a session calls a type -> ONNX's number of it, and torch's type."""

_INT64 = 7


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
        inputs = {value.name: value for value in session.get_inputs()}
        self._cap = position_cap(session)
        self._outputs = [value.name for value in session.get_outputs()]
        self._takes_positions = "position_ids" in inputs
        self._past = [value for name, value in inputs.items() if name.startswith("past_key_values.")]
        if not self._past or len(self._past) % 2 or len(self._outputs) != 1 + len(self._past):
            raise LoadError("`model`: the graph has no cache of keys and values; export it with `trl-rrtf export`")
        self._type, self._dtype = _TYPES[self._past[0].type]
        [logits] = [value for value in session.get_outputs() if value.name == "logits"]
        self._logits_type, self._logits_dtype = _TYPES[logits.type]
        self._vocabulary = logits.shape[-1] if isinstance(logits.shape[-1], int) else config.get_text_config().vocab_size

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, device: str | None = None, threads: int | None = None, revision: str | None = None
    ) -> Self:
        """Loads an exported model.

        Args:
            model: Folder that `trl-rrtf export` wrote, or a Hub id of one.
            device: `cpu`, `cuda`, or None for CUDA where it is, else the CPU.
            threads: Threads of an operator; by default one per core.
            revision: Branch, tag or commit on the Hub.

        Raises:
            LoadError: It is not there, or not complete.
            ConfigError: CUDA was asked for and is not there, or `threads` is below 1.
        """
        if threads is not None and threads < 1:
            raise ConfigError(f"`threads`: expected at least 1, or None for one per core, got {threads}")
        provider = choose_provider(device)
        folder = require_onnx_model(exported_folder(model, revision))
        if provider == "CUDAExecutionProvider" and not torch.cuda.is_available():
            raise ConfigError(
                f"`device`: onnxruntime has CUDA and this torch ({torch.__version__}) does not; install a CUDA build of torch, "
                "or use `--device cpu`"
            )
        session = make_session(folder, provider, threads)
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
        return self._dtype

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
        if length and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < self._vocabulary:
            raise ConfigError(f"`input_ids`: expected ids from 0 to {self._vocabulary - 1}, got up to {int(input_ids.max())}")
        if position_ids is None:
            position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -length:]
        position_ids = position_ids.expand(batch, -1)  # transformers may give one row for all
        inputs = [tensor.to(self.device, torch.long) for tensor in (input_ids, attention_mask, position_ids)]
        states = [states for layer in cache.layers for states in (layer.keys, layer.values)] if past else []
        if past and length > 1 and batch > 1:  # ONNX Runtime's fused attention takes several tokens over a cache row by row
            rows = [self._run(*([part[row : row + 1] for part in parts] for parts in (inputs, states))) for row in range(batch)]
            logits, *new = (torch.cat(parts) for parts in zip(*rows, strict=True))
        else:
            logits, *new = self._run(inputs, states)
        _replace(cache, new)
        logits = logits.float()
        loss = None if labels is None else self.loss_function(logits=logits, labels=labels, vocab_size=self._vocabulary)
        kept = logits[:, -logits_to_keep:] if logits_to_keep else logits
        output = CausalLMOutputWithPast(loss=loss, logits=kept, **({} if use_cache is False else {CACHE: cache}))
        return output.to_tuple() if return_dict is False else output

    def _run(self, inputs: Sequence[Tensor], states: Sequence[Tensor]) -> list[Tensor]:
        """Logits and the extended keys and values; inputs and outputs are torch's tensors, nothing is copied."""
        input_ids, attention_mask, position_ids = inputs
        batch, length = input_ids.shape
        total = attention_mask.shape[1]
        states = list(states) or [self._empty(batch, value.shape, 0) for value in self._past]
        logits = torch.empty(batch, length, self._vocabulary, dtype=self._logits_dtype, device=self.device)
        new = [self._empty(batch, value.shape, total) for value in self._past]
        binding = self.session.io_binding()
        bound = {"input_ids": input_ids, "attention_mask": attention_mask}
        bound |= {"position_ids": position_ids} if self._takes_positions else {}
        kept = [self._bind(binding.bind_input, name, _INT64, tensor) for name, tensor in bound.items()]
        kept += [
            self._bind(binding.bind_input, value.name, self._type, tensor)
            for value, tensor in zip(self._past, states, strict=True)
        ]
        self._bind(binding.bind_output, "logits", self._logits_type, logits)
        for name, tensor in zip(self._present(), new, strict=True):
            self._bind(binding.bind_output, name, self._type, tensor)
        binding.synchronize_inputs()
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return [logits, *new]

    def _bind(self, bind: Any, name: str, kind: int, tensor: Tensor) -> Tensor:
        """Tells the session where a tensor lies; the one that is returned must live until it has run."""
        tensor = tensor.contiguous()
        address = tensor.data_ptr() or torch.empty(1).data_ptr()  # of a tensor without elements there is none
        bind(name, self.device.type, self.device.index or 0, kind, tuple(tensor.shape), address)
        return tensor

    def _empty(self, batch: int, shape: Sequence[Any], length: int) -> Tensor:
        return torch.empty(batch, shape[1], length, shape[3], dtype=self.dtype, device=self.device)

    def _present(self) -> Iterator[str]:
        return (value.name.replace("past_key_values.", "present.") for value in self._past)


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
            plain.update(keys, values, layer)
        cache.layers = plain.layers
        return
    for layer, keys, values in zip(cache.layers, states[::2], states[1::2], strict=True):
        layer.keys, layer.values = keys, values
