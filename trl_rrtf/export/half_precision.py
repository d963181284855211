"""A float32 graph in half precision (float16 or bfloat16), but for what half precision cannot hold.

float16 has eleven bits and ends at 65,504: it has no odd positions beyond 2,048, and the square of 256 is infinite. bfloat16
does not end there, but has eight bits: no odd positions beyond 256. So these parts of a graph stay in float32, found by how
they are connected:

- norms, from what is squared or averaged to the product with the weight;
- rotary embedding, from the positions to the tables of cosines and sines;
- attention's scores with their mask, from the product of queries and keys through the softmax;
- other powers, up to the function that bounds them (GELU's cube).

Runtimes fuse many of these and then compute them well; a graph is right without that. What CUDA has no kernels for in bfloat16
stays in float32 too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from trl_rrtf.errors import OutputError
from trl_rrtf.export.weights import Array, WeightedGraph

_NORMS = {
    *("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization"),
    *("SkipSimplifiedLayerNormalization", "GroupNormalization", "InstanceNormalization", "LpNormalization"),
}
_STATISTICS = {"ReduceMean", "ReduceSumSquare", "ReduceL2"}
_FLOAT32 = {*_NORMS, *_STATISTICS, "Pow", "Sin", "Cos", "Softmax"}
"""Operators whose floating-point inputs are never in half precision."""

_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Neg", "Abs", "Cast", "Identity", "Max", "Min", "Clip"}
_SHAPE = {"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Concat", "Slice", "Gather", "Identity", "Cast"}
_PRODUCTS = {"MatMul", "Gemm", "MatMulNBits", "FusedMatMul", "GroupQueryAttention", "Einsum", "Conv"}
_WITHOUT_HALF = {"Range", "CumSum", "Min", "Max", "TopK", "OneHot"}
"""Runtimes have no kernels for them in half precision."""

_BOUNDED = {"Tanh", "Sigmoid", "Erf", "Sqrt", "ReduceMean"}

_BOOLEAN = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf"}
_INTEGER = {"Shape", "Size", "ArgMax", "ArgMin", "NonZero"}
MOVES = {
    *("Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity"),
    *(
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
    ),
}
"""Operators that compute nothing; CUDA has them in bfloat16."""

_IN_BFLOAT16 = {
    *(*MOVES, "Shape", "Size", "Abs", "Add", "Div", "Erf", "Exp", "Gelu", "Gemm", "MatMul", "Mul", "Neg", "Relu", "Sigmoid"),
    *("Softplus", "Sqrt", "Sub", "Sum", "Tanh", "FastGelu", "FusedMatMul", "GroupQueryAttention", "MatMulNBits", "QuickGelu"),
    *("RotaryEmbedding", "GatherBlockQuantized"),
}
"""Operators that CUDA has in bfloat16 (the kernels in the library of ONNX Runtime 1.31)."""

_NUMPY: dict[int, Any] = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
_NAMES: dict[int, str] = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16", TensorProto.FLOAT: "fp32"}


def to_half(graph: WeightedGraph, kind: int = TensorProto.FLOAT16) -> None:
    """Converts in place: weights, activations and cache; norms, rotary embedding and softmax stay in float32.

    Args:
        graph: In float32.
        kind: ONNX's number of the type: `FLOAT16` or `BFLOAT16`.

    Raises:
        OutputError: A part that must stay in float32 is not, or the graph has branches.
    """
    if nested := [node for node in graph.proto.graph.node if any(part.HasField("g") for part in node.attribute)]:
        raise OutputError(
            f"the graph has branches or loops (`{nested[0].name}`, {nested[0].op_type}), which cannot be converted "
            f"to {_NAMES[kind]}; export in another precision"
        )
    flow = _Flow(graph)
    kept = flow.float32_nodes()
    if kind == TensorProto.BFLOAT16:
        kept |= flow.nodes_without_bfloat16()
    _Converter(graph, flow, kept, kind).convert()
    require_float32(graph)


def require_float32(graph: WeightedGraph) -> None:
    """Refuses a graph that computes in half precision what half precision cannot hold.

    Raises:
        OutputError: It names the node.
    """
    types = value_types(graph)
    for node in graph.proto.graph.node:
        if node.op_type in _FLOAT32:
            for name in node.input:
                if (kind := types.get(name)) in _NUMPY:
                    raise OutputError(
                        f"the {_NAMES[kind]} graph computes `{node.name or node.output[0]}` ({node.op_type}) in half "
                        f"precision (its input `{name}`), which overflows or loses positions; export in another "
                        "precision, and report the architecture"
                    )


def value_types(graph: WeightedGraph) -> dict[str, int]:
    """ONNX's number of the type of each value that has a type which matters here; others are missing."""
    proto = graph.proto.graph
    types = {value.name: value.type.tensor_type.elem_type for value in proto.input}
    types |= {tensor.name: tensor.data_type for tensor in proto.initializer}
    types |= {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in graph.weights.items()}
    for node in proto.node:
        for output in node.output:
            types[output] = _output_type(node, types)
        if node.op_type == "TopK":
            types[node.output[1]] = TensorProto.INT64
    return types


def _output_type(node: NodeProto, types: dict[str, int]) -> int:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    kind: int
    if node.op_type == "Cast":
        kind = attributes["to"].i
    elif node.op_type in _BOOLEAN:
        kind = TensorProto.BOOL
    elif node.op_type in _INTEGER:
        kind = TensorProto.INT64
    elif node.op_type in ("Constant", "ConstantOfShape") and "value" in attributes:
        kind = attributes["value"].t.data_type
    elif node.op_type == "Constant":
        kind = TensorProto.FLOAT if any(name.startswith("value_float") for name in attributes) else TensorProto.INT64
    elif node.op_type == "ConstantOfShape":
        kind = TensorProto.FLOAT
    else:
        position = {"Where": 1, "OneHot": 2, "GatherBlockQuantized": 2}.get(node.op_type, 0)
        kind = types.get(node.input[position], TensorProto.UNDEFINED) if position < len(node.input) else TensorProto.UNDEFINED
    return kind


class _Flow:
    """Where values come from and go to."""

    def __init__(self, graph: WeightedGraph) -> None:
        self.graph = graph
        self.nodes = list(graph.proto.graph.node)
        self.types = value_types(graph)
        self.producers = {output: index for index, node in enumerate(self.nodes) for output in node.output}
        self.consumers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in set(node.input):
                self.consumers[name].append(index)
        self.constants = {tensor.name for tensor in graph.proto.graph.initializer} | set(graph.weights)
        for node in self.nodes:  # in the order of computation
            if node.op_type == "Constant" or (node.input and all(not x or x in self.constants for x in node.input)):
                self.constants.update(node.output)

    def float32_nodes(self) -> set[int]:
        """Indices of the nodes that stay in float32."""
        kept: set[int] = set()
        for index, node in enumerate(self.nodes):
            if node.op_type in _NORMS:
                kept |= {index, *self._scaled(index)}
            elif node.op_type in _STATISTICS:
                kept |= {index, *self._squares_before(index), *self._normalised(index)}
            elif node.op_type in ("Sin", "Cos"):
                kept |= {index, *self._sources(node, frozenset()), *self._scaled(index)}
            elif node.op_type == "Softmax":
                kept |= {index, *self._sources(node, _PRODUCTS)}
            elif node.op_type == "Pow":
                kept |= {index, *(self._until_bounded(index) if self._grows(node) else ())}
            elif node.op_type in _WITHOUT_HALF:
                kept.add(index)
        return {index for index in kept if self._computes_floats(index)}

    def nodes_without_bfloat16(self) -> set[int]:
        """Indices of the nodes that take or make floats and for which CUDA has no kernel in bfloat16."""
        return {
            index
            for index, node in enumerate(self.nodes)
            if node.op_type not in _IN_BFLOAT16
            and any(self.types.get(name) == TensorProto.FLOAT for name in (*node.input, *node.output))
        }

    def _computes_floats(self, index: int) -> bool:
        return any(self.types.get(name) == TensorProto.FLOAT for name in self.nodes[index].output)

    def _users(self, index: int) -> Iterator[tuple[str, int, NodeProto]]:
        """Who takes a node's results: the result, the index and the node."""
        for name in self.nodes[index].output:
            for consumer in self.consumers[name]:
                yield name, consumer, self.nodes[consumer]

    def _sources(self, node: NodeProto, until: Collection[str]) -> set[int]:
        """Everything that a node's floats are computed by, up to some operators."""
        found: set[int] = set()
        queue = list(node.input)
        while queue:
            index = self.producers.get(queue.pop())
            if index is None or index in found or self.nodes[index].op_type in until or not self._computes_floats(index):
                continue
            found.add(index)
            queue.extend(self.nodes[index].input)
        return found

    def _squares_before(self, index: int) -> set[int]:
        """What a mean is taken of: a square, or an absolute value, and its conversion."""
        found: set[int] = set()
        source = self.producers.get(self.nodes[index].input[0])
        while source is not None:
            node = self.nodes[source]
            if node.op_type not in ("Pow", "Abs", "Cast", "Identity") and not (node.op_type == "Mul" and _is_square(node)):
                break
            found.add(source)
            source = self.producers.get(node.input[0])
        return found

    def _normalised(self, index: int) -> set[int]:
        """From a mean through the root to where the values are divided by it, and on to the weight."""
        found: set[int] = set()
        statistics, queue = set(self.nodes[index].output), [index]
        while queue:
            for _, user, node in self._users(queue.pop()):
                if user in found or node.op_type not in _ELEMENTWISE | _SHAPE:
                    continue
                found.add(user)
                if all(part in statistics or part in self.constants for part in node.input if part):
                    statistics.update(node.output)
                    queue.append(user)
                else:
                    found |= self._scaled(user)
        return found

    def _scaled(self, index: int) -> set[int]:
        """On through what takes constants besides: weight, bias, factors; and squares, whose mean comes next."""
        found: set[int] = set()
        queue = [index]
        while queue:
            for name, user, node in self._users(queue.pop()):
                others = {part for part in node.input if part and part != name}
                takes_constants = node.op_type in ("Mul", "Add", "Sub", "Div", "Pow") and others <= self.constants
                if user not in found and (takes_constants or node.op_type in ("Cast", "Identity")):
                    found.add(user)
                    queue.append(user)
        return found

    def _grows(self, node: NodeProto) -> bool:
        """Whether a power is above one; a root is not."""
        exponent = self.graph.value(node.input[1])
        return exponent is None or bool((exponent > 1).any())

    def _until_bounded(self, index: int) -> set[int]:
        """From a power on, through sums and products, up to a function whose values are small."""
        found: set[int] = set()
        queue = [index]
        while queue:
            for _, user, node in self._users(queue.pop()):
                if user in found or node.op_type not in _ELEMENTWISE | _BOUNDED:
                    continue
                found.add(user)
                if node.op_type not in _BOUNDED:
                    queue.append(user)
        return found


def _is_square(node: NodeProto) -> bool:
    return bool(node.input[0] == node.input[1])


class _Converter:
    """Writes the graph anew: half precision, casts where it meets float32."""

    def __init__(self, graph: WeightedGraph, flow: _Flow, kept: set[int], kind: int) -> None:
        self.graph, self.flow, self.kept, self.kind = graph, flow, kept, kind
        self.proto = graph.proto.graph
        self.nodes: list[NodeProto] = []
        self.cast: dict[tuple[str, int], str] = {}
        self.now: dict[str, int] = {}
        """Type of each float value, as far as the graph is written."""

    def convert(self) -> None:
        """Converts in place."""
        for value in (*self.proto.input, *self.proto.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = self.kind
        for value in self.proto.input:
            self.now[value.name] = value.type.tensor_type.elem_type
        floats = {name: value for name, value in self.graph.weights.items() if value.dtype == np.float32}
        floats |= {t.name: numpy_helper.to_array(t) for t in self.proto.initializer if t.data_type == TensorProto.FLOAT}
        for index, node in enumerate(self.flow.nodes):
            in_float32 = index in self.kept
            self._take(node, floats, TensorProto.FLOAT if in_float32 else self.kind)
            if not in_float32:
                _make_half(node, self.kind)
            self.nodes.append(node)
            for name in node.output:
                if self.flow.types.get(name) == TensorProto.FLOAT:
                    self.now[name] = TensorProto.FLOAT if in_float32 else self.kind
        self._give(value.name for value in self.proto.output)
        del self.proto.node[:]
        self.proto.node.extend(self.nodes)
        del self.proto.value_info[:]  # they say float32
        self.graph.drop_unused()

    def _take(self, node: NodeProto, floats: dict[str, Array], wanted: int) -> None:
        """Gives a node its floating-point inputs in a type."""
        for position, name in enumerate(node.input):
            if name in floats:
                node.input[position] = self._constant(name, floats[name], wanted)
            elif self.flow.types.get(name) == TensorProto.FLOAT and self.now[name] != wanted and node.op_type != "Cast":
                node.input[position] = self._cast(name, wanted)

    def _constant(self, name: str, value: Array, wanted: int) -> str:
        if wanted == TensorProto.FLOAT:
            return name
        half = f"{name}_{_NAMES[self.kind]}"
        if (name, wanted) not in self.cast:
            self.cast[name, wanted] = half
            converted = _halved(value, self.kind)
            if name in self.graph.weights:
                self.graph.weights[half] = converted
                self.graph.release_pages()
            else:
                self.proto.initializer.append(numpy_helper.from_array(converted, half))
        return half

    def _cast(self, name: str, wanted: int) -> str:
        if (name, wanted) not in self.cast:
            result = f"{name}_{_NAMES[wanted]}"
            self.nodes.append(helper.make_node("Cast", [name], [result], f"{result}/cast", to=wanted))
            self.cast[name, wanted] = result
        return self.cast[name, wanted]

    def _give(self, names: Iterable[str]) -> None:
        """The graph's outputs in half precision, also where a float32 part computes them."""
        outputs = {name for name in names if self.now.get(name) == TensorProto.FLOAT}
        for node in self.nodes:
            for part in (node.input, node.output):
                for position, name in enumerate(part):
                    if name in outputs:
                        part[position] = f"{name}_float32"
        for name in sorted(outputs):
            self.nodes.append(helper.make_node("Cast", [f"{name}_float32"], [name], f"{name}/cast", to=self.kind))


def _halved(value: Array, kind: int) -> Array:
    """Values in half precision; what is too large becomes the largest, not infinite."""
    limit = float(ml_dtypes.finfo(_NUMPY[kind]).max)  # type: ignore[no-untyped-call]
    halved: Array = np.clip(value, -limit, limit).astype(_NUMPY[kind])
    return halved


def _make_half(node: NodeProto, kind: int) -> None:
    """What a node makes in float32 by itself."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = kind
        if node.op_type in ("Constant", "ConstantOfShape") and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(numpy_helper.from_array(_halved(numpy_helper.to_array(attribute.t), kind)))
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(helper.make_attribute("value", helper.make_tensor("value", kind, [1], [0])))
    if node.op_type == "Constant":
        for attribute in list(node.attribute):
            if attribute.name in ("value_float", "value_floats"):
                value = _halved(np.array(helper.get_attribute_value(attribute)), kind)
                node.attribute.remove(attribute)
                node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(value)))
