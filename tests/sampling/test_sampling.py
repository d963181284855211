"""Sampling with a tiny model: repeatable, resumable, shared prompts, merged sources."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_rrtf import CandidateGroup, ConfigError, LoadError, OutputError, RowError, SamplingConfig
from trl_rrtf.rows.files import read_rows
from trl_rrtf.rows.records import Candidate, Outcome, Verdict
from trl_rrtf.sampling import Draws, SampleArguments, make_sampler, run_sample
from trl_rrtf.sampling.engines import ENGINES
from trl_rrtf.sampling.engines.options import OpenAIOptions
from trl_rrtf.sampling.engines.transformers import SeededChoice, cut_at_stop
from trl_rrtf.sampling.sampler import candidate_seeds, make_draws


def seeds(prompts, number, first=7):
    return [[first + 100 * i + j for j in range(number)] for i in range(len(prompts))]


def draw(sampler, prompts, number, first_seed=7, **options):
    return sampler.sample(prompts, Draws(seeds=seeds(prompts, number, first_seed), **{"max_new_tokens": 12, **options}))


@pytest.fixture(scope="module")
def sampler(tiny_model_dir):
    return make_sampler(SamplingConfig(str(tiny_model_dir), dtype="float32"))


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


def column(group, name):
    return [getattr(candidate, name) for candidate in group.candidates]


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
    alone = sampler.sample(prompts[:1], Draws(seeds=[[9]], max_new_tokens=12))
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
    assert column(groups[0], "source") == ["student"] * 3 + ["reference"]
    assert column(groups[0], "model") == [tiny_model_dir.name] * 3 + ["reference"]
    assert groups[0].candidates[-1].program == "def f0():\n    return 0\n"
    assert column(groups[3], "source") == ["student"] * 3, "no reference, no candidate"
    assert None not in column(groups[0], "raw")[:3]
    assert groups[0].candidates[-1].raw is None
    assert (summary.problems, summary.candidates, summary.references, summary.sampled_now) == (5, 15, 4, 15)
    assert summary.output == arguments.output
    rows = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [len(rows[0][name]) for name in ("completions", "sources", "models", "raw_completions")] == [4] * 4


class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


class DyingSampler:
    """A real sampler that dies in its n-th call."""

    def __init__(self, sampler, calls):
        self.sampler, self.calls = sampler, calls

    def sample(self, prompts, draws):
        self.calls -= 1
        if self.calls < 0:
            raise Killed
        return self.sampler.sample(prompts, draws)


@pytest.mark.parametrize("torn", [b'5 ["torn by the ki', b"\0" * 4096, b"5 \0\0\n"], ids=["kill", "power loss", "NUL line"])
@pytest.mark.parametrize("calls", [0, 1, 3])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(sampler, tiny_model_dir, tmp_path, problems_file, calls, torn):
    run_sample(SampleArguments(str(problems_file), str(tmp_path / "whole.jsonl")), config(tiny_model_dir), sampler)
    arguments = SampleArguments(str(problems_file), str(tmp_path / "killed.jsonl"))
    with pytest.raises(Killed):
        run_sample(arguments, config(tiny_model_dir), DyingSampler(sampler, calls))
    with open(tmp_path / "killed.jsonl.draws", "ab") as journal:
        journal.write(torn)
    summary = run_sample(arguments, config(tiny_model_dir), sampler)
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert summary.sampled_now == 3 * (7 - 2 * calls)
    assert {path.name.removeprefix("killed") for path in tmp_path.glob("killed*")} == {
        ".jsonl",
        ".jsonl.settings.json",
        ".jsonl.summary.json",
    }


def test_batches_hold_prompts_of_like_length(sampler, tiny_model_dir, tmp_path, problems_file):
    lengths = []

    class Watching(DyingSampler):
        def sample(self, prompts, draws):
            lengths.append([len(str(prompt)) for prompt in prompts])
            return self.sampler.sample(prompts, draws)

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
    assert column(groups[0], "model") == [tiny_model_dir.name] * 5 + ["other"] * 5
    raw = column(groups[0], "raw")
    assert raw[0] == raw[5], "greedy, and the models are the same"
    assert raw[1:3] != raw[6:8], "the seeds of another model are others"
    assert raw[1:3] != raw[3:5], "and of another temperature"
    assert (summary.candidates, summary.sampled_now) == (30, 30)
    with pytest.raises(ConfigError, match=r"told apart by their model's name"):
        run_sample(replace(arguments, models=[str(tiny_model_dir)]), config(tiny_model_dir))
    with pytest.raises(ConfigError, match=r"`temperatures`: expected different numbers"):
        SampleArguments("p", "c.jsonl", temperatures=[1.0, 1.0])


def test_equal_programs_are_kept_once_and_stay_the_teachers(tiny_model_dir, tmp_path, problems_file):
    class Copying:
        def sample(self, prompts, draws):
            return [["def f0():\n    return 0\n", "def f0():\n    return 1\n", "def f0():\n    return 1\n"] for _ in prompts]

    arguments = SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"), limit=1, deduplicate=True)
    summary = run_sample(arguments, config(tiny_model_dir, include_reference=True), Copying())
    (group,) = read_rows(tmp_path / "c.jsonl", CandidateGroup)
    assert column(group, "program") == ["def f0():\n    return 1\n", "def f0():\n    return 0\n"]
    assert column(group, "source") == ["student", "reference"]
    assert (summary.candidates, summary.that_compile, summary.share_that_compile) == (1, 1, 1.0)


def test_a_sampler_that_streams_is_asked_nothing_twice(tiny_model_dir, tmp_path, problems_file):
    asked = []

    class Endpoint:
        def __init__(self, answers):
            self.answers = answers

        def sample(self, prompts, draws):
            raise AssertionError("it streams")

        def stream(self, prompts, draws):
            for index in reversed(range(len(prompts))):  # answers come in any order
                self.answers -= 1
                if self.answers < 0:
                    raise Killed
                asked.append(prompts[index])
                yield index, [f"{prompts[index]} {seed}" for seed in draws.seeds[index]]

        def usage(self):
            return {"cost": 0.5}

    settings = config(tiny_model_dir, prompt_style="completion")
    whole = SampleArguments(str(problems_file), str(tmp_path / "whole.jsonl"))
    assert run_sample(whole, settings, Endpoint(100)).usage == {tiny_model_dir.name: {"cost": 0.5}}
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
    assert column(group, "source") == ["student", "student", "student", "reference", "teacher"]
    assert [raw is None for raw in column(group, "raw")] == [False, False, False, True, False]


def test_earlier_candidates_keep_all_that_is_known_of_them(sampler, tiny_model_dir, tmp_path, problems_file):
    rows = [json.loads(line) for line in problems_file.read_text().splitlines()[:1]]
    verdict = {"outcome": "passed", "passed": 1, "total": 1, "seconds": 0.5, "detail": ""}
    rows[0] |= {"completions": ["x = 1\n"], "sources": ["teacher"], "models": ["t"], "raw_completions": ["x = 1"]}
    rows[0] |= {"teacher_log_probs": [-0.25], "verdicts": [verdict], "mine": {"a": [1]}}
    problems_file.write_text(json.dumps(rows[0]) + "\n")
    run_sample(SampleArguments(str(problems_file), str(tmp_path / "c.jsonl")), config(tiny_model_dir), sampler)
    row = json.loads((tmp_path / "c.jsonl").read_text())
    assert row["verdicts"] == [verdict, None, None, None]
    assert row["teacher_log_probs"] == [-0.25, None, None, None]
    assert row["mine"] == {"a": [1]}
    (group,) = read_rows(tmp_path / "c.jsonl", CandidateGroup)
    assert group.candidates[0] == Candidate(
        program="x = 1\n",
        source="teacher",
        model="t",
        raw="x = 1",
        teacher_log_prob=-0.25,
        verdict=Verdict(outcome=Outcome.PASSED, passed=1, total=1, seconds=0.5),
    )


class NoModel:
    """Fails where it is asked."""

    def sample(self, prompts, draws):
        pytest.fail("it was asked")


def test_a_finished_run_computes_nothing(tiny_model_dir, tmp_path, problems_file, monkeypatch):
    arguments = SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"))
    first = run_sample(arguments, config(tiny_model_dir))
    written = (tmp_path / "c.jsonl").read_bytes()
    monkeypatch.setattr("trl_rrtf.sampling.stage.make_sampler", lambda config: pytest.fail("the model was loaded"))
    monkeypatch.setattr("trl_rrtf.sampling.stage.parse_program", lambda program: pytest.fail("the candidates were read"))
    again = run_sample(arguments, config(tiny_model_dir))
    assert again == replace(first, sampled_now=0, candidates_per_second=0.0)
    assert (tmp_path / "c.jsonl").read_bytes() == written
    with pytest.raises(OutputError, match="`seed` was 42 and is 43"):
        run_sample(arguments, config(tiny_model_dir, seed=43))
    (tmp_path / "c.jsonl.draws").write_bytes(b"0 []\n")  # of a kill between the last two steps
    run_sample(arguments, config(tiny_model_dir))
    assert not (tmp_path / "c.jsonl.draws").exists()


def test_overwriting_throws_away_what_was_drawn(sampler, tiny_model_dir, tmp_path, problems_file):
    arguments = SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"))
    with pytest.raises(Killed):
        run_sample(arguments, config(tiny_model_dir), DyingSampler(sampler, 2))
    summary = run_sample(replace(arguments, overwrite=True), config(tiny_model_dir, seed=43), sampler)
    assert summary.sampled_now == 21


def test_the_spelling_of_a_path_is_no_setting(tiny_model_dir, tmp_path, problems_file, monkeypatch):
    run_sample(SampleArguments(str(problems_file), str(tmp_path / "c.jsonl")), config(tiny_model_dir))
    monkeypatch.chdir(tmp_path)
    again = SampleArguments("./problems.jsonl", "c.jsonl")
    assert run_sample(again, config(f"{tiny_model_dir.parent}/./{tiny_model_dir.name}")).sampled_now == 0


def test_what_was_drawn_with_other_settings_is_not_taken(sampler, tiny_model_dir, tmp_path, problems_file):
    """A journal that is left alone, without the output that it belongs to."""
    arguments = SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"))
    with pytest.raises(Killed):
        run_sample(arguments, config(tiny_model_dir, temperature=0.5), DyingSampler(sampler, 2))
    (tmp_path / "c.jsonl.partial").unlink()
    run_sample(arguments, config(tiny_model_dir), sampler)
    run_sample(SampleArguments(str(problems_file), str(tmp_path / "whole.jsonl")), config(tiny_model_dir), sampler)
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_model_that_was_retrained_in_its_folder_is_noticed(tiny_model_dir, tmp_path, problems_file):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    arguments = SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"))
    run_sample(arguments, config(folder))
    (folder / "README.md").write_text("A card says nothing of the weights.")
    run_sample(arguments, config(folder))
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.add_(0.01)
    model.save_pretrained(folder)
    with pytest.raises(OutputError, match="`model_fingerprint` was"):
        run_sample(arguments, config(folder))


def test_options_that_change_no_candidate_may_differ_when_a_run_goes_on(tiny_model_dir, tmp_path, problems_file):
    class Endpoint(NoModel):
        def stream(self, prompts, draws):
            yield 0, ["pass"] * len(draws.seeds[0])  # a run without any text leaves no settings
            raise Killed

    arguments = SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"))
    settings = config(tiny_model_dir, engine="openai")
    with pytest.raises(Killed):
        run_sample(arguments, settings, Endpoint())
    others = {"base_url": "http://127.0.0.1:9/v1", "max_concurrency": 3, "max_retries": 0, "input_price": 2.0}
    with pytest.raises(Killed):
        run_sample(arguments, replace(settings, **others, request_timeout=1, requests_per_minute=7), Endpoint())
    with pytest.raises(OutputError, match=r"`top_p` was 0\.95 and is 0\.5"):
        run_sample(arguments, replace(settings, top_p=0.5), Endpoint())


def test_two_runs_on_one_output_do_not_mix(sampler, tiny_model_dir, tmp_path, problems_file):
    arguments = SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"))
    refused = []

    class Meeting(DyingSampler):
        def sample(self, prompts, draws):
            with pytest.raises(OutputError, match=rf"is being written by another run \(process {os.getpid()} on "):
                run_sample(arguments, config(tiny_model_dir), NoModel())
            refused.append(True)
            return self.sampler.sample(prompts, draws)

    assert run_sample(arguments, config(tiny_model_dir), Meeting(sampler, None)).sampled_now == 21
    assert len(refused) == 4, "in each batch"
    assert len(read_rows(tmp_path / "c.jsonl", CandidateGroup)) == 7


def test_an_output_that_is_the_input_is_refused(tiny_model_dir, problems_file):
    content = problems_file.read_bytes()
    for overwrite in (False, True):
        arguments = SampleArguments(str(problems_file), f"{problems_file.parent}/./problems.jsonl", overwrite=overwrite)
        with pytest.raises(ConfigError, match=r"`output`: .* what `input` names"):
            run_sample(arguments, config(tiny_model_dir), NoModel())
    assert problems_file.read_bytes() == content
    assert list(problems_file.parent.iterdir()) == [problems_file]


def test_bad_input_is_named_before_the_model_loads(tiny_model_dir, tmp_path, problems_file):
    with pytest.raises(LoadError, match=r"there is no model folder"):
        run_sample(SampleArguments(str(problems_file), str(tmp_path / "c.jsonl")), config(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"no problem has split=test; the values of `split` are heldout, train"):
        run_sample(SampleArguments(str(problems_file), str(tmp_path / "c.jsonl"), where="split=test"), config(tiny_model_dir))
    lines = problems_file.read_text().splitlines()
    row = json.loads(lines[0]) | {"problem_id": "x"}
    verdict = {"outcome": "passed", "passed": 9, "total": 2}
    candidates = {"completions": ["x"], "sources": ["student"], "models": ["m"]}
    for bad, message in [
        ({"problem_id": "x", "tests": []}, r"line 8, column `tests`"),
        (row | {"problem_id": "p/0"}, r"line 8, column `problem_id`: 'p/0' is the id of another problem too \(.*line 1\)"),
        (row | {"completions": ["x"]}, r"problem x: a candidate group also needs `sources`, `models`"),
        (row | candidates | {"verdicts": [verdict]}, r"problem x, column `verdicts\[0\]`: .* more passed than there are"),
    ]:
        problems_file.write_text("\n".join([*lines, json.dumps(bad)]) + "\n")
        with pytest.raises(RowError, match=message):
            run_sample(SampleArguments(str(problems_file), str(tmp_path / "c.jsonl")), config(tiny_model_dir), NoModel())
    problems_file.write_text("")
    with pytest.raises(LoadError, match="has no problem"):
        run_sample(SampleArguments(str(problems_file), str(tmp_path / "c.jsonl")), config(tiny_model_dir), NoModel())
    assert list(tmp_path.iterdir()) == [problems_file]


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
        {"temperature": float("inf")},
        {"temperature": "warm"},
        {"num_generations": 1.5},
        {"stop_strings": "abc"},
        {"include_reference": "no"},
        {"request_timeout": 0, "engine": "openai"},
    ],
)
def test_settings_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match=r"expected|greedy") as error:
        SamplingConfig(model="m", **{"num_generations": 1, **options})
    assert any(f"`{name}`" in str(error.value) for name in options)


@pytest.mark.parametrize(
    "options",
    [{"temperatures": 0.5}, {"temperatures": [-1]}, {"limit": "six"}, {"limit": 0}, {"models": "m"}, {"overwrite": "no"}],
)
def test_arguments_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match=rf"`{next(iter(options))}.*`: expected"):
        SampleArguments("p", "c.jsonl", **options)


def test_numbers_that_yaml_reads_as_text_are_numbers():
    settings = SamplingConfig("m", temperature="2e-1", num_generations="3", request_timeout="1e1", engine="openai")
    assert (settings.temperature, settings.num_generations, settings.request_timeout) == (0.2, 3, 10)
    assert SampleArguments("p", "c.jsonl", temperatures=["1e0", 2], limit="6").temperatures == [1.0, 2]


def test_a_temperature_may_be_a_whole_number(sampler):
    """transformers refuses an int where it wants a float."""
    assert draw(sampler, ["Write add."], 2, temperature=2) == draw(sampler, ["Write add."], 2, temperature=2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"device": "cuda", "engine": "openai"},
            "`device`: is for the engine transformers, onnx or genai, and `engine` is 'openai'",
        ),
        ({"dtype": "float32", "engine": "onnx"}, "`dtype`: is for the engine transformers or vllm, and `engine` is 'onnx'"),
        ({"max_concurrency": 4}, "`max_concurrency`: is for the engine openai, and `engine` is 'transformers'"),
    ],
)
def test_an_option_that_the_engine_would_ignore_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SamplingConfig("m", **options)


def test_each_engine_gets_its_own_options_and_no_others():
    for name, engine in ENGINES.items():
        options = {field.name: field.default for field in fields(engine.options)}
        for option in options:  # every one is a flat option of the configuration, with the same default
            assert getattr(SamplingConfig("m", engine=name), option) == options[option]
        assert engine.options_in(SamplingConfig("m", engine=name)) == engine.options()
    settings = SamplingConfig("m", engine="openai", base_url="http://x/v1", max_retries="2")
    assert ENGINES["openai"].options_in(settings) == OpenAIOptions(base_url="http://x/v1", max_retries=2)
    assert [name for name, engine in ENGINES.items() if engine.is_remote] == ["openai"]


def test_seeds_stay_what_they_were():
    """The candidates of earlier runs, and the figures made from them, hang on these numbers."""
    settings = SamplingConfig("m", num_generations=3, temperature=0.8)
    assert candidate_seeds(settings, "p/1", "m") == [1350619820, 1467173605, 259906531]
    assert make_draws(settings, ["p/1", "p/2"], "m").seeds[0] == [1350619820, 1467173605, 259906531]
