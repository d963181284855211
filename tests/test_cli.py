"""The command line: every stage end to end on files, help and imports in under half a second, errors and exit statuses."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trl_rrtf.cli import STAGES, main

TRL_RRTF = [sys.executable, "-m", "trl_rrtf.cli"]


@pytest.fixture
def problems(tmp_path):
    rows = [
        {
            "problem_id": f"p/{i}",
            "prompt": f"Write a function `f` that returns {i}.",
            "tests": [{"kind": "assert", "code": f"assert f() == {i}"}],
            "entry_point": "f",
            "reference_solution": f"def f():\n    return {i}\n",
        }
        for i in range(4)
    ]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_every_stage_on_files(tiny_model_dir, tmp_path, problems, capsys):
    c, j, r = tmp_path / "c.jsonl", tmp_path / "j.jsonl", tmp_path / "r.parquet"
    sampling = ["--num_generations", 2, "--max_new_tokens", 6, "--batch_size", 2]
    assert (
        run("sample", "--input", problems, "--model", tiny_model_dir, "--output", c, "--include_reference", "true", *sampling)
        == 0
    )
    assert run("judge", "--input", c, "--output", j, "--timeout", 5) == 0
    assert run("rank", "--input", j, "--output", r) == 0
    config = tmp_path / "train.yaml"
    config.write_text("bf16: false\nuse_cpu: true\nreport_to: none\nlearning_rate: 1.0e-3\nmax_steps: 2\n")
    assert run("train", "--config", config, "--model", tiny_model_dir, "--dataset", r, "--output_dir", tmp_path / "d") == 0
    assert (tmp_path / "d" / "model.safetensors").exists()
    # The names of design and of earlier versions are understood too.
    assert run("evaluate", "--model", tmp_path / "d", "--problems", problems, "--output", tmp_path / "e.json", *sampling) == 0
    assert re.search(r"pass@1 +│ 0\.0% \[0\.0%, 0\.0%\]", capsys.readouterr().out)
    # Again: all is done, nothing changes; with another learning rate the folder is not gone on with.
    before = (tmp_path / "d" / "model.safetensors").read_bytes()
    train = ["train", "--config", config, "--model", tiny_model_dir, "--dataset", r, "--output_dir", tmp_path / "d"]
    assert run(*train) == 0
    assert (tmp_path / "d" / "model.safetensors").read_bytes() == before
    assert run(*train, "--learning_rate", "1e-4") == 1
    assert "holds a training with another `learning_rate`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rank", "--input", "nothing.jsonl", "--output", "x.jsonl"], "trl-rrtf rank: cannot read `nothing.jsonl`"),
        (["rank", "--config", "nothing.yaml"], "trl-rrtf rank: `config`: cannot read `nothing.yaml`"),
        (["judge", "--input", "a.jsonl", "--output", "b.jsonl", "--timeout", "0"], "`timeout`: expected a number above 0"),
        (
            ["train", "--dataset", "a.jsonl", "--model", "/no/model", "--output_dir", "d"],
            "there is no model folder `/no/model`",
        ),
    ],
)
def test_errors_are_one_line_and_status_1(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0


def test_unknown_options_are_named(capsys, tmp_path):
    config = tmp_path / "rank.yaml"
    config.write_text("input: a\noutput: b.jsonl\nteacher_bonsu: 1\n")
    assert main(["rank", "--config", str(config)]) == 1
    assert "teacher_bonsu" in capsys.readouterr().err
    assert main(["rnak"]) == 2
    assert "`rnak` is no command; the commands are evolve, filter, sample" in capsys.readouterr().err


def test_a_bad_row_is_named_before_the_model_loads(tiny_model_dir, tmp_path, capsys):
    rows = tmp_path / "r.jsonl"
    good = {"prompt": "p", "completions": ["a", "b"], "scores": [1, 0]}
    rows.write_text(json.dumps(good) + "\n" + '{"prompt": "p", "completions": ["a", "b"], "scores": [1, NaN]}\n')
    assert run("train", "--dataset", rows, "--model", tiny_model_dir, "--output_dir", tmp_path / "d") == 1
    assert "r.jsonl, line 2, column `scores[1]`: expected a finite number, got float nan" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("command", [[], *[[name] for name in STAGES], ["run"], ["env"]])
def test_help_is_quick_and_names_every_option(command):
    subprocess.run([*TRL_RRTF, *command, "--help"], check=True, capture_output=True)  # warms the disk cache
    times = []
    for _ in range(3):
        started = time.monotonic()
        done = subprocess.run([*TRL_RRTF, *command, "--help"], check=True, capture_output=True, text=True)
        times.append(time.monotonic() - started)
    assert min(times) < 0.5
    assert done.stdout.startswith("usage: trl-rrtf")
    if command == ["train"]:
        assert "--rank_loss" in done.stdout


def test_import_is_quick_and_light():
    code = "import sys, time; t = time.monotonic(); import trl_rrtf; print(time.monotonic() - t, 'torch' in sys.modules)"
    seconds, has_torch = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert float(seconds) < 0.5
    assert has_torch == "False"


def test_ctrl_c_keeps_what_is_done(tmp_path):
    rows = [
        {
            "problem_id": f"p/{i}",
            "prompt": "p",
            "tests": [{"kind": "assert", "code": "assert True"}],
            "entry_point": None,
            "completions": [f"x = {i}" if i < 6 else "while True: pass"],
            "sources": ["student"],
            "models": ["m"],
        }
        for i in range(12)
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        *TRL_RRTF,
        "judge",
        "--input",
        str(tmp_path / "c.jsonl"),
        "--output",
        str(tmp_path / "j.jsonl"),
        "--timeout",
        "60",
    ]
    # A shell that starts this suite in the background has it, and what it starts, ignore Ctrl-C.
    heed_ctrl_c = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)
    partial = tmp_path / "j.jsonl.partial"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (not partial.exists() or partial.read_bytes().count(b"\n") < 6):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted; what is done is kept" in error
    assert partial.read_bytes().count(b"\n") == 6


def test_a_full_disk_while_training_is_told_as_such(tiny_model_dir, tmp_path):
    """A real failing write: the process may write files of 30 kB at most, less than the tiny model."""
    rows = [{"prompt": f"p{i}", "completions": ["a", "b"], "scores": [1, 0]} for i in range(8)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    limit += "; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))"
    options = {"model": tiny_model_dir, "dataset": tmp_path / "r.jsonl", "output_dir": tmp_path / "d", "max_steps": 1}
    options |= {"bf16": "false", "use_cpu": "true", "report_to": "none"}
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    code = f"{limit}; import sys; from trl_rrtf.cli import main; sys.exit(main(['train', *{arguments!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"cannot write `{tmp_path / 'd'}`" in done.stderr
    assert "free space or choose another output, and run the same command again" in done.stderr


def train_arguments(model, folder, **options):
    rows = [
        {"prompt": f"p{i}", "completions": ["a", "b"], "scores": [1, 0], "sources": ["teacher", "student"]} for i in range(8)
    ]
    (folder / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"model": model, "dataset": folder / "r.jsonl", "output_dir": folder / "d", "max_steps": 1, **options}
    options |= {"bf16": "false", "use_cpu": "true", "report_to": "none"}
    return [str(part) for name, value in options.items() for part in (f"--{name}", value)]


def test_train_takes_the_options_of_accelerate_launch(tiny_model_dir, tmp_path):
    arguments = train_arguments(
        tiny_model_dir, tmp_path, eval_dataset=tmp_path / "r.jsonl", eval_strategy="steps", eval_steps=1, show_groups=1
    )
    command = [sys.executable, "-m", "trl_rrtf.cli", "train", "--num_processes", "2", "--cpu", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "d" / "train_result.json").read_text())
    assert result["steps"] == 1
    assert (tmp_path / "d" / "training_curves.png").stat().st_size > 10_000
    assert list((tmp_path / "d" / "ranked_groups").glob("*.parquet"))
    assert done.stdout.count("│ steps") == 1, "one summary for both processes"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--nonsense", "1"], "`--nonsense` is no option of this stage or of `accelerate launch`"),
        (["--accelerate_config", "fsdp9"], "`accelerate_config`: `fsdp9` is no file and none of fsdp1, fsdp2"),
    ],
)
def test_unknown_options_of_train_are_named(tiny_model_dir, tmp_path, capsys, extra, message):
    assert main(["train", *train_arguments(tiny_model_dir, tmp_path), *extra]) == 1
    assert message in capsys.readouterr().err


def test_a_named_accelerate_configuration_is_found(tmp_path):
    from trl_rrtf.training.launch import split_launch_arguments

    unknown = ["--accelerate_config", "fsdp2", "--num_processes", "4"]
    options, rest = split_launch_arguments(["--model", "m", *unknown, "--dataset", "d"], unknown)
    assert rest == ["--model", "m", "--dataset", "d"]
    assert options[0] == "--config_file"
    assert Path(options[1]).name == "fsdp2.yaml"
    assert options[2:] == ["--num_processes", "4"]


def test_env_reports_versions(capsys):
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    assert "transformers" in out
    assert "TRL usage pings" in out
    assert main(["--version"]) == 0


def test_two_names_of_one_option_are_refused(tmp_path, problems, capsys):
    output = tmp_path / "c.jsonl"
    for words in (["--input", problems, "--problems", problems], [f"--input={problems}", f"--problems={problems}"]):
        assert run("filter", *words, "--output", output) == 1
        assert "`input`: `problems` is another name of it, and both are given" in capsys.readouterr().err
    (tmp_path / "both.yaml").write_text(f"input: {problems}\nproblems: {problems}\noutput: {output}\n")
    assert run("filter", "--config", tmp_path / "both.yaml") == 1
    assert "both are given" in capsys.readouterr().err
    assert not output.exists()
