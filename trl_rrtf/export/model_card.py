"""The card of an exported folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from trl_rrtf.export.config import ExportConfig
from trl_rrtf.export.report import ExportReport
from trl_rrtf.models.hub import hub_id, told_name


def write_onnx_card(folder: Path, model: str, config: ExportConfig, report: ExportReport) -> None:
    """Writes `README.md`: what was exported, how equal it is, how to run it."""
    card = ModelCard.from_template(
        ModelCardData(
            base_model=hub_id(model),
            # The Hub's word for a model in another form; its tree shows it under the base model.
            base_model_relation="quantized" if hub_id(model) else None,
            # No `library_name`: `trl_rrtf.OnnxCausalLM` runs the folder, and Optimum alone does with transformers 4 only.
            pipeline_tag="text-generation",
            tags=["onnx", "onnxruntime", "rrtf", config.precision],
        ),
        template_path=str(Path(__file__).with_suffix(".md")),
        model=told_name(model),
        precision=config.precision,
        device=config.device,
        graph=report.graph,
        proof=report.proof,
        megabytes=round(report.sizes.bytes / 1e6, 1),
        parity={name: f"{value:.4g}" for name, value in asdict(report.parity).items()},
        probes=report.probes,
        reach=report.reach,
        genai=not report.not_for_genai,
        versions=report.versions,
    )
    card.save(folder / "README.md")
