"""The parity gate beyond short texts: windows, scaled rotary embeddings, the last positions, graphs that are wrong there."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.export.test_export import ARCHITECTURES, LLAMA_LIKE, checkpoint, export, report_of
from trl_rrtf import ConfigError, OnnxCausalLM
from trl_rrtf.models.onnx_runtime import OnnxDecoder

pytest.importorskip("onnxruntime")
from trl_rrtf.export import parity
from trl_rrtf.export.precision import CONVERSIONS
from trl_rrtf.export.report import Allowed, Parity, Probe, violations
from trl_rrtf.export.rotary import positions_of

CPU = "CPUExecutionProvider"
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED = {
    "longrope": ("phi3", {"rope_scaling": LONGROPE, "original_max_position_embeddings": 64}),
    "dynamic": ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 96}),
    "yarn": ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}}),
    "linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "llama3": ("llama", {"rope_scaling": {**LLAMA_3, "original_max_position_embeddings": 64}}),
}
WINDOWS = {
    "mistral": {"sliding_window": 16},
    "qwen2": {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1},
}
ARCHITECTURES_HERE = {"phi3": LLAMA_LIKE, "mistral": LLAMA_LIKE}


@pytest.fixture(autouse=True)
def _more_architectures(monkeypatch):
    for name, sizes in ARCHITECTURES_HERE.items():
        monkeypatch.setitem(ARCHITECTURES, name, sizes)


@pytest.mark.parametrize("kind", SCALED)
def test_a_scaled_rotary_embedding_is_proved_beyond_its_original_length_or_capped(kind, tiny_model_dir, tmp_path):
    model_type, settings = SCALED[kind]
    model = checkpoint(model_type, tiny_model_dir, tmp_path / "model", **settings)
    summary = export(model, tmp_path / "onnx")
    report = report_of(tmp_path / "onnx")
    assert all(probe["next_token_agreement"] >= 0.99 for probe in report["probes"].values())
    if kind in ("longrope", "dynamic"):
        longest = {"longrope": 64, "dynamic": 96}[kind]
        assert report["reach"]["usable_positions"] == longest
        assert f"`{kind}`" in report["reach"]["cap"]
        assert summary.table()["right for texts of up to"].startswith(f"{longest} tokens: the rotary embedding `{kind}`")
        assert AutoConfig.from_pretrained(tmp_path / "onnx").max_position_embeddings == longest
        decoder = OnnxDecoder.load(tmp_path / "onnx", CPU)
        ids = np.ones((1, longest), dtype=np.int64)
        _, cache = decoder.step(ids, ids)
        with pytest.raises(ConfigError, match=rf"up to {longest} tokens, and there are {longest + 1}: .*`{kind}`.*in PyTorch"):
            decoder.step(ids[:, :1], np.ones((1, longest + 1), dtype=np.int64), cache)
        onnx_model, prompt = OnnxCausalLM.from_pretrained(tmp_path / "onnx"), torch.ones(1, longest - 2, dtype=torch.long)
        assert onnx_model.generate(prompt, max_new_tokens=3, min_new_tokens=3).shape[1] == longest + 1
        with pytest.raises(ConfigError, match=rf"up to {longest} tokens, and there are {longest + 1}"):
            onnx_model.generate(prompt, max_new_tokens=4, min_new_tokens=4)
    else:
        original = {"yarn": 128, "linear": 128, "llama3": 64}[kind]
        assert report["probes"]["long"]["tokens"] == original + 64 == positions_of_folder(model).boundaries[-1] + 64
        assert not report["reach"]["cap"]


def positions_of_folder(folder):
    return positions_of(AutoConfig.from_pretrained(folder))


@pytest.mark.parametrize("model_type", WINDOWS)
def test_a_window_is_proved_past_its_end_and_a_graph_without_it_is_refused(model_type, tiny_model_dir, tmp_path):
    model = checkpoint(model_type, tiny_model_dir, tmp_path / "model", **WINDOWS[model_type])
    export(model, tmp_path / "onnx")
    probe = report_of(tmp_path / "onnx")["probes"]["long"]
    assert probe["tokens"] == 16 + 64
    assert probe["next_token_agreement"] >= 0.99
    other = AutoConfig.from_pretrained(model)
    other.sliding_window = 24
    reference = AutoModelForCausalLM.from_pretrained(model, config=other)
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = parity.compare(parity.make_reference(reference, tokenizer), OnnxDecoder.load(tmp_path / "onnx", CPU))
    words = " ".join(violations(*found, CONVERSIONS["fp32"].allowed))
    assert "at positions 0 to 87 (long)" in words
    assert "of the next tokens agree" in words


def test_what_is_too_long_to_compare_is_said(tiny_model_dir):
    config = AutoConfig.for_model("mistral", sliding_window=8192, max_position_embeddings=32768)
    positions = positions_of(config)
    assert positions.boundaries == (8192,)
    assert parity.long_tokens(positions) is None
    assert parity.long_tokens(positions, 1000) == 1000
    assert parity.long_tokens(positions, 9000) == 9000
    inside = dataclasses.replace(positions, boundaries=(512, 4096, 8192))
    assert parity.long_tokens(inside) == 4096 + 64
    assert parity.long_tokens(inside, 200) == 4096 + 64, "what is asked for adds to what a model's windows need"
    assert parity.long_tokens(dataclasses.replace(inside, usable=4100)) == 4100
    with pytest.raises(ConfigError, match="`parity_tokens`: the graph is right for 32768 tokens, got 40000"):
        parity.long_tokens(positions, 40000)
    unused = AutoConfig.for_model("qwen2", sliding_window=4096, use_sliding_window=False)
    assert positions_of(unused).boundaries == ()


GOOD = Parity(1e-5, 1e-6, 1e-6, 1e-5, 1e-6, 1.0, 1.0, 10.0, 10.0)
ALLOWED = Allowed(1e-3, 1.01, 0.98)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (Probe(512, 0, 1.0, 10.0, 10.0), None),
        (Probe(512, 0, 1.0, 10.09, 10.0), None),
        (
            Probe(512, 0, 0.18, 10.0, 10.0),
            r"at positions 0 to 511 \(text\) 18.0% of the next tokens agree, and at least 98.0% must",
        ),
        (Probe(128, 872, 1.0, 10.2, 10.0), r"at positions 872 to 999 \(text\) the perplexity is 1.02 times PyTorch's"),
        (Probe(512, 0, 1.0, 9.8, 10.0), r"the perplexity is 0.98 times PyTorch's, allowed is 0.9901 to 1.01 times"),
        (Probe(512, 0, float("nan"), 10.0, 10.0), "next tokens agree"),
        (Probe(512, 0, 1.0, float("nan"), 10.0), "perplexity is nan"),
    ],
)
def test_the_gate_bounds_agreement_and_the_perplexity_on_both_sides(probe, message):
    found = violations(GOOD, {"text": probe}, ALLOWED)
    if message is None:
        assert found == []
    else:
        assert len(found) == 1
        assert re.search(message, found[0])


def test_the_last_positions_are_read_too(tiny_model_dir, tmp_path):
    """Where a model knows more positions than the fixed text has."""
    model = checkpoint("mistral", tiny_model_dir, tmp_path / "model", max_position_embeddings=5000, sliding_window=4500)
    (model / "generation_config.json").write_text('{"repetition_penalty": 1.5, "eos_token_id": 2}')  # no matter of the graph
    assert export(model, tmp_path / "onnx", parity_tokens=700).greedy_agreement == 1
    report = json.loads((tmp_path / "onnx" / "export_report.json").read_text())
    assert report["probes"]["long"]["tokens"] == report["reach"]["proved_tokens"] == 700
    far = report["probes"]["far"]
    assert (far["first_position"], far["tokens"]) == (5000 - 128, 128)
    assert report["reach"]["usable_positions"] == 5000
    assert report["reach"]["unproved"] == [4500], "no text passed this window"
