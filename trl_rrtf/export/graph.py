"""A model's graph in float32, by the exporter that this environment has."""

from __future__ import annotations

import contextlib
import importlib.metadata
from pathlib import Path

import onnx
import torch
import transformers
from transformers import PreTrainedModel

from trl_rrtf.export import fused_attention
from trl_rrtf.models.onnx_runtime import MODEL_FILE

WEIGHTS_FILE = "model.onnx_data"
"""Weights outside of the graph, where both together are larger than a protobuf may be."""

_LARGEST_FILE = 2**31 - 2**24


def exporter() -> str:
    """`optimum` where optimum-onnx is installed and fits (it needs transformers 4), else `torch`."""
    try:
        importlib.metadata.version("optimum-onnx")
    except importlib.metadata.PackageNotFoundError:
        return "torch"
    return "optimum" if int(transformers.__version__.split(".")[0]) < 5 else "torch"


def export_graph(model: PreTrainedModel, folder: Path, *, fused: bool) -> onnx.ModelProto:
    """Exports a model with its key-value cache.

    Args:
        model: In float32.
        folder: Gets the configuration and the generation settings, and the graph while it is made.
        fused: Whether attention and rotary embedding become ONNX Runtime's fused operators.

    Returns:
        The graph with its weights.

    Raises:
        ConfigError: The exporter cannot export this architecture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), fused_attention.markers(model) if fused else contextlib.nullcontext():
        if exporter() == "optimum":
            from trl_rrtf.export.optimum_graph import export_with_optimum

            export_with_optimum(model, folder, marked=fused)
        else:
            from trl_rrtf.export.torch_graph import export_with_torch

            export_with_torch(model, folder)
    graph = onnx.load(folder / MODEL_FILE)
    for path in folder.glob("*.onnx*"):
        path.unlink()
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")  # the exporter's stack traces: as long as a small model, and full of local paths
    if fused:
        fused_attention.replace_markers(graph)
    return graph


def save_graph(graph: onnx.ModelProto, folder: Path) -> None:
    """Writes the graph; weights go into a file of their own where both are larger than 2 GB."""
    large = graph.ByteSize() > _LARGEST_FILE
    onnx.save(
        graph,
        folder / MODEL_FILE,
        save_as_external_data=large,
        all_tensors_to_one_file=True,
        location=WEIGHTS_FILE if large else None,
    )
