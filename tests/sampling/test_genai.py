"""The engine `genai`: an exported folder in onnxruntime-genai gives the texts of the engine `onnx`."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
import torch

from tests.export.families import FAMILIES, save_checkpoint
from tests.export.test_export import checkpoint, export, report_of
from trl_rrtf import ConfigError, LoadError, SamplingConfig
from trl_rrtf.sampling import Draws, GenerateConfig, make_sampler, run_generate

pytest.importorskip("onnxruntime_genai")

PROMPTS = ["Write add.", "Write a function that adds two numbers.", "Write sub.", "def words(text):"]
"""The first and the third have the same length."""


@pytest.fixture(scope="module")
def exported(tiny_model_dir, tmp_path_factory):
    model = checkpoint("llama", tiny_model_dir, tmp_path_factory.mktemp("model") / "model")
    # As published models ship it; none of it may reach a text that was not asked for.
    settings = {"eos_token_id": [2, 40], "repetition_penalty": 1.3, "do_sample": True, "temperature": 0.6, "top_k": 20}
    (model / "generation_config.json").write_text(json.dumps(settings))
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export(model, folder)
    return folder


def texts(folder, engine, prompts=PROMPTS, **settings):
    draws = {"seeds": [[7]] * len(prompts), "temperature": 0, "max_new_tokens": 40, **settings}
    return make_sampler(SamplingConfig(str(folder), engine=engine, device="cpu")).sample(prompts, Draws(**draws))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"seeds": [[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 5, 9]], "temperature": 0.9},
        {"seeds": [[1, 2], [3, 4], [5, 6], [7, 8]], "temperature": 1.2, "top_p": 0.8, "top_k": 30},
        {"stop_strings": ["e", "th"], "temperature": 1.0},
        {"max_new_tokens": 1},
    ],
    ids=str,
)
def test_the_texts_are_those_of_the_engine_onnx(settings, exported):
    theirs = texts(exported, "onnx", **settings)
    assert texts(exported, "genai", **settings) == theirs
    assert any(text for of_prompt in theirs for text in of_prompt)


def test_messages_and_texts_that_end_at_any_of_several_tokens(exported):
    prompts = [[{"role": "user", "content": content}] for content in ("Write add.", "hi", "Write a longer answer.")]
    settings = {"seeds": [[1, 2, 3, 4]] * 3, "temperature": 1.5, "max_new_tokens": 120}
    theirs = texts(exported, "onnx", prompts, **settings)
    assert texts(exported, "genai", prompts, **settings) == theirs
    assert len({len(text) for of_prompt in theirs for text in of_prompt}) > 4, "some end before the last token"


def test_the_folder_holds_what_genai_needs_and_the_truth(exported):
    written = json.loads((exported / "genai_config.json").read_text())
    assert report_of(exported)["not_for_genai"] == ""
    assert "genai_config.json" in report_of(exported)["files"]
    assert written["model"]["context_length"] == 512
    assert written["model"]["eos_token_id"] == [2, 40]
    assert written["model"]["decoder"]["num_key_value_heads"] == 2
    assert written["search"]["past_present_share_buffer"] is True
    assert written["search"]["temperature"] == 0.6


@pytest.mark.parametrize(
    "name", ["Qwen3, wide heads", "Gemma 3 (text)", "Phi-3, LongRoPE (capped)", "GPT-2", "Qwen2, window", "StarCoder2, window"]
)
@pytest.mark.parametrize("graph", ["fused", "plain"])
def test_families_run_in_genai(name, graph, tiny_model_dir, tmp_path, request):
    if graph == "plain" and name != "Qwen2, window":
        pytest.skip("an export takes seconds")
    from transformers import AutoTokenizer

    assert name in FAMILIES
    save_checkpoint(name, AutoTokenizer.from_pretrained(tiny_model_dir), tmp_path / "model")
    export(tmp_path / "model", tmp_path / "onnx", graph=graph)
    settings = {"seeds": [[1, 2]] * 4, "temperature": 1.0, "max_new_tokens": 30}
    assert texts(tmp_path / "onnx", "genai", **settings) == texts(tmp_path / "onnx", "onnx", **settings)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_graphs_run_in_genai(precision, tiny_model_dir, tmp_path):
    model = checkpoint("llama", tiny_model_dir, tmp_path / "model", hidden_size=64, intermediate_size=128)
    export(model, tmp_path / "onnx", precision=precision)
    assert texts(tmp_path / "onnx", "genai") == texts(tmp_path / "onnx", "onnx")


def test_a_model_without_a_longest_text_is_not_for_genai_and_the_engine_says_so(tiny_model_dir, tmp_path):
    from transformers import AutoTokenizer

    save_checkpoint("BLOOM, ALiBi", AutoTokenizer.from_pretrained(tiny_model_dir), tmp_path / "model")
    export(tmp_path / "model", tmp_path / "onnx")
    assert not (tmp_path / "onnx" / "genai_config.json").exists()
    assert report_of(tmp_path / "onnx")["not_for_genai"] == "the model has no longest text, and genai wants one"
    with pytest.raises(LoadError, match=r"has no genai_config.json; its export_report.json says why"):
        texts(tmp_path / "onnx", "genai")


@pytest.mark.parametrize("stop", ["", "e"])
def test_generate_streams_the_same_text(stop, exported, capsys):
    options = {"max_new_tokens": 30, "stop_strings": [stop] if stop else [], "device": "cpu"}
    found = [
        run_generate(GenerateConfig(str(exported), "Write add.", engine=engine, stream=stream, **options)).texts
        for engine, stream in (("onnx", False), ("genai", False), ("genai", True))
    ]
    assert found[0] == found[1] == found[2]
    assert capsys.readouterr().out == f"{found[0][0]}\n" * 3


def test_what_cannot_be_is_refused_by_name(exported, tmp_path, monkeypatch):
    engine = make_sampler(SamplingConfig(str(exported), engine="genai"))
    with pytest.raises(ConfigError, match=r"`max_new_tokens`: a prompt of \d+ tokens and 600 new ones are more than the 512"):
        engine.sample(PROMPTS, Draws(seeds=[[1]] * 4, max_new_tokens=600))
    assert engine.room_for("ab") == 512 - len(engine.tokenizer("ab")["input_ids"])
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"`device`: cuda was asked for, and this onnxruntime-genai .* has none"):
            make_sampler(SamplingConfig(str(exported), engine="genai", device="cuda"))
    damaged = tmp_path / "damaged"
    shutil.copytree(exported, damaged)
    (damaged / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(LoadError, match="onnxruntime-genai cannot load"):
        make_sampler(SamplingConfig(str(damaged), engine="genai"))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime_genai" else real(name))
    with pytest.raises(ConfigError, match=r"`engine`: genai needs the package onnxruntime-genai; install `trl-rrtf\[genai\]`"):
        make_sampler(SamplingConfig(str(exported), engine="genai"))
