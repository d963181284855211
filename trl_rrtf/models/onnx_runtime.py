"""An exported ONNX model in a session: which provider runs it, and a step of the model with its cache."""

from __future__ import annotations

import contextlib
import ctypes
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from trl_rrtf.errors import ConfigError, LoadError

MODEL_FILE = "model.onnx"
"""The graph in an exported folder; weights of more than 600 MB lie beside it, in `model.onnx_data`."""

GENAI_FILE = "genai_config.json"
"""What onnxruntime-genai wants to know of the graph, in an exported folder."""

REPORT_FILE = "export_report.json"
"""What the export measured, in an exported folder; written last."""

CAP_ENTRY, CAP_REASON_ENTRY = "trl_rrtf.usable_positions", "trl_rrtf.usable_positions_reason"
"""Entries of a graph's metadata, where it is right for shorter texts than the model."""

SHARED_CACHE_ENTRY, PADDING_ENTRY = "trl_rrtf.shared_cache", "trl_rrtf.padding"
"""Entries of a graph's metadata: its cache may lie in one buffer of any length, which a step writes into; and `right`, where
the tokens of each row must stand before its padding. See [`OnnxStep`][trl_rrtf.models.onnx_step.OnnxStep]."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def choose_provider(device: str | None = None) -> str:
    """The execution provider for a device.

    Args:
        device: `cpu`, `cuda`, or None for CUDA where it is, else the CPU.

    Raises:
        ConfigError: CUDA was asked for and is not there; it is never replaced in silence.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if device is None:
        return _PROVIDERS["cuda" if _PROVIDERS["cuda"] in available else "cpu"]
    if _PROVIDERS[device] not in available:
        raise ConfigError(
            f"`device`: {device} was asked for, and this onnxruntime ({onnxruntime.__version__}) has only "
            f"{', '.join(available)}; install `trl-rrtf[onnx-gpu]` in an environment without `onnxruntime`, or use `--device "
            "cpu`"
        )
    return _PROVIDERS[device]


def is_onnx_model(model: str) -> bool:
    """Whether a folder, or a repository on the Hub, holds an exported model; False where the Hub cannot be asked.

    Args:
        model: A folder, or a Hub id.
    """
    if Path(model).exists():
        return (Path(model) / MODEL_FILE).is_file()
    from huggingface_hub import file_exists, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, MODEL_FILE), str):
        return True
    try:
        return bool(file_exists(model, MODEL_FILE))
    except Exception:  # loading the model will say what is wrong with the name or the network
        return False


def require_onnx_model(folder: str | Path, argument: str = "model") -> Path:
    """Refuses a folder that holds no complete ONNX model.

    Returns:
        The folder.

    Raises:
        LoadError: A file is missing or cut short.
    """
    folder = Path(folder)
    for name, meaning in ((MODEL_FILE, "graph"), ("config.json", "configuration")):
        if not (folder / name).is_file():
            raise LoadError(
                f"`{argument}`: `{folder}` has no {name} ({meaning}); export the checkpoint with `trl-rrtf export`, or copy "
                "the folder again"
            )
    return folder


def make_session(folder: str | Path, provider: str, threads: int | None = None) -> Any:
    """Loads a graph.

    Args:
        folder: An exported folder.
        provider: The execution provider.
        threads: Threads of an operator; by default one per core.

    Raises:
        LoadError: The graph or its weights are damaged.
        ConfigError: The provider did not start (a CUDA library is missing, say).
    """
    return open_session(require_onnx_model(folder) / MODEL_FILE, provider, threads)


def open_session(path: Path, provider: str, threads: int | None = None) -> Any:
    """Loads a graph from its file; see [`make_session`][trl_rrtf.models.onnx_runtime.make_session]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    said = io.StringIO()  # by onnxruntime's Python part: what CUDA lacks, and that it would fall back
    with contextlib.redirect_stdout(said) if provider == _PROVIDERS["cuda"] else contextlib.nullcontext():
        if provider == _PROVIDERS["cuda"] and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # of NVIDIA's packages, which torch brings along; torch's own are loaded with torch
        try:
            session = onnxruntime.InferenceSession(path, options, providers=[provider])
        except Exception as error:  # onnxruntime has an exception class per status, none of them public
            raise LoadError(_cannot_load(path, provider, error)) from error
    if provider not in session.get_providers():
        raise ConfigError(
            f"`device`: {provider} is installed but did not start, onnxruntime would fall back to the CPU. "
            f"{_why_not_cuda(said.getvalue())}. onnxruntime-gpu {onnxruntime.__version__} needs CUDA "
            f"{onnxruntime.cuda_version or '13'} and cuDNN 9, and a driver for them: install them (`pip install "
            "onnxruntime-gpu[cuda,cudnn]` brings all but the driver), or use `--device cpu`"
        )
    return session


def _cannot_load(path: Path, provider: str, error: Exception) -> str:
    import onnxruntime

    reason = str(error).splitlines()[0]
    if "NOT_IMPLEMENTED" in reason:
        return (
            f"`{path}` cannot be run by onnxruntime {onnxruntime.__version__} on {provider}, which has no kernel for a part of "
            f"it ({reason}); a graph in bf16 runs on CUDA alone (`--device cuda`), else export it again for this device"
        )
    return (
        f"`{path}` cannot be loaded ({reason}); a file is damaged or half copied, or this onnxruntime "
        f"({onnxruntime.__version__}) is older than the one that exported it: copy or export it again"
    )


def _why_not_cuda(said: str) -> str:
    """Why onnxruntime's CUDA library does not start: what the loader says of it, else what onnxruntime said."""
    import onnxruntime

    for path in (Path(onnxruntime.__file__).parent / "capi").glob("*onnxruntime_providers_cuda*"):
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            return f"Its library cannot be loaded: {error}"
    lines = [line.strip(" *") for line in said.splitlines()]
    return " ".join(line for line in lines if line) or "onnxruntime gave no reason; no GPU may be visible (`nvidia-smi`)"


@dataclass(frozen=True)
class PositionCap:
    """A length of texts beyond which a graph is wrong, although the model itself is not.

    Attributes:
        tokens: The longest text that it is right for.
        reason: Why, in words.
    """

    tokens: int
    reason: str


def position_cap(session: Any) -> PositionCap | None:
    """The cap that the export wrote into a graph; None if there is none."""
    entries = session.get_modelmeta().custom_metadata_map
    return PositionCap(int(entries[CAP_ENTRY]), entries[CAP_REASON_ENTRY]) if CAP_ENTRY in entries else None


def require_within(cap: PositionCap | None, tokens: int) -> None:
    """Refuses a text that is longer than a graph is right for.

    Raises:
        ConfigError: It says why, and what to do.
    """
    if cap is not None and tokens > cap.tokens:
        raise ConfigError(
            f"`model`: this graph is right for texts of up to {cap.tokens} tokens, and there are {tokens}: {cap.reason}. "
            "Shorten the text (`max_new_tokens` counts), or run the checkpoint in PyTorch"
        )


@dataclass
class OnnxDecoder:
    """A decoder with a cache, one step at a time, in NumPy; for measuring and comparing.

    `generate` is left to [`OnnxCausalLM`][trl_rrtf.OnnxCausalLM]; both run the same steps.

    Attributes:
        session: The session.
        takes_positions: Whether the graph is told the positions of tokens, and does not count them itself.
    """

    session: Any
    takes_positions: bool = field(init=False)

    def __post_init__(self) -> None:
        """Reads the names and sizes of the graph's inputs."""
        import torch

        from trl_rrtf.models.onnx_step import OnnxStep

        on_gpu = self.session.get_providers()[0] == _PROVIDERS["cuda"] and torch.cuda.is_available()
        self._device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
        self._step = OnnxStep(self.session, self._device)
        self._cap = position_cap(self.session)
        self.takes_positions = self._step.takes_positions

    @classmethod
    def load(cls, folder: str | Path, provider: str, threads: int | None = None) -> Self:
        """Loads an exported folder; see [`make_session`][trl_rrtf.models.onnx_runtime.make_session]."""
        return cls(make_session(folder, provider, threads))

    def step(
        self,
        input_ids: np.ndarray[Any, Any],
        attention_mask: np.ndarray[Any, Any],
        cache: list[Any] | None = None,
        *,
        first_position: int = 0,
    ) -> tuple[np.ndarray[Any, Any], list[Any]]:
        """Runs new tokens.

        Args:
            input_ids: (B, S) the new tokens.
            attention_mask: (B, T) of all tokens, the cached ones too; 0 is padding.
            cache: What the last step returned, None at first; it may be extended once.
            first_position: Position of each row's first token.

        Returns:
            (B, S, V) logits in float32, and the cache.

        Raises:
            ConfigError: The text is longer than the graph is right for.
        """
        import torch

        require_within(self._cap, first_position + attention_mask.shape[1])
        positions = np.maximum(attention_mask.cumsum(axis=1) - 1, 0)[:, -input_ids.shape[1] :] + first_position
        inputs = (torch.from_numpy(np.ascontiguousarray(part)) for part in (input_ids, attention_mask, positions))
        logits, states = self._step(*(part.to(self._device, torch.int64) for part in inputs), states=cache or ())
        return logits.float().cpu().numpy(), states
