"""The precisions of an exported graph: what each does to it, and how far its results may move."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trl_rrtf.export.config import ExportConfig

_EMBEDDING_BITS = 8
_ACCURACY_LEVEL = 4
"""MatMulNBits multiplies in int8: activations are rounded block by block."""


@dataclass(frozen=True)
class Precision:
    """A precision.

    Attributes:
        convert: Changes a float32 graph, and returns it or another.
        max_relative_difference: Largest mean difference of logits from PyTorch's, in standard deviations of PyTorch's.
        max_perplexity_ratio: Largest ratio of the perplexities on a text.
    """

    convert: Callable[[onnx.ModelProto, ExportConfig], onnx.ModelProto]
    max_relative_difference: float
    max_perplexity_ratio: float


def _to_fp32(model: onnx.ModelProto, config: ExportConfig) -> onnx.ModelProto:
    return model


def _to_fp16(model: onnx.ModelProto, config: ExportConfig) -> onnx.ModelProto:
    """Weights, activations and cache in half precision; norms keep float32 where the exported graph casts to it."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=False, disable_shape_infer=True)
    return half


def _to_int8(model: onnx.ModelProto, config: ExportConfig) -> onnx.ModelProto:
    _quantize_embedding(model, config.block_size)
    if config.int8_method == "dynamic":
        return _quantize_dynamically(model)
    return _quantize_weights(model, bits=8, block_size=config.block_size)


def _to_int4(model: onnx.ModelProto, config: ExportConfig) -> onnx.ModelProto:
    _quantize_embedding(model, config.block_size)
    return _quantize_weights(model, bits=4, block_size=config.block_size)


CONVERSIONS: dict[str, Precision] = {
    "fp32": Precision(_to_fp32, 1e-3, 1.001),
    "fp16": Precision(_to_fp16, 1e-2, 1.01),
    "int8": Precision(_to_int8, 0.1, 1.05),
    "int4": Precision(_to_int4, 0.6, 1.6),
}
"""By name, in the order of falling exactness."""


def _quantize_weights(model: onnx.ModelProto, *, bits: int, block_size: int) -> onnx.ModelProto:
    """Every product with a constant matrix becomes `MatMulNBits`."""
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )
    from onnxruntime.quantization.onnx_model import ONNXModel

    wrapped = ONNXModel(model)
    wrapped.replace_gemm_with_matmul()
    algorithm = DefaultWeightOnlyQuantConfig(
        block_size=block_size, is_symmetric=bits == 8, accuracy_level=_ACCURACY_LEVEL, bits=bits
    )
    quantizer = MatMulNBitsQuantizer(wrapped.model, algo_config=algorithm)
    logger = logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    level = logger.level
    logger.setLevel(logging.WARNING)  # it tells of every node
    try:
        quantizer.process()
    finally:
        logger.setLevel(level)
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _quantize_dynamically(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights int8 per channel; activations are rounded when they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=model.ByteSize() > onnx.checker.MAXIMUM_PROTOBUF // 2,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
        )
        return onnx.load(path)


def _quantize_embedding(model: onnx.ModelProto, block_size: int) -> None:
    """Token embedding in int8 blocks, and the LM head with it where their weights are tied: they are kept once, not twice.

    An embedding whose width no block divides stays as it is.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    lookup = next(
        (node for node in graph.node if node.op_type == "Gather" and node.input[0] in weights and node.input[1] == "input_ids"),
        None,
    )
    if lookup is None:
        return
    name = lookup.input[0]
    embedding = numpy_helper.to_array(weights[name])
    vocabulary, width = embedding.shape
    while width % block_size:
        block_size //= 2
    if block_size < 16:
        return
    settings = DefaultWeightOnlyQuantConfig(block_size=block_size, is_symmetric=True, bits=_EMBEDDING_BITS)
    packed, scales, _ = DefaultWeightOnlyQuantizer(settings).qbits_block_quant(np.ascontiguousarray(embedding.T))
    rounded, scale = f"{name}_Q{_EMBEDDING_BITS}", f"{name}_scales"
    for tensor_name, value in ((rounded, packed), (scale, scales), (f"{name}_shape", np.array(embedding.shape))):
        graph.initializer.append(numpy_helper.from_array(value, tensor_name))
    blocks: dict[str, Any] = {"bits": _EMBEDDING_BITS, "block_size": block_size, "domain": "com.microsoft"}
    transposed = {node.output[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] == name}
    nodes: list[Any] = []
    for node in graph.node:
        if node is lookup:
            matrix = f"{name}_matrix"
            nodes.append(helper.make_node("Reshape", [rounded, f"{name}_shape"], [matrix], name=f"{node.name}/matrix"))
            inputs, axes = [matrix, node.input[1], scale], {"gather_axis": 0, "quantize_axis": 1, **blocks}
            nodes.append(helper.make_node("GatherBlockQuantized", inputs, node.output, node.name, **axes))
        elif node.op_type == "MatMul" and node.input[1] in transposed:
            sizes = {"K": width, "N": vocabulary, "accuracy_level": _ACCURACY_LEVEL, **blocks}
            nodes.append(helper.make_node("MatMulNBits", [node.input[0], rounded, scale], node.output, node.name, **sizes))
        elif not transposed.intersection(node.output):
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    if not any(name in node.input for node in nodes):
        graph.initializer.remove(weights[name])
    if not any(opset.domain == "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
