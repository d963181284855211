"""A step of an exported decoder: new tokens in, logits and the extended cache out; torch's tensors, bound and not copied."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from trl_rrtf.errors import ConfigError, LoadError
from trl_rrtf.models.onnx_runtime import PADDING_ENTRY, SHARED_CACHE_ENTRY

_TYPES = {"tensor(float)": (1, torch.float32), "tensor(float16)": (10, torch.float16), "tensor(bfloat16)": (16, torch.bfloat16)}
"""What a session calls a type -> ONNX's number of it, and torch's type."""

_INT64 = 7

_ROOM = 256
"""Tokens that a new cache buffer has room for beyond those that it gets."""

CHUNK = 512
"""Tokens that are read at once where not all logits are wanted: a graph makes logits of every token, 0.6 MB each for 150,000
words, and more tokens at once are no faster."""


class OnnxStep:
    """A graph with a key-value cache in a session.

    Graphs come in three forms, which the export writes into their metadata:

    - plain: the cache goes in and comes out longer; any mask.
    - fused for the CPU: one buffer for the cache, which each step writes into where there is room (shared); any mask.
    - fused for CUDA: a shared buffer as well, and each row's tokens stand at its beginning (compact): the operator knows of a
      row only how many there are. Padding of the input, on the left or anywhere, is moved behind the tokens here, and the
      logits are moved back.

    Args:
        session: The session.
        device: Where the tensors are; that of the session, or the CPU.
        vocabulary: Size of the vocabulary, for a graph that does not say it.

    Attributes:
        dtype: Type of the cache.
        takes_positions: Whether the graph is told the positions of tokens, and does not count them itself.
        vocabulary: Size of the vocabulary.

    Raises:
        LoadError: The graph has no cache of keys and values.
    """

    def __init__(self, session: Any, device: torch.device, vocabulary: int = 0) -> None:
        inputs = {value.name: value for value in session.get_inputs()}
        outputs = {value.name: value for value in session.get_outputs()}
        self._session, self._device = session, device
        self._past = [value for name, value in inputs.items() if name.startswith("past_key_values.")]
        if not self._past or len(self._past) % 2 or len(outputs) != 1 + len(self._past):
            raise LoadError("`model`: the graph has no cache of keys and values; export it with `trl-rrtf export`")
        entries = session.get_modelmeta().custom_metadata_map
        self._shares = SHARED_CACHE_ENTRY in entries
        self._is_compact = entries.get(PADDING_ENTRY) == "right"
        self._type, self.dtype = _TYPES[self._past[0].type]
        self._logits_type, self._logits_dtype = _TYPES[outputs["logits"].type]
        width = outputs["logits"].shape[-1]
        self.vocabulary = width if isinstance(width, int) else vocabulary
        self.takes_positions = "position_ids" in inputs
        self._binding = session.io_binding()
        self._bound: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._lock = threading.Lock()  # of the binding, which all runs share

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        *,
        states: Sequence[Tensor] = (),
        last: int = 0,
    ) -> tuple[Tensor, list[Tensor]]:
        """Runs new tokens.

        Args:
            input_ids: (B, S) the new tokens.
            attention_mask: (B, T) of all tokens, those in the cache too; 0 is padding. Of those it is what it was when they
                were new.
            position_ids: (B, S).
            states: Keys and values (B, heads, T - S, numbers) of the tokens before, layer by layer; nothing at first. Where
                the graph shares its buffer they are extended in place, and none of them may be extended twice.
            last: Only the logits of the last so many tokens are made, 0 for all.

        Returns:
            Logits (B, S or `last`, V) in the graph's type, and the extended keys and values.

        Raises:
            ConfigError: There is padding between a row's tokens, and the graph is compact.
        """
        batch, length = input_ids.shape
        total = attention_mask.shape[1]
        past = total - length
        wanted = min(last, length) if last else length
        states = self._with_room(states, batch, total) if self._shares else list(states)
        by_row = bool(past) and length > 1 and batch > 1  # ONNX Runtime's fused attention refuses that in one run
        by_row |= length > CHUNK and wanted < length
        is_padded = self._is_compact and not bool(attention_mask.all())
        if is_padded:
            _require_in_one_piece(attention_mask)
        by_row |= is_padded and bool(past) and not bool(attention_mask[:, past:].all())
        if by_row:
            logits, states = self._row_by_row(input_ids, attention_mask, position_ids, states, wanted)
        elif is_padded and not past:
            logits, states = self._packed(input_ids, attention_mask, position_ids, states, wanted)
        else:
            if is_padded:
                attention_mask = attention_mask.sort(dim=1, descending=True).values
            logits, states = self._run(input_ids, attention_mask, position_ids, states)
            logits = logits[:, length - wanted :]
        return logits, [buffer[:, :, :total] for buffer in states] if self._shares else states

    def _packed(
        self, input_ids: Tensor, mask: Tensor, positions: Tensor, states: list[Tensor], wanted: int
    ) -> tuple[Tensor, list[Tensor]]:
        """A first run with each row's padding behind its tokens."""
        order = mask.argsort(dim=1, descending=True, stable=True)
        packed = mask.gather(1, order)
        packed[:, 0] = 1  # a row of padding alone is run as one token, which the first real one overwrites
        logits, states = self._run(input_ids.gather(1, order), packed, positions.gather(1, order), states)
        where = order.argsort(dim=1)[:, -wanted:]
        return logits.gather(1, where[:, :, None].expand(-1, -1, self.vocabulary)), states

    def _row_by_row(
        self, input_ids: Tensor, mask: Tensor, positions: Tensor, states: list[Tensor], wanted: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Each row alone, long ones in chunks."""
        batch, length = input_ids.shape
        past = mask.shape[1] - length
        logits = torch.zeros(batch, wanted, self.vocabulary, dtype=self._logits_dtype, device=self._device)
        states = states or [self._empty(batch, value.shape, 0) for value in self._past]
        rows: list[list[Tensor]] = []
        for row in range(batch):
            one = slice(row, row + 1)
            kept = mask[row] != 0 if self._is_compact else torch.ones_like(mask[row], dtype=torch.bool)
            new = kept[past:].nonzero()[:, 0]  # columns of the row's new tokens
            before = int(kept[:past].sum())
            seen = mask[one, kept]
            own = [part[one] if self._shares else part[one, :, :before] for part in states]
            for columns in torch.split(new, CHUNK) if len(new) else ():
                end = before + len(columns)
                made, own = self._run(input_ids[one, columns], seen[:, :end], positions[one, columns], own)
                is_wanted = columns >= length - wanted
                logits[row, columns[is_wanted] - (length - wanted)] = made[0, is_wanted]
                before = end
            rows.append(own)
        if not self._shares:  # a row without its padding is shorter
            total = mask.shape[1]
            padded = [[pad(part, (0, 0, 0, total - part.shape[2])) for part in parts] for parts in zip(*rows, strict=True)]
            states = [torch.cat(parts) for parts in padded]
        return logits, states

    def _run(self, input_ids: Tensor, mask: Tensor, positions: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """One run of the session. States that are shared are buffers with room, and come back as they are."""
        batch, length = input_ids.shape
        states = states or [self._empty(batch, value.shape, 0) for value in self._past]
        logits = torch.empty(batch, length, self.vocabulary, dtype=self._logits_dtype, device=self._device)
        new = states if self._shares else [self._empty(batch, value.shape, mask.shape[1]) for value in self._past]
        tokens = {"input_ids": input_ids, "attention_mask": mask, "position_ids": positions}
        if not self.takes_positions:
            del tokens["position_ids"]
        with self._lock:
            kept = [self._bind(self._binding.bind_input, name, _INT64, tensor) for name, tensor in tokens.items()]
            for value, tensor in zip(self._past, states, strict=True):
                kept.append(self._bind(self._binding.bind_input, value.name, self._type, tensor))
            self._bind(self._binding.bind_output, "logits", self._logits_type, logits)
            for name, tensor in zip(self._present(), new, strict=True):
                self._bind(self._binding.bind_output, name, self._type, tensor)
            self._binding.synchronize_inputs()
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        return logits, new

    def _bind(self, bind: Any, name: str, kind: int, tensor: Tensor) -> Tensor:
        """Tells the session where a tensor lies, unless it knows; the one that is returned must live until it has run."""
        tensor = tensor.contiguous()
        shape = tuple(tensor.shape)
        address = tensor.data_ptr() or torch.empty(1).data_ptr()  # of a tensor without elements there is none
        if self._bound.get(name) != (address, shape):
            bind(name, self._device.type, self._device.index or 0, kind, shape, address)
            self._bound[name] = address, shape
        return tensor

    def _with_room(self, states: Sequence[Tensor], batch: int, total: int) -> list[Tensor]:
        """Buffers (B, heads, >= T, numbers) that begin with the states; where these lie in such buffers already, those."""
        if not states:
            return [self._zeros(batch, value.shape, total + _ROOM) for value in self._past]
        if min(_capacity(part) for part in states) >= total:
            return [_buffer(part) for part in states]
        buffers = [self._zeros(batch, value.shape, total + _ROOM) for value in self._past]
        for buffer, part in zip(buffers, states, strict=True):
            buffer[:, :, : part.shape[2]] = part
        return buffers

    def _empty(self, batch: int, shape: Sequence[Any], length: int) -> Tensor:
        return torch.empty(batch, shape[1], length, shape[3], dtype=self.dtype, device=self._device)

    def _zeros(self, batch: int, shape: Sequence[Any], length: int) -> Tensor:
        """Zeros, not what lay there: a kernel may multiply what it masks, and 0 times NaN is not 0."""
        return torch.zeros(batch, shape[1], length, shape[3], dtype=self.dtype, device=self._device)

    def _present(self) -> Iterator[str]:
        return (value.name.replace("past_key_values.", "present.") for value in self._past)


def _require_in_one_piece(mask: Tensor) -> None:
    """Refuses padding between a row's tokens: sliding windows count it, and a compact graph does not see it."""
    begins = pad((mask != 0).int(), (1, 0)).diff(dim=1) > 0
    if bool((begins.sum(dim=1) > 1).any()):
        raise ConfigError(
            "`attention_mask`: this graph, for CUDA, takes padding before or behind a row's tokens, and there is some between "
            'them; pad on the left (`padding_side="left"`)'
        )


def _capacity(part: Tensor) -> int:
    """Tokens of the buffer that states (B, heads, T, numbers) are the beginning of; 0 if they are of none."""
    batch, heads, _, width = part.shape
    capacity = part.stride(1) // width
    is_beginning = part.stride() == (heads * capacity * width, capacity * width, width, 1)
    end = part.storage_offset() + batch * heads * capacity * width
    return capacity if is_beginning and end * part.element_size() <= part.untyped_storage().nbytes() else 0


def _buffer(part: Tensor) -> Tensor:
    """The whole buffer."""
    batch, heads, _, width = part.shape
    return part.as_strided((batch, heads, _capacity(part), width), part.stride())
