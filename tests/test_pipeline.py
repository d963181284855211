"""The whole loop with a tiny model: results, resuming at every step, errors before any work."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from trl_rrtf import ConfigError, LoadError, OutputError, PipelineConfig, load_pipeline_config, run_pipeline
from trl_rrtf.cli import main
from trl_rrtf.pipeline.plan import Plan
from trl_rrtf.rows.resumable import output_lock


@pytest.fixture(scope="module")
def settings(tiny_model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    rows = [
        {
            "problem_id": f"p/{i}",
            "prompt": f"Write a function `f` that returns {i}.",
            "tests": [{"kind": "assert", "code": f"assert f() == {i}"}, {"kind": "assert", "code": "assert f() >= 0"}],
            "entry_point": "f",
            "reference_solution": f"def f():\n    return {i}\n",
            "split": "heldout" if i % 3 == 0 else "train",
        }
        for i in range(9)
    ]
    problems = folder / "problems.jsonl"
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sampling = {"num_generations": 2, "max_new_tokens": 8, "batch_size": 4, "temperature": 1.0}
    train = {"bf16": False, "use_cpu": True, "report_to": "none", "gradient_checkpointing": False, "learning_rate": 0.01}
    train |= {"num_train_epochs": 2, "per_device_train_batch_size": 2, "save_steps": 2, "logging_steps": 1}
    return {
        "output_dir": str(folder / "run"),
        "model": str(tiny_model_dir),
        "problems": str(problems),
        "train_where": "split=train",
        "prompt_style": "paper",
        "sample": sampling,
        "judge": {"timeout": 5},
        "train": {**train, "eval_strategy": "epoch", "eval_on_start": True, "disable_tqdm": True},
        "evaluate": sampling,
        "benchmarks": [{"name": "heldout", "problems": str(problems), "where": "split=heldout"}],
        "heldout": "heldout",
    }


@pytest.fixture(scope="module")
def finished(settings):
    return run_pipeline(PipelineConfig(**settings)), settings


def test_the_loop_ends_with_results_and_a_model(finished, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    results, settings = finished
    folder = settings["output_dir"]
    assert results.before["heldout"][1].mean == 0.0
    before, after = results.heldout_before, results.heldout_after
    assert after["eval_logps/best"] > before["eval_logps/best"]
    assert 0 <= before["eval_ranking/accuracy"] <= 1
    AutoModelForCausalLM.from_pretrained(f"{folder}/model")
    assert AutoTokenizer.from_pretrained(f"{folder}/model").chat_template
    assert "RRTF" in Path(f"{folder}/model/README.md").read_text()
    assert {"sample", "judge", "train", "evaluate after: heldout"} <= set(results.seconds)
    rows = [json.loads(line) for line in Path(f"{folder}/ranked/heldout.jsonl").read_text().splitlines()]
    assert all("reference" in row["sources"] for row in rows)


def test_running_again_does_nothing_and_says_the_same(finished, monkeypatch):
    results, settings = finished
    monkeypatch.setattr("trl_rrtf.pipeline.run.make_sampler", lambda config: pytest.fail("a model was loaded"))
    assert run_pipeline(PipelineConfig(**settings)) == results


OUTPUTS = [
    "candidates/student.jsonl",
    "judged.jsonl",
    "ranked/train.jsonl",
    "evaluation/heldout.before.candidates.jsonl",
    "evaluation/heldout.before.judged.jsonl",
    "evaluation/heldout.before.json",
    "ranked/heldout.jsonl",
]


def kill_in(folder, step):
    """Leaves the folder as a kill in the middle of a step would: later files are gone, that of the step is half written."""
    for path in folder.glob("evaluation/heldout.after.*"):
        path.unlink()
    if step == "training":
        shutil.rmtree(folder / "model" / "checkpoint-6")
        for name in ("train_result.json", "model.safetensors"):
            (folder / "model" / name).unlink()
    if step in OUTPUTS:
        shutil.rmtree(folder / "model")
        for name in OUTPUTS[OUTPUTS.index(step) + 1 :]:
            (folder / name).unlink()
            (folder / f"{name}.settings.json").unlink(missing_ok=True)
        path = folder / step
        lines = path.read_bytes().splitlines(keepends=True)
        path.unlink()
        path.with_name(path.name + ".partial").write_bytes(lines[0] + lines[1][:20])


@pytest.mark.parametrize(
    "step",
    [
        "candidates/student.jsonl",
        "judged.jsonl",
        "evaluation/heldout.before.candidates.jsonl",
        "ranked/heldout.jsonl",
        "training",
        "last",
    ],
)
def test_a_killed_run_goes_on_and_ends_the_same(finished, tmp_path, step):
    results, settings = finished
    folder = tmp_path / "run"
    shutil.copytree(settings["output_dir"], folder)
    kill_in(folder, step)
    again = run_pipeline(PipelineConfig(**{**settings, "output_dir": str(folder)}))
    for name in ("before", "after", "heldout_before", "heldout_after"):
        assert getattr(again, name) == getattr(results, name)
    weights = [Path(run, "model", "model.safetensors").read_bytes() for run in (folder, settings["output_dir"])]
    assert weights[0] == weights[1]


def test_wrong_settings_are_named_before_any_work(settings, tmp_path):
    output = {"output_dir": str(tmp_path / "run")}
    for change, message in [
        ({"sample": {"temprature": 1}}, "`sample`: unknown key `temprature`; the keys are model, source"),
        ({"train": {"packing": True}}, "`packing=True` is not supported by RRTF"),
        ({"train": {"no_such_option": 1}}, "`train`: "),
        ({"rank": {"teacher_bonus": 3}}, "`teacher_bonus`: expected"),
        ({"heldout": "mbpp"}, r"`heldout`: expected the name of a benchmark \(heldout\)"),
        ({"benchmarks": [{"problems": "x"}]}, r"`benchmarks\[0\]`: the key `name` is missing"),
        ({"train_where": "split=nothing"}, "no problem has split=nothing"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Plan.parse(PipelineConfig(**{**settings, **output, **change}))
    with pytest.raises(LoadError, match="there is no model folder"):
        Plan.parse(PipelineConfig(**{**settings, **output, "model": str(tmp_path / "nothing")}))
    assert not (tmp_path / "run").exists()


WRONG = {
    "train: {learning_rate: fast}": "`train`: `learning_rate`: expected a number, got str 'fast'",
    "train: {output_dir: elsewhere}": "`train`: the key `output_dir` is given by `run` itself",
    "train: {bf16: 'no'}": "`train`: `bf16`: expected true or false, got str 'no'",
    "train: {eval_strategy: epoch}\nheldout: null": "`train`: `eval_strategy=",
    "train: {report_to: nobody}": "`train`: `report_to`: nobody is not installed",
    "train: [1]": "`train`: expected keys with values",
    "evaluate: {k: [10], num_generations: 2}": "`evaluate`: `k`: 10 is more than `num_generations` (2)",
    "evaluate: {k: 1}": "`evaluate`: `k`: expected a list, such as [1]",
    "evaluate: {k: [0]}": "`evaluate`: `k`: expected at least 1, got 0",
    "evaluate: {model: other}": "`evaluate`: the key `model` is given by `run` itself",
    "benchmarks: [{name: a, problems: P}, {name: a, problems: P}]\nheldout: a": "`benchmarks`: two are called a",
    "benchmarks: [a]": "`benchmarks[0]`: expected keys with values",
    "benchmarks: [{name: a/b, problems: P}]": "`benchmarks[0]`: `name`: expected a name that a file may have",
    "judge: {timeout: .inf}": "`judge`: `timeout`: expected a number above 0",
    "judge: {num_workers: 1.5}": "`judge`: `num_workers`: expected a whole number, got float 1.5",
    "judge: {memory_mb: 100000000000000}": "`judge`: `memory_mb`: expected at least 32 and at most",
    "judge: {second_run: 'false'}": "`judge`: `second_run`: expected true or false, got str 'false'",
    "judge:": "`judge`: the section is empty",
    "sample: {stop_strings: abc}": "`sample`: `stop_strings`: expected a list, such as ['abc']",
    "sample: {temperatures: 0.5}": "`sample`: `temperatures`: expected a list, such as [0.5]",
    "sample: {include_reference: true}": "`sample`: the key `include_reference` is given by `run` itself",
    "include_reference: 'no'": "`config`: `include_reference`: expected true or false, got str 'no'",
    "train_limit: six": "`config`: `train_limit`: expected a whole number, got str 'six'",
    "rounds: two": "`config`: `rounds`: expected a whole number, got str 'two'",
    "teachers: {model: T}": "`config`: `teachers`: expected a list",
    "teachers: [{model: /nowhere/T}]": "there is no model folder `/nowhere/T`",
    "output_dir: 5": "`config`: `output_dir`: expected text, got int 5",
    "rank: {teacher_bonus: large}": "`rank`: `teacher_bonus`: expected a number, got str 'large'",
    "rank: {passed_preference: teacher_log_prob}": "`rank`: `passed_preference`: `run` asks no teacher",
    "evaluate: {k: [1, 2], k_temperatures: [0.2, 1.2], num_generations: 2}": "`evaluate`: `k_temperatures`: the candidates of",
    "teachers: [{model: T, engine: openai}]": "`teachers[0]`: `api_key_env`: the environment variable OPENAI_API_KEY",
    "sample: {repair_turns: 1}": "`sample`: `repair_turns`: no problem has a public test",
    "sample: {public_tests: 1}": "`sample`: `public_tests`: only repair turns run tests",
    "sample: {repair_turns: 1, public_tests: 1}\ncluster: auto": "`sample`: `repair_turns`: works on this machine alone",
    "teachers: [{model: M, repair_turns: 2}]": "`teachers[0]`: `repair_turns`: no problem has a public test",
    "teachers: [{model: M, public_tests: 2}]": "`teachers[0]`: `public_tests`: only repair turns run tests",
    "cluster: [1]": "`config`: `cluster`: expected text, got list [1]",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_file_is_refused_before_any_work(wrong, settings, tmp_path, capsys, monkeypatch):
    """Each of these was found after sampling, judging or training, or passed as something else, or ended in a traceback."""
    path = tmp_path / "pipeline.yaml"
    keys = re.findall(r"^\w+", wrong, re.M)
    rest = {name: value for name, value in {**settings, "output_dir": str(tmp_path / "run")}.items() if name not in keys}
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    named = wrong.replace("problems: P", f"problems: {settings['problems']}").replace("model: M", f"model: {settings['model']}")
    path.write_text(yaml.safe_dump(rest) + named + "\n")
    assert main(["run", "--config", str(path)]) == 1
    error = capsys.readouterr().err
    assert WRONG[wrong] in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "`config`: expected keys with values"),
        ("", "`config`: the section is empty"),
        ("model: a\nmodel: b\n", "the key `model` stands twice"),
        ("train: {learning_rate: 1, learning_rate: 2}\n", "the key `learning_rate` stands twice"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_file_that_is_no_set_of_keys_is_refused(tmp_path, capsys, text, message):
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    assert main(["run", "--config", str(path)]) == 1
    assert message in capsys.readouterr().err
    assert main(["rank", "--config", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_numbers_as_text_are_numbers(settings, tmp_path):
    """YAML reads `2e-4` as text."""
    path = tmp_path / "pipeline.yaml"
    wanted = {**settings, "output_dir": str(tmp_path / "run")}
    wanted |= {
        "train": {**settings["train"], "learning_rate": "2e-4"},
        "judge": {"timeout": "3"},
        "rank": {"teacher_bonus": "2e-1"},
    }
    path.write_text(yaml.safe_dump(wanted))
    plan = Plan.parse(load_pipeline_config(["--config", str(path)]))
    assert plan.train.config(tmp_path).learning_rate == 2e-4
    assert (plan.judge.timeout, plan.rank.teacher_bonus) == (3.0, 0.2)


def test_tests_that_cannot_be_run_are_found_before_any_work(settings, tmp_path):
    rows = [json.loads(line) for line in Path(settings["problems"]).read_text().splitlines()]
    rows[7]["tests"][0]["code"] = "assert f( == 7"
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = {**settings, "problems": str(tmp_path / "problems.jsonl"), "output_dir": str(tmp_path / "run")}
    with pytest.raises(ConfigError, match="`tests` of problem 'p/7': a test of kind `assert` cannot be read"):
        Plan.parse(PipelineConfig(**wanted))


def test_candidates_are_no_benchmark(finished, tmp_path):
    _, settings = finished
    candidates = f"{settings['output_dir']}/candidates/student.jsonl"
    wanted = {**settings, "output_dir": str(tmp_path / "run"), "benchmarks": [{"name": "heldout", "problems": candidates}]}
    with pytest.raises(ConfigError, match="has candidates of an earlier run"):
        Plan.parse(PipelineConfig(**wanted))


def test_two_runs_in_one_folder(settings, tmp_path):
    config = PipelineConfig(**{**settings, "output_dir": str(tmp_path / "run")})
    with output_lock(tmp_path / "run"), pytest.raises(OutputError, match=r"is being written by another run \(process \d+ on "):
        run_pipeline(config)
    assert not (tmp_path / "run").exists()


def test_the_file_and_the_options_that_override_it(settings, tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(settings))
    config = load_pipeline_config(["--config", str(path), "--train.learning_rate", "1e-3", "--train_limit", "4"])
    assert (config.train["learning_rate"], config.train_limit) == ("1e-3", 4) or config.train["learning_rate"] == 1e-3
    assert config.train["num_train_epochs"] == 2
    with pytest.raises(ConfigError, match="unknown key `modle`"):
        load_pipeline_config(["--config", str(path), "--modle", "x"])
    with pytest.raises(ConfigError, match="the key `model` is missing"):
        load_pipeline_config(["--output_dir", "x"])
    with pytest.raises(ConfigError, match="cannot read"):
        load_pipeline_config(["--config", str(tmp_path / "nothing.yaml")])


def test_the_command_reports_an_error_in_one_line(tmp_path, capsys):
    assert main(["run", "--output_dir", str(tmp_path)]) == 1
    assert "trl-rrtf run: `config`: the key `model` is missing" in capsys.readouterr().err


def script_scores(monkeypatch, *scores):
    """Gives evaluations scores that a tiny model does not have; everything else of them is real."""
    from trl_rrtf import Interval
    from trl_rrtf.pipeline import run

    means = iter(scores)
    real = run.run_evaluate

    def with_scores(*arguments):
        mean = next(means)
        return dataclasses.replace(real(*arguments), pass_at_k={1: Interval(mean, mean, mean)})

    monkeypatch.setattr(run, "run_evaluate", with_scores)


class SampledError(Exception):
    """Ends a run when the candidates are there."""


def test_repair_turns_run_programs_as_the_judge_does(settings, tmp_path, monkeypatch):
    def stop(arguments, judging):
        raise SampledError

    monkeypatch.setattr("trl_rrtf.pipeline.run.run_judge", stop)
    sample = {**settings["sample"], "repair_turns": 1, "public_tests": 1}
    config = PipelineConfig(
        **{**settings, "sample": sample, "benchmarks": [], "heldout": None, "output_dir": str(tmp_path / "run")}
    )
    config.train |= {"eval_strategy": "no", "eval_on_start": False}
    with pytest.raises(SampledError):
        run_pipeline(config)
    rows = [json.loads(line) for line in (tmp_path / "run" / "candidates" / "student.jsonl").read_text().splitlines()]
    repaired = [row["repair_of"] for row in rows if "repair_of" in row]
    assert any(entry is not None for row in repaired for entry in row)
    recorded = json.loads((tmp_path / "run" / "candidates" / "student.jsonl.settings.json").read_text())
    assert recorded["repair_turns"] == 1
    assert recorded["timeout"] == settings["judge"]["timeout"]
    config.sample["public_tests"] = 2
    advice = r"`public_tests` was 1 and is 2.*delete the folder `.*/run`, or choose another `output_dir`"
    with pytest.raises(OutputError, match=advice) as raised:
        run_pipeline(config)
    assert "overwrite" not in str(raised.value), "which `run` does not have"


def test_rounds_train_the_adapter_of_the_round_before(settings, tmp_path, monkeypatch):
    from safetensors.torch import load_file
    from trl import ModelConfig

    from trl_rrtf import RRTFConfig, TrainArguments, run_train

    pytest.importorskip("peft")
    script_scores(monkeypatch, 0.0, 0.1, 0.2)
    train = {**settings["train"], "num_train_epochs": 1, "eval_strategy": "no", "use_peft": True}
    train["lora_target_modules"] = "all-linear"
    run_pipeline(PipelineConfig(**{**settings, "train": train, "output_dir": str(tmp_path / "run"), "rounds": 2}))
    first, second = (load_file(tmp_path / f"run/round-{i}/model/adapter_model.safetensors") for i in (1, 2))
    assert first.keys() == second.keys()
    assert any((first[name] != second[name]).any() for name in first)
    config = json.loads((tmp_path / "run/round-2/model/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == settings["model"]
    # With hardly a step, what comes out is what went in: the adapter was trained on, not begun anew.
    still = {**settings["train"], "output_dir": str(tmp_path / "still"), "max_steps": 1, "learning_rate": 1e-12}
    still |= {"eval_strategy": "no", "eval_on_start": False}
    groups = TrainArguments(str(tmp_path / "run/round-1/ranked/train.jsonl"), str(tmp_path / "run/round-1/model"))
    run_train(groups, RRTFConfig(**still), ModelConfig())
    same = load_file(tmp_path / "still" / "adapter_model.safetensors")
    assert all((first[name] - same[name]).abs().max() < 1e-6 for name in first)
    assert any(first[name].abs().max() > 1e-4 for name in first if "lora_B" in name)


def test_rounds_go_on_from_the_newest_checkpoint_until_the_score_falls(settings, tmp_path, monkeypatch, capsys):
    script_scores(monkeypatch, 0.0, 0.1, 0.2, 0.15)
    train = {**settings["train"], "num_train_epochs": 1, "eval_strategy": "no"}
    config = PipelineConfig(**{**settings, "train": train, "output_dir": str(tmp_path / "run"), "rounds": 5})
    results = run_pipeline(config)
    folder = tmp_path / "run"
    assert [entry.pass_at_k["heldout"][1].mean for entry in results.rounds] == [0.1, 0.2, 0.15]
    assert results.best.model == str(folder / "round-2" / "model")
    assert results.after["heldout"][1].mean == 0.2
    assert results.chosen_on == "heldout"
    shown = capsys.readouterr().out
    assert "pass@1, heldout *" in shown
    assert "biased upwards" in shown
    assert not (folder / "round-4").exists()
    settings_of = [json.loads((folder / f"round-{i}/model/train_settings.json").read_text()) for i in (1, 2, 3)]
    assert settings_of[0]["model"] == settings["model"]
    assert settings_of[2]["model"] == str(folder / "round-2" / "model")
    rows = [(folder / f"round-{i}/ranked/train.jsonl").read_text().splitlines() for i in (1, 2, 3)]
    assert (folder / "round-2/ranked/train_all.jsonl").read_text().splitlines() == rows[0] + rows[1]
    assert (folder / "round-3/ranked/train_all.jsonl").read_text().splitlines() == rows[0] + rows[1] + rows[2]
    candidates = [(folder / f"round-{i}/candidates/student.jsonl").read_text() for i in (1, 2)]
    assert candidates[0] != candidates[1]


def test_rounds_need_a_benchmark_that_tells_when_to_stop(settings):
    with pytest.raises(ConfigError, match="`rounds`: expected at least 1"):
        Plan.parse(PipelineConfig(**{**settings, "rounds": 0}))
    with pytest.raises(ConfigError, match="a benchmark in `heldout` that tells when to stop"):
        Plan.parse(PipelineConfig(**{**settings, "rounds": 2, "heldout": None}))
