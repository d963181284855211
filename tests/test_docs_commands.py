"""Every command of README and docs runs, as it is printed, with tiny models and files in the places that it names."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from trl_rrtf.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODELS = ("M", "S", "D", "STUDENT", "TEACHER", "runs/quickstart/model")
SMALLER = {
    "sample": ["--max_new_tokens", "6", "--num_generations", "2"],
    "train": ["--max_steps", "1", "--bf16", "false", "--use_cpu", "true", "--gradient_checkpointing", "false"],
    "evaluate": ["--max_new_tokens", "6", "--limit", "2"],
    "generate": ["--max_new_tokens", "6"],
    "export": ["--precision", "fp32"],  # random weights do not survive fewer bits
}
"""Added to a command, so that it takes seconds."""
ELSEWHERE = {
    "evolve": "a tiny model writes no problem: tests/evolving/test_evolve.py",
    "run": "the loop with a tiny model: tests/test_pipeline.py; with the real one: make quickstart",
    "--cluster": "needs a Ray cluster: tests/test_cluster.py",
    "--base_url": "needs an endpoint: tests/sampling/test_openai_sampler.py",
    "--num_processes": "several processes: tests/training/test_several_processes.py",
}
"""Commands and options that are tested elsewhere."""


def commands():
    """Each `trl-rrtf` command of the pages, once."""
    seen = set()
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.S | re.M):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] != ["trl-rrtf"] or words[1] == "STAGE" or ELSEWHERE.keys() & set(words) or tuple(words) in seen:
                    continue
                seen.add(tuple(words))
                needs_onnx = words[1] in ("export", "generate") or "onnx" in words
                without = not importlib.util.find_spec("onnxruntime")
                marks = [pytest.mark.skipif(without, reason="needs onnxruntime")] * needs_onnx
                yield pytest.param(words[1:], id=f"{page.name}: {' '.join(words[1:])[:70]}", marks=marks)


@pytest.fixture(scope="module")
def files(tiny_model_dir, tmp_path_factory):
    """A folder with every input that the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    for name in MODELS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(tiny_model_dir, folder / name)
    problems = (ROOT / "recipes" / "data" / "easy_problems.jsonl").read_text().splitlines(keepends=True)[:4]
    for name in ("P", "E", "problems", "clean"):
        (folder / f"{name}.jsonl").write_text("".join(problems))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("sample --input P.jsonl --model S --output C.jsonl --include_reference true --max_new_tokens 6")
        run("teacher-logprobs --input C.jsonl --model TEACHER --output scored.jsonl")
        run("judge --input scored.jsonl --output J.jsonl")
        run("rank --input J.jsonl --output R.jsonl")
        for name in ("before.json", "after.json", "BEFORE.json", "E.json"):
            run(f"evaluate --model S --input P.jsonl --output {name} --max_new_tokens 6 --num_generations 1")
        if importlib.util.find_spec("onnxruntime"):
            run("export --model S --output O --precision fp32")
    for copy, name in {"candidates": "C", "S": "C", "judged": "J", "ranked": "R"}.items():
        shutil.copy(folder / f"{name}.jsonl", folder / f"{copy}.jsonl")
    if (folder / "O").exists():
        shutil.copytree(folder / "O", folder / "runs" / "onnx")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    return folder


def run(command):
    assert main(command.split()) == 0, command


@pytest.mark.parametrize("words", list(commands()))
def test_commands_run(words, files, tmp_path, monkeypatch):
    folder = tmp_path / "docs"
    shutil.copytree(files, folder, symlinks=True)
    outputs = [folder / words[i + 1] for i, word in enumerate(words) if word in ("--output", "--output_dir")]
    for path in outputs:  # what the command makes; the other files are what it reads
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for kept in folder.glob(f"{path.name}.*"):
            kept.unlink()
        for kept in folder.glob(f"{path.stem}.*.jsonl*"):
            kept.unlink()
    monkeypatch.chdir(folder)
    smaller = SMALLER.get(words[0], [])
    if "--k" in words:
        smaller = [*smaller, "--k", "1", "2", "3", "--num_generations", "3"]
    assert main([*words, *smaller]) == 0
    for path in outputs:
        assert path.exists()
        if path.suffix == ".jsonl":
            assert all(json.loads(line) for line in path.read_text().splitlines())


def test_the_commands_that_do_not_run_here_are_named_by_their_reason():
    assert all((ROOT / path).exists() for reason in ELSEWHERE.values() for path in re.findall(r"tests/\S+\.py", reason))
