"""Where an export goes: nothing is destroyed that no export made, nothing old is taken for new, whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest

from tests.export.test_export import checkpoint, export
from trl_rrtf import ConfigError, LoadError, OutputError
from trl_rrtf.cli import main
from trl_rrtf.export import stage
from trl_rrtf.export.report import ExportReport
from trl_rrtf.rows.resumable import output_lock

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def original(tiny_model_dir, tmp_path_factory):
    return checkpoint("llama", tiny_model_dir, tmp_path_factory.mktemp("original") / "model")


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
    """An export of `model`, made once for all tests."""
    return shutil.copytree(original_export, tmp_path / "onnx")


@pytest.fixture
def quick(original_export, monkeypatch):
    """The export itself takes no time; what happens to its folder is the stage's."""

    def copy(model, folder, scratch, config, settings):
        shutil.copytree(original_export, folder, ignore=shutil.ignore_patterns("export_report.json"))
        return dataclasses.replace(ExportReport.load(original_export), settings=settings)

    monkeypatch.setattr(stage, "_export", copy)


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["the model", "above the model", "a link to the model", "where one is", "another folder"])
def test_only_a_folder_that_an_export_made_is_replaced(place, model, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(model)
    places = {"the model": model, "above the model": tmp_path, "a link to the model": tmp_path / "link", "where one is": "."}
    monkeypatch.chdir(tmp_path / "mine")
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
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(LoadError, match=r"adapter_config.json` is damaged"):
        export(adapter, tmp_path / "onnx")


def test_a_file_is_no_output(model, tmp_path):
    (tmp_path / "onnx").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        export(model, tmp_path / "onnx", overwrite=True)
    assert (tmp_path / "onnx").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.txt", "data/notes.txt", "a link"])
def test_what_somebody_put_beside_an_export_is_kept(name, model, exported):
    (exported / name).parent.mkdir(exist_ok=True)
    (exported / name).symlink_to(model) if name == "a link" else (exported / name).write_text("mine")
    before = files_of(exported)
    assert export(model, exported).precision == "fp32"  # nothing is written, so nothing is in the way
    with pytest.raises(OutputError, match=rf"holds what no export wrote \({name}\)"):
        export(model, exported, overwrite=True)
    assert files_of(exported) == before
    assert (exported / name).exists()


def test_an_empty_folder_is_filled(model, tmp_path, quick):
    (tmp_path / "onnx").mkdir()
    assert export(model, tmp_path / "onnx").output == str(tmp_path / "onnx")
    assert (tmp_path / "onnx" / "model.onnx").exists()


def test_a_link_stays_a_link(model, exported, tmp_path, quick):
    link = tmp_path / "link"
    link.symlink_to(exported)
    assert export(model, link, overwrite=True, precision="int8").precision == "int8"
    assert link.is_symlink()
    assert json.loads((exported / "export_report.json").read_text())["settings"]["precision"] == "int8"


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


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_an_export_that_is_damaged_is_not_taken_for_done(damage, model, exported):
    graph = exported / "model.onnx"
    if damage == "missing":
        graph.unlink()
    else:
        os.truncate(graph, graph.stat().st_size // 2)
    with pytest.raises(OutputError, match=r"is damaged \(.*export it again with `--overwrite true`"):
        export(model, exported)


def test_the_report_names_no_folder_of_this_machine(model, exported):
    """It is pushed with the rest."""
    report = json.loads((exported / "export_report.json").read_text())
    assert report["settings"]["model"] == "model"
    assert set(report["files"]) == {path.name for path in exported.iterdir()} - {"export_report.json"}
    assert "/tmp" not in json.dumps(report) + (exported / "README.md").read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": {}}'])
def test_a_damaged_report_says_what_to_do(text, model, exported):
    (exported / "export_report.json").write_text(text)
    with pytest.raises(OutputError, match=r"is damaged.*; export to another folder, or remove this one"):
        export(model, exported)


def test_two_exports_do_not_mix(model, tmp_path):
    with output_lock(tmp_path / "onnx"), pytest.raises(OutputError, match="is being written by another run"):
        export(model, tmp_path / "onnx")


def test_a_full_disk_leaves_the_earlier_export(model, exported, tmp_path):
    before, limits = files_of(exported), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*onnx`: .*free space"):
            export(model, exported, overwrite=True, precision="int8")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_of(exported) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "onnx"]


def test_a_folder_that_cannot_be_moved_leaves_the_earlier_export(model, exported, tmp_path, quick, monkeypatch):
    before, rename = files_of(exported), Path.rename

    def fail(path, target):
        if path.name == "export":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match="Permission denied"):
        export(model, exported, overwrite=True, precision="int8")
    assert files_of(exported) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "onnx"]


def replace_and_be_killed(model, folder, step):
    """Ends at the n-th change of the file system by which the new folder takes its place."""
    steps = iter(range(1, 100))

    def killed(change):
        def wrapped(*arguments, **options):
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return wrapped

    Path.rename, shutil.rmtree = killed(Path.rename), killed(shutil.rmtree)
    export(model, folder, overwrite=True, precision="int8")


def test_a_kill_at_any_moment_leaves_the_earlier_export_or_the_new_one(original_export, model, tmp_path, quick):
    found = []
    for step in range(1, 10):
        folder = shutil.copytree(original_export, tmp_path / str(step) / "onnx")
        process = multiprocessing.get_context("fork").Process(target=replace_and_be_killed, args=(model, folder, step))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        with contextlib.suppress(OutputError):  # the new one is there
            export(model, folder)
        found.append(json.loads((folder / "export_report.json").read_text())["settings"]["precision"])
        assert export(model, folder, precision=found[-1]).precision == found[-1]  # whole
        assert [path.name for path in folder.parent.iterdir()] == ["onnx"]
    assert found == ["fp32", "fp32", "int8"]  # killed before each of: old one aside, new one in, old one removed
