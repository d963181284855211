"""A bfloat16 graph on a CPU, for which ONNX Runtime has hardly any kernels in it: computed in float32, and rounded.

Every value that the graph has in bfloat16 is computed by the float32 kernel from the same inputs, and rounded to bfloat16. That
is what a GPU does in one operator (it multiplies bfloat16 and sums in float32); the order of a sum is another, and so is what a
GPU keeps unrounded inside of an operator.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from trl_rrtf.export.half_precision import MOVES, value_types
from trl_rrtf.export.weights import WeightedGraph
from trl_rrtf.models.onnx_runtime import MODEL_FILE, open_session


def emulating_session(folder: Path, provider: str, threads: int | None = None) -> Any:
    """A session that computes a folder's bfloat16 graph in float32 and rounds; its cache is in float32.

    Args:
        folder: The exported folder.
        provider: The execution provider.
        threads: Threads of an operator; by default one per core.
    """
    graph = WeightedGraph.load(folder / MODEL_FILE)
    emulate(graph)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        graph.save(Path(scratch))
        return open_session(Path(scratch) / MODEL_FILE, provider, threads)


def emulate(graph: WeightedGraph) -> None:
    """Rewrites a bfloat16 graph in place. The weights stay as they are; what takes them gets them in float32."""
    proto = graph.proto.graph
    types = value_types(graph)
    constants = (*graph.weights, *(tensor.name for tensor in proto.initializer))
    weights = {name for name in constants if types[name] == TensorProto.BFLOAT16}
    nodes = [_cast(name, f"{name}/wide", TensorProto.FLOAT) for name in sorted(weights)]
    for node in proto.node:
        for position, name in enumerate(node.input):
            if name in weights:
                node.input[position] = f"{name}/wide"
        nodes.append(node)
        name = node.output[0]
        if types.get(name) != TensorProto.BFLOAT16:
            continue
        if node.op_type not in MOVES or node.op_type == "Cast":
            # Attention's other outputs are its cache, which is made of rounded values, and may lie where its input does.
            node.output[0] = f"{name}/exact"
            nodes.append(_cast(node.output[0], f"{name}/rounded", TensorProto.BFLOAT16))
            nodes.append(_cast(f"{name}/rounded", name, TensorProto.FLOAT))
        _widen(node)
    for value in (*proto.input, *proto.output):
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del proto.node[:]
    proto.node.extend(nodes)


def _cast(name: str, result: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [name], [result], result, to=kind)


def _widen(node: NodeProto) -> None:
    """What a node makes in bfloat16 by itself."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to":
            attribute.i = TensorProto.FLOAT
        if node.op_type in ("Constant", "ConstantOfShape") and attribute.t.data_type == TensorProto.BFLOAT16:
            attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
