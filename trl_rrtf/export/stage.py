"""The `export` stage: a checkpoint in, a folder for ONNX Runtime out, with a report of how equal it is."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_rrtf.errors import ConfigError, OutputError
from trl_rrtf.export.config import ExportArguments, ExportConfig
from trl_rrtf.models.paths import require_model
from trl_rrtf.models.onnx_runtime import REPORT_FILE, choose_provider
from trl_rrtf.rows.files import write_json

if TYPE_CHECKING:
    from trl_rrtf.export.checkpoint import Checkpoint

_LIBRARIES = ("trl-rrtf", "transformers", "torch", "optimum", "optimum-onnx", "onnx", "onnxruntime", "onnxruntime-gpu")
_NEEDED = {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnx_ir": "onnx-ir"}


def run_export(arguments: ExportArguments, config: ExportConfig) -> dict[str, Any]:
    """Exports a checkpoint, proves that the graph computes the same, and only then puts the folder in its place.

    Args:
        arguments: Folders.
        config: Precision and device.

    Returns:
        A summary: size, differences, perplexities, where the model lies.

    Raises:
        LoadError: The checkpoint is not there or damaged.
        ConfigError: A package is missing, the checkpoint is misread by this transformers, or its architecture has no export.
        OutputError: The folder is in the way, the disk is full, or the graph is outside the tolerance of its precision.
    """
    require_model(arguments.model)
    output = Path(arguments.output)
    settings = {"model": arguments.model, **asdict(config)}
    if (earlier := _finished(output, arguments, settings)) is not None:
        return _summary(earlier, output)
    _require_packages()
    output.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    # Beside the output, so that it can be moved there in one step.
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        made = Path(scratch) / "export"
        try:
            report = _export(arguments.model, made, Path(scratch), config)
        except OSError as error:
            if isinstance(error, (OutputError, ConfigError)) or "No space left" not in str(error):
                raise
            raise OutputError(f"`output`: the disk of `{output}` is full; free space and run the same command again") from error
        report = {"settings": settings, **report, "seconds": round(time.monotonic() - started, 1)}
        write_json(made / REPORT_FILE, report)
        if output.exists():
            shutil.rmtree(output)
        made.rename(output)
    if config.push_to_hub:
        push_folder(output, config.push_to_hub)
    return _summary(report, output)


def push_folder(folder: Path, repo_id: str) -> str:
    """Uploads an exported folder, its card and report included, in one commit; returns the address."""
    from huggingface_hub import HfApi

    api = HfApi()
    address = api.create_repo(repo_id, exist_ok=True)
    api.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message="Upload ONNX model")
    return str(address)


def _finished(output: Path, arguments: ExportArguments, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The report of an earlier run of the same command, if there is one."""
    if not output.exists() or arguments.overwrite:
        return None
    report_file = output / REPORT_FILE
    report = json.loads(report_file.read_text(encoding="utf-8")) if report_file.is_file() else {}
    if report.get("settings") == settings:
        return dict(report)
    raise OutputError(
        f"`output`: `{output}` is there already{' with other settings' if report else ''}; choose another folder, or replace "
        "it with `--overwrite true`"
    )


def _require_packages() -> None:
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(f"`export` needs {', '.join(missing)}; install `trl-rrtf[onnx]`, or `trl-rrtf[onnx-gpu]` for CUDA")
    import transformers

    if importlib.util.find_spec("optimum") is None and int(transformers.__version__.split(".")[0]) < 5:
        raise ConfigError("`export` needs optimum-onnx with transformers 4; install `trl-rrtf[onnx]`")
    if importlib.util.find_spec("optimum") is None and importlib.util.find_spec("onnxscript") is None:
        raise ConfigError("`export` needs onnxscript with transformers 5; `pip install onnx onnxruntime onnx-ir onnxscript`")


def _export(source: str, folder: Path, scratch: Path, config: ExportConfig) -> dict[str, Any]:
    from trl_rrtf.export.checkpoint import load_checkpoint
    from trl_rrtf.export.graph import export_graph, exporter, save_graph
    from trl_rrtf.export.precision import CONVERSIONS

    checkpoint = load_checkpoint(source, scratch)
    graph = export_graph(checkpoint.model, folder, fused=config.is_fused)
    checkpoint.tokenizer.save_pretrained(folder)
    graph = CONVERSIONS[config.precision].convert(graph, config)
    save_graph(graph, folder)
    del graph
    report = {
        "exporter": exporter(),
        "checkpoint": checkpoint.proof,
        **_prove(checkpoint, folder, config),
        "sizes": {
            "parameters": sum(parameter.numel() for parameter in checkpoint.model.parameters()),
            "bytes": sum(path.stat().st_size for path in folder.glob("model.onnx*")),
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }
    report["sizes"]["share_of_fp32"] = report["sizes"]["bytes"] / (4 * report["sizes"]["parameters"])
    from trl_rrtf.export.model_card import write_onnx_card

    write_onnx_card(folder, source, config, report)
    return report


def _prove(checkpoint: Checkpoint, folder: Path, config: ExportConfig) -> dict[str, Any]:
    """Compares with PyTorch, on CUDA where the graph is for it and CUDA is here, else on the CPU."""
    import onnxruntime

    from trl_rrtf.export.parity import compare
    from trl_rrtf.export.precision import CONVERSIONS
    from trl_rrtf.models.onnx_runtime import OnnxDecoder

    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    provider = choose_provider("cuda" if config.device == "cuda" and has_cuda else "cpu")
    parity = compare(checkpoint.model, checkpoint.tokenizer, OnnxDecoder.load(folder, provider))
    precision = CONVERSIONS[config.precision]
    violations = parity.violations(precision.max_relative_difference, precision.max_perplexity_ratio)
    if violations:
        raise OutputError(
            f"the {config.precision} graph does not compute what the checkpoint does: {'; '.join(violations)}. Nothing was "
            "written; choose a more exact precision"
            + (", a smaller `--block_size`, or `--int8_method weight_only`" if config.precision.startswith("int") else "")
        )
    allowed = {
        "relative_difference": precision.max_relative_difference,
        "perplexity_ratio": precision.max_perplexity_ratio,
    }
    return {"provider": provider, "parity": parity.to_json(), "allowed": allowed}


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _summary(report: dict[str, Any], output: Path) -> dict[str, Any]:
    parity = report["parity"]
    return {
        "precision": report["settings"]["precision"],
        "exporter": report["exporter"],
        "checkpoint": report["checkpoint"]["record"],
        "size, MB": round(report["sizes"]["bytes"] / 1e6, 1),
        "share of fp32": report["sizes"]["share_of_fp32"],
        "largest difference of logits": parity["largest_difference"],
        "relative difference": parity["relative_difference"],
        "next tokens that agree": parity["next_token_agreement"],
        "greedy tokens that agree": parity["greedy_agreement"],
        "perplexity": parity["perplexity"],
        "perplexity of PyTorch": parity["perplexity_of_pytorch"],
        "compared on": report["provider"],
        "seconds": report["seconds"],
        "output": str(output),
    }
