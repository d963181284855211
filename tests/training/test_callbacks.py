"""What a training shows of itself: groups, pass@k, curves."""

from __future__ import annotations

import json

import pyarrow.parquet
import pytest

from tests.training.test_trainer import make_trainer
from trl_rrtf import ConfigError, PassAtKCallback, RankedGroupsCallback, SamplingConfig
from trl_rrtf.training.curves import PANELS, plot_training_curves

STEPS = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "logging_steps": 1, "learning_rate": 1e-2}


def test_groups_are_shown_with_outcomes_scores_and_log_probabilities(tiny_model_dir, tmp_path, ranked_rows, capsys):
    rows = ranked_rows[:2]
    rows[0]["outcomes"] = ["passed", "failed"]  # as `trl-rrtf rank` writes them
    plain = [{name: row[name] for name in ("prompt", "completions", "scores", "sources")} for row in ranked_rows]
    trainer = make_trainer(tiny_model_dir, tmp_path, plain, plain, **STEPS)
    trainer.add_callback(RankedGroupsCallback(trainer, rows))
    trainer.train()
    tables = [pyarrow.parquet.read_table(tmp_path / "ranked_groups" / f"step-{step}.parquet").to_pylist() for step in (1, 2)]
    assert [row["completion"] for row in tables[0]] == rows[0]["completions"] + rows[1]["completions"]
    assert [row["score"] for row in tables[0]] == rows[0]["scores"] + rows[1]["scores"]
    assert [row["outcome"] for row in tables[0][:3]] == ["passed", "failed", None]
    assert sorted(row["rank"] for row in tables[0] if row["group"] == 1) == [1, 2, 3]
    assert tables[0][0]["logp"] != tables[1][0]["logp"] < 0
    shown = capsys.readouterr().out
    assert "step 2, group 1" in shown
    assert "passed" in shown


@pytest.mark.skipif("sys.platform != 'linux'", reason="the judge needs Linux")
def test_pass_at_k_is_measured_while_training(tiny_model_dir, tmp_path, ranked_rows):
    problems = tmp_path / "problems.jsonl"
    row = {
        "problem_id": "p/1",
        "prompt": "def one():\n",
        "entry_point": "one",
        "tests": [{"kind": "assert", "code": "assert 1"}],
    }
    problems.write_text(json.dumps(row) + "\n")
    options = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_pass@1",
        "greater_is_better": True,
        "save_steps": 1,
    }
    trainer = make_trainer(tiny_model_dir, tmp_path / "out", ranked_rows, ranked_rows, **STEPS, **options)
    sampling = SamplingConfig(model="", num_generations=2, max_new_tokens=4)
    trainer.add_callback(PassAtKCallback(trainer, str(problems), sampling, k=(1, 2)))
    trainer.train()
    logged = [entry["eval_pass@2"] for entry in trainer.state.log_history if "eval_pass@2" in entry]
    assert len(logged) == 2
    assert all(0.0 <= value <= 1.0 for value in logged)
    assert trainer.state.best_metric is not None
    assert json.loads((tmp_path / "out" / "pass_at_k" / "step-2.json").read_text())["problems"][0]["n"] == 2


def test_pass_at_k_refuses_what_it_cannot_measure(tiny_model_dir, tmp_path, ranked_rows):
    trainer = make_trainer(tiny_model_dir, tmp_path, ranked_rows)
    with pytest.raises(ConfigError, match="`k`: 4 is more than `num_generations`"):
        PassAtKCallback(trainer, "p.jsonl", SamplingConfig(model="", num_generations=2), k=(4,))
    trainer.is_fsdp_enabled = True
    with pytest.raises(ConfigError, match="its model is sharded"):
        PassAtKCallback(trainer, "p.jsonl", SamplingConfig(model="", num_generations=2))


def test_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    names = [name for metrics in PANELS.values() for name in metrics]
    history = [{"step": step, **dict.fromkeys(names, 1.0 / step)} for step in (1, 2, 3)]
    history += [{"step": 3, **{f"eval_{name}": 0.5 for name in names}}]
    plot_training_curves(history, tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text()
    assert len(drawn) > 10_000
    plot_training_curves([], tmp_path / "empty.png")
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")
