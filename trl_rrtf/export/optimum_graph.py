"""The graph of a model, exported by optimum-onnx (transformers 4)."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from trl_rrtf.errors import ConfigError

_TASK = "text-generation-with-past"


def export_with_optimum(model: PreTrainedModel, folder: Path, *, marked: bool) -> None:
    """Writes `model.onnx` with a key-value cache.

    Args:
        model: The model, in float32.
        folder: Where to.
        marked: Whether the graph holds markers, which ONNX Runtime does not know until they are replaced.

    Raises:
        ConfigError: Optimum has no export for this architecture.
    """
    from optimum.exporters.onnx import onnx_export_from_model
    from optimum.exporters.tasks import TasksManager

    model_type = model.config.model_type
    supported = TasksManager.get_supported_model_type_for_task(_TASK, exporter="onnx")
    if model_type not in supported:
        raise ConfigError(
            f"`model`: Optimum cannot export `{model_type}` models; it can: {', '.join(sorted(supported))}. Others can be "
            "exported with transformers 5 (`pip install 'transformers>=5'` in another environment)"
        )
    constructor = TasksManager.get_exporter_config_constructor(
        model=model, exporter="onnx", task=_TASK, library_name="transformers"
    )
    config = constructor(model.config, use_past=True, use_past_in_inputs=True)
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
