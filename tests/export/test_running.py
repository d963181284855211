"""Running an exported model: plain Optimum, the `onnx` sampler, `generate`, the command line, the Hub."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.export.test_export import ARCHITECTURES, checkpoint, export
from tests.hub_stub import HubStub
from tests.test_hub import run
from trl_rrtf import ConfigError, Draws, SamplingConfig, make_sampler
from trl_rrtf.cli import main

pytest.importorskip("onnxruntime")
LINE = int(transformers.__version__.split(".")[0])
needs_optimum = pytest.mark.skipif(LINE != 4, reason="Optimum needs transformers 4")
GREEDY = Draws(seeds=[[0]] * 3, temperature=0.0, max_new_tokens=12)
DRAWN = Draws(seeds=[[1, 2, 3], [4, 5, 6], [7, 8, 9]], top_p=0.9, max_new_tokens=12)
PROMPTS = ["def add(a, b):", "for item in items:\n    if item is None:\n", "x"]


@pytest.fixture(scope="module")
def llama(tiny_model_dir, tmp_path_factory):
    return checkpoint("llama", tiny_model_dir, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def exported(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export(llama, folder)
    return folder


@needs_optimum
def test_plain_optimum_loads_the_folder_and_generates_the_same(llama, exported):
    from optimum.onnxruntime import ORTModelForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(exported, padding_side="left")
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True, return_token_type_ids=False)
    texts = [
        model.generate(**inputs, max_new_tokens=16, do_sample=False)
        for model in (ORTModelForCausalLM.from_pretrained(exported), AutoModelForCausalLM.from_pretrained(llama))
    ]
    assert torch.equal(*texts)


@needs_optimum
@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt_bigcode"])
def test_the_sampler_gives_the_texts_of_pytorch(model_type, tiny_model_dir, tmp_path):
    """Also where heads are wider than their share of the hidden size (Qwen3), which plain Optimum cannot start."""
    assert ARCHITECTURES["qwen3"]["head_dim"] != ARCHITECTURES["qwen3"]["hidden_size"] // 4
    model = checkpoint(model_type, tiny_model_dir, tmp_path / "model")
    export(model, tmp_path / "onnx")
    ours = make_sampler(SamplingConfig(str(tmp_path / "onnx"), engine="onnx"))
    theirs = make_sampler(SamplingConfig(str(model), dtype="float32"))
    assert ours.sample(PROMPTS, GREEDY) == theirs.sample(PROMPTS, GREEDY)
    assert ours.sample(PROMPTS, DRAWN) == theirs.sample(PROMPTS, DRAWN)
    assert len(set(ours.sample(PROMPTS, DRAWN)[0])) > 1


@needs_optimum
def test_the_command_line_exports_samples_and_generates(llama, tmp_path, capsys):
    onnx = str(tmp_path / "onnx")
    assert main(["export", "--model", str(llama), "--output", onnx, "--precision", "int8"]) == 0
    assert "greedy tokens that agree" in capsys.readouterr().out
    problem = {
        "problem_id": "p/1",
        "prompt": "Write f.",
        "tests": [{"kind": "assert", "code": "assert True"}],
        "entry_point": "f",
    }
    (tmp_path / "p.jsonl").write_text(json.dumps(problem) + "\n")
    sample = ["sample", "--engine", "onnx", "--model", onnx, "--input", str(tmp_path / "p.jsonl"), "--max_new_tokens", "8"]
    assert main([*sample, "--output", str(tmp_path / "c.jsonl"), "--num_generations", "3"]) == 0
    assert len(json.loads((tmp_path / "c.jsonl").read_text())["completions"]) == 3
    for model in (onnx, str(llama)):
        capsys.readouterr()
        assert main(["generate", "--model", model, "--prompt", "def f(x):", "--chat", "false", "--max_new_tokens", "6"]) == 0
        assert "texts" in capsys.readouterr().out
    assert main(["generate", "--model", onnx, "--prompt", "x", "--device", "cuda"]) == 1
    assert "cuda was asked for" in capsys.readouterr().err
    assert main(["sample", "--engine", "onnx", "--model", str(llama), *sample[5:], "--output", str(tmp_path / "d.jsonl")]) == 1
    assert "has no model.onnx" in capsys.readouterr().err


@pytest.mark.skipif(LINE == 4, reason="Optimum is there")
def test_without_optimum_the_engine_says_what_it_needs(exported):
    with pytest.raises(ConfigError, match="onnx needs optimum-onnx"):
        make_sampler(SamplingConfig(str(exported), engine="onnx"))


PUSH = """
import json, sys
from trl_rrtf import ExportArguments, ExportConfig, OutputError, run_export
try:
    print(run_export(ExportArguments(*sys.argv[1:3]), ExportConfig(push_to_hub=sys.argv[3])).pushed_to)
except OutputError as error:
    print(error)
"""


def test_a_finished_export_is_pushed_until_it_is_there(llama, exported, tmp_path):
    """With `--push_to_hub` added to a finished export; and again, where the first push failed."""
    folder = tmp_path / "onnx"
    shutil.copytree(exported, folder)
    graph = (folder / "model.onnx").stat().st_mtime_ns
    hub = HubStub()
    try:
        hub.fail = True
        assert "`me/tiny-onnx` on the Hub cannot be written" in run(hub, PUSH, llama, folder, "me/tiny-onnx")
        assert json.loads((folder / "export_report.json").read_text())["pushed_to"] == {}
        hub.fail = False
        assert run(hub, PUSH, llama, folder, "me/tiny-onnx").strip() == f"{hub.endpoint}/me/tiny-onnx"
        files = hub.repos["models/me/tiny-onnx"]
        assert {"model.onnx", "config.json", "tokenizer.json", "export_report.json", "README.md"} <= set(files)
        assert b"onnxruntime" in files["README.md"]
        hub.fail = True  # it is there, so nothing is uploaded; in another repository it is not
        assert run(hub, PUSH, llama, folder, "me/tiny-onnx").strip() == f"{hub.endpoint}/me/tiny-onnx"
        assert "`me/other` on the Hub cannot be written" in run(hub, PUSH, llama, folder, "me/other")
    finally:
        hub.close()
    assert (folder / "model.onnx").stat().st_mtime_ns == graph
