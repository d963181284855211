"""The `teacher-logprobs` stage: a teacher's mean log-probabilities, exact and resumable."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_rrtf import ConfigError, OutputError, RowError
from trl_rrtf.rows.prompts import PROMPT_STYLES
from trl_rrtf.sampling import TeacherLogProbsArguments, TeacherLogProbsConfig, run_teacher_log_probs

PROGRAMS = ["def f():\n    return 1\n", "", "def f():\n    x = 1\n    return x + 0\n", "def f():\n    return 1\n"]


@pytest.fixture
def candidates(tmp_path):
    row = {
        "problem_id": "p/1",
        "prompt": "Write f.",
        "tests": [{"kind": "assert", "code": "assert f()"}],
        "completions": PROGRAMS,
        "sources": ["student"] * 4,
        "models": ["m"] * 4,
    }
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(row | {"problem_id": f"p/{i}"}) + "\n" for i in range(3)))
    return path


@pytest.mark.parametrize("style", ["paper", "chat"])
def test_log_probs_are_those_of_the_model_token_by_token(style, tiny_model_dir, tmp_path, candidates):
    config = TeacherLogProbsConfig(str(tiny_model_dir), prompt_style=style, dtype="float32", batch_size=2)
    summary = run_teacher_log_probs(TeacherLogProbsArguments(str(candidates), str(tmp_path / "s.jsonl")), config)
    assert (summary.groups, summary.candidates, summary.read_now) == (3, 12, 12)
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [row["completions"] for row in rows] == [PROGRAMS] * 3
    got = rows[0]["teacher_log_probs"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model_dir), AutoTokenizer.from_pretrained(tiny_model_dir)
    prompt = PROMPT_STYLES[style]("Write f.")
    if style == "chat":
        prompt = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    for program, value in zip(PROGRAMS, got, strict=True):
        ids = tokenizer(prompt, add_special_tokens=style == "paper")["input_ids"]
        steps = []
        for token in tokenizer(program, add_special_tokens=False)["input_ids"]:
            with torch.no_grad():
                steps.append(model(torch.tensor([ids])).logits[0, -1].log_softmax(dim=-1)[token].item())
            ids.append(token)
        assert value == (pytest.approx(sum(steps) / len(steps), abs=1e-5) if program else None)


def test_it_goes_on_after_a_kill_and_computes_nothing_twice(tiny_model_dir, tmp_path, candidates, monkeypatch):
    arguments = TeacherLogProbsArguments(str(candidates), str(tmp_path / "s.jsonl"))
    config = TeacherLogProbsConfig(str(tiny_model_dir), prompt_style="paper")
    first = run_teacher_log_probs(arguments, config)
    lines = (tmp_path / "s.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "s.jsonl").unlink()
    (tmp_path / "s.jsonl.partial").write_bytes(lines[0] + b"\0" * 4096)  # of a loss of power
    assert run_teacher_log_probs(arguments, config) == replace(first, read_now=8)
    assert (tmp_path / "s.jsonl").read_bytes() == b"".join(lines)
    monkeypatch.setattr("trl_rrtf.sampling.teacher_log_probs._Teacher", lambda config: pytest.fail("the model was loaded"))
    assert run_teacher_log_probs(arguments, config) == replace(first, read_now=0)
    with pytest.raises(OutputError, match="`prompt_style` was 'paper' and is 'chat'"):
        run_teacher_log_probs(arguments, replace(config, prompt_style="chat"))


def test_a_teacher_that_was_retrained_in_its_folder_is_noticed(tiny_model_dir, tmp_path, candidates):
    folder = tmp_path / "teacher"
    shutil.copytree(tiny_model_dir, folder)
    arguments = TeacherLogProbsArguments(str(candidates), str(tmp_path / "s.jsonl"))
    config = TeacherLogProbsConfig(str(folder), prompt_style="paper")
    run_teacher_log_probs(arguments, config)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.add_(0.01)
    model.save_pretrained(folder)
    with pytest.raises(OutputError, match="`model_fingerprint` was"):
        run_teacher_log_probs(arguments, config)


def test_what_is_wrong_is_found_before_the_model_loads(tiny_model_dir, tmp_path, candidates, monkeypatch):
    monkeypatch.setattr("trl_rrtf.sampling.teacher_log_probs._Teacher", lambda config: pytest.fail("the model was loaded"))
    config = TeacherLogProbsConfig(str(tiny_model_dir))
    with pytest.raises(ConfigError, match=r"`output`: .* what `input` names"):
        run_teacher_log_probs(TeacherLogProbsArguments(str(candidates), str(candidates), overwrite=True), config)
    with open(candidates, "a") as file:
        file.write(candidates.read_text().splitlines()[0] + "\n")
    with pytest.raises(RowError, match=r"line 4, column `problem_id`: 'p/0' is the id of another problem too"):
        run_teacher_log_probs(TeacherLogProbsArguments(str(candidates), str(tmp_path / "s.jsonl")), config)
    for options in ({"dtype": "int3"}, {"prompt_style": "haiku"}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match=f"`{next(iter(options))}`: expected"):
            TeacherLogProbsConfig("m", **options)
