"""A model's graph in float32, by the exporter that works for it here."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from trl_rrtf.errors import ConfigError, TrlRrtfError
from trl_rrtf.export import fused_attention
from trl_rrtf.export.dense_experts import dense_experts
from trl_rrtf.export.rotary import frozen_frequencies
from trl_rrtf.export.weights import WeightedGraph
from trl_rrtf.models.onnx_runtime import MODEL_FILE

_LOGGER = logging.getLogger(__name__)

_LARGEST_FOR_OPTIMUM = 2**29
"""Bytes of float32 weights above which PyTorch's exporter is taken: TorchScript's holds them four times in memory."""


@dataclass(frozen=True)
class Origin:
    """How a graph was made.

    Attributes:
        exporter: `optimum` or `torch`.
        kind: `fused` or `plain`.
        why_plain: Why the graph is plain where a fused one was wanted; else empty.
    """

    exporter: str
    kind: str
    why_plain: str


@functools.cache
def has_optimum() -> bool:
    """Whether optimum-onnx is installed and starts; it is said where it does not."""
    try:
        importlib.metadata.version("optimum-onnx")
        importlib.import_module("optimum.exporters.onnx.model_configs")
    except importlib.metadata.PackageNotFoundError:
        return False
    except Exception as error:  # it reaches into transformers, and fails with what is missing there
        _LOGGER.warning(
            "optimum-onnx is installed and does not start with transformers %s (%s: %s); PyTorch's exporter is used",
            *(transformers.__version__, type(error).__name__, error),
        )
        return False
    return True


def exporter_of(model: PreTrainedModel) -> str:
    """The exporter for a model: `optimum` where it is here, knows the architecture and the model is small, else `torch`."""
    float32_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    if float32_bytes > _LARGEST_FOR_OPTIMUM or not has_optimum():
        return "torch"
    from trl_rrtf.export.optimum_graph import knows

    return "optimum" if knows(model.config.model_type) else "torch"


def export_graph(model: PreTrainedModel, folder: Path, *, fused: bool, must_fuse: bool = False) -> tuple[WeightedGraph, Origin]:
    """Exports a model with its key-value cache.

    Args:
        model: In float32.
        folder: Gets the configuration and the generation settings, and the graph while it is made.
        fused: Whether attention and rotary embedding become ONNX Runtime's fused operators, where they can.
        must_fuse: Whether it is an error where they cannot.

    Returns:
        The graph, in which equal weights are kept once, and how it was made.

    Raises:
        ConfigError: The exporter cannot export this architecture, or its attention cannot be fused and `must_fuse`.
    """
    why_plain = fused_attention.obstacle(model) if fused else ""
    if why_plain and must_fuse:
        raise ConfigError(
            f"`graph`: the attention of `{model.config.model_type}` models cannot be fused: {why_plain}; use plain"
        )
    fused = fused and not why_plain
    kind = "fused" if fused else "plain"
    folder.mkdir(parents=True, exist_ok=True)
    if exporter_of(model) == "optimum":
        try:
            return _exported(model, folder, "optimum", fused=fused), Origin("optimum", kind, why_plain)
        except TrlRrtfError:
            raise
        except Exception as error:  # whatever it raises of a model's code
            _LOGGER.warning("Optimum cannot export this model (%s); PyTorch's exporter is used", _reason(error))
    try:
        return _exported(model, folder, "torch", fused=fused), Origin("torch", kind, why_plain)
    except TrlRrtfError:
        raise
    except Exception as error:
        raise ConfigError(_cannot_export(model, error, fused=fused)) from error


def _exported(model: PreTrainedModel, folder: Path, exporter: str, *, fused: bool) -> WeightedGraph:
    markers = fused_attention.markers(model) if fused else contextlib.nullcontext()
    with torch.no_grad(), frozen_frequencies(model), dense_experts(model), markers:
        if exporter == "optimum":
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


def _reason(error: BaseException) -> str:
    """The first line of the innermost error; PyTorch's exporter puts pages of advice around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:300]}"


def _cannot_export(model: PreTrainedModel, error: Exception, *, fused: bool) -> str:
    """What to say where no exporter is left."""
    ways = ["`--graph plain`"] if fused else []
    ways += ["transformers 5 (another environment)"] if transformers.__version__.startswith("4.") else []
    return (
        f"`model`: PyTorch's exporter cannot export `{model.config.model_type}` models with transformers "
        f"{transformers.__version__} ({_reason(error)}); "
        + (f"try {' or '.join(ways)}, or run" if ways else "run")
        + " the checkpoint in PyTorch"
    )
