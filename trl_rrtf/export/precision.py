"""The precisions of an exported graph: what each does to it, and how far its results may move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trl_rrtf.export.config import ExportConfig
from trl_rrtf.export.half_precision import to_half
from trl_rrtf.export.report import Allowed
from trl_rrtf.export.right_padding import pad_right
from trl_rrtf.export.weights import Array, WeightedGraph

_EMBEDDING_BITS = 8
_ACCURACY_LEVEL = 4
"""MatMulNBits multiplies in int8: activations are rounded block by block."""


@dataclass(frozen=True)
class Precision:
    """A precision.

    Attributes:
        convert: Changes a float32 graph, and returns it or another.
        max_relative_difference: Largest mean difference of logits from PyTorch's, in standard deviations of PyTorch's.
        max_perplexity_ratio: Largest ratio of the perplexities on a text, whichever is the larger.
        min_agreement: Smallest share of a text's positions where both find the same token the likeliest.
    """

    convert: Callable[[WeightedGraph, ExportConfig], WeightedGraph]
    max_relative_difference: float
    max_perplexity_ratio: float
    min_agreement: float = 0.0

    @property
    def allowed(self) -> Allowed:
        """The bounds alone."""
        return Allowed(self.max_relative_difference, self.max_perplexity_ratio, self.min_agreement)


def _to_fp32(graph: WeightedGraph, config: ExportConfig) -> WeightedGraph:
    return graph


def _to_fp16(graph: WeightedGraph, config: ExportConfig) -> WeightedGraph:
    """Weights, activations and cache in half precision; norms, rotary embedding and softmax stay in float32."""
    pad_right(graph)
    to_half(graph, TensorProto.FLOAT16)
    return graph


def _to_bf16(graph: WeightedGraph, config: ExportConfig) -> WeightedGraph:
    """As `_to_fp16`, in bfloat16."""
    pad_right(graph)
    to_half(graph, TensorProto.BFLOAT16)
    return graph


def _to_int8(graph: WeightedGraph, config: ExportConfig) -> WeightedGraph:
    _quantize_embedding(graph, config.block_size)
    if config.int8_method == "dynamic":
        return _quantize_dynamically(graph)
    _quantize_weights(graph, bits=8, block_size=config.block_size)
    return graph


def _to_int4(graph: WeightedGraph, config: ExportConfig) -> WeightedGraph:
    _quantize_embedding(graph, config.block_size)
    _quantize_weights(graph, bits=4, block_size=config.block_size)
    return graph


CONVERSIONS: dict[str, Precision] = {
    "fp32": Precision(_to_fp32, 1e-3, 1.001, 0.99),
    "fp16": Precision(_to_fp16, 1e-2, 1.01, 0.97),
    "bf16": Precision(_to_bf16, 5e-2, 1.03, 0.93),
    "int8": Precision(_to_int8, 0.1, 1.05, 0.85),
    "int4": Precision(_to_int4, 0.6, 1.6, 0.4),
}
"""By name, in the order of falling exactness."""


def _quantize_weights(graph: WeightedGraph, *, bits: int, block_size: int) -> None:
    """Every product with a constant matrix becomes `MatMulNBits`, one after the other."""
    is_symmetric = bits == 8
    quantized: dict[str, tuple[list[str], int, int]] = {}
    nodes: list[Any] = []
    for node in _without_gemm(graph):
        weight = graph.value(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            nodes.append(node)
            continue
        name = node.input[1]
        if name not in quantized:
            parts = _blocks_of(weight, bits=bits, block_size=block_size, is_symmetric=is_symmetric)
            names = [f"{name}_Q{bits}", f"{name}_scales", f"{name}_zero_points"][: len(parts)]
            graph.weights |= dict(zip(names, parts, strict=True))
            quantized[name] = names, *weight.shape
            graph.release_pages()
        names, rows, columns = quantized[name]
        nodes.append(_block_product(node, names, rows, columns, bits=bits, block_size=block_size))
    del graph.proto.graph.node[:]
    graph.proto.graph.node.extend(nodes)
    _use_contributed_operators(graph)
    graph.drop_unused()


def _without_gemm(graph: WeightedGraph) -> Iterator[onnx.NodeProto]:
    """The nodes; each `Gemm` as a product and a sum."""
    for node in graph.proto.graph.node:
        factors = {part.name: helper.get_attribute_value(part) for part in node.attribute}
        weight = graph.value(node.input[1]) if node.op_type == "Gemm" else None
        if weight is None or factors.get("transA") or factors.get("alpha", 1) != 1 or factors.get("beta", 1) != 1:
            yield node
            continue
        name = node.input[1]
        if factors.get("transB"):
            name = f"{name}_transposed"
            graph.weights[name] = weight.T
        has_bias = len(node.input) > 2 and node.input[2]
        result = f"{node.output[0]}/product" if has_bias else node.output[0]
        yield helper.make_node("MatMul", [node.input[0], name], [result], node.name)
        if has_bias:
            yield helper.make_node("Add", [result, node.input[2]], list(node.output), f"{node.name}/bias")


def _blocks_of(weight: Array, *, bits: int, block_size: int, is_symmetric: bool) -> list[Array]:
    """Values, scales and, if they are not symmetric, zero points of a matrix (K, N)."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

    settings = DefaultWeightOnlyQuantConfig(block_size=block_size, is_symmetric=is_symmetric, bits=bits)
    values, scales, zeros = DefaultWeightOnlyQuantizer(settings).qbits_block_quant(np.ascontiguousarray(weight))
    return [values, scales] if is_symmetric else [values, scales, zeros]


def _block_product(
    node: onnx.NodeProto, weight: list[str], rows: int, columns: int, *, bits: int, block_size: int
) -> onnx.NodeProto:
    """A product (.., K) by (K, N) whose second factor is in blocks."""
    sizes = {"K": rows, "N": columns, "bits": bits, "block_size": block_size, "accuracy_level": _ACCURACY_LEVEL}
    return helper.make_node(
        "MatMulNBits", [node.input[0], *weight], list(node.output), node.name, domain="com.microsoft", **sizes
    )


def _use_contributed_operators(graph: WeightedGraph) -> None:
    if not any(opset.domain == "com.microsoft" for opset in graph.proto.opset_import):
        graph.proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _quantize_dynamically(graph: WeightedGraph) -> WeightedGraph:
    """Weights int8 per channel; activations are rounded when they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def convert(before: Path, after: Path) -> None:
        quantize_dynamic(
            before,
            after,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
        )

    return graph.reloaded_from(convert)


def _quantize_embedding(graph: WeightedGraph, block_size: int) -> None:
    """Token embedding in int8 blocks, and the LM head with it where their weights are tied: they are kept once, not twice.

    An embedding whose width no block divides stays as it is.
    """
    proto = graph.proto.graph
    lookups = (node for node in proto.node if node.op_type == "Gather" and node.input[0] in graph.weights)
    lookup = next((node for node in lookups if _is_of_tokens(graph, node)), None)
    if lookup is None:
        return
    name = lookup.input[0]
    embedding = graph.weights[name]
    vocabulary, width = embedding.shape
    while width % block_size:
        block_size //= 2
    if block_size < 16:
        return
    parts = _blocks_of(embedding.T, bits=_EMBEDDING_BITS, block_size=block_size, is_symmetric=True)
    rounded, scale = f"{name}_Q{_EMBEDDING_BITS}", f"{name}_scales"
    graph.weights |= {rounded: parts[0], scale: parts[1]}
    proto.initializer.append(numpy_helper.from_array(np.array(embedding.shape), f"{name}_shape"))
    blocks: dict[str, Any] = {"bits": _EMBEDDING_BITS, "block_size": block_size}
    transposed = {node.output[0] for node in proto.node if node.op_type == "Transpose" and node.input[0] == name}
    nodes: list[Any] = []
    for node in proto.node:
        if node is lookup:
            matrix = f"{name}_matrix"
            nodes.append(helper.make_node("Reshape", [rounded, f"{name}_shape"], [matrix], name=f"{node.name}/matrix"))
            inputs, axes = [matrix, node.input[1], scale], {"gather_axis": 0, "quantize_axis": 1, **blocks}
            axes["domain"] = "com.microsoft"
            nodes.append(helper.make_node("GatherBlockQuantized", inputs, node.output, node.name, **axes))
        elif node.op_type == "MatMul" and node.input[1] in transposed:
            nodes.append(_block_product(node, [rounded, scale], width, vocabulary, **blocks))
        elif not transposed.intersection(node.output):
            nodes.append(node)
    del proto.node[:]
    proto.node.extend(nodes)
    _use_contributed_operators(graph)
    graph.drop_unused()


def _is_of_tokens(graph: WeightedGraph, lookup: onnx.NodeProto) -> bool:
    """Whether a lookup's rows are token ids, as they come or in another shape."""
    reshaped = {node.output[0] for node in graph.proto.graph.node if node.op_type == "Reshape" and node.input[0] == "input_ids"}
    return lookup.input[1] == "input_ids" or lookup.input[1] in reshaped
