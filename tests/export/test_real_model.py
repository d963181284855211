"""The export of the quick start's real model; skipped where `make model` was not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trl_rrtf.export import ExportArguments, ExportConfig, run_export

pytest.importorskip("onnxruntime")
MODEL = Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct"


@pytest.mark.slow
@pytest.mark.skipif(not (MODEL / "config.json").is_file(), reason="`make model` was not run")
@pytest.mark.parametrize(("precision", "share", "perplexity"), [("fp32", 1.01, 1.0001), ("int8", 0.35, 1.02)])
def test_smollm2_is_exported_within_its_tolerance(tmp_path, precision, share, perplexity):
    run_export(ExportArguments(str(MODEL), str(tmp_path / "onnx")), ExportConfig(precision=precision))
    report = json.loads((tmp_path / "onnx" / "export_report.json").read_text())
    size = sum(path.stat().st_size for path in (tmp_path / "onnx").glob("model.onnx*"))
    assert size <= share * (MODEL / "model.safetensors").stat().st_size
    parity = report["parity"]
    assert parity["perplexity"] <= perplexity * parity["perplexity_of_pytorch"]
    assert parity["greedy_agreement"] > (0.99 if precision == "fp32" else 0.5)
