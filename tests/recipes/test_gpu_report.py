"""The GPU report in its small mode, on a CPU: every step has a figure or a reason, and what is done is not done again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "recipes" / "benchmarks" / "gpu_report.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the small mode is for the CPU")
def test_every_step_has_a_figure_or_a_reason_and_is_done_once(tiny_model_dir, tmp_path):
    pytest.importorskip("onnxruntime")
    command = [sys.executable, str(SCRIPT), "--model", str(tiny_model_dir), "--output", str(tmp_path / "report"), "--small"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    steps = json.loads((tmp_path / "report" / "steps.json").read_text())["steps"]
    assert {name: step["status"] for name, step in steps.items()} == {
        "trainer's checks": "skipped",
        "training step": "done",
        "export": "done",
        "inference": "done",
        "vLLM beside transformers": "skipped",
        "a round with LoRA": "done",
    }
    assert steps["trainer's checks"]["result"] == "no GPU here"
    assert "shared: " in steps["training step"]["result"]
    assert "proved on CPUExecutionProvider: 100.0% of next tokens agree" in steps["export"]["result"]
    assert "genai-fp32: " in steps["inference"]["result"]
    assert "pass@1 of held-out problems " in steps["a round with LoRA"]["result"]
    report = (tmp_path / "report" / "report.md").read_text()
    assert f"torch {torch.__version__.partition('+')[0]}" in report
    assert all(f"| {name} | " in report for name in steps)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "training step ..." not in again.stdout
    assert json.loads((tmp_path / "report" / "steps.json").read_text())["steps"] == steps
    other = subprocess.run([*command[:-1]], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "holds a report of other settings" in other.stderr
