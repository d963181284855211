"""The benchmark of best of n runs, with a tiny model; what it measures is for people to read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_shows_every_choice(tiny_model_dir, tmp_path):
    command = [sys.executable, str(ROOT / "recipes" / "benchmarks" / "best_of_n.py"), "--model", str(tiny_model_dir)]
    options = ["--problems", str(ROOT / "recipes" / "data" / "composed_problems.jsonl"), "--num_problems", "3", "--n", "2"]
    options += ["--max_new_tokens", "4", "--num_inputs", "4", "--repair_turns", "1", "--work", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("| ")]
    choices = [row[0] for row in rows[1:]]
    assert choices[0] == "one sample (pass@1)"
    assert choices[-1] == "any (pass@2)"
    assert "public_tests, then agreement, then log_probability (select@2)" in choices
    assert "after 1 repair turn" in choices
    assert len(choices) == 10
    assert (tmp_path / "table.md").read_text().strip() in done.stdout
