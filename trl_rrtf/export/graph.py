"""A model's graph in float32, by the exporter that this environment has."""

from __future__ import annotations

import contextlib
import importlib.metadata
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from trl_rrtf.export import fused_attention
from trl_rrtf.export.rotary import frozen_frequencies
from trl_rrtf.export.weights import WeightedGraph
from trl_rrtf.models.onnx_runtime import MODEL_FILE

_LARGEST_FOR_OPTIMUM = 2**31
"""Bytes of float32 weights above which PyTorch's exporter is taken: TorchScript's holds them four times in memory."""


def exporter() -> str:
    """`optimum` where optimum-onnx is installed and fits (it needs transformers 4), else `torch`."""
    try:
        importlib.metadata.version("optimum-onnx")
    except importlib.metadata.PackageNotFoundError:
        return "torch"
    return "optimum" if int(transformers.__version__.split(".")[0]) < 5 else "torch"


def exporter_of(model: PreTrainedModel) -> str:
    """The exporter for a model: `exporter`, but PyTorch's for a model above 2 GB."""
    float32_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    return "torch" if float32_bytes >= _LARGEST_FOR_OPTIMUM else exporter()


def export_graph(model: PreTrainedModel, folder: Path, *, fused: bool) -> WeightedGraph:
    """Exports a model with its key-value cache.

    Args:
        model: In float32.
        folder: Gets the configuration and the generation settings, and the graph while it is made.
        fused: Whether attention and rotary embedding become ONNX Runtime's fused operators.

    Returns:
        The graph; equal weights are kept once.

    Raises:
        ConfigError: The exporter cannot export this architecture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    markers = fused_attention.markers(model) if fused else contextlib.nullcontext()
    with torch.no_grad(), frozen_frequencies(model), markers:
        if exporter_of(model) == "optimum":
            from trl_rrtf.export.optimum_graph import export_with_optimum

            export_with_optimum(model, folder, marked=fused)
        else:
            from trl_rrtf.export.torch_graph import export_with_torch

            export_with_torch(model, folder)
    graph = WeightedGraph.load(folder / MODEL_FILE)
    for path in folder.glob("*.onnx*"):  # what is mapped stays readable
        path.unlink()
    proto = graph.proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")  # the exporter's stack traces: as long as a small model, and full of local paths
    if fused:
        fused_attention.replace_markers(proto)
        graph.drop_unused()
    graph.merge_equal()
    return graph
