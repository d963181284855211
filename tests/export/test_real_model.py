"""The export of the quick start's real model; skipped where `make model` was not run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trl_rrtf.export import ExportArguments, ExportConfig, run_export

pytest.importorskip("onnxruntime")
MODEL = Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct"


@pytest.mark.slow
@pytest.mark.skipif(not (MODEL / "config.json").is_file(), reason="`make model` was not run")
@pytest.mark.parametrize(
    ("precision", "share", "perplexity"), [("fp32", 1.01, 1.0001), ("fp16", 0.51, 1.001), ("int8", 0.35, 1.02)]
)
def test_smollm2_is_exported_within_its_tolerance(tmp_path, precision, share, perplexity):
    device = "cuda" if precision == "fp16" else "cpu"
    run_export(ExportArguments(str(MODEL), str(tmp_path / "onnx")), ExportConfig(precision=precision, device=device))
    report = json.loads((tmp_path / "onnx" / "export_report.json").read_text())
    size = sum(path.stat().st_size for path in (tmp_path / "onnx").glob("model.onnx*"))
    assert size <= share * (MODEL / "model.safetensors").stat().st_size
    parity = report["parity"]
    assert parity["perplexity"] <= perplexity * parity["perplexity_of_pytorch"]
    assert parity["greedy_agreement"] > (0.99 if precision == "fp32" else 0.5)


LARGE = """
import sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
sizes = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 10, "num_attention_heads": 16}
config = LlamaConfig(vocab_size=49152, num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True, **sizes)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not (MODEL / "config.json").is_file(), reason="`make model` was not run")
def test_a_model_above_two_gigabytes_is_exported_in_bounded_memory(tmp_path):
    """2.2 GB of random weights, in processes of their own, which say how much memory they had."""
    subprocess.run([sys.executable, "-c", LARGE, str(tmp_path / "model")], check=True)
    for path in MODEL.glob("*token*"):
        shutil.copy(path, tmp_path / "model")
    command = [sys.executable, "-m", "trl_rrtf.cli", "export", "--model", str(tmp_path / "model")]
    subprocess.run([*command, "--output", str(tmp_path / "onnx")], check=True)
    report = json.loads((tmp_path / "onnx" / "export_report.json").read_text())
    weights = 4 * report["sizes"]["parameters"]
    size = (tmp_path / "onnx" / "model.onnx_data").stat().st_size
    assert weights > 2**31
    assert size < 1.01 * weights  # tied weights are there once
    assert report["peak_memory_bytes"] < 2.5 * weights
    assert report["parity"]["next_token_agreement"] > 0.99
