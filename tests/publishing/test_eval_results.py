"""Evaluations in the Hub's formats, read back by `huggingface_hub`'s own parsers."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results

from trl_rrtf import Evaluation, Interval
from trl_rrtf.evaluation.result import Count, ProblemResult
from trl_rrtf.publishing.eval_results import (
    BENCHMARKS,
    eval_results,
    eval_results_entry,
    eval_results_yaml,
    evaluations_table,
    portable,
    problem_set,
)

ISOLATION = "no kernel; memory, processes, network, files"


def evaluation(problems="humaneval", count=164, *, k=(1, 10), fingerprint=None, isolation=ISOLATION, **settings):
    """A result as `trl-rrtf evaluate` writes it."""
    return Evaluation(
        pass_at_k={number: Interval(0.16456 * number**0.3, 0.12, 0.21) for number in k},
        problems=[ProblemResult(f"HumanEval/{i}", Count(20, 3)) for i in range(count)],
        settings={
            "problems": problems,
            "input": problems,
            "where": None,
            "limit": None,
            "model": "runs/model",
            "num_generations": 20,
            "temperature": 0.8,
            "k_temperatures": [],
            "top_p": 0.95,
            **settings,
        },
        judge={"timeout": 5.0, "memory_mb": 1024},
        versions={"trl-rrtf": "0.1.0"},
        fingerprints={"input_fingerprint": fingerprint or problems, "model_fingerprint": "0123456789abcdef"},
        isolation=isolation,
        date="2026-11-27T10:00:00+00:00" if isolation else "",
    )


SETS = {
    # what was evaluated: data set, configuration, split, part, whole benchmark
    "humaneval": (evaluation(), "openai/openai_humaneval", "openai_humaneval", "test", "", True),
    "by its id": (evaluation("openai/openai_humaneval:test"), "openai/openai_humaneval", "openai_humaneval", "test", "", True),
    "by its older id": (evaluation("mbpp:test", 500), "google-research-datasets/mbpp", "full", "test", "", True),
    "sanitized": (
        evaluation("google-research-datasets/mbpp:sanitized:test", 257),
        *("google-research-datasets/mbpp", "sanitized", "test", "", True),
    ),
    "another split": (
        evaluation("google-research-datasets/mbpp", 374),
        "google-research-datasets/mbpp",
        None,
        "train",
        "",
        False,
    ),
    "the first ones": (
        evaluation(count=20, limit=20),
        *("openai/openai_humaneval", "openai_humaneval", "test", "the first 20", False),
    ),
    "some": (
        evaluation(count=3, where="split=x"),
        *("openai/openai_humaneval", "openai_humaneval", "test", "those with split=x", False),
    ),
    "some that nobody chose": (
        evaluation(count=160),
        *("openai/openai_humaneval", "openai_humaneval", "test", "160 of 164 problems", False),
    ),
    "another data set": (evaluation("me/problems:hard:test", 9), "me/problems", "hard", "test", "", False),
    "files of a data set": (evaluation("hf://datasets/me/problems@main/a.jsonl", 9), "me/problems", None, None, "", False),
    "a file": (evaluation("data/heldout.jsonl", 164, fingerprint="a1b2"), None, None, None, "", False),
    "a folder with an id's name": (evaluation("openai/openai_humaneval:test", fingerprint="a1b2"), None, None, None, "", False),
}


@pytest.mark.parametrize("case", SETS)
def test_what_was_evaluated_is_told_by_how_it_was_loaded(case):
    result, dataset_id, config, split, part, is_benchmark = SETS[case]
    found = problem_set(result)
    assert (found.dataset_id, found.config, found.split, found.part) == (dataset_id, config, split, part)
    assert (found.benchmark is not None) == is_benchmark
    entry = eval_results_entry(result, "default", "https://x", "x")
    assert (entry is not None) == is_benchmark, "the list of a benchmark holds what ran all of it, and nothing else"
    assert bool(eval_results(result)) == (dataset_id is not None), "`model-index` wants an id of the Hub"


@pytest.mark.parametrize("case", [name for name in SETS if SETS[name][1]])
def test_the_hub_reads_the_model_index(case):
    result = SETS[case][0]
    data = ModelCardData(model_name="coder", eval_results=eval_results(result))
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n# coder\n")
    name, found = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == "coder"
    assert found == eval_results(result) == card.data.eval_results
    assert [entry.metric_type for entry in found] == ["pass@1", "pass@10"]
    assert found[0].metric_value == 0.1646
    args = found[0].metric_args
    assert args["interval_95"] == [0.12, 0.21]
    assert args["problems"] == len(result.problems)
    assert (args["num_generations"], args["temperature"], args["timeout"]) == (20, 0.8, 5.0)
    assert args["isolation"] == ISOLATION


def test_the_hub_reads_its_own_format():
    entry = eval_results_entry(evaluation(), "openai_humaneval", "https://huggingface.co/me/coder/blob/main/e.json", "evaluate")
    text = eval_results_yaml([entry])
    assert yaml.safe_load(text) == [entry]
    assert entry["dataset"] == {"id": "openai/openai_humaneval", "task_id": "openai_humaneval"}
    assert entry["value"] == 16.46, "percent, as the Hub's lists have it"
    assert "95% interval 12.0 to 21.0" in entry["notes"]
    assert ISOLATION in entry["notes"]
    assert "temperature 0.8" in entry["notes"]


@pytest.mark.skipif(not hasattr(huggingface_hub, "EvalResultEntry"), reason="this huggingface_hub has no such parser yet")
@pytest.mark.parametrize("isolation", [ISOLATION, ""])
def test_the_file_is_what_the_hubs_client_would_write(isolation):
    from huggingface_hub import eval_result_entries_to_yaml, parse_eval_result_entries

    entry = eval_results_entry(evaluation(isolation=isolation), "default", "https://huggingface.co/me/coder", "evaluate")
    parsed = parse_eval_result_entries(yaml.safe_load(eval_results_yaml([entry])))
    assert eval_result_entries_to_yaml(parsed) == [entry]
    assert parsed[0].dataset_id == "openai/openai_humaneval"
    assert parsed[0].date == ("2026-11-27T10:00:00+00:00" if isolation else None)


def test_each_k_is_told_with_its_own_temperature():
    result = evaluation(k_temperatures=[0.2, 1.2])
    assert [entry.metric_args["temperature"] for entry in eval_results(result)] == [0.2, 1.2]
    assert "temperature 0.2," in eval_results_entry(result, "default", "https://x", "x")["notes"]
    assert "temperature [0.2, 1.2]," in evaluations_table({"evaluations/a.json": result})


def test_without_pass_at_1_nothing_goes_into_a_benchmarks_list():
    assert eval_results_entry(evaluation(k=(10,)), "default", "https://x", "x") is None


def test_the_table_shows_interval_date_and_isolation():
    table = evaluations_table(
        {
            "evaluations/a.json": evaluation(),
            "evaluations/b.json": evaluation("data/heldout.jsonl", 9, k=(1,), fingerprint="a1b2", isolation=""),
        }
    )
    link = "[HumanEval](https://huggingface.co/datasets/openai/openai_humaneval)"
    assert f"| {link} | 164 | pass@1 | 16.5% [12.0%, 21.0%] | 2026-11-27 | [a.json](evaluations/a.json) |" in table
    assert "| `heldout.jsonl` (a local file) | 9 | pass@1 | 16.5% [12.0%, 21.0%] | not recorded |" in table
    assert table.count("pass@10") == 1
    assert f"Isolation of the programs: {ISOLATION}." in table
    assert "Isolation of the programs: not recorded." in table
    assert "data/" not in table


def test_a_result_leaves_this_machine_without_its_paths(tmp_path):
    result = evaluation(str(tmp_path / "heldout.jsonl"), 9, fingerprint="a1b2")
    (tmp_path / "e.json").write_text(json.dumps(portable(result, "me/coder")))
    assert str(tmp_path) not in (tmp_path / "e.json").read_text()
    read = Evaluation.load(tmp_path / "e.json", "evaluations")
    assert (read.settings["problems"], read.settings["model"]) == ("heldout.jsonl", "me/coder")
    assert (read.pass_at_k, read.problems, read.isolation) == (result.pass_at_k, result.problems, result.isolation)


def test_benchmarks_are_told_apart():
    assert len({(entry.dataset_id, entry.config, entry.split) for entry in BENCHMARKS}) == len(BENCHMARKS)
    assert len({entry.key for entry in BENCHMARKS}) == len(BENCHMARKS)
