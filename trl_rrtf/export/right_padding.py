"""The fused graph for CUDA: attention is told how many tokens a row has, and padding stands behind them.

`GroupQueryAttention` can mask padding with a bias, which the graph for the CPU does. CUDA's operator computes that in its slow,
unfused way (ONNX Runtime 1.31) or refuses it (before); its FlashAttention knows the lengths of rows alone.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from trl_rrtf.export.weights import WeightedGraph
from trl_rrtf.models.onnx_runtime import PADDING_ENTRY

_LENGTHS, _BIAS = 5, 10
"""Inputs of `GroupQueryAttention`."""


def pad_right(graph: WeightedGraph) -> None:
    """Replaces the bias of a fused graph by the rows' lengths, and says so in its metadata; a plain graph stays as it is."""
    proto = graph.proto.graph
    attention = [node for node in proto.node if node.op_type == "GroupQueryAttention"]
    if not attention:
        return
    for node in attention:
        node.input[_LENGTHS] = "fused/lengths_less_1"
        del node.input[_BIAS]
        while not node.input[-1]:
            del node.input[-1]
    for name, value in (("fused/mask_axis", [1]), ("fused/1_64", 1)):
        proto.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.int64), name))
    counts = [
        helper.make_node("ReduceSum", ["attention_mask", "fused/mask_axis"], ["fused/lengths"], "fused/lengths", keepdims=0),
        helper.make_node("Sub", ["fused/lengths", "fused/1_64"], ["fused/lengths_64"], "fused/lengths_64"),
        helper.make_node("Cast", ["fused/lengths_64"], ["fused/lengths_less_1"], "fused/lengths_less_1", to=TensorProto.INT32),
    ]
    needed = {value.name for value in proto.output}
    used = []
    for node in reversed([*counts, *proto.node]):
        if needed.intersection(node.output):
            used.append(node)
            needed.update(node.input)
    used.reverse()
    del proto.node[:]
    proto.node.extend(used)
    graph.drop_unused()
    graph.proto.metadata_props.add(key=PADDING_ENTRY, value="right")
