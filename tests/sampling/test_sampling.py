"""Sampling with a tiny model: repeatable, resumable, shared prompts, merged sources."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_rrtf import CandidateGroup, ConfigError, LoadError, OutputError, RowError, SamplingConfig
from trl_rrtf.row_files import read_rows
from trl_rrtf.sampling import SampleArguments, make_sampler, run_sample
from trl_rrtf.sampling.transformers_sampler import SeededChoice, TransformersSampler, cut_at_stop

OPTIONS = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 12, "stop_strings": []}


def seeds(prompts, number, first=7):
    return [[first + 100 * i + j for j in range(number)] for i in range(len(prompts))]


def draw(sampler, prompts, number, first_seed=7, **options):
    return sampler.sample(prompts, seeds=seeds(prompts, number, first_seed), **{**OPTIONS, **options})


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
    texts = draw(sampler, prompts, 1, temperature=0)
    for prompt, (text,) in zip(prompts, texts, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        start = len(ids)
        while len(ids) < start + 12 and tokenizer.eos_token_id not in ids[start:]:
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert text == tokenizer.decode(ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    repeated = draw(sampler, prompts, 3, temperature=0)
    assert repeated == [[text] * 3 for (text,) in texts]


@pytest.mark.parametrize("tokens_per_piece", [1, 5, 11])
def test_texts_do_not_depend_on_when_ended_rows_leave_the_batch(sampler, monkeypatch, tokens_per_piece):
    prompts, settings = ["Write add.", "a longer prompt than that"], {"max_new_tokens": 40, "stop_strings": ["e", "to"]}
    monkeypatch.setattr(sampler, "_tokens_per_piece", 40)
    whole = draw(sampler, prompts, 6, **settings)
    monkeypatch.setattr(sampler, "_tokens_per_piece", tokens_per_piece)
    widths = []
    generate = sampler.model.generate

    def watched(**inputs):
        widths.append(len(inputs["input_ids"]))
        return generate(**inputs)

    monkeypatch.setattr(sampler.model, "generate", watched)
    assert draw(sampler, prompts, 6, **settings) == whole
    assert widths[0] == 12
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 12, "no text ended before the others"


def test_spaces_of_a_program_stay(sampler, monkeypatch):
    program = "x = a.replace('-', ' ') , 'b' . n't"
    prompt, answer = (sampler.tokenizer(text, return_tensors="pt")["input_ids"] for text in ("x", program))
    monkeypatch.setattr(sampler.tokenizer, "clean_up_tokenization_spaces", True, raising=False)
    end = torch.tensor([[sampler.tokenizer.eos_token_id]])
    written = SimpleNamespace(sequences=torch.cat([prompt, answer, end], dim=1))
    monkeypatch.setattr(sampler.model, "generate", lambda **_: written)
    assert draw(sampler, ["x"], 1) == [[program]]


def test_a_candidate_depends_on_its_own_seed_alone(sampler):
    prompts = ["Write add.", "a longer prompt than that"]
    first = draw(sampler, prompts, 4)
    assert first == draw(sampler, prompts, 4)
    assert draw(sampler, prompts, 4, first_seed=8)[0][:3] == first[0][1:], "the seeds 8, 9, 10 stand at other places"
    alone = sampler.sample(prompts[:1], seeds=[[9]], **OPTIONS)
    assert alone == [[first[0][2]]]
    assert len({text for texts in first for text in texts}) > 4


def test_drawn_tokens_follow_the_models_probabilities(sampler):
    """The first token's frequencies over many seeds against the softmax of the model's logits."""
    ids = sampler.tokenizer("Write add.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        probabilities = sampler.model(ids).logits[0, -1].div(0.7).softmax(dim=-1)
    choice = SeededChoice(range(4000), prompt_length=1, max_new_tokens=1)
    drawn = choice(torch.zeros(4000, 1), probabilities.log().repeat(4000, 1)).argmax(dim=-1)
    frequencies = torch.bincount(drawn, minlength=len(probabilities)) / 4000
    assert (frequencies - probabilities).abs().max() < 4 * (probabilities.max() / 4000).sqrt()
    kept = torch.tensor([[0.0, float("-inf"), 1.0, float("-inf")]]).repeat(4000, 1)
    assert set(choice(torch.zeros(4000, 1), kept).argmax(dim=-1).tolist()) == {0, 2}


def test_messages_follow_the_chat_template(sampler):
    (texts,) = draw(sampler, [[{"role": "user", "content": "Write add."}]], 2)
    assert len(texts) == 2
    assert all("<|im_" not in text for text in texts)


def test_stop_strings(sampler):
    texts = draw(sampler, ["Write add."], 8, stop_strings=["e", "a"])[0]
    assert not any(letter in text for text in texts for letter in "ea")
    assert cut_at_stop("one two three", ["three", "two"]) == "one "


def test_top_k_of_one_is_greedy(sampler):
    greedy = draw(sampler, ["Write add."], 1, temperature=0)
    assert draw(sampler, ["Write add."], 1, top_k=1) == greedy


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


class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


class DyingSampler:
    """A real sampler that dies in its n-th call."""

    def __init__(self, sampler, calls):
        self.sampler, self.calls = sampler, calls

    def sample(self, prompts, **settings):
        self.calls -= 1
        if self.calls < 0:
            raise Killed
        return self.sampler.sample(prompts, **settings)


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(sampler, tiny_model_dir, tmp_path, problems_file, calls):
    run_sample(SampleArguments(str(problems_file), str(tmp_path / "whole.jsonl")), config(tiny_model_dir), sampler)
    arguments = SampleArguments(str(problems_file), str(tmp_path / "killed.jsonl"))
    with pytest.raises(Killed):
        run_sample(arguments, config(tiny_model_dir), DyingSampler(sampler, calls))
    with open(tmp_path / "killed.jsonl.draws", "ab") as journal:
        journal.write(b'5 ["torn by the ki')
    summary = run_sample(arguments, config(tiny_model_dir), sampler)
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert summary["sampled now"] == 3 * (7 - 2 * calls)
    assert not (tmp_path / "killed.jsonl.draws").exists()


def test_batches_hold_prompts_of_like_length(sampler, tiny_model_dir, tmp_path, problems_file):
    lengths = []

    class Watching(DyingSampler):
        def sample(self, prompts, **settings):
            lengths.append([len(str(prompt)) for prompt in prompts])
            return self.sampler.sample(prompts, **settings)

    run_sample(SampleArguments(str(problems_file), str(tmp_path / "c.jsonl")), config(tiny_model_dir), Watching(sampler, None))
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat)
    assert [len(batch) for batch in lengths] == [2, 2, 2, 1]


def test_several_models_and_temperatures_in_one_run(tiny_model_dir, tmp_path, problems_file):
    other = tmp_path / "other"
    shutil.copytree(tiny_model_dir, other)
    arguments = SampleArguments(
        str(problems_file), str(tmp_path / "c.jsonl"), limit=3, models=[str(other)], temperatures=[0, 1.0, 5.0]
    )
    summary = run_sample(arguments, config(tiny_model_dir, num_generations=2))
    groups = read_rows(tmp_path / "c.jsonl", CandidateGroup)
    assert groups[0].models == [tiny_model_dir.name] * 5 + ["other"] * 5
    raw = groups[0].extra["raw_completions"]
    assert raw[0] == raw[5], "greedy, and the models are the same"
    assert raw[1:3] != raw[6:8], "the seeds of another model are others"
    assert raw[1:3] != raw[3:5], "and of another temperature"
    assert (summary["candidates"], summary["sampled now"]) == (30, 30)
    with pytest.raises(ConfigError, match=r"told apart by their model's name"):
        run_sample(replace(arguments, models=[str(tiny_model_dir)]), config(tiny_model_dir))
    with pytest.raises(ConfigError, match=r"`temperatures`: expected different numbers"):
        SampleArguments("p", "c.jsonl", temperatures=[1.0, 1.0])


def test_equal_programs_are_kept_once_and_stay_the_teachers(tiny_model_dir, tmp_path, problems_file):
    class Copying:
        def sample(self, prompts, *, seeds, **settings):
            return [["def f0():\n    return 0\n", "def f0():\n    return 1\n", "def f0():\n    return 1\n"] for _ in prompts]

    arguments = SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"), limit=1, deduplicate=True)
    run_sample(arguments, config(tiny_model_dir, include_reference=True), Copying())
    (group,) = read_rows(tmp_path / "c.jsonl", CandidateGroup)
    assert group.completions == ["def f0():\n    return 1\n", "def f0():\n    return 0\n"]
    assert group.sources == ["student", "reference"]
    assert len(group.extra["raw_completions"]) == 2


def test_a_sampler_that_streams_is_asked_nothing_twice(tiny_model_dir, tmp_path, problems_file):
    asked = []

    class Endpoint:
        def __init__(self, answers):
            self.answers = answers

        def sample(self, prompts, **settings):
            raise AssertionError("it streams")

        def stream(self, prompts, *, seeds, **settings):
            for index in reversed(range(len(prompts))):  # answers come in any order
                self.answers -= 1
                if self.answers < 0:
                    raise Killed
                asked.append(prompts[index])
                yield index, [f"{prompts[index]} {seed}" for seed in seeds[index]]

        def usage(self):
            return {"cost": 0.5}

    settings = config(tiny_model_dir, prompt_style="completion")
    whole = SampleArguments(str(problems_file), str(tmp_path / "whole.jsonl"))
    assert run_sample(whole, settings, Endpoint(100))["usage of the sampler"] == {"cost": 0.5}
    asked.clear()
    killed = SampleArguments(str(problems_file), str(tmp_path / "killed.jsonl"))
    with pytest.raises(Killed):
        run_sample(killed, settings, Endpoint(3))
    run_sample(killed, settings, Endpoint(100))
    assert len(asked) == len(set(asked)) == 7
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


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
        draw(sampler, [[{"role": "user", "content": "hi"}]], 1)


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
