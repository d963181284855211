"""Where an export goes: nothing is destroyed that no export made, nothing old is taken for new, whole or not at all."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.export.test_export import checkpoint, export
from trl_rrtf import ConfigError, OutputError
from trl_rrtf.cli import main
from trl_rrtf.rows.resumable import output_lock

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def original(tiny_model_dir, tmp_path_factory):
    return checkpoint("llama", tiny_model_dir, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def original_export(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export(original, folder)
    return folder


@pytest.fixture
def model(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


@pytest.fixture
def exported(original_export, model, tmp_path):
    """An export of `model`, made once for all tests: its report says where the model lies here."""
    folder = shutil.copytree(original_export, tmp_path / "onnx")
    report = json.loads((folder / "export_report.json").read_text())
    report["settings"]["model"] = str(model)
    (folder / "export_report.json").write_text(json.dumps(report))
    assert export(model, folder).output == str(folder)
    return folder


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["the model", "above the model", "a link to the model", "another folder"])
def test_only_a_folder_that_an_export_made_is_replaced(place, model, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(model)
    places = {"the model": model, "above the model": tmp_path, "a link to the model": tmp_path / "link"}
    before = files_of(tmp_path)
    output = places.get(place, tmp_path / "mine")
    assert main(["export", "--model", str(model), "--output", str(output), "--overwrite", "true"]) == 1
    assert "`output`" in capsys.readouterr().err
    assert files_of(tmp_path) == before


def test_the_base_model_of_an_adapter_is_not_replaced(model, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    with pytest.raises(ConfigError, match="is, or holds, the model's folder"):
        export(adapter, model, overwrite=True)
    assert (model / "model.safetensors").exists()


def test_a_file_is_no_output(model, tmp_path):
    (tmp_path / "onnx").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        export(model, tmp_path / "onnx", overwrite=True)
    assert (tmp_path / "onnx").read_text() == "mine"


def test_what_somebody_put_beside_an_export_is_kept(model, exported):
    (exported / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds what no export wrote \(notes.txt\)"):
        export(model, exported, overwrite=True)
    assert (exported / "notes.txt").read_text() == "mine"


def test_an_earlier_export_is_replaced_whole(model, exported, tmp_path):
    assert export(model, exported, overwrite=True, precision="int4").precision == "int4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "onnx"]


def test_an_export_that_fails_leaves_the_earlier_one(model, exported, monkeypatch):
    from trl_rrtf.export import precision

    before = files_of(exported)
    strict = precision.Precision(precision.CONVERSIONS["int4"].convert, 1e-9, 1.0)
    monkeypatch.setitem(precision.CONVERSIONS, "int4", strict)
    with pytest.raises(OutputError, match="the int4 graph does not compute"):
        export(model, exported, overwrite=True, precision="int4")
    assert files_of(exported) == before


def test_a_model_that_was_trained_again_is_exported_again(model, exported):
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(OutputError, match="with other settings: `model_fingerprint` was"):
        export(model, exported)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": {}}'])
def test_a_damaged_report_says_what_to_do(text, model, exported):
    (exported / "export_report.json").write_text(text)
    with pytest.raises(OutputError, match=r"is damaged.*; export to another folder, or remove this one"):
        export(model, exported)


def test_two_exports_do_not_mix(model, tmp_path):
    with output_lock(tmp_path / "onnx"), pytest.raises(OutputError, match="is being written by another run"):
        export(model, tmp_path / "onnx")


def test_an_export_that_was_killed_while_it_took_its_place_loses_nothing(model, exported, tmp_path):
    """A kill between the two steps leaves the earlier folder in the scratch folder: the next run puts it back."""
    scratch = tmp_path / ".onnx.exporting-abc"
    scratch.mkdir()
    before = files_of(exported)
    exported.rename(scratch / "replaced")
    with pytest.raises(OutputError, match="is there already"):
        export(model, exported, precision="int8")
    assert files_of(exported) == before
    assert not scratch.exists()
