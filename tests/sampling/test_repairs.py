"""Repair turns: who is shown what, chains that can be told apart, resumed runs, and what no pass@k may count."""

from __future__ import annotations

import json

import pytest

from trl_rrtf import CandidateGroup, ConfigError, JudgeConfig, JudgedGroup, JudgeError, Outcome, RankConfig, RowError, Verdict
from trl_rrtf.evaluation.config import EvaluateArguments
from trl_rrtf.evaluation.repairs import after_repairs
from trl_rrtf.evaluation.stage import run_evaluate
from trl_rrtf.judging.config import JudgeArguments
from trl_rrtf.judging.stage import run_judge
from trl_rrtf.ranking import rank_group
from trl_rrtf.rows.files import read_rows
from trl_rrtf.rows.records import Candidate
from trl_rrtf.sampling import SampleArguments, SamplingConfig, make_sampler, run_sample
from trl_rrtf.sampling.repairs import repair_prompt, repair_seed

WRONG, RIGHT = "def add(a, b):\n    return a - b\n", "def add(a, b):\n    return a + b\n"
HALF = "def add(a, b):\n    return 3\n"
HIDDEN = 7117
TESTS = [
    {"kind": "assert", "code": "assert add(1, 2) == 3"},
    {"kind": "assert", "code": f"assert add({HIDDEN - 7}, 7) == {HIDDEN}"},
]


class Writer:
    """A model by rule: what it writes depends on the seed and on how often it was told that it is wrong."""

    def __init__(self, *answers):
        self.answers = answers or ((WRONG, HALF, RIGHT), (WRONG,), (RIGHT,))
        self.seen = []

    def answer(self, prompt, seed):
        self.seen.append((prompt, seed))
        told = sum(message["role"] == "assistant" for message in prompt) if isinstance(prompt, list) else prompt.count("wrong")
        options = self.answers[min(told, len(self.answers) - 1)]
        return options[seed % len(options)]

    def sample(self, prompts, draws):
        return [[self.answer(prompt, seed) for seed in own] for prompt, own in zip(prompts, draws.seeds, strict=True)]


class StreamingWriter(Writer):
    """The same, prompt by prompt in another order; it may break off."""

    breaks_after = None

    def stream(self, prompts, draws):
        for number in reversed(range(len(prompts))):
            if self.breaks_after is not None and len(self.seen) >= self.breaks_after:
                raise KeyboardInterrupt
            yield number, [self.answer(prompts[number], seed) for seed in draws.seeds[number]]


def write_problems(path, count=5, **columns):
    rows = [{"problem_id": f"p/{i}", "prompt": f"Write add {i}.", "entry_point": "add", "tests": TESTS} for i in range(count)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def problems(tmp_path):
    return write_problems(tmp_path / "problems.jsonl")


def arguments(problems, output="out.jsonl", **options):
    return SampleArguments(str(problems), str(problems.parent / output), **{"repair_turns": 2, "public_tests": 1, **options})


def config(**options):
    return SamplingConfig("some/model", **{"num_generations": 6, "batch_size": 2, "engine": "openai", **options})


def judging(**options):
    return JudgeConfig(timeout=3, num_workers=2, **options)


def sample(problems, writer, output="out.jsonl", settings=None, limits=None, **options):
    files = arguments(problems, output, **options)
    summary = run_sample(files, settings or config(), writer, limits or judging())
    return summary, read_rows(files.output, CandidateGroup)


def test_a_candidate_that_fails_is_shown_how_and_writes_again(problems):
    writer = Writer()
    summary, groups = sample(problems, writer)
    shown = [prompt for prompt, _ in writer.seen if len(prompt) > 1]
    once, twice = [prompt for prompt in shown if len(prompt) == 3], [prompt for prompt in shown if len(prompt) == 5]
    assert summary.repairs == {
        "shown a failure": [len(once), len(twice)],
        "repaired": [0, len(twice)],
        "still failing": 0,
        "could not be judged": 0,
        "conversation too long": 0,
        "problems without public tests": 0,
        "problems without hidden tests": 0,
    }
    assert once
    assert len(twice) == len(once)
    for prompt in once:
        assert [message["role"] for message in prompt] == ["user", "assistant", "user"]
        assert prompt[1]["content"] == WRONG
        assert "This test fails:\nassert add(1, 2) == 3\nExpected: 3\nGot: -1" in prompt[2]["content"]
    for group in groups:
        for index, candidate in enumerate(group.candidates):
            repaired = candidate.repair_of
            assert (repaired is None) == (index < 6), "first draws come first"
            if repaired is not None:
                assert group.candidates[repaired].program == WRONG, "only what fails is repaired, never what passes"
    chains = sum(
        candidate.program == WRONG and candidate.repair_of is None for group in groups for candidate in group.candidates
    )
    assert len(once) == chains


def test_nothing_of_a_hidden_test_is_in_any_prompt(problems):
    writer = Writer((HALF, WRONG), (HALF, "def add(a, b):\n    return locals(), globals()\n"))
    sample(problems, writer)
    assert len(writer.seen) > 10
    assert str(HIDDEN) not in json.dumps([prompt for prompt, _ in writer.seen])
    assert str(HIDDEN - 7) not in json.dumps([prompt for prompt, _ in writer.seen])


def test_a_run_without_turns_draws_the_same_first_candidates(problems):
    _, with_turns = sample(problems, Writer())
    files = arguments(problems, "plain.jsonl", repair_turns=0, public_tests=None)
    summary = run_sample(files, config(), Writer())
    plain = read_rows(files.output, CandidateGroup)
    assert [group.candidates for group in plain] == [group.candidates[:6] for group in with_turns]
    assert summary.repairs == {}
    assert "repair_of" not in plain[0].to_row()
    assert "repair_turns" not in json.loads((problems.parent / "plain.jsonl.settings.json").read_text())


@pytest.mark.parametrize("breaks_after", [1, 40, 50])
def test_an_interrupted_run_goes_on_and_gives_the_same(problems, breaks_after):
    _, whole = sample(problems, StreamingWriter(), "whole.jsonl")
    broken = StreamingWriter()
    broken.breaks_after = breaks_after
    with pytest.raises(KeyboardInterrupt):
        sample(problems, broken)
    writer = StreamingWriter()
    summary, resumed = sample(problems, writer)
    assert resumed == whole
    everything = StreamingWriter()
    again, _ = sample(problems, everything, "again.jsonl")
    assert summary.repairs == again.repairs
    assert len(writer.seen) < len(everything.seen), "what was answered is not asked again"
    assert not (problems.parent / "out.jsonl.draws").exists()


def test_a_batch_is_the_same_whether_it_streams_or_not(problems):
    _, streamed = sample(problems, StreamingWriter(), "one.jsonl")
    _, whole = sample(problems, Writer(), "other.jsonl")
    assert streamed == whole


def test_every_text_has_a_seed_of_its_own(problems):
    writer = Writer((WRONG,), (WRONG,))
    sample(problems, writer, settings=config(num_generations=3), temperatures=[0.5, 0.8])
    seeds = [seed for _, seed in writer.seen]
    assert len(seeds) == 5 * 2 * 3 * 3
    assert len(set(seeds)) == len(seeds)
    assert repair_seed(config(seed=1), "p", 0, 1) != repair_seed(config(seed=2), "p", 0, 1)


def test_several_temperatures_repair_their_own_candidates(problems):
    summary, groups = sample(
        problems, Writer((WRONG,), (WRONG,), (RIGHT,)), settings=config(num_generations=2), temperatures=[0.5, 0.8]
    )
    assert summary.repairs["shown a failure"] == [20, 20]
    assert summary.repairs["repaired"] == [0, 20]
    assert [candidate.repair_of for candidate in groups[0].candidates] == [None] * 4 + [0, 1, 2, 3, 4, 5, 6, 7]


def test_earlier_candidates_stay_as_they_are(problems):
    _, groups = sample(problems, Writer((WRONG,), (RIGHT,)), "first.jsonl", settings=config(num_generations=1))
    first = problems.parent / "first.jsonl"
    files = SampleArguments(str(first), str(problems.parent / "second.jsonl"), repair_turns=1, public_tests=1)
    run_sample(files, config(num_generations=1, seed=7), Writer((WRONG,), (WRONG,)), judging())
    second = read_rows(files.output, CandidateGroup)
    assert [group.candidates[:2] for group in second] == [group.candidates for group in groups]
    assert [candidate.repair_of for candidate in second[0].candidates] == [None, 0, None, 2]


def test_equal_programs_once_keeps_who_repairs_whom(problems):
    _, groups = sample(problems, Writer((WRONG,), (WRONG, HALF, RIGHT)), deduplicate=True)
    for group in groups:
        programs = [candidate.program for candidate in group.candidates]
        assert len(set(programs)) == len(programs)
        for candidate in group.candidates:
            assert candidate.repair_of == (None if candidate.program == WRONG else programs.index(WRONG))


def test_problems_without_public_tests_are_counted_and_left_alone(tmp_path):
    problems = write_problems(tmp_path / "p.jsonl", public_tests=[0, 1, 2, None, 0])
    summary, groups = sample(problems, Writer((WRONG,), (RIGHT,)), public_tests=None)
    assert summary.repairs["problems without public tests"] == 3
    assert summary.repairs["problems without hidden tests"] == 1
    assert [len(group.candidates) for group in groups] == [6, 12, 12, 6, 6]
    assert "problems without public tests" in " ".join(summary.table())


@pytest.mark.parametrize("style", ["paper", "completion"])
def test_a_text_prompt_goes_on_behind_the_failure(problems, style):
    writer = Writer((WRONG,), (RIGHT,))
    sample(problems, writer, settings=config(prompt_style=style, num_generations=1))
    prompts = [prompt for prompt, _ in writer.seen if "wrong" in prompt]
    assert len(prompts) == 5
    start = '"""\nWrite add 0.\n"""\n' if style == "paper" else "Write add 0."
    said = "This test fails:\nassert add(1, 2) == 3\nExpected: 3\nGot: -1"
    comments = "".join(f"# {line}\n" for line in ["The program above is wrong.", *said.split("\n"), "The corrected program:"])
    told = f"{start}{WRONG.rstrip()}\n\n{comments}"
    assert told + ("" if style == "paper" else start) in prompts


@pytest.mark.parametrize("style", ["paper", "completion"])
def test_no_value_is_altered_and_none_ends_the_explanation(style):
    group = CandidateGroup(problem_id="p", prompt="Write add.", tests=[], candidates=[])
    failure = 'Got: \'"""\'\r\nimport os\rimport sys\n\nx'
    prompt = repair_prompt(group, style, [('return """a"""', failure)])
    assert '# Got: \'"""\'\n# import os\n# import sys\n# \n# x\n' in prompt
    assert 'return """a"""\n' in prompt


class SmallWriter(Writer):
    """A model whose context holds a prompt and one repair, and no second one."""

    def room_for(self, prompt):
        return 600 - sum(len(message["content"]) for message in prompt)


class SmallStreamingWriter(SmallWriter, StreamingWriter):
    """The same, prompt by prompt."""


@pytest.mark.parametrize("writer", [SmallWriter, SmallStreamingWriter])
@pytest.mark.parametrize("longest", [200, 580])
def test_a_conversation_that_is_too_long_ends_and_is_counted(problems, writer, longest):
    """Also where all of a problem, or of a batch, are."""
    model = writer((WRONG, RIGHT), (WRONG,))
    summary, groups = sample(problems, model, settings=config(max_new_tokens=longest))
    wrong = sum(candidate.program == WRONG for group in groups for candidate in group.candidates[:6])
    first = wrong if longest == 200 else 0
    assert summary.repairs["shown a failure"] == [first, 0]
    assert summary.repairs["conversation too long"] == wrong
    assert summary.table()["repairs left out, conversation too long"] == wrong
    assert sum(len(group.candidates) for group in groups) == 30 + first
    assert max(len(prompt) for prompt, _ in model.seen) == (3 if first else 1)


def test_a_real_model_knows_how_much_its_context_holds(problems, tiny_model_dir):
    settings = SamplingConfig(str(tiny_model_dir), dtype="float32", num_generations=1, max_new_tokens=500, temperature=1.0)
    sampler = make_sampler(settings)
    room = sampler.room_for("def add(a, b):")
    assert 512 - 14 <= room < 512
    files = arguments(problems, limit=1, repair_turns=1)
    summary = run_sample(files, SamplingConfig(**{**vars(settings), "max_new_tokens": 380}), sampler, judging())
    assert summary.repairs["shown a failure"] == [0]
    assert summary.repairs["conversation too long"] == 1


def test_a_prompt_of_text_parts_is_text_and_other_parts_are_refused_before_the_model(tmp_path):
    """Templates such as that of SmolLM2 put texts together, and fail where a content is a list."""
    parts = [{"type": "text", "text": "Write "}, {"type": "text", "text": "add."}]
    image = [{"type": "image", "image": "a.png"}]
    prompts = [[{"role": "user", "content": content}] for content in (parts, "Write add.", image)]
    writer = Writer((RIGHT,))
    problems = write_problems(tmp_path / "good.jsonl", 2, prompt=prompts[:2])
    sample(problems, writer, repair_turns=0, public_tests=None, limits=JudgeConfig())
    assert [prompt for prompt, _ in writer.seen[::6]] == [prompts[1]] * 2
    writer.seen.clear()
    with pytest.raises(RowError, match=r"problem 'p/2', column `prompt\[0\].content\[0\]`: expected .*only text is read"):
        sample(write_problems(tmp_path / "bad.jsonl", 3, prompt=prompts), writer)
    assert not writer.seen


def test_a_run_that_fails_before_its_first_text_leaves_no_settings_in_the_way(problems):
    class Broken:
        def sample(self, prompts, draws):
            raise TypeError("no model")

    with pytest.raises(TypeError, match="no model"):
        sample(problems, Broken())
    assert sorted(path.name for path in problems.parent.iterdir()) == ["problems.jsonl"]
    sample(problems, Writer((RIGHT,)), settings=config(seed=2))


def test_a_prompt_that_ends_in_a_prefill_has_one_assistant_turn_per_answer():
    group = CandidateGroup(
        problem_id="p",
        prompt=[{"role": "user", "content": "Write add."}, {"role": "assistant", "content": "```python\n"}],
        tests=[],
        candidates=[],
    )
    messages = repair_prompt(group, "chat", [("def add(", "It fails."), ("def", "It fails again.")])
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[1]["content"] == "```python\ndef add("
    assert group.prompt[-1]["content"] == "```python\n"


def test_a_real_model_repairs_through_its_chat_template(problems, tiny_model_dir, monkeypatch):
    settings = SamplingConfig(
        str(tiny_model_dir), dtype="float32", num_generations=2, batch_size=3, max_new_tokens=8, temperature=1.0
    )
    sampler = make_sampler(settings)
    rendered = []
    encode = sampler._encode
    monkeypatch.setattr(sampler, "_encode", lambda prompts: rendered.extend(prompts) or encode(prompts))
    files = arguments(problems, repair_turns=1)
    summary = run_sample(files, settings, sampler, judging())
    groups = read_rows(files.output, CandidateGroup)
    assert summary.repairs["shown a failure"] == [10], "a random model passes nothing"
    assert [len(prompt) for prompt in rendered] == [1] * 5 + [3] * 10
    assert {candidate.repair_of for candidate in groups[0].candidates} == {None, 0, 1}
    again = arguments(problems, "again.jsonl", repair_turns=1)
    run_sample(again, settings, None, judging())
    assert read_rows(again.output, CandidateGroup) == groups, "the same seeds give the same repairs"


@pytest.mark.parametrize(
    ("options", "limits", "message"),
    [
        ({"repair_turns": 0}, {}, "`public_tests`: only repair turns run tests"),
        ({"repair_turns": 0, "public_tests": None}, {"timeout": 9.0}, "`timeout`: only repair turns judge"),
        (
            {"repair_turns": 0, "public_tests": None},
            {"required_isolation": ["disk"]},
            "`required_isolation`: only repair turns",
        ),
        ({"public_tests": None}, {}, "`repair_turns`: no problem has a public test"),
        ({"cluster": "local"}, {}, "`repair_turns`: works on this machine alone"),
    ],
)
def test_what_would_do_nothing_is_refused_before_anything(problems, monkeypatch, options, limits, message):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    writer = Writer()
    settings = config() if "cluster" not in options else config(engine="transformers", num_generations=1)
    monkeypatch.setattr("trl_rrtf.sampling.stage.require_models", lambda models, config: None)
    with pytest.raises(ConfigError, match=message):
        run_sample(arguments(problems, **options), settings, None if "cluster" in options else writer, JudgeConfig(**limits))
    assert not writer.seen
    assert not (problems.parent / "out.jsonl.settings.json").exists()


def test_a_column_that_is_no_count_is_an_error_of_its_row(tmp_path):
    problems = write_problems(tmp_path / "p.jsonl", public_tests=[1, 1, 3, 1, 1])
    with pytest.raises(RowError, match="problem 'p/2', column `public_tests`: says that 3 tests are public"):
        sample(problems, Writer())


def test_the_command_takes_the_options_of_the_judge(problems, monkeypatch, capsys):
    from trl_rrtf.cli import main

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    shared = [
        "sample",
        "--problems",
        str(problems),
        "--model",
        "m",
        "--engine",
        "openai",
        "--output",
        str(problems) + ".out.jsonl",
    ]
    assert main([*shared, "--memory_mb", "512"]) == 1
    assert "`memory_mb`: only repair turns judge, so it would do nothing; give `repair_turns` too" in capsys.readouterr().err
    assert main(["sample", "--help"]) == 0
    assert "--repair_turns (default: 0)" in capsys.readouterr().out


def test_an_outage_of_the_judge_is_never_shown_and_stops_the_run(tmp_path):
    problems = write_problems(tmp_path / "p.jsonl", setup_code=["import os\nos.nothing\n"] * 5)
    writer = Writer(tuple(f"def add(a, b):\n    return {i}\n" for i in range(97)))
    with pytest.raises(JudgeError, match="could not be judged on public tests"):
        sample(problems, writer, settings=config(num_generations=12))
    assert all(len(prompt) == 1 for prompt, _ in writer.seen)


# --- What later stages make of it -----------------------------------------------------------------------------------------


def judged_group(*outcomes_and_parents, source="student"):
    candidates = [
        Candidate(
            program=f"def add(a, b):\n    return {i}\n",
            source=source,
            model="m",
            verdict=Verdict(outcome=outcome, passed=int(outcome >= Outcome.PARTIAL), total=1 + (outcome is Outcome.PARTIAL)),
            repair_of=parent,
        )
        for i, (outcome, parent) in enumerate(outcomes_and_parents)
    ]
    return JudgedGroup(problem_id="p", prompt="Write add.", tests=[], candidates=candidates)


def test_the_judge_keeps_the_column_and_chains_pass_when_their_last_link_does(problems):
    _, groups = sample(problems, Writer((WRONG, HALF, RIGHT), (WRONG, RIGHT), (RIGHT,)))
    judged = problems.parent / "judged.jsonl"
    run_judge(JudgeArguments(str(problems.parent / "out.jsonl"), str(judged)), judging())
    rows = read_rows(str(judged), JudgedGroup)
    assert [[c.repair_of for c in row.candidates] for row in rows] == [[c.repair_of for c in g.candidates] for g in groups]
    shares = after_repairs(rows)
    assert sorted(shares) == [0, 1, 2]
    for turn, of_problems in shares.items():
        for share, group in zip(of_problems, groups, strict=True):
            programs = [candidate.program for candidate in group.candidates]
            last = list(range(6))
            for _ in range(turn):
                last = [next((i for i, c in enumerate(group.candidates) if c.repair_of == at), at) for at in last]
            assert share == sum(programs[at] == RIGHT for at in last) / 6
    assert all(share >= before for before, share in zip(shares[0], shares[2], strict=True))


def test_after_repairs_by_hand():
    passed, failed, broken = Outcome.PASSED, Outcome.FAILED, Outcome.INFRASTRUCTURE
    group = judged_group((failed, None), (passed, None), (failed, None), (failed, 0), (passed, 3), (failed, 2))
    short = judged_group((passed, None), (failed, None))
    assert after_repairs([group, short]) == {0: [1 / 3, 0.5], 1: [1 / 3, 0.5], 2: [2 / 3, 0.5]}
    unknown = judged_group((failed, None), (broken, 0), (passed, None))
    assert after_repairs([unknown]) == {0: [1.0]}
    with pytest.raises(JudgeError, match="no candidate of problem 'p' could be judged"):
        after_repairs([judged_group((broken, None))])
    with pytest.raises(ConfigError, match="candidate 0 of problem 'p' has two repairs"):
        after_repairs([judged_group((failed, None), (failed, 0), (failed, 0))])
    with pytest.raises(ConfigError, match="there is none"):
        after_repairs([])


def test_ranked_groups_say_who_repairs_whom():
    passed, failed, broken = Outcome.PASSED, Outcome.FAILED, Outcome.INFRASTRUCTURE
    group = judged_group((failed, None), (broken, None), (failed, 0), (passed, 2), (passed, 1))
    ranked, _ = rank_group(group, RankConfig(deduplicate=True))
    assert len(ranked.candidates) == 4
    assert ranked.to_row()["repair_of"] == [None, 0, 1, None]
    repeated = judged_group((failed, None), (failed, None), (passed, 1))
    repeated.candidates[1].program = repeated.candidates[0].program
    ranked, _ = rank_group(repeated, RankConfig(deduplicate=True))
    assert ranked.to_row()["repair_of"] == [None, 0]
    plain, _ = rank_group(judged_group((failed, None), (passed, None)), RankConfig())
    assert "repair_of" not in plain.to_row()


def test_repairs_do_not_count_in_the_students_pass_rate():
    passed, failed = Outcome.PASSED, Outcome.FAILED
    group = judged_group((failed, None), (failed, None), (passed, 0), (passed, 1))
    assert rank_group(group, RankConfig(min_student_pass_rate=0.5))[0] is None
    assert rank_group(group, RankConfig(max_student_pass_rate=0.0))[0] is not None


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            [None, 2],
            r"repair_of\[1\]`: expected the index \(0 to 1\) of the candidate that this one repairs, or null, got int 2",
        ),
        ([None, True], r"repair_of\[1\]"),
        ([None, -1], r"repair_of\[1\]"),
        ([1, 0], "the repairs go in a circle"),
        ([0, None], "the repairs go in a circle"),
        ([None], "repair_of"),
    ],
)
def test_a_broken_column_is_refused(column, message):
    row = {**judged_group((Outcome.FAILED, None), (Outcome.FAILED, None)).to_row(), "tests": TESTS, "repair_of": column}
    with pytest.raises(RowError, match=message):
        CandidateGroup.from_row(row, "line 1")


def test_an_evaluation_draws_no_repairs_and_counts_none(problems):
    """Its candidates are independent draws: it has no option for turns, and refuses problems that bring candidates."""
    writer = Writer((WRONG, RIGHT), (RIGHT,))
    output = problems.parent / "evaluation.json"
    summary = run_evaluate(EvaluateArguments(str(problems), str(output), k=[1]), config(), judging(), writer)
    assert all(len(prompt) == 1 for prompt, _ in writer.seen)
    assert sum(summary.outcomes.values()) == 5 * 6
    assert not hasattr(EvaluateArguments(str(problems), str(output), k=[1]), "repair_turns")
    sample(problems, Writer((WRONG,), (RIGHT,)))
    with pytest.raises(ConfigError, match="has candidates of an earlier run, which would count in pass@k"):
        run_evaluate(
            EvaluateArguments(str(problems.parent / "out.jsonl"), str(problems.parent / "e.json"), k=[1]),
            config(),
            judging(),
            writer,
        )
