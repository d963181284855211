"""Every family is exported equal, or refused by name; the tables in the docs say what happens."""

from __future__ import annotations

import logging

import pytest
from transformers import AutoTokenizer

pytest.importorskip("onnxruntime")
from tests.export import families

ALWAYS = (
    *("Qwen3-MoE", "Gemma 2", "Phi-3, LongRoPE (capped)", "StarCoder2, window", "gpt-oss, window", "DeepSeek-V2", "Cohere"),
    *("Falcon, ALiBi", "Mixtral"),
)
"""What goes unlike all others: experts, soft caps, sinks, a capped graph, refusals. Each takes seconds; the rest is slow."""

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
