"""Adapters of every kind that trainings leave: with tokens of their own, without a tokenizer; and what a folder tells."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.export.test_export import checkpoint, export
from trl_rrtf import ConfigError, LoadError, OnnxCausalLM
from trl_rrtf.models.causal_lm import load_causal_lm, load_tokenizer

pytest.importorskip("onnxruntime")
peft = pytest.importorskip("peft")

NEW_TOKENS = 3

# peft 0.21, 2026-12: it tells what it does with embeddings that are tied or larger.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{beginning}:UserWarning")
    for beginning in (
        "Setting `save_embedding_layers`",
        "Input and output embeddings are no",
        "Model (has|with) `tie_word_embeddings",
    )
]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request, tiny_model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    return checkpoint("llama", tiny_model_dir, folder, tie_word_embeddings=request.param)


def adapted(base, folder, *, rows=0, with_tokenizer=True, **settings):
    """An adapter with random weights on a base model whose embedding has been made larger by so many rows."""
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if rows:
        tokenizer.add_tokens([f"<|new{number}|>" for number in range(NEW_TOKENS)])
        model.resize_token_embeddings(model.vocab_size + rows)
    targets = settings.pop("targets", ["q_proj", "v_proj"])
    model = peft.get_peft_model(
        model, peft.LoraConfig(target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM", **settings)
    )
    model.save_pretrained(folder)
    if with_tokenizer:
        tokenizer.save_pretrained(folder)
    return model.eval()


KINDS = {
    "plain": {},
    "without a tokenizer": {"with_tokenizer": False},
    "embeddings trained": {"rows": NEW_TOKENS, "modules_to_save": ["embed_tokens", "lm_head"]},
    "embeddings kept": {"rows": NEW_TOKENS},
    "more rows than tokens": {"rows": 64, "modules_to_save": ["embed_tokens", "lm_head"]},
    "new tokens trained": {"rows": NEW_TOKENS, "trainable_token_indices": {"embed_tokens": [370, 371]}},
    "low rank": {"rows": NEW_TOKENS, "targets": ["q_proj", "embed_tokens"], "modules_to_save": ["lm_head"]},
}
EXPORTED = ("without a tokenizer", "more rows than tokens")
"""An export takes seconds; it loads the others in the same way."""


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_loaded_and_exported_with_its_tokens(kind, base, tmp_path):
    settings = dict(KINDS[kind])
    theirs = adapted(base, tmp_path / "adapter", **settings)
    inputs = torch.randint(3, theirs.get_input_embeddings().weight.shape[0], (1, 40))
    with torch.inference_mode():
        expected = theirs(inputs).logits
        loaded = load_causal_lm(str(tmp_path / "adapter"), dtype="float32").eval()(inputs).logits
    assert torch.allclose(loaded, expected, rtol=1e-4, atol=1e-4)
    assert len(load_tokenizer(str(tmp_path / "adapter"))) == 370 + (NEW_TOKENS if settings.get("rows") else 0)
    if kind in EXPORTED:
        export(tmp_path / "adapter", tmp_path / "onnx", graph="plain")
        ours = OnnxCausalLM.from_pretrained(tmp_path / "onnx")(inputs).logits
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-3)
        assert len(AutoTokenizer.from_pretrained(tmp_path / "onnx")) == len(load_tokenizer(str(tmp_path / "adapter")))


def test_tokens_that_nobody_has_an_embedding_of_are_refused(base, tmp_path):
    from safetensors.torch import save_file

    adapted(base, tmp_path / "adapter", rows=NEW_TOKENS)
    weights = peft.utils.load_peft_weights(str(tmp_path / "adapter"), device="cpu")
    kept = {name: value for name, value in weights.items() if "lora" in name}
    save_file(kept, tmp_path / "adapter" / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    config["trainable_token_indices"] = [371]
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"trained with 372 tokens, its base model has 370.*\(the first is 370\)"):
        export(tmp_path / "adapter", tmp_path / "onnx")


def test_an_lm_head_whose_new_rows_peft_did_not_save_is_refused(tiny_model_dir, tmp_path):
    untied = checkpoint("llama", tiny_model_dir, tmp_path / "base", tie_word_embeddings=False)
    adapted(untied, tmp_path / "adapter", rows=NEW_TOKENS, targets=["q_proj", "embed_tokens"])
    with pytest.raises(ConfigError, match=r"neither has what `lm_head` had for 3 of them"):
        load_causal_lm(str(tmp_path / "adapter"))


def test_the_folder_keeps_the_settings_of_generate_and_tells_no_path(base, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(base, model)
    settings = {"eos_token_id": [1, 2, 3], "temperature": 0.7, "top_p": 0.8}  # published models ship it without `do_sample`
    (model / "generation_config.json").write_text(json.dumps(settings))
    export(model, tmp_path / "onnx", graph="plain")
    kept = json.loads((tmp_path / "onnx" / "generation_config.json").read_text())
    assert {name: kept[name] for name in settings} == settings
    told = [path for path in (tmp_path / "onnx").rglob("*") if str(tmp_path).encode() in path.read_bytes()]
    assert not told


def test_a_model_without_a_tokenizer_is_refused_by_name(base, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(base, model)
    for path in model.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(LoadError, match=r"has no tokenizer \(tokenizer_config.json"):
        export(model, tmp_path / "onnx")
