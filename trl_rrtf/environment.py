"""What `trl-rrtf env` reports: versions, devices and what contains a judged program, for bug reports."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from typing import Any

from trl_rrtf.errors import JudgeError
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.isolation import probe_isolation

_PACKAGES = ("trl-rrtf", "trl", "transformers", "torch", "accelerate", "datasets", "peft", "huggingface-hub")
_ONNX_PACKAGES = ("optimum-onnx", "onnx", "onnxruntime", "onnxruntime-gpu")


def environment() -> dict[str, Any]:
    """Versions, devices, whether TRL's usage pings are on, and what contains a judged program.

    Returns:
        Name -> value, for a table.
    """
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] or ["none"]
    pings_off = any(os.environ.get(name) for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "CI"))
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **{name: _version(name) for name in (*_PACKAGES, *_ONNX_PACKAGES)},
        "CUDA devices": ", ".join(devices),
        "ONNX Runtime providers": _providers(),
        "TRL usage pings": "off" if pings_off else "on (HF_HUB_DISABLE_TELEMETRY=1 turns them off)",
        **_isolation(),
    }


def _isolation() -> dict[str, str]:
    """What contains a judged program here, found out by trying."""
    try:
        found = probe_isolation(JudgeConfig())
    except JudgeError as error:
        return {"isolation": f"the judge does not work here: {error}"}
    properties = {f"isolation: {name}": "yes" if holds else "NO" for name, holds in found.properties.items()}
    return {**properties, **{f"layer: {name}": state for name, state in found.layers.items()}}


def _providers() -> str:
    if importlib.util.find_spec("onnxruntime") is None:
        return "none"
    import onnxruntime

    return ", ".join(onnxruntime.get_available_providers())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
