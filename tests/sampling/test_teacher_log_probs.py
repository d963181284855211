"""The `score` stage: a teacher's mean log-probabilities, exact and resumable."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_rrtf.cli import main
from trl_rrtf.prompts import PROMPT_STYLES

PROGRAMS = ["def f():\n    return 1\n", "", "def f():\n    x = 1\n    return x + 0\n", "def f():\n    return 1\n"]


@pytest.mark.parametrize("style", ["paper", "chat"])
def test_log_probs_are_those_of_the_model_token_by_token(style, tiny_model_dir, tmp_path):
    row = {
        "problem_id": "p/1",
        "prompt": "Write f.",
        "tests": [{"kind": "assert", "code": "assert f()"}],
        "completions": PROGRAMS,
        "sources": ["student"] * 4,
        "models": ["m"] * 4,
    }
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n")
    command = ["score", "--input", str(tmp_path / "c.jsonl"), "--output", str(tmp_path / "s.jsonl"), "--dtype", "float32"]
    assert main([*command, "--model", str(tiny_model_dir), "--prompt_style", style, "--batch_size", "2"]) == 0
    got = json.loads((tmp_path / "s.jsonl").read_text())["teacher_log_probs"]
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
