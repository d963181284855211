"""Every family is exported equal, or refused by name; the tables in the docs say what happens."""

from __future__ import annotations

import logging

import pytest
from transformers import AutoTokenizer

pytest.importorskip("onnxruntime")
from tests.export import families
from trl_rrtf import ConfigError, ExportArguments, ExportConfig, run_export

ALWAYS = (
    *("Qwen3-MoE", "Gemma 2", "Phi-3, LongRoPE (capped)", "StarCoder2, window", "gpt-oss, window", "DeepSeek-V2", "Cohere"),
    *("Falcon, ALiBi", "Mixtral", "Llama 4 (text), chunks", "Qwen3-Next, linear attention"),
)
"""What goes unlike all others: experts, soft caps, sinks, chunks, a capped graph, refusals. The rest is slow."""

NAMES = [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in families.FAMILIES]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    return AutoTokenizer.from_pretrained(tiny_model_dir)


def check(result):
    """Equal, or refused in words that lead on."""
    if result.refusal:
        assert result.refusal.startswith("`model`: ")
        assert result.refusal.endswith("run the checkpoint in PyTorch")
    else:
        assert result.difference < 2e-5
        assert result.agreement == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_exported_equal_or_refused_by_name_and_the_docs_say_so(name, tokenizer, tmp_path):
    found = families.compare(name, tokenizer, tmp_path)
    check(found)
    row = families.written_rows()[name]
    if found.refusal:
        assert f"| refused: {families.short(found.refusal)} |" in row
    else:
        assert f"| {found.graph} | {found.exporter} |" in row


@pytest.mark.slow
@pytest.mark.parametrize("name", list(families.FAMILIES))
def test_the_plain_graph_of_a_family_is_equal_too(name, tokenizer, tmp_path):
    check(families.compare(name, tokenizer, tmp_path, "plain"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt-oss, window", "it takes attention sinks"),
        ("DeepSeek-V3", "its values have 8 numbers per head and its queries 16"),
        ("Falcon", "transformers can replace it in 0 of 2 layers"),
        ("Llama 4 (text), chunks", "its layers see other tokens than all earlier ones, or those in a window"),
    ],
)
def test_a_fused_graph_that_was_asked_for_and_cannot_be_is_refused_with_the_way_out(name, reason, tokenizer, tmp_path):
    refusal = families.compare(name, tokenizer, tmp_path, "fused").refusal
    assert refusal.startswith("`graph`: ")
    assert reason in refusal
    assert "--graph plain" in refusal


def test_attention_over_something_else_than_the_cache_is_exported_plain_and_it_is_said_why(tokenizer, tmp_path, monkeypatch):
    model_type, sizes = families.FAMILIES["JetMoe"]
    monkeypatch.setitem(families.FAMILIES, "small", (model_type, {**sizes, "num_local_experts": 2, "num_hidden_layers": 1}))
    model = families.save_checkpoint("small", tokenizer, tmp_path / "model")
    summary = run_export(ExportArguments(str(model), str(tmp_path / "onnx")), ExportConfig())
    assert summary.graph == "plain"
    assert summary.why_plain
    assert summary.table()["graph"] == f"plain: {summary.why_plain}"


@pytest.mark.parametrize(
    ("name", "setting", "positions"),
    [("Llama", "max_position_embeddings", 8), ("GPT-2", "n_positions", 8), ("GPT-2", "n_positions", 64)],
)
def test_a_model_of_few_positions_is_compared_within_them(name, setting, positions, tokenizer, tmp_path, monkeypatch):
    model_type, sizes = families.FAMILIES[name]
    monkeypatch.setitem(families.FAMILIES, "short", (model_type, {**sizes, setting: positions}))
    model = families.save_checkpoint("short", tokenizer, tmp_path / "model")
    summary = run_export(ExportArguments(str(model), str(tmp_path / "onnx")), ExportConfig())
    assert summary.proved_tokens == positions
    assert summary.next_token_agreement == summary.greedy_agreement == 1


def test_a_model_of_too_few_positions_is_refused(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(families.FAMILIES, "short", ("llama", {**families.GROUPED, "max_position_embeddings": 4}))
    model = families.save_checkpoint("short", tokenizer, tmp_path / "model")
    with pytest.raises(ConfigError, match="it reads texts of at most 4 tokens"):
        run_export(ExportArguments(str(model), str(tmp_path / "onnx")), ExportConfig())


def test_the_tables_are_of_at_least_thirty_families_on_both_lines():
    for line in ("4.57", "5.24"):
        rows = families.written_rows(line)
        assert list(rows) == list(families.FAMILIES)
        assert sum("| fused |" in row or "| plain |" in row for row in rows.values()) >= 30


def test_optimum_that_does_not_start_is_said_and_pytorch_exports(monkeypatch, caplog):
    from trl_rrtf.export import graph

    monkeypatch.setattr(graph.importlib.metadata, "version", lambda name: "0.1.0")

    def fails(name):
        raise ImportError("cannot import name 'is_tf_available'")

    monkeypatch.setattr(graph.importlib, "import_module", fails)
    graph.has_optimum.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert not graph.has_optimum()
    finally:
        graph.has_optimum.cache_clear()
    assert "optimum-onnx is installed and does not start" in caplog.text
    assert "PyTorch's exporter is used" in caplog.text
