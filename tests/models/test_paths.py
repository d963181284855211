"""A model's fingerprint: it tells another model in the same folder, and nothing else."""

from __future__ import annotations

import json
import shutil

import pytest

from trl_rrtf import LoadError
from trl_rrtf.models.paths import model_fingerprint, require_model


@pytest.fixture
def model(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_another_file_of_the_model_is_another_model(model, name):
    before = model_fingerprint(str(model))
    (model / name).write_bytes((model / name).read_bytes() + b" ")
    assert model_fingerprint(str(model)) != before


def test_what_a_training_leaves_beside_a_model_is_not_the_model(model):
    before = model_fingerprint(str(model))
    names = ["README.md", "trainer_state.json", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
    names += ["train_settings.json", "train_result.json", "log_probs.json", "reference_0123.json", "training_curves.png"]
    names += ["all_results.json", "train_results.json", "eval_results.json", "export_report.json", "scaler.pt"]
    names += ["optimizer.bin", "evaluation.json", "evaluation.json.settings.json", "notes.txt"]
    for name in names:
        (model / name).write_text("{}")
    (model / "checkpoint-1").mkdir()
    (model / "checkpoint-1" / "model.safetensors").write_text("x")
    assert model_fingerprint(str(model)) == before


@pytest.mark.parametrize("name", ["chat_template.jinja", "merges.txt", "model-00002-of-00002.safetensors", "model.onnx_data"])
def test_a_further_file_of_the_model_is_another_model(model, name):
    (model / name).unlink(missing_ok=True)
    before = model_fingerprint(str(model))
    (model / name).write_text("x")
    assert model_fingerprint(str(model)) != before


def test_the_place_of_a_model_is_not_the_model(model, tmp_path):
    assert model_fingerprint(str(shutil.copytree(model, tmp_path / "copy"))) == model_fingerprint(str(model))


def test_an_adapter_is_its_base_model_too(model, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    (adapter / "adapter_model.safetensors").write_text("x")
    before = model_fingerprint(str(adapter))
    (model / "model.safetensors").write_bytes(b"other")
    assert model_fingerprint(str(adapter)) != before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"base_model_name_or_path": null}'])
def test_an_adapter_whose_configuration_is_damaged_is_named(text, tmp_path):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(LoadError, match=r"adapter_config.json` (is damaged|names no base model)"):
        model_fingerprint(str(tmp_path))


def test_an_adapter_inside_its_base_model_ends(model):
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    assert len(model_fingerprint(str(model))) == 16


def test_a_hub_id_is_its_own_fingerprint():
    assert model_fingerprint("owner/name") == "owner/name"


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(LoadError, match=r"holds no config.json or adapter_config.json"):
        require_model(str(tmp_path))
