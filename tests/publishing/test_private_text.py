"""What may not leave this machine: tokens, paths and links, in model folders, results and ranked groups. No network here."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ranked_row
from tests.publishing.test_eval_results import evaluation
from trl_rrtf import ConfigError, PushConfig, RowError, push_ranked_groups, run_push
from trl_rrtf.models.paths import model_fingerprint

TOKEN = "hf_" + "a1B2" * 9


@pytest.fixture
def coder(tiny_model_dir, tmp_path):
    shutil.copytree(tiny_model_dir, tmp_path / "runs" / "coder")
    return tmp_path / "runs" / "coder"


@pytest.fixture
def elsewhere(tmp_path_factory):
    """A folder of this machine that has nothing to do with what is pushed."""
    folder = tmp_path_factory.mktemp("elsewhere") / "data"
    folder.mkdir()
    (folder / "notes.txt").write_text("private\n")
    return folder


def dry_run(folder, **more):
    return run_push(PushConfig(**{"model": str(folder), "repo_id": "me/coder", "dry_run": True, **more}))


# Links


def test_a_link_out_of_the_folder_is_refused_by_name(coder, elsewhere):
    (coder / "link.txt").symlink_to(elsewhere / "notes.txt")
    with pytest.raises(ConfigError, match=r"`.*coder/link\.txt` is a link that leads out of the folder, to `.*notes\.txt`"):
        dry_run(coder)


@pytest.mark.parametrize("name", ["extra", "weights.bin", "sub/deep.md"])
def test_links_to_folders_and_in_folders_are_refused_too(coder, elsewhere, name):
    (coder / name).parent.mkdir(exist_ok=True)
    (coder / name).symlink_to(elsewhere if name == "extra" else elsewhere / "notes.txt")
    with pytest.raises(ConfigError, match=f"{name}` is a link that leads out of the folder"):
        dry_run(coder)


def test_a_link_to_nothing_or_to_what_stays_here_is_refused(coder):
    (coder / ".env").write_text("SECRET=1")
    (coder / "env.txt").symlink_to(coder / ".env")
    with pytest.raises(ConfigError, match=r"env\.txt` is a link to `.*\.env`, which is never uploaded"):
        dry_run(coder)
    (coder / "env.txt").unlink()
    (coder / "gone.txt").symlink_to(coder / "gone")
    with pytest.raises(ConfigError, match=r"gone\.txt` is a link to `.*gone`, which is not there"):
        dry_run(coder)


def test_links_within_the_folder_and_those_of_what_stays_here_pass(coder, elsewhere):
    (coder / "copy.json").symlink_to("config.json")
    (coder / "runs").symlink_to(elsewhere)
    (coder / "checkpoint-3").symlink_to(elsewhere)
    (coder / ".hidden").symlink_to(elsewhere / "notes.txt")
    names = dry_run(coder).files["me/coder"]
    assert "copy.json" in names
    assert not [name for name in names if name.startswith((".", "runs", "checkpoint"))]


def as_snapshot(folder, cache):
    """The folder as the Hub's cache holds it: links into `blobs`."""
    snapshot, blobs = cache / "models--org--tiny" / "snapshots" / "0a1b", cache / "models--org--tiny" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in folder.iterdir() if path.is_file())):
        shutil.copy(path, blobs / f"{number:040x}")
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"{number:040x}")
    return snapshot


def test_a_snapshot_of_the_hubs_cache_is_a_folder_like_another(coder, tmp_path):
    snapshot = as_snapshot(coder, tmp_path / "hub")
    assert dry_run(snapshot).files == dry_run(coder).files


def test_links_into_the_hubs_cache_pass_and_no_other_file_of_it(coder, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    snapshot = as_snapshot(coder, cache)
    (cache / "token").write_text(TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    (coder / "config.json").unlink()
    (coder / "config.json").symlink_to(snapshot / "config.json")
    assert "config.json" in dry_run(coder).files["me/coder"]
    (coder / "cached").symlink_to(cache / "token")
    with pytest.raises(ConfigError, match="cached` is a link that leads out of the folder"):
        dry_run(coder)


# Paths in texts


@pytest.mark.parametrize(
    "name", ["README.md", "a.txt", "a.yaml", "modeling.py", "a.json", "LICENSE", "model.safetensors.index.json"]
)
def test_a_path_that_exists_here_is_an_error_in_every_text_file(coder, elsewhere, name):
    text = f"trained on {elsewhere}/notes.txt, see there."
    (coder / name).write_text(json.dumps({"note": {"a": text}}, indent=1) if name.endswith(".json") else f"first\n\n{text}\n")
    with pytest.raises(ConfigError, match=rf"{name}`, line 3: tells `{elsewhere}/notes\.txt`, a path of this machine; write a"):
        dry_run(coder)


@pytest.mark.parametrize(
    "told",
    [
        "see {}",
        "in {}.",
        "({})",
        "{}/gone/file.bin",
        "file://{}",
        "DATA={}",
        "a:{}:b",
        '"{}"',
        "line\\n{}",
        "first\n{}",
        "{}/with spaces/x",
    ],
)
@pytest.mark.parametrize("suffix", ["md", "json"])
def test_a_path_is_found_however_it_stands_there(coder, elsewhere, told, suffix):
    text = told.format(elsewhere)
    (coder / f"a.{suffix}").write_text(json.dumps([f"x {text}"]) if suffix == "json" else text)
    with pytest.raises(ConfigError, match=f"tells `{elsewhere}"):
        dry_run(coder)


def test_a_path_is_found_behind_what_json_escapes(coder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("é")
    (coder / "a.json").write_text(json.dumps({"a": f"in {folder}/x"}).replace("/", "\\/"))
    with pytest.raises(ConfigError, match="line 1: tells `"):
        dry_run(coder)


@pytest.mark.parametrize(
    "told", ["/home/ada/runs", "/Users/ada", "C:\\Users\\ada\\runs", "file:///home/ada/x", "cd /home/ada."]
)
@pytest.mark.parametrize("suffix", ["py", "json"])
def test_home_folders_are_an_error_whether_they_exist_or_not(coder, told, suffix):
    (coder / f"a.{suffix}").write_text(json.dumps({"a": f"x\n{told}"}) if suffix == "json" else f"# {told}")
    with pytest.raises(ConfigError, match=r"line 1: tells `.*ada.*`, a home folder; write a name in the place of the path"):
        dry_run(coder)


def test_a_json_value_that_is_a_path_below_a_home_folder_goes_as_its_name(coder, tmp_path):
    (coder / "a.json").write_text(json.dumps({"base": "/home/ada/models/tiny", "example": "/home/user/x"}))
    summary = dry_run(coder, output=str(tmp_path / "out"))
    told = json.loads((tmp_path / "out/models/me/coder/a.json").read_text())
    assert told == {"base": "tiny", "example": "/home/user/x"}
    assert any("`a.json` goes with names" in note for note in summary.notes)
    (coder / "a.json").write_text(json.dumps({"home": "/home/ada"}))
    with pytest.raises(ConfigError, match="tells `/home/ada`, a home folder"):
        dry_run(coder)


def test_what_tells_nothing_of_this_user_passes(coder, elsewhere, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Python's own prefix may lie in the working folder, which is a place of its own
    lines = [
        "#!/usr/bin/env python",
        f"{sys.executable} /etc/passwd /bin/sh /lib/x /dev/null /proc/self/maps /sys/class /opt/x",
        "https://example.org/home/ada/x and https://example.org" + str(elsewhere),
        f"~/runs/x $HOME/x ../x{elsewhere} data{elsewhere} ./home/ada <DIR>/x/y",
        "/home/user/x /home/username /home/<name>/x /home/$USER /Users/you/x C:\\Users\\Public",
        "/no/such/path and/or 3/4/5 /../.. /api/v1/models // /// /",
        "hf_short",
    ]
    (coder / "a.md").write_text("\n".join(lines))
    (coder / "a.json").write_text(json.dumps(lines))
    assert {"a.md", "a.json"} <= set(dry_run(coder).files["me/coder"])


def test_results_of_an_evaluation_tell_no_path(coder, elsewhere, tmp_path):
    result = evaluation(k=(1,)).to_json()
    result["fingerprints"]["model_fingerprint"] = model_fingerprint(str(coder))
    result["settings"]["adapter"] = str(elsewhere)
    (tmp_path / "e.json").write_text(json.dumps(result))
    out = tmp_path / "out"
    dry_run(coder, evaluations=[str(tmp_path / "e.json")], output=str(out))
    told = json.loads((out / "models/me/coder/evaluations/e.json").read_text())
    assert told["settings"]["adapter"] == "data"
    result["settings"]["where"] = f"source={elsewhere}/x"
    (tmp_path / "e.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match=rf"e\.json`, line \d+: tells `{elsewhere}`"):
        dry_run(coder, evaluations=[str(tmp_path / "e.json")])


def test_a_chosen_candidates_evaluation_is_refused_by_name(coder, tmp_path):
    result = {**evaluation(k=(1,)).to_json(), "best_of_n": {"n": 8, "select": None}}
    result["fingerprints"]["model_fingerprint"] = model_fingerprint(str(coder))
    (tmp_path / "select.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match=r"select\.json` .*measures a choice among candidates \(select@8\), not the model"):
        dry_run(coder, evaluations=[str(tmp_path / "select.json")])


# Ranked groups


def with_text(column, text):
    row = ranked_row(2)
    if column == "prompt":
        row["prompt"] += text
    elif column == "completions[1]":
        row["completions"][1] += text
    elif column == "models[0]":
        row["models"] = [text, None]
    elif column == "prompt[0].content":
        row["prompt"] = [{"role": "user", "content": text}]
        row["completions"] = [[{"role": "assistant", "content": code}] for code in row["completions"]]
    else:
        row["notes"] = {"by": ["me", text]}
    return row


PLACES = ["prompt", "completions[1]", "models[0]", "prompt[0].content", "notes.by[1]"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", ["token", "project", "home"])
def test_ranked_groups_are_searched_row_by_row(tmp_path, monkeypatch, place, what):
    monkeypatch.setenv("HOME", "/home/ada")
    project = tmp_path / "project"
    project.mkdir()
    texts = {"token": f"# {TOKEN}\n", "project": f"open('{project}/x')", "home": "# see /home/ada/x"}
    path = project / "groups.jsonl"
    path.write_text(json.dumps(ranked_row(2)) + "\n" + json.dumps(with_text(place, texts[what])) + "\n")
    with pytest.raises(RowError) as caught:
        run_push(PushConfig(ranked_groups=str(path), dataset_repo_id="me/groups", dry_run=True))
    told = "holds a token of the Hub" if what == "token" else f"tells `{project if what == 'project' else '/home/ada'}`"
    assert f"groups.jsonl, line 2, column `{place}`: {told}" in str(caught.value)
    assert TOKEN not in str(caught.value)
    with pytest.raises(RowError, match=r"line 2, column"):
        push_ranked_groups(str(path), "me/groups")  # before anything is asked of the Hub


def test_programs_may_tell_of_paths_that_are_nobodys(tmp_path, elsewhere):
    text = f"os.listdir('/home/user') + open('/home/ada/x') + open('/etc/passwd') + open('{elsewhere}') + 'C:\\Users\\ada'"
    path = tmp_path / "groups.jsonl"
    path.write_text("".join(json.dumps(with_text(place, text)) + "\n" for place in ("prompt", "completions[1]")))
    summary = run_push(PushConfig(ranked_groups=str(path), dataset_repo_id="me/groups", dry_run=True))
    assert summary.files["me/groups"][0] == "README.md"


def test_the_data_card_tells_names_in_the_place_of_paths(tmp_path, elsewhere):
    path = tmp_path / "groups.jsonl"
    path.write_text(json.dumps(ranked_row(2)))
    Path(f"{path}.settings.json").write_text(json.dumps({"config": str(elsewhere), "note": "x"}))
    given = {"ranked_groups": str(path), "dataset_repo_id": "me/groups", "dry_run": True}
    run_push(PushConfig(**given, output=str(tmp_path / "out")))
    assert "| `config` | data |" in (tmp_path / "out/datasets/me/groups/README.md").read_text()
    Path(f"{path}.settings.json").write_text(json.dumps({"note": f"of {elsewhere}"}))
    with pytest.raises(ConfigError, match=r"data card of .*groups\.jsonl`, line \d+: tells"):
        run_push(PushConfig(**given))


@pytest.mark.parametrize("option", ["license", "dataset_license"])
@pytest.mark.parametrize("value", ["Apache-2.0", "apache 2.0", "", "MIT License", "mit\n", "cc_by"])
def test_licences_are_spelled_as_on_the_hub(option, value):
    given = {"model": "m", "repo_id": "me/m", "ranked_groups": "r", "dataset_repo_id": "me/r"}
    with pytest.raises(ConfigError, match=f"`{option}`: expected one of the Hub's identifiers"):
        PushConfig(**given, **{option: value})
    for right in ("apache-2.0", "cc-by-nc-sa-4.0", "other", "bigcode-openrail-m", "llama3.1"):
        assert getattr(PushConfig(**given, **{option: right}), option) == right


def test_an_export_given_as_a_model_is_told_where_it_goes(coder):
    (coder / "model.safetensors").rename(coder / "model.onnx")
    (coder / "export_report.json").write_text("{}")
    with pytest.raises(OSError, match=r"`model`: .*coder` is an export .*give it with `--export .*coder --export_repo_id"):
        dry_run(coder)


def test_one_problem_is_one_problem(coder, tmp_path):
    result = evaluation(count=1, k=(1,), limit=1).to_json()
    result["fingerprints"]["model_fingerprint"] = model_fingerprint(str(coder))
    (tmp_path / "e.json").write_text(json.dumps(result))
    out = tmp_path / "out"
    dry_run(coder, evaluations=[str(tmp_path / "e.json")], output=str(out))
    header = yaml.safe_load((out / "models/me/coder/README.md").read_text().split("---")[1])
    assert header["model-index"][0]["results"][0]["dataset"]["name"] == "HumanEval (the first one)"


def test_the_working_folder_is_a_place_too(tmp_path, monkeypatch, coder):
    monkeypatch.chdir(tmp_path)
    (coder / "a.txt").write_text(f"{os.getcwd()}/gone")
    with pytest.raises(ConfigError, match="a path of this machine"):
        dry_run(coder)
