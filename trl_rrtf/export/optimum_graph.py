"""The graph of a model, exported by optimum-onnx (transformers 4)."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

_TASK = "text-generation-with-past"


def knows(model: PreTrainedModel, *, fused: bool) -> bool:
    """Whether Optimum has an export for an architecture.

    Some of its exports leave the positions out; a fused graph for CUDA, in which padding moves, needs them.
    """
    importlib.import_module("optimum.exporters.onnx.model_configs")  # it tells the tasks' manager what there is
    from optimum.exporters.tasks import TasksManager

    try:
        supported = TasksManager.get_supported_tasks_for_model_type(
            model.config.model_type, "onnx", library_name="transformers"
        )
    except KeyError:
        return False
    if _TASK not in supported:
        return False
    return not fused or "position_ids" in _config_of(model).inputs


def _config_of(model: PreTrainedModel) -> Any:
    """What Optimum exports of a model."""
    from optimum.exporters.tasks import TasksManager

    constructor = TasksManager.get_exporter_config_constructor(
        model=model, exporter="onnx", task=_TASK, library_name="transformers"
    )
    return constructor(model.config, use_past=True, use_past_in_inputs=True)


def export_with_optimum(model: PreTrainedModel, folder: Path, *, marked: bool) -> None:
    """Writes `model.onnx` with a key-value cache.

    Args:
        model: The model, in float32.
        folder: Where to.
        marked: Whether the graph holds markers, which ONNX Runtime does not know until they are replaced.
    """
    from optimum.exporters.onnx import onnx_export_from_model

    config = _config_of(model)
    if marked:  # Optimum would load the graph to find out static sizes
        config.fix_dynamic_axes = lambda *args, **kwargs: None
    with _quiet():
        onnx_export_from_model(
            model,
            folder,
            task=_TASK,
            do_validation=False,
            custom_onnx_configs={"model": config},
            no_post_process=True,  # it merges tied weights, as we do for every exporter
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of a trace, which are about Python values of the model's code and say nothing to a user."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("optimum", "transformers", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
