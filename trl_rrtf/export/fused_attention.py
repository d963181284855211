"""ONNX Runtime's fused operators for language models, put into an exported graph.

A plain export computes attention and rotary embedding in dozens of small operators, and concatenates the whole cache in each
step. Here both are exported as one marker each; afterwards the markers become `com.microsoft` operators:

- `CachedAttention` -> `GroupQueryAttention`, which also appends to the cache. Padding on the left is masked by a bias.
- `RotaryEmbedding` -> `RotaryEmbedding`, with the model's own cosines and sines of this step as its table.

What the rewritten graph computes is proved by the parity check that follows every export.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.models.llama import modeling_llama

from trl_rrtf.models.onnx_runtime import SHARED_CACHE_ENTRY

NAME = "onnx_cached_attention"
"""Name of the attention implementation that leaves markers."""

DOMAIN = "trl_rrtf"
"""Operator domain of the markers; none is left in a rewritten graph."""


class NotFusableError(Exception):
    """A marked graph is not as the rewriting needs it."""


class _CachedAttention(torch.autograd.Function):
    """A marker for the TorchScript exporter; the values it returns while tracing are never used.

    The exporter of `torch.export` has `torch.onnx.ops.symbolic` for that.
    """

    @staticmethod
    def symbolic(
        g: Any, query: Any, key: Any, value: Any, mask: Any, num_heads: int, scale: float, window: int, softcap: float
    ) -> Any:
        marker = g.op(
            f"{DOMAIN}::CachedAttention",
            *(query, key, value, mask),
            num_heads_i=num_heads,
            scale_f=scale,
            local_window_size_i=window,
            softcap_f=softcap,
        )
        return marker.setType(query.type().with_sizes([None] * 4) if query.type() is not None else None)

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *settings: Any) -> Tensor:
        return torch.zeros_like(query).transpose(1, 2).contiguous()


class _RotaryEmbedding(torch.autograd.Function):
    """Like `_CachedAttention`."""

    @staticmethod
    def symbolic(g: Any, states: Any, cosines: Any, sines: Any, rotary_dim: int) -> Any:
        return g.op(f"{DOMAIN}::RotaryEmbedding", states, cosines, sines, rotary_dim_i=rotary_dim).setType(states.type())

    @staticmethod
    def forward(ctx: Any, states: Tensor, cosines: Tensor, sines: Tensor, rotary_dim: int) -> Tensor:
        return states.clone()


def _marked_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in the form of `AttentionInterface`; query (B, N, S, H), key and value (B, K, T, H), the cache included."""
    attributes: dict[str, Any] = {
        "num_heads": int(query.shape[1]),
        "scale": float(scaling or query.shape[-1] ** -0.5),
        "local_window_size": int(sliding_window or -1),
        "softcap": float(softcap or 0.0),
    }
    inputs = (query, key, value, attention_mask)
    if not torch.compiler.is_exporting():
        return _CachedAttention.apply(*inputs, *attributes.values()), None  # type: ignore[no-untyped-call]
    marker = torch.onnx.ops.symbolic(
        f"{DOMAIN}::CachedAttention",
        inputs,
        attributes,
        dtype=query.dtype,
        shape=(query.shape[0], query.shape[2], query.shape[1], query.shape[3]),
        version=1,
    )
    return marker, None


def _marked_rotary_embedding(
    query: Tensor, key: Tensor, cosines: Tensor, sines: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    size = int(cosines.shape[-1])
    return _marked_rotation(query, cosines, sines, size), _marked_rotation(key, cosines, sines, size)


def _marked_rotation(states: Tensor, cosines: Tensor, sines: Tensor, size: int) -> Tensor:
    if not torch.compiler.is_exporting():
        marker: Tensor = _RotaryEmbedding.apply(states, cosines, sines, size)  # type: ignore[no-untyped-call]
        return marker
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::RotaryEmbedding",
        (states, cosines, sines),
        {"rotary_dim": size},
        dtype=states.dtype,
        shape=states.shape,
        version=1,
    )


def _unchanged_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The markers take the mask (B, T) as the model gets it."""
    return attention_mask


AttentionInterface.register(NAME, _marked_attention)
AttentionMaskInterface.register(NAME, _unchanged_mask)


_PROBE = f"{NAME}_probe"


def obstacle(model: PreTrainedModel) -> str:
    """Why a model's attention cannot be fused; empty if it can. Runs the model on two tokens.

    Args:
        model: In evaluation mode.
    """
    config = model.config.get_text_config()
    found, calls = [], 0
    masks: list[tuple[Tensor, Any]] = []

    def probe_mask(*args: Any, attention_mask: Tensor, mask_function: Any = None, **settings: Any) -> Tensor:
        masks.append((attention_mask.clone(), mask_function))
        return masks[-1][0]

    def probe(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings: Any
    ) -> tuple[Tensor, None]:
        nonlocal calls
        calls += 1
        if value.shape[-1] != query.shape[-1]:
            found.append(f"its values have {value.shape[-1]} numbers per head and its queries {query.shape[-1]}")
        found.extend(f"it takes {meaning}" for name, meaning in _UNKNOWN.items() if settings.get(name) is not None)
        window = settings.get("sliding_window")
        if not all(_sees(function, window) for made, function in masks if made is mask and function is not None):
            found.append("its layers see other tokens than all earlier ones, or those in a window")
        batch, heads, length, _ = query.shape
        return value.new_zeros(batch, length, heads, value.shape[-1]), None

    AttentionInterface.register(_PROBE, probe)
    AttentionMaskInterface.register(_PROBE, probe_mask)
    earlier = config._attn_implementation
    tokens = torch.ones(1, 2, dtype=torch.long)
    try:
        model.set_attn_implementation(_PROBE)
        with torch.no_grad():
            model(input_ids=tokens, attention_mask=tokens, use_cache=False)
    except Exception as error:  # of models that were written before attention could be replaced, and of new kinds
        return f"transformers cannot replace it ({type(error).__name__}: {str(error).splitlines()[0][:150]})"
    finally:
        model.set_attn_implementation(earlier)
    if calls != config.num_hidden_layers:
        found.append(f"transformers can replace it in {calls} of {config.num_hidden_layers} layers")
    return found[0] if found else ""


def _sees(mask_function: Any, window: int | None) -> bool:
    """Whether a layer's mask is what the fused operator computes: all earlier tokens, or the last `window` ones.

    Args:
        mask_function: transformers' function of batch, head, query and key: whether the query sees the key.
        window: What the layer tells its attention.
    """
    around = (0, 1, 2, window, 2 * window) if window else (0, 1, 2, 1000, 100_000)
    query = 200_000
    for key in {query + 1, *(query - distance + shift for distance in around for shift in (-1, 0, 1))}:
        expected = key <= query and (window is None or key > query - window)
        if bool(mask_function(0, 0, torch.tensor(query), torch.tensor(key))) != expected:
            return False
    return True


_UNKNOWN = {"s_aux": "attention sinks", "sinks": "attention sinks", "position_bias": "a bias of positions"}
"""What some models give to their attention, and the fused operator is not given."""


@contextlib.contextmanager
def markers(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model leaves markers when it is exported.

    The rotary embedding is replaced where the model's module has Llama's function; others differ in what they rotate.
    """
    config = model.config.get_text_config()
    earlier = config._attn_implementation
    module = sys.modules[type(model).__module__]
    name = "apply_rotary_pos_emb"
    rotary = getattr(module, name, None)
    is_llamas = rotary is not None and inspect.getsource(rotary) == inspect.getsource(getattr(modeling_llama, name))
    model.set_attn_implementation(NAME)
    if is_llamas:
        setattr(module, name, _marked_rotary_embedding)
    try:
        yield
    finally:
        model.set_attn_implementation(earlier)
        if is_llamas:
            setattr(module, name, rotary)


def replace_markers(model: onnx.ModelProto) -> None:
    """Rewrites a marked graph in place.

    Raises:
        NotFusableError: Its attention is not over the cache and the new states alone.
    """
    rewriter = _Rewriter(model)
    if any(node.op_type == "CachedAttention" for node in model.graph.node):
        rewriter.add_attention_inputs()
    rewriter.rewrite()
    others = [opset for opset in model.opset_import if opset.domain not in (DOMAIN, "com.microsoft")]
    del model.opset_import[:]
    model.opset_import.extend([*others, helper.make_opsetid("com.microsoft", 1)])
    takers = {node.op_type for node in model.graph.node for name in node.input if name.startswith("past_key_values.")}
    if takers == {"GroupQueryAttention"}:  # whatever else looks at the cache takes its size for the length of the text
        model.metadata_props.add(key=SHARED_CACHE_ENTRY, value="true")


class _Rewriter:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.nodes: list[onnx.NodeProto] = []
        self.producers = {output: node for node in self.graph.node for output in node.output}
        self.constants = {node.output[0] for node in self.graph.node if node.op_type == "Constant"}
        self.constants |= {tensor.name for tensor in self.graph.initializer}
        self.cache_heads = {
            value.name: value.type.tensor_type.shape.dim[1].dim_value
            for value in self.graph.input
            if value.name.startswith("past_key_values")
        }
        self.appended: set[str] = set()
        self._rotary_tables: dict[tuple[str, str], tuple[str, str, str]] = {}

    def _add(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=f"{DOMAIN}/{outputs[0]}", **attributes))
        return outputs[0]

    def _constant(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        if name not in self.constants:
            self.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
            self.constants.add(name)
        return name

    def add_attention_inputs(self) -> None:
        """What all layers share: lengths, and the bias (B, 1, S, T) that masks padding."""
        lowest = np.finfo(np.float32).min  # not -inf: a row of padding attends to nothing else
        self._add("Shape", ["attention_mask"], ["fused/batch"], start=0, end=1)
        self._add("Shape", ["attention_mask"], ["fused/total_length_1"], start=1, end=2)
        self._add("Shape", ["input_ids"], ["fused/length_1"], start=1, end=2)
        self._add("Squeeze", ["fused/total_length_1"], ["fused/total_length_64"])
        self._add("Cast", ["fused/total_length_64"], ["fused/total_length"], to=TensorProto.INT32)
        self._add("Sub", ["fused/total_length", self._constant("fused/1", 1, np.int32)], ["fused/last"])
        self._add("Expand", ["fused/last", "fused/batch"], ["fused/lasts"])
        self._add("Cast", ["attention_mask"], ["fused/is_token"], to=TensorProto.BOOL)
        values = [self._constant("fused/seen", 0, np.float32), self._constant("fused/unseen", lowest, np.float32)]
        self._add("Where", ["fused/is_token", *values], ["fused/bias_2d"])
        self._add("Unsqueeze", ["fused/bias_2d", self._constant("fused/axes", [1, 2])], ["fused/bias_row"])
        shape = ["fused/batch", self._constant("fused/one", [1]), "fused/length_1", "fused/total_length_1"]
        self._add("Concat", shape, ["fused/bias_shape"], axis=0)
        self._add("Expand", ["fused/bias_row", "fused/bias_shape"], ["fused/bias"])

    def rewrite(self) -> None:
        appended = {
            name for node in self.graph.node if node.op_type == "CachedAttention" for name in (node.input[1], node.input[2])
        }
        for node in self.graph.node:
            if node.op_type == "CachedAttention":
                self._attention(node)
            elif node.op_type == "RotaryEmbedding" and node.domain == DOMAIN:
                self._rotary_embedding(node)
            elif node.op_type == "Reshape":
                self._reshape(node)
            elif node.op_type == "Shape" and node.input[0] in self.cache_heads:
                self._cache_shape(node)
            elif not appended.intersection(node.output):
                self.nodes.append(node)
        used = _used_nodes(self.nodes, {value.name for value in self.graph.output})
        del self.graph.node[:]
        self.graph.node.extend(used)
        del self.graph.value_info[:]  # holds the markers' shapes; the runtime infers what it needs

    def _cache_shape(self, node: onnx.NodeProto) -> None:
        """Whatever asks the cache for its size is told that of the text before; a buffer that is shared is longer."""
        [past] = [value for value in self.graph.input if value.name == node.input[0]]
        heads, width = (past.type.tensor_type.shape.dim[axis].dim_value for axis in (1, 3))
        whole = f"{node.output[0]}/of_text"
        length = self._add("Sub", ["fused/total_length_1", "fused/length_1"], [f"{whole}/length"])
        sizes = [self._constant(f"fused/size_{size}", [size]) for size in (heads, width)]
        self._add("Concat", ["fused/batch", sizes[0], length, sizes[1]], [whole], axis=0)
        ends = {part.name: part.i for part in node.attribute}
        bounds = [ends.get("start", 0), ends.get("end", 4)]
        names = [self._constant(f"fused/bound_{bound}", [bound]) for bound in bounds]
        self._add("Slice", [whole, *names], list(node.output))

    def _attention(self, marker: onnx.NodeProto) -> None:
        """The concatenations of cache and new states go; the operator appends and gives both caches back."""
        query, all_keys, all_values = marker.input[:3]
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in marker.attribute}
        flat, past = [], []
        for part, name in (("query", query), ("key", all_keys), ("value", all_values)):
            if part != "query":
                concatenation = self.producers.get(name)
                if concatenation is None or concatenation.op_type != "Concat" or concatenation.input[0] not in self.cache_heads:
                    raise NotFusableError(f"its {part} states are not the cache with new ones behind it")
                if concatenation.input[0] in self.appended:
                    raise NotFusableError("several of its layers share a cache")
                self.appended.add(concatenation.input[0])
                past.append(concatenation.input[0])
                name = concatenation.input[1]
            prefix = f"{marker.output[0]}/{part}"
            self._add("Transpose", [name], [f"{prefix}/by_token"], perm=[0, 2, 1, 3])
            flat.append(self._add("Reshape", [f"{prefix}/by_token", self._constant("fused/flat", [0, 0, -1])], [prefix]))
        out = marker.output[0]
        self._add(
            "GroupQueryAttention",
            [*flat, *past, "fused/lasts", "fused/total_length", "", "", "", "fused/bias"],
            [out, all_keys, all_values],
            domain="com.microsoft",
            kv_num_heads=self.cache_heads[past[0]],
            **attributes,
        )

    def _rotary_embedding(self, marker: onnx.NodeProto) -> None:
        states, cosines, sines = marker.input
        half = helper.get_attribute_value(marker.attribute[0]) // 2
        key = cosines, sines
        if key not in self._rotary_tables:
            self._rotary_tables[key] = self._rotary_table(cosines, sines, half)
        self._add("RotaryEmbedding", [states, *self._rotary_tables[key]], list(marker.output), domain="com.microsoft")

    def _rotary_table(self, cosines: str, sines: str, half: int) -> tuple[str, str, str]:
        """(B, S, H) cosines of this step's tokens become a table (B * S, H / 2), and each token's row in it its position."""
        bounds = [
            self._constant("fused/0_1", [0]),
            self._constant(f"fused/{half}_1", [half]),
            self._constant("fused/last_axis", [-1]),
        ]
        tables = []
        for name in (cosines, sines):
            self._add("Slice", [name, *bounds], [f"{name}/half"])
            shape = self._constant(f"fused/rows_{half}", [-1, half])
            tables.append(self._add("Reshape", [f"{name}/half", shape], [f"{name}/table"]))
        self._add("Shape", [cosines], [f"{cosines}/shape"], start=0, end=2)
        self._add("ReduceProd", [f"{cosines}/shape"], [f"{cosines}/count"], keepdims=0)
        ends = [self._constant("fused/0", 0), f"{cosines}/count", self._constant("fused/step", 1)]
        self._add("Range", ends, [f"{cosines}/rows"])
        self._add("Reshape", [f"{cosines}/rows", f"{cosines}/shape"], [f"{cosines}/row_of_position"])
        # Where the graph counts positions by itself, they are the same for the whole batch.
        self._add("Shape", ["input_ids"], [f"{cosines}/input_shape"])
        rows = self._add("Expand", [f"{cosines}/row_of_position", f"{cosines}/input_shape"], [f"{cosines}/row_of_token"])
        return rows, tables[0], tables[1]

    def _reshape(self, node: onnx.NodeProto) -> None:
        """`view(batch, length, ...)` asks a tensor for two sizes that `Reshape` can copy by itself."""
        concatenation = self.producers.get(node.input[1])
        if concatenation is not None and concatenation.op_type == "Concat" and len(concatenation.input) > 2:
            first, second, *rest = concatenation.input
            sized = {self._sized_tensor(first, 0), self._sized_tensor(second, 1)}
            if len(sized) == 1 and self._keeps_first_axes(node.input[0], sized.pop()) and self.constants.issuperset(rest):
                sizes = [0, 0, *(int(self._value(name).item()) for name in rest)]
                shape = self._constant("fused/shape_" + "_".join(map(str, sizes)), sizes)
                self.nodes.append(helper.make_node("Reshape", [node.input[0], shape], list(node.output), name=node.name))
                return
        self.nodes.append(node)

    def _sized_tensor(self, size: str, axis: int) -> str | None:
        """The tensor whose size along an axis a value is: Unsqueeze(Gather(Shape(tensor), axis))."""
        unsqueeze = self.producers.get(size)
        gather = self.producers.get(unsqueeze.input[0]) if unsqueeze is not None and unsqueeze.op_type == "Unsqueeze" else None
        if gather is None or gather.op_type != "Gather" or gather.input[1] not in self.constants:
            return None
        shape = self.producers.get(gather.input[0])
        if shape is None or shape.op_type != "Shape" or self._value(gather.input[1]).item() != axis:
            return None
        tensor: str = shape.input[0]
        return tensor

    def _keeps_first_axes(self, name: str, tensor: str | None) -> bool:
        """Whether a value is a linear layer of the tensor, or what attention gives: batch and length are where they were."""
        node = self.producers.get(name)
        if node is not None and node.op_type == "Add":  # a bias
            node = next((self.producers[part] for part in node.input if part in self.producers), None)
        if node is None or tensor is None:
            return False
        return bool(node.op_type == "CachedAttention" or (node.op_type == "MatMul" and node.input[0] == tensor))

    def _value(self, name: str) -> np.ndarray[Any, Any]:
        if name in self.producers:
            tensor = helper.get_attribute_value(self.producers[name].attribute[0])
        else:
            tensor = next(tensor for tensor in self.graph.initializer if tensor.name == name)
        value: np.ndarray[Any, Any] = numpy_helper.to_array(tensor)
        return value


def _used_nodes(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on."""
    needed, used = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            used.append(node)
            needed.update(node.input)
    return used[::-1]
