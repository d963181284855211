"""A model's graph in float32, by the exporter that works for it here."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from trl_rrtf.errors import ConfigError, TrlRrtfError
from trl_rrtf.export import fused_attention
from trl_rrtf.export.dense_experts import dense_experts
from trl_rrtf.export.rotary import frozen_frequencies, real_rotations
from trl_rrtf.export.weights import WeightedGraph
from trl_rrtf.models.onnx_runtime import MODEL_FILE

_LOGGER = logging.getLogger(__name__)

_LARGEST_FOR_OPTIMUM = 2**29
"""Bytes of float32 weights above which PyTorch's exporter is taken: TorchScript's holds them four times in memory."""


_CRASHING = ("gemma3n", "gemma3n_text")
"""Architectures of transformers 4 on which PyTorch's exporter ends the whole process (a segmentation fault)."""


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


def exporter_of(model: PreTrainedModel, *, fused: bool) -> str:
    """The exporter for a model: `optimum` where it is here, knows the architecture and the model is small, else `torch`."""
    float32_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    if float32_bytes > _LARGEST_FOR_OPTIMUM or not has_optimum():
        return "torch"
    from trl_rrtf.export.optimum_graph import knows

    return "optimum" if knows(model, fused=fused) else "torch"


def export_graph(model: PreTrainedModel, folder: Path, *, fused: bool, must_fuse: bool = False) -> tuple[WeightedGraph, Origin]:
    """Exports a model with its key-value cache.

    Args:
        model: In float32.
        folder: Gets the configuration and the generation settings, and the graph while it is made.
        fused: Whether attention and rotary embedding become ONNX Runtime's fused operators, where they can.
        must_fuse: Whether it is an error where they cannot; else the graph is plain then, and it is said why.

    Returns:
        The graph, in which equal weights are kept once, and how it was made.

    Raises:
        ConfigError: No exporter can export this architecture, or its attention cannot be fused and `must_fuse`.
    """
    if transformers.__version__.startswith("4.") and model.config.model_type in _CRASHING:
        raise ConfigError(_cannot_export(model, "it crashes"))
    why_plain = fused_attention.obstacle(model) if fused else ""
    if why_plain and must_fuse:
        raise ConfigError(_cannot_fuse(model, why_plain))
    folder.mkdir(parents=True, exist_ok=True)
    if fused and not why_plain:
        try:
            return _by_what_works(model, folder, fused=True)
        except (_NoExporterError, fused_attention.NotFusableError) as error:
            if must_fuse:
                raise ConfigError(_cannot_fuse(model, str(error))) from error
            why_plain = str(error)
            _LOGGER.warning("the attention of this model cannot be fused: %s; the graph is plain", why_plain)
    try:
        graph, origin = _by_what_works(model, folder, fused=False)
    except _NoExporterError as error:
        raise ConfigError(_cannot_export(model, str(error))) from error
    return graph, replace(origin, why_plain=why_plain)


class _NoExporterError(Exception):
    """No exporter could export a model; the cause is what the last one raised."""


def _by_what_works(model: PreTrainedModel, folder: Path, *, fused: bool) -> tuple[WeightedGraph, Origin]:
    exporters = ["optimum", "torch"] if exporter_of(model, fused=fused) == "optimum" else ["torch"]
    for exporter in exporters:
        try:
            _export(model, folder, exporter, fused=fused)
        except TrlRrtfError:
            raise
        except Exception as error:  # whatever an exporter raises of a model's code
            if isinstance(root := _root(error), OSError):  # a full disk is no matter of the model
                raise root from None
            if exporter == exporters[-1]:
                raise _NoExporterError(_reason(error)) from error
            _LOGGER.warning("Optimum cannot export this model (%s); PyTorch's exporter is used", _reason(error))
        else:
            return _read(folder, fused=fused), Origin(exporter, "fused" if fused else "plain", "")
    raise AssertionError("the last exporter returns or raises")


def _export(model: PreTrainedModel, folder: Path, exporter: str, *, fused: bool) -> None:
    """Writes `model.onnx`, with markers where it is to be fused."""
    markers = fused_attention.markers(model) if fused else contextlib.nullcontext()
    with torch.no_grad(), frozen_frequencies(model), real_rotations(model), dense_experts(model), markers:
        if exporter == "optimum":
            from trl_rrtf.export.optimum_graph import export_with_optimum

            export_with_optimum(model, folder, marked=fused)
        else:
            from trl_rrtf.export.torch_graph import export_with_torch

            export_with_torch(model, folder)


def _read(folder: Path, *, fused: bool) -> WeightedGraph:
    """What an exporter wrote, without its traces, and with fused operators in place of markers."""
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
    """The beginning of the innermost error; PyTorch's exporter puts pages of advice around it."""
    root = _root(error)
    words = " ".join(str(root).split())
    return f"{type(root).__name__}: {words[:200]}" if words else type(root).__name__


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _cannot_fuse(model: PreTrainedModel, reason: str) -> str:
    return (
        f"`graph`: the attention of `{model.config.model_type}` models cannot be fused: {reason}; use `--graph plain`, or "
        "leave `--graph` out"
    )


def _cannot_export(model: PreTrainedModel, reason: str) -> str:
    """What to say where no exporter is left."""
    other = "try transformers 5 (another environment), or run" if transformers.__version__.startswith("4.") else "run"
    return (
        f"`model`: PyTorch's exporter cannot export `{model.config.model_type}` models with transformers "
        f"{transformers.__version__} ({reason}); {other} the checkpoint in PyTorch"
    )
