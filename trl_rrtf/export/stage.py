"""The `export` stage: a checkpoint in, a folder for ONNX Runtime out, with a report of how equal it is."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_rrtf.errors import ConfigError, LoadError, OutputError
from trl_rrtf.export.config import ExportArguments, ExportConfig
from trl_rrtf.export.folder import (
    complete,
    graph_bytes,
    look_at,
    put_in_place,
    recover_from_kill,
    require_apart,
    scratch_beside,
)
from trl_rrtf.export.report import ExportReport, Parity, Probe, Reach, Sizes, violations
from trl_rrtf.models.hub import create_repository, push_folder
from trl_rrtf.models.onnx_runtime import choose_provider
from trl_rrtf.models.paths import model_fingerprint, model_name, require_model
from trl_rrtf.options import check_paths, settings_of
from trl_rrtf.rows.files import full_disk_errors
from trl_rrtf.rows.resumable import output_lock
from trl_rrtf.rows.summary import Summary

if TYPE_CHECKING:
    from trl_rrtf.export.graph import Origin
    from trl_rrtf.export.parity import Reference

_PARITY_CHECK = 2
"""Version of what is compared and allowed; a graph that an earlier one let pass is made again."""

_LIBRARIES = ("trl-rrtf", "transformers", "torch", "optimum", "optimum-onnx", "onnx", "onnxruntime", "onnxruntime-gpu")
_NEEDED = {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnx_ir": "onnx-ir", "onnxscript": "onnxscript"}


@dataclass(kw_only=True)
class ExportSummary(Summary):
    """What `export` made.

    Attributes:
        precision: `fp32`, `fp16`, `bf16`, `int8` or `int4`.
        exporter: `optimum` or `torch`.
        graph: `fused` or `plain`.
        why_plain: Why the graph is plain where a fused one is the default; else empty.
        checkpoint: What proves that the checkpoint was read right.
        megabytes: Size of graph and weights, 10^6 bytes.
        share_of_fp32: That size, as a share of 4 bytes per parameter.
        largest_difference: Of any logit.
        relative_difference: The mean difference of logits, in standard deviations of PyTorch's.
        next_token_agreement: Share of positions where both find the same token the likeliest.
        greedy_agreement: Share of greedily generated tokens that are the same.
        perplexity: Of a text, by the graph.
        perplexity_of_pytorch: Of the same text.
        proved_tokens: Longest text that was compared, in tokens; 0 in a report of an earlier version.
        usable: Longest text that the graph is right for, and why, where that is less than the model's; else empty.
        provider: Where the graph was compared, and what that shows.
        peak_memory_megabytes: Largest memory that the process had until the end of the export, 10^6 bytes.
        seconds: What the export took.
        pushed_to: Address on the Hub, where the folder was to be pushed; else None.
        output: The folder.
    """

    precision: str
    exporter: str
    graph: str
    why_plain: str
    checkpoint: str
    megabytes: float
    share_of_fp32: float
    largest_difference: float
    relative_difference: float
    next_token_agreement: float
    greedy_agreement: float
    perplexity: float
    perplexity_of_pytorch: float
    proved_tokens: int
    usable: str
    provider: str
    peak_memory_megabytes: float
    seconds: float
    pushed_to: str | None
    output: str

    def table(self) -> dict[str, Any]:
        """What to show."""
        return {
            "precision": self.precision,
            "exporter": self.exporter,
            "graph": f"{self.graph}: {self.why_plain}" if self.why_plain else self.graph,
            "checkpoint": self.checkpoint,
            "size, MB": self.megabytes,
            "share of fp32": self.share_of_fp32,
            "largest difference of logits": self.largest_difference,
            "relative difference": self.relative_difference,
            "next tokens that agree": self.next_token_agreement,
            "greedy tokens that agree": self.greedy_agreement,
            "perplexity": self.perplexity,
            "perplexity of PyTorch": self.perplexity_of_pytorch,
            "longest text compared, tokens": self.proved_tokens,
            **({"right for texts of up to": self.usable} if self.usable else {}),
            "compared on": self.provider,
            "peak memory, MB": self.peak_memory_megabytes,
            "seconds": self.seconds,
            **({"pushed to": self.pushed_to} if self.pushed_to else {}),
            "output": self.output,
        }


def run_export(arguments: ExportArguments, config: ExportConfig) -> ExportSummary:
    """Exports a checkpoint, proves that the graph computes the same, and only then puts the folder in its place.

    Args:
        arguments: Folders.
        config: Precision and device.

    Returns:
        Size, differences, perplexities, where the model lies.

    Raises:
        LoadError: The checkpoint is not there or damaged.
        ConfigError: A package is missing, the output would destroy the model, the checkpoint is misread by this transformers,
            or its architecture has no export.
        OutputError: The folder is in the way, another process writes it, the disk is full, the graph is outside the tolerance
            of its precision, or the Hub cannot be written.
    """
    require_model(arguments.model)
    check_paths(arguments)
    output = Path(arguments.output).resolve()  # of a link, the folder is replaced and not the link
    require_apart(output, arguments.model)
    settings = {
        "model": model_name(arguments.model),
        "model_fingerprint": model_fingerprint(arguments.model),
        "parity_check": _PARITY_CHECK,
        **settings_of(config),
    }
    with output_lock(output), full_disk_errors(output):
        recover_from_kill(output)
        report = look_at(output, settings, overwrite=arguments.overwrite)
        if report is None:
            _require_packages()
            if config.push_to_hub:
                create_repository(config.push_to_hub)
            started = time.monotonic()
            with scratch_beside(output) as scratch:
                made = scratch / "export"
                report = _export(arguments.model, made, scratch, config, settings)
                report.seconds = round(time.monotonic() - started, 1)
                complete(made, report)
                put_in_place(made, output, scratch)
        if config.push_to_hub and config.push_to_hub not in report.pushed_to:
            report.pushed_to[config.push_to_hub] = push_folder(output, config.push_to_hub, message="Upload ONNX model")
            report.save(output)
    address = report.pushed_to.get(config.push_to_hub) if config.push_to_hub else None
    return _summary(report, arguments.output, address)


def _require_packages() -> None:
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(f"`export` needs {', '.join(missing)}; install `trl-rrtf[onnx]`, or `trl-rrtf[onnx-gpu]` for CUDA")


def _export(model: str, folder: Path, scratch: Path, config: ExportConfig, settings: dict[str, Any]) -> ExportReport:
    from trl_rrtf.export.checkpoint import load_checkpoint, save_generation_config, save_tokenizer
    from trl_rrtf.export.genai_config import write_genai_config
    from trl_rrtf.export.graph import export_graph
    from trl_rrtf.export.model_card import write_onnx_card
    from trl_rrtf.export.parity import make_reference
    from trl_rrtf.export.precision import CONVERSIONS
    from trl_rrtf.export.rotary import positions_of, write_cap

    checkpoint = load_checkpoint(model, scratch)
    loaded = checkpoint.model
    positions = positions_of(loaded.config)
    parameters = sum(parameter.numel() for parameter in loaded.parameters())
    reference = make_reference(loaded, checkpoint.tokenizer, longest=config.parity_tokens)
    graph, origin = export_graph(loaded, folder, fused=config.is_fused, must_fuse=config.graph == "fused")
    save_tokenizer(checkpoint.tokenizer, folder)
    save_generation_config(loaded, folder)
    not_for_genai = write_genai_config(
        *(folder, graph, loaded.config, loaded.generation_config),
        longest=positions.usable,
        device=config.device,
    )
    checkpoint.release_model()
    write_cap(graph, folder, positions)
    precision = CONVERSIONS[config.precision]
    graph = precision.convert(graph, config)
    graph.save(folder)
    del graph
    provider, parity, probes = _prove(reference, folder, config, origin)
    size = graph_bytes(folder)
    proved = max(probe.tokens for probe in probes.values())
    report = ExportReport(
        settings=settings,
        exporter=origin.exporter,
        graph=origin.kind,
        why_plain=origin.why_plain,
        not_for_genai=not_for_genai,
        checkpoint=checkpoint.proof,
        provider=provider,
        parity=parity,
        allowed=asdict(precision.allowed),
        sizes=Sizes(parameters, size, size / (4 * parameters)),
        versions={"python": platform.python_version(), **_versions()},
        probes=probes,
        reach=Reach(positions.usable, positions.cap, proved, [length for length in positions.boundaries if length >= proved]),
        peak_memory_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )
    write_onnx_card(folder, model, config, report)
    return report


def _prove(reference: Reference, folder: Path, config: ExportConfig, origin: Origin) -> tuple[str, Parity, dict[str, Probe]]:
    """Compares with PyTorch, on CUDA where the graph is for it and CUDA is here, else on the CPU, which it returns too."""
    import onnxruntime

    from trl_rrtf.export.bfloat16 import emulating_session
    from trl_rrtf.export.parity import compare
    from trl_rrtf.export.precision import CONVERSIONS
    from trl_rrtf.models.onnx_runtime import OnnxDecoder

    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    provider = choose_provider("cuda" if config.device == "cuda" and has_cuda else "cpu")
    is_emulated = config.precision == "bf16" and provider == choose_provider("cpu")
    try:
        decoder = OnnxDecoder(emulating_session(folder, provider)) if is_emulated else OnnxDecoder.load(folder, provider)
    except LoadError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        way = "`--graph plain`" if origin.kind == "fused" else "another precision"
        raise ConfigError(
            f"`model`: ONNX Runtime {onnxruntime.__version__} cannot run the {origin.kind} {config.precision} graph of this "
            f"model ({reason}); try {way}, or run the checkpoint in PyTorch"
        ) from error
    parity, probes = compare(reference, decoder)
    if found := violations(parity, probes, CONVERSIONS[config.precision].allowed):
        raise OutputError(
            f"the {config.precision} graph does not compute what the checkpoint does: {'; '.join(found)}. Nothing was "
            "written; choose a more exact precision"
            + (", a smaller `--block_size`, or `--int8_method weight_only`" if config.precision.startswith("int") else "")
        )
    return provider, parity, probes


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _summary(report: ExportReport, output: str, address: str | None) -> ExportSummary:
    reach = report.reach or Reach(None, "", 0, [])
    return ExportSummary(
        precision=report.settings["precision"],
        exporter=report.exporter,
        graph=report.graph,
        why_plain=report.why_plain,
        checkpoint=report.checkpoint["record"],
        megabytes=round(report.sizes.bytes / 1e6, 1),
        share_of_fp32=report.sizes.share_of_fp32,
        largest_difference=report.parity.largest_difference,
        relative_difference=report.parity.relative_difference,
        next_token_agreement=report.parity.next_token_agreement,
        greedy_agreement=report.parity.greedy_agreement,
        perplexity=report.parity.perplexity,
        perplexity_of_pytorch=report.parity.perplexity_of_pytorch,
        proved_tokens=reach.proved_tokens,
        usable=f"{reach.usable_positions} tokens: {reach.cap}" if reach.cap else "",
        provider=report.proof,
        peak_memory_megabytes=round(report.peak_memory_bytes / 1e6, 1),
        seconds=report.seconds,
        pushed_to=address,
        output=output,
    )
