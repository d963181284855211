"""The evaluate stage with a sampler that answers from a list: real extraction, real judge, real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from trl_rrtf import ConfigError, EvaluateArguments, JudgeConfig, OutputError, RowError, SamplingConfig, run_evaluate


class ListSampler:
    """Answers problem i correctly in the first i of its candidates."""

    def __init__(self):
        self.calls = 0

    def sample(self, prompts, draws):
        self.calls += 1
        numbers = [int(str(prompt).split("number ")[1].split(".")[0]) for prompt in prompts]
        return [
            [f"```python\ndef f():\n    return {i if j < i else -1}\n```" for j in range(len(draws.seeds[0]))] for i in numbers
        ]


@pytest.fixture
def files(tmp_path):
    rows = [
        {
            "problem_id": f"p/{i}",
            "prompt": f"Return number {i}.",
            "tests": [{"kind": "assert", "code": f"assert f() == {i}"}],
            "entry_point": "f",
            "reference_solution": f"def f():\n    return {i}\n",
        }
        for i in range(1, 4)
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "p.jsonl"), str(tmp_path / "e.json")


def sampling(tiny_model_dir, **options):
    return SamplingConfig(model=str(tiny_model_dir), **{"num_generations": 4, "batch_size": 2, **options})


def test_pass_at_k_by_hand(tiny_model_dir, files):
    problems, output = files
    arguments = EvaluateArguments(problems, output, k=[1, 4])
    # References are teachers of ranked groups; in pass@k they must not count.
    summary = run_evaluate(arguments, sampling(tiny_model_dir, include_reference=True), JudgeConfig(), ListSampler())
    assert summary.pass_at_k[1].mean == pytest.approx((1 / 4 + 2 / 4 + 3 / 4) / 3)
    assert summary.pass_at_k[4].mean == 1.0
    result = json.loads(Path(output).read_text())
    assert [(entry["n"], entry["c"]) for entry in result["problems"]] == [(4, 1), (4, 2), (4, 3)]
    interval = result["pass@k"]["pass@1"]
    assert 0.25 <= interval["low"] <= interval["mean"] <= interval["high"] <= 0.75
    assert result["settings"]["num_generations"] == 4
    assert set(result["versions"]) >= {"trl-rrtf", "transformers", "torch", "python"}


def test_a_finished_evaluation_is_not_sampled_again(tiny_model_dir, files):
    problems, output = files
    sampler = ListSampler()
    first = run_evaluate(EvaluateArguments(problems, output), sampling(tiny_model_dir), JudgeConfig(), sampler)
    calls = sampler.calls
    assert run_evaluate(EvaluateArguments(problems, output), sampling(tiny_model_dir), JudgeConfig(), sampler) == first
    assert sampler.calls == calls


def test_bad_settings_are_named(tiny_model_dir, files):
    problems, output = files
    with pytest.raises(ConfigError, match=r"`k`: 5 is more than `num_generations` \(4\)"):
        run_evaluate(EvaluateArguments(problems, output, k=[5]), sampling(tiny_model_dir), JudgeConfig())
    with pytest.raises(ConfigError, match=r"ends in \.json"):
        EvaluateArguments(problems, "out.txt")
    for k in ([], [1, 1]):
        with pytest.raises(ConfigError, match="`k`: expected numbers from 1"):
            EvaluateArguments(problems, output, k=k)
    with pytest.raises(ConfigError, match="`k`: expected at least 1, got 0"):
        EvaluateArguments(problems, output, k=[0])
    with pytest.raises(ConfigError, match=r"`k`: expected a list, such as \[1\], got int 1"):
        EvaluateArguments(problems, output, k=1)


def test_a_finished_evaluation_keeps_its_file_and_its_time(tiny_model_dir, files):
    problems, output = files
    run_evaluate(EvaluateArguments(problems, output), sampling(tiny_model_dir), JudgeConfig(), ListSampler())
    before = Path(output).read_bytes()
    run_evaluate(EvaluateArguments(problems, output), sampling(tiny_model_dir), JudgeConfig(num_workers=1), None)
    assert Path(output).read_bytes() == before


def test_another_model_in_the_same_folder_is_noticed(tiny_model_dir, files, tmp_path):
    problems, output = files
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    run_evaluate(EvaluateArguments(problems, output), sampling(model), JudgeConfig(), ListSampler())
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(OutputError, match="`model_fingerprint` was"):
        run_evaluate(EvaluateArguments(problems, output), sampling(model), JudgeConfig(), ListSampler())


def test_what_is_no_result_is_not_replaced(tiny_model_dir, files):
    problems, output = files
    Path(output).write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="is no result of `trl-rrtf evaluate`"):
        run_evaluate(EvaluateArguments(problems, output), sampling(tiny_model_dir), JudgeConfig(), ListSampler())
    assert Path(output).read_text() == '{"mine": 1}'


def test_overwriting_begins_when_everything_is_checked(tiny_model_dir, files, tmp_path):
    problems, output = files
    run_evaluate(EvaluateArguments(problems, output), sampling(tiny_model_dir), JudgeConfig(), ListSampler())
    before = Path(output).read_bytes()
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(RowError):
        run_evaluate(
            EvaluateArguments(str(tmp_path / "bad.jsonl"), output, overwrite=True), sampling(tiny_model_dir), JudgeConfig()
        )
    assert Path(output).read_bytes() == before
    Path(output).write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="remove it yourself"):
        run_evaluate(
            EvaluateArguments(problems, output, overwrite=True), sampling(tiny_model_dir), JudgeConfig(), ListSampler()
        )
    assert Path(output).read_text() == '{"mine": 1}'


def test_candidates_of_an_earlier_run_do_not_count(tiny_model_dir, files, tmp_path):
    problems, output = files
    run_evaluate(EvaluateArguments(problems, output), sampling(tiny_model_dir), JudgeConfig(), ListSampler())
    candidates = str(tmp_path / "e.candidates.jsonl")
    with pytest.raises(ConfigError, match="problem p/1 has candidates of an earlier run"):
        run_evaluate(EvaluateArguments(candidates, str(tmp_path / "again.json")), sampling(tiny_model_dir), JudgeConfig())


def test_the_spelling_of_a_path_is_no_setting(tiny_model_dir, files, tmp_path, monkeypatch):
    problems, output = files
    run_evaluate(EvaluateArguments(problems, output), sampling(tiny_model_dir), JudgeConfig(), ListSampler())
    before = Path(output).read_bytes()
    monkeypatch.chdir(tmp_path)
    model = f"{tiny_model_dir.parent}/./{tiny_model_dir.name}"
    run_evaluate(EvaluateArguments("./p.jsonl", "e.json"), sampling(model), JudgeConfig(), None)
    assert Path(output).read_bytes() == before
