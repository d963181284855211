"""Sampling with a tiny model: repeatable, resumable, shared prompts, merged sources."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_rrtf import CandidateGroup, ConfigError, LoadError, OutputError, RowError, SamplingConfig
from trl_rrtf.row_files import read_rows
from trl_rrtf.sampling import SampleArguments, make_sampler, run_sample
from trl_rrtf.sampling.transformers_sampler import TransformersSampler, cut_at_stop

OPTIONS = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 12, "stop_strings": [], "seed": 7}


@pytest.fixture(scope="module")
def sampler(tiny_model_dir):
    return TransformersSampler(str(tiny_model_dir), dtype="float32")


@pytest.fixture
def problems_file(tmp_path):
    path = tmp_path / "problems.jsonl"
    rows = [
        {
            "problem_id": f"p/{i}",
            "prompt": f"Write a function f{i} " + "please " * (i % 3),
            "tests": [{"kind": "assert", "code": "assert True"}],
            "entry_point": f"f{i}",
            "reference_solution": f"def f{i}():\n    return {i}\n" if i != 3 else None,
            "split": "train" if i < 5 else "heldout",
        }
        for i in range(7)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(tiny_model_dir, **options):
    return SamplingConfig(
        model=str(tiny_model_dir), **{"num_generations": 3, "max_new_tokens": 8, "batch_size": 2, "temperature": 1.0, **options}
    )


def test_greedy_texts_are_those_of_the_model_step_by_step(sampler, tiny_model_dir):
    """Also that left padding and the shared prompt cache change nothing."""
    prompts = ["Write add.", "Write a longer text, variant 7", "x"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model_dir), AutoTokenizer.from_pretrained(tiny_model_dir)
    texts = sampler.sample(prompts, num_generations=1, **{**OPTIONS, "temperature": 0})
    for prompt, (text,) in zip(prompts, texts, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        start = len(ids)
        while len(ids) < start + 12 and tokenizer.eos_token_id not in ids[start:]:
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert text == tokenizer.decode(ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    repeated = sampler.sample(prompts, num_generations=3, **{**OPTIONS, "temperature": 0})
    assert repeated == [[text] * 3 for (text,) in texts]


def test_spaces_of_a_program_stay(sampler, monkeypatch):
    program = "x = a.replace('-', ' ') , 'b' . n't"
    prompt, answer = (sampler.tokenizer(text, return_tensors="pt")["input_ids"] for text in ("x", program))
    monkeypatch.setattr(sampler.tokenizer, "clean_up_tokenization_spaces", True, raising=False)
    monkeypatch.setattr(sampler.model, "generate", lambda **_: torch.cat([prompt, answer], dim=1))
    assert sampler.sample(["x"], num_generations=1, **OPTIONS) == [[program]]


def test_the_same_seed_gives_the_same_texts(sampler):
    first = sampler.sample(["Write add.", "x"], num_generations=4, **OPTIONS)
    assert first == sampler.sample(["Write add.", "x"], num_generations=4, **OPTIONS)
    assert first != sampler.sample(["Write add.", "x"], num_generations=4, **{**OPTIONS, "seed": 8})
    assert len({text for texts in first for text in texts}) > 4


def test_messages_follow_the_chat_template(sampler):
    (texts,) = sampler.sample([[{"role": "user", "content": "Write add."}]], num_generations=2, **OPTIONS)
    assert len(texts) == 2
    assert all("<|im_" not in text for text in texts)


def test_stop_strings(sampler):
    texts = sampler.sample(["Write add."], num_generations=8, **{**OPTIONS, "stop_strings": ["e", "a"]})[0]
    assert not any(letter in text for text in texts for letter in "ea")
    assert cut_at_stop("one two three", ["three", "two"]) == "one "


def test_top_k_of_one_is_greedy(sampler):
    greedy = sampler.sample(["Write add."], num_generations=1, **{**OPTIONS, "temperature": 0})
    assert sampler.sample(["Write add."], num_generations=1, **{**OPTIONS, "top_k": 1}) == greedy


def test_the_stage_writes_groups_with_references(tiny_model_dir, tmp_path, problems_file):
    arguments = SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"), where="split=train")
    summary = run_sample(arguments, config(tiny_model_dir, include_reference=True))
    groups = read_rows(tmp_path / "c.jsonl", CandidateGroup)
    assert [group.problem_id for group in groups] == [f"p/{i}" for i in range(5)]
    assert groups[0].sources == ["student"] * 3 + ["reference"]
    assert groups[0].models == [tiny_model_dir.name] * 3 + ["reference"]
    assert groups[0].completions[-1] == "def f0():\n    return 0\n"
    assert groups[3].sources == ["student"] * 3, "no reference, no candidate"
    assert len(groups[0].extra["raw_completions"]) == 4
    assert groups[0].extra["raw_completions"][-1] is None
    assert (summary["candidates"], summary["references"], summary["sampled now"]) == (15, 4, 15)


@pytest.mark.parametrize("kept_rows", [0, 1, 2, 3])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tiny_model_dir, tmp_path, problems_file, kept_rows):
    run_sample(SampleArguments(str(problems_file), str(tmp_path / "whole.jsonl")), config(tiny_model_dir))
    whole = (tmp_path / "whole.jsonl").read_bytes()
    killed = tmp_path / "killed.jsonl"
    settings = (tmp_path / "whole.jsonl.settings.json").read_bytes()
    (tmp_path / "killed.jsonl.settings.json").write_bytes(settings)
    (tmp_path / "killed.jsonl.partial").write_bytes(b"".join(whole.splitlines(keepends=True)[:kept_rows]) + whole[:30])
    summary = run_sample(SampleArguments(str(problems_file), str(killed)), config(tiny_model_dir))
    assert killed.read_bytes() == whole
    assert summary["sampled now"] == 3 * (7 - kept_rows // 2 * 2)


def test_a_teachers_run_over_the_students_output_holds_both(tiny_model_dir, tmp_path, problems_file):
    run_sample(SampleArguments(str(problems_file), str(tmp_path / "s.jsonl")), config(tiny_model_dir, include_reference=True))
    teacher = config(tiny_model_dir, source="teacher", num_generations=1, seed=9)
    run_sample(SampleArguments(str(tmp_path / "s.jsonl"), str(tmp_path / "t.jsonl")), teacher)
    group = read_rows(tmp_path / "t.jsonl", CandidateGroup)[0]
    assert group.sources == ["student", "student", "student", "reference", "teacher"]
    assert len(group.extra["raw_completions"]) == 5


def test_a_finished_run_does_not_load_the_model(tiny_model_dir, tmp_path, problems_file, monkeypatch):
    arguments = SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"))
    run_sample(arguments, config(tiny_model_dir))
    monkeypatch.setattr("trl_rrtf.sampling.stage.make_sampler", lambda config: pytest.fail("the model was loaded"))
    assert run_sample(arguments, config(tiny_model_dir))["sampled now"] == 0
    with pytest.raises(OutputError, match="`seed` was 42 and is 43"):
        run_sample(arguments, config(tiny_model_dir, seed=43))


def test_bad_input_is_named_before_the_model_loads(tiny_model_dir, tmp_path, problems_file):
    with pytest.raises(LoadError, match=r"there is no model folder"):
        run_sample(SampleArguments(str(problems_file), str(tmp_path / "c.jsonl")), config(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"no problem has split=test; the values of `split` are heldout, train"):
        run_sample(SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"), where="split=test"), config(tiny_model_dir))
    with open(problems_file, "a") as file:
        file.write('{"problem_id": "x", "tests": []}\n')
    with pytest.raises(RowError, match=r"line 8, column `tests`"):
        run_sample(SampleArguments(str(problems_file), str(tmp_path / "c.jsonl")), config(tiny_model_dir))


def test_a_model_without_chat_template_says_what_to_do(tiny_model_dir):
    sampler = make_sampler(SamplingConfig(model=str(tiny_model_dir)))
    sampler.tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"no chat template; use `paper` or `completion`"):
        sampler.sample([[{"role": "user", "content": "hi"}]], num_generations=1, **OPTIONS)


@pytest.mark.parametrize(
    "options",
    [
        {"source": "oracle"},
        {"engine": "magic"},
        {"prompt_style": "haiku"},
        {"dtype": "int3"},
        {"num_generations": 0},
        {"temperature": -1},
        {"top_p": 0},
        {"top_k": -1},
        {"temperature": 0, "num_generations": 2},
    ],
)
def test_settings_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match=r"expected|greedy"):
        SamplingConfig(model="m", **{"num_generations": 1, **options})
