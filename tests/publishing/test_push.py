"""`trl-rrtf push` with real model folders, a real evaluation and real rows, against a stand-in of the Hub's HTTP API."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from tests.conftest import ranked_row
from tests.hub_stub import HubStub
from tests.publishing.test_eval_results import evaluation
from trl_rrtf import (
    ConfigError,
    EvaluateArguments,
    JudgeConfig,
    LoadError,
    OutputError,
    PushConfig,
    SamplingConfig,
    run_evaluate,
    run_push,
)
from trl_rrtf.models.paths import model_fingerprint
from trl_rrtf.rows.files import fingerprint
from trl_rrtf.training.config import RRTFConfig
from trl_rrtf.training.model_card import write_model_card

TOKEN = "hf_" + "a1B2" * 9

# One process for all pushes: each would load the libraries again, and the Hub's client reads its endpoint when it is imported.
PUSH = """
import json, sys
from trl_rrtf import OutputError, PushConfig, run_push
for line in sys.stdin:
    try:
        summary = run_push(PushConfig(**json.loads(line)))
        answer = {**summary.to_json(), "table": {name: str(value) for name, value in summary.table().items()}}
    except OutputError as error:
        answer = {"error": str(error)}
    print("ANSWER" + json.dumps(answer), flush=True)
"""


class NothingSampler:
    """Writes no program."""

    def sample(self, prompts, draws):
        return [["pass"] * len(draws.seeds[0]) for _ in prompts]


@pytest.fixture(scope="module")
def pushing(tmp_path_factory):
    """The stand-in, and a process that pushes to it; what it says goes into a file."""
    stub = HubStub()
    said = tmp_path_factory.mktemp("said") / "stderr"
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PUSH],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=stub.environment(),
        )
        with process:
            yield stub, process, said
            process.stdin.close()
    stub.close()


@pytest.fixture
def hub(pushing):
    """The stand-in as it is before anything was pushed."""
    stub, stub.process, stub.said = pushing
    for kept in (stub.repos, stub.collections, stub.private, stub.commits):
        kept.clear()
    stub.fail_at = ""
    stub.repos |= {"models/org/base": {}, "datasets/openai/openai_humaneval": {}}
    return stub


def push(hub, given):
    hub.process.stdin.write(json.dumps(given) + "\n")
    hub.process.stdin.flush()
    for line in hub.process.stdout:
        if line.startswith("ANSWER"):
            return json.loads(line.removeprefix("ANSWER"))
    raise AssertionError(hub.said.read_text()[-3000:])


@pytest.fixture(scope="module")
def made_once(tiny_model_dir, tmp_path_factory):
    """A trained model's folder with what a training leaves there, its evaluations, and ranked groups."""
    tmp_path = tmp_path_factory.mktemp("made")
    model = tmp_path / "runs" / "coder"
    shutil.copytree(tiny_model_dir, model)
    args = RRTFConfig(str(model), bf16=False, use_cpu=True, report_to=[])
    write_model_card(args, base_model="org/base", log_history=[], model_name=None, dataset_name="groups.jsonl", tags="mine")
    for name in (
        "checkpoint-1/model.safetensors",
        "runs/log",
        "optimizer.pt",
        "training_args.bin",
        ".env",
        "trainer_state.json",
    ):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(TOKEN)
    groups = tmp_path / "groups.jsonl"
    groups.write_text("".join(json.dumps(ranked_row(3, seed=i)) + "\n" for i in range(4)))
    (model / "train_settings.json").write_text(json.dumps({"dataset": fingerprint(groups), "model": str(tmp_path)}))
    problem = {"problem_id": "p", "prompt": "Return 1.", "tests": [{"kind": "assert", "code": "assert f() == 1"}]}
    (tmp_path / "own problems.jsonl").write_text(json.dumps({**problem, "entry_point": "f"}))
    run_evaluate(
        EvaluateArguments(str(tmp_path / "own problems.jsonl"), str(tmp_path / "own.json")),
        SamplingConfig(model=str(model), num_generations=2),
        JudgeConfig(num_workers=1),
        NothingSampler(),
    )
    benchmark = evaluation().to_json()
    benchmark["fingerprints"]["model_fingerprint"] = model_fingerprint(str(model))
    (tmp_path / "humaneval.json").write_text(json.dumps(benchmark))
    return tmp_path


@pytest.fixture
def files(made_once, tmp_path):
    """The same, for one test to change."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    result = tmp_path / "runs" / "coder" / "train_result.json"
    result.write_text(json.dumps({"steps": 3, "output": str(result.parent)}))
    return tmp_path


def options(files, **more):
    return {
        "model": str(files / "runs" / "coder"),
        "repo_id": "me/coder",
        "evaluations": [str(files / "own.json"), str(files / "humaneval.json")],
        "ranked_groups": str(files / "groups.jsonl"),
        "dataset_repo_id": "me/groups",
        "collection": "Coder and its data",
        "license": "apache-2.0",
        "dataset_license": "mit",
        **more,
    }


def digests(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_model_evaluations_and_data_are_on_the_hub_in_one_collection(hub, files):
    before = digests(files)
    first, again = push(hub, options(files)), push(hub, options(files))
    assert digests(files) == before, "nothing on the user's disk is changed"
    assert first["addresses"] == {"me/coder": f"{hub.endpoint}/me/coder", "me/groups": f"{hub.endpoint}/datasets/me/groups"}
    assert first["collection"].startswith(f"{hub.endpoint}/collections/me/coder-and-its-data-")
    assert (first["evaluations"], first["eval_results"]) == (2, 1)
    assert first == again, "it can be run again, and nothing stands there twice"
    items = [("model", "me/coder", "The model."), ("dataset", "me/groups", "The ranked groups.")]
    assert hub.collections == {("me", "Coder and its data"): items}
    assert hub.commits == ["models/me/coder", "datasets/me/groups"] * 2, "one commit a repository"

    model = hub.repos["models/me/coder"]
    assert model["model.safetensors"] == (files / "runs" / "coder" / "model.safetensors").read_bytes()
    assert {"config.json", "tokenizer.json", "README.md", "evaluations/own.json", "evaluations/humaneval.json"} <= set(model)
    assert not [
        name for name in model if name.startswith(("checkpoint", "runs", "optim", "train_s", "trainer", "training", ".env"))
    ]
    leaks = (str(files).encode(), TOKEN.encode(), b"hf_nothing")
    assert not [name for name, content in model.items() if any(leak in content for leak in leaks)]
    assert json.loads(model["train_result.json"]) == {"steps": 3, "output": "coder"}
    assert any("`train_result.json` goes with names" in note for note in first["notes"])
    data = pyarrow.parquet.read_table(io.BytesIO(hub.repos["datasets/me/groups"]["data/train-00000-of-00001.parquet"]))
    assert data.num_rows == 4
    assert DatasetCard(hub.repos["datasets/me/groups"]["README.md"].decode()).data.license == "mit"


def test_the_card_tells_the_hub_of_relations_and_evaluations(hub, files):
    push(hub, options(files))
    model = hub.repos["models/me/coder"]
    card = ModelCard(model["README.md"].decode())
    assert card.data.base_model == "org/base"
    assert card.data.get("base_model_relation") == "finetune"
    assert card.data.datasets == ["me/groups"]
    assert card.data.license == "apache-2.0"
    assert {"trl", "rrtf", "mine"} <= set(card.data.tags)
    assert {(entry.dataset_type, entry.metric_type) for entry in card.data.eval_results} == {
        ("openai/openai_humaneval", "pass@1"),
        ("openai/openai_humaneval", "pass@10"),
    }, "problems of a file are no data set on the Hub"
    for text in (
        "\n# coder\n",
        'model="me/coder"',
        "`trl_rrtf` on [me/groups](https://huggingface.co/datasets/me/groups).",
        "| [HumanEval](https://huggingface.co/datasets/openai/openai_humaneval) | 164 | pass@1 | 16.5% [12.0%, 21.0%] |",
        "| `own problems.jsonl` (a local file) | 1 | pass@1 | 0.0% [0.0%, 0.0%] |",
        "Isolation of the programs: ",
        "- base model: [org/base](https://huggingface.co/org/base)",
        "- ranked groups: [me/groups](https://huggingface.co/datasets/me/groups)",
    ):
        assert text in card.text, card.text
    assert card.text.index("## Evaluations") < card.text.index("## Versions")
    assert "not recorded" not in card.text, "date and isolation of an evaluation of today stand in its result"

    (entry,) = yaml.safe_load(model[".eval_results/trl_rrtf_humaneval.yaml"])
    assert entry["dataset"] == {"id": "openai/openai_humaneval", "task_id": "default"}
    assert entry["source"]["url"] == "https://huggingface.co/me/coder/blob/main/evaluations/humaneval.json"
    whole = json.loads(model["evaluations/own.json"])
    assert whole["settings"]["problems"] == "own problems.jsonl"
    assert whole["isolation"], "what held the programs"


def test_what_is_not_on_the_hub_is_left_out_with_a_word(hub, files):
    hub.repos.pop("models/org/base")
    hub.repos.pop("datasets/openai/openai_humaneval")
    summary = push(hub, options(files))
    model = hub.repos["models/me/coder"]
    card = ModelCard(model["README.md"].decode())
    assert not {"base_model", "base_model_relation", "model-index"} & card.data.to_dict().keys()
    assert "huggingface.co/org/base" not in card.text
    assert not [name for name in model if name.startswith(".eval_results")]
    told = " ".join(summary["notes"])
    assert "the card of me/coder leaves out org/base, which is no model on the Hub" in told
    assert "pass@1 on openai/openai_humaneval, which is no dataset on the Hub" in told


def test_a_benchmark_names_its_task(hub, files):
    eval_yaml = {"name": "HumanEval", "tasks": [{"id": "other", "config": "x"}, {"id": "he", "config": "openai_humaneval"}]}
    hub.repos["datasets/openai/openai_humaneval"]["eval.yaml"] = yaml.safe_dump(eval_yaml).encode()
    push(hub, options(files))
    (entry,) = yaml.safe_load(hub.repos["models/me/coder"][".eval_results/trl_rrtf_humaneval.yaml"])
    assert entry["dataset"]["task_id"] == "he"


def test_a_later_push_removes_the_evaluations_of_an_earlier_one_and_nothing_else(hub, files):
    push(hub, options(files))
    hub.repos["models/me/coder"][".eval_results/theirs.yaml"] = b"[]"
    push(hub, options(files, evaluations=[]))
    model = hub.repos["models/me/coder"]
    assert [name for name in model if name.startswith(".eval_results")] == [".eval_results/theirs.yaml"]
    assert "model-index" not in ModelCard(model["README.md"].decode()).data.to_dict()


def test_an_error_says_what_is_done_and_what_is_left(hub, files):
    hub.fail_at = "/api/datasets/me/groups/commit/*"
    stopped = push(hub, options(files))
    assert "`me/groups` on the Hub cannot be written" in stopped["error"]
    assert "Done: me/coder; left: me/groups, the collection 'Coder and its data'. The same command" in stopped["error"]
    assert hub.collections == {}
    hub.fail_at = "/api/repos/create"
    stopped = push(hub, options(files))
    assert "`me/coder` on the Hub cannot be written" in stopped["error"]
    assert stopped["error"].endswith("nothing is uploaded yet")
    hub.fail_at = "/api/collections/*/items"
    stopped = push(hub, options(files))
    assert "Done: me/coder, me/groups; left: the collection" in stopped["error"]
    hub.fail_at = ""
    done = push(hub, options(files, private=True, namespace="org"))
    assert done["collection"].startswith(f"{hub.endpoint}/collections/org/")
    assert hub.private["Coder and its data"] is True
    assert len(hub.collections["org", "Coder and its data"]) == 2


def test_a_dry_run_lays_out_what_a_push_uploads(hub, files):
    """In this process, which may not use the network."""
    summary = run_push(PushConfig(**options(files, dry_run=True, output=str(files / "out"))))
    assert summary.addresses == {}
    assert summary.collection is None
    assert summary.table()["pushed"] == "no, a dry run"
    pushed = push(hub, options(files))
    assert pushed["files"] == summary.files
    for kind, name in (("models", "me/coder"), ("datasets", "me/groups")):
        root = files / "out" / kind / name
        there = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
        uploaded = hub.repos[f"{kind}/{name}"]
        assert set(there) == set(uploaded) == set(summary.files[name])
        assert [name for name, path in there.items() if path.read_bytes() != uploaded[name]] == []
    with pytest.raises(OutputError, match="is there already"):
        run_push(PushConfig(**options(files, dry_run=True, output=str(files / "out"))))


def test_evaluations_of_another_model_are_refused_by_name(files):
    (files / "old.json").write_text(json.dumps({**evaluation().to_json(), "fingerprints": {}}))
    with pytest.raises(ConfigError, match=r"old\.json` is of another model \(runs/model\).*not recorded"):
        run_push(PushConfig(**options(files, evaluations=[str(files / "old.json")], dry_run=True)))
    weights = files / "runs" / "coder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ConfigError, match=r"`evaluations`: `.*own\.json` is of another model"):
        run_push(PushConfig(**options(files, dry_run=True)))


def test_data_that_a_model_was_not_trained_on_are_not_named_in_its_card(files):
    (files / "groups.jsonl").write_text(json.dumps(ranked_row(2)))
    out = files / "out"
    summary = run_push(PushConfig(**options(files, dry_run=True, output=str(out))))
    assert any("was trained on other data" in note for note in summary.notes)
    assert "datasets" not in ModelCard.load(out / "models/me/coder/README.md").data.to_dict()


def test_an_adapter_goes_with_the_hub_id_of_its_base_model(files, tiny_model_dir):
    adapter = files / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model_dir), "r": 4}))
    # As PEFT writes it: with the base model's folder.
    (adapter / "README.md").write_text(f"---\nbase_model: {tiny_model_dir}\nlibrary_name: peft\n---\n# A card\n")
    given = {"model": str(adapter), "repo_id": "me/adapter", "dry_run": True, "output": str(files / "out")}
    with pytest.raises(ConfigError, match=r"`base_model`: the adapter's base model is a folder here"):
        run_push(PushConfig(**given))
    assert not (files / "out").exists()
    run_push(PushConfig(**given, base_model="org/base"))
    folder = files / "out" / "models" / "me" / "adapter"
    assert json.loads((folder / "adapter_config.json").read_text()) == {"base_model_name_or_path": "org/base", "r": 4}
    data = ModelCard.load(folder / "README.md").data
    assert (data.base_model, data.get("base_model_relation"), data.library_name) == ("org/base", "adapter", "peft")


def test_an_export_hangs_below_its_model(files, tiny_model_dir):
    """The folder is one that `trl-rrtf export` would know as its own; what is in the graph is no matter here."""
    export = files / "onnx"
    shutil.copytree(tiny_model_dir, export)
    (export / "model.safetensors").rename(export / "model.onnx")
    made_of = {"model": "coder", "model_fingerprint": model_fingerprint(str(files / "runs" / "coder"))}
    (export / "export_report.json").write_text(json.dumps({"settings": made_of}))
    own = {**evaluation(k=(1,)).to_json(), "fingerprints": {"input_fingerprint": "humaneval"}}
    own["fingerprints"]["model_fingerprint"] = model_fingerprint(str(export))
    (files / "of_export.json").write_text(json.dumps(own))
    given = options(files, export=str(export), export_repo_id="me/coder-onnx", dry_run=True, output=str(files / "out"))
    given["evaluations"].append(str(files / "of_export.json"))
    summary = run_push(PushConfig(**given))
    assert summary.evaluations == 3
    assert ".eval_results/trl_rrtf_humaneval.yaml" in summary.files["me/coder-onnx"]
    data = ModelCard.load(files / "out" / "models" / "me" / "coder-onnx" / "README.md").data
    assert (data.base_model, data.get("base_model_relation")) == ("me/coder", "quantized")
    (export / "export_report.json").write_text(json.dumps({"settings": {**made_of, "model_fingerprint": "other"}}))
    with pytest.raises(ConfigError, match=r"`export`: .* was exported from another model"):
        run_push(PushConfig(**given))
    (export / "export_report.json").unlink()
    with pytest.raises(LoadError, match=r"`export`: .* holds no model\.onnx"):
        run_push(PushConfig(**given))


@pytest.mark.parametrize("name", ["README.md", "notes.txt", "generation_config.json"])
@pytest.mark.parametrize("what", ["token", "path"])
def test_tokens_and_paths_of_this_machine_stay_here(files, name, what):
    """Found before the Hub is asked for anything: this process may not use the network."""
    path = files / "runs" / "coder" / name
    told = TOKEN if what == "token" else str(files / "runs" / "coder")
    if name.endswith(".json"):
        path.write_text(json.dumps({"note": f"see {told}"}))
    else:
        path.write_text(f"{path.read_text() if path.exists() else ''}\nsee {told}/x")
    with pytest.raises(ConfigError, match=f"{name}`, line .*: {'holds a token' if what == 'token' else 'tells'}") as caught:
        run_push(PushConfig(**options(files, evaluations=[])))
    assert TOKEN not in str(caught.value)


def test_a_result_counts_once(files):
    shutil.copy(files / "own.json", files / "copy.json")
    with pytest.raises(ConfigError, match=r"copy\.json` holds the same result as another one"):
        run_push(PushConfig(**options(files, evaluations=[str(files / "own.json"), str(files / "copy.json")], dry_run=True)))


def test_results_of_one_benchmark_stand_in_files_of_their_own(files):
    other = json.loads((files / "humaneval.json").read_text())
    other["settings"]["temperature"] = 0.0
    (files / "again").mkdir()
    (files / "again" / "humaneval.json").write_text(json.dumps(other))
    given = options(files, dry_run=True)
    given["evaluations"].append(str(files / "again" / "humaneval.json"))
    names = run_push(PushConfig(**given)).files["me/coder"]
    assert {"evaluations/humaneval.json", "evaluations/humaneval_2.json", "evaluations/own.json"} <= set(names)
    results = [name for name in names if name.startswith(".eval_results/")]
    assert results == [".eval_results/trl_rrtf_humaneval.yaml", ".eval_results/trl_rrtf_humaneval_2.yaml"]


def test_a_folder_without_a_card_gets_one(files):
    (files / "runs" / "coder" / "README.md").unlink()
    run_push(PushConfig(**options(files, dry_run=True, output=str(files / "out"), base_model="org/base")))
    card = ModelCard.load(files / "out" / "models" / "me" / "coder" / "README.md")
    assert card.text.lstrip().startswith("# coder\n")
    assert card.data.base_model == "org/base"
    assert "## Evaluations" in card.text


@pytest.mark.parametrize("content", [b"---\n: : no YAML [\n---\n", b"---\nmodel-index: 3\n---\n", b"\xff\xfe"])
def test_a_card_that_cannot_be_read_is_found_before_anything_is_asked_of_the_hub(files, content):
    (files / "runs" / "coder" / "README.md").write_bytes(content)
    with pytest.raises(ConfigError, match=r"the metadata of `.*README\.md` cannot be read"):
        run_push(PushConfig(**options(files)))  # with the network: it does not come so far


WRONG = {
    "nothing": ({}, "`model`: got nothing to push"),
    "no place": ({"model": "m"}, "`repo_id`: got nothing; say where"),
    "no owner": ({"model": "m", "repo_id": "coder"}, "`repo_id`: expected `owner/name`, got coder"),
    "place of nothing": ({"model": "m", "repo_id": "a/b", "export_repo_id": "a/c"}, "`export_repo_id`: `export` is not given"),
    "one place": ({"model": "m", "repo_id": "a/b", "export": "o", "export_repo_id": "a/b"}, "is the model's repository"),
    "evaluations of data": (
        {"ranked_groups": "r", "dataset_repo_id": "a/b", "evaluations": ["e"]},
        "`evaluations`: neither `model` nor `export`",
    ),
    "licence of nothing": ({"ranked_groups": "r", "dataset_repo_id": "a/b", "license": "mit"}, "`license`: neither"),
    "base of nothing": ({"ranked_groups": "r", "dataset_repo_id": "a/b", "base_model": "a/b"}, "`base_model`: neither"),
    "base": ({"model": "m", "repo_id": "a/b", "base_model": "models/x/y"}, "`base_model`: expected a Hub id"),
    "twice": ({"model": "m", "repo_id": "a/b", "evaluations": ["e", "e"]}, "`evaluations`: expected each file once"),
    "owner of nothing": ({"model": "m", "repo_id": "a/b", "namespace": "a"}, "`namespace`: it is the collection's owner"),
    "output": ({"model": "m", "repo_id": "a/b", "output": "o"}, "`output`: it takes what a dry run composes"),
    "no title": ({"model": "m", "repo_id": "a/b", "collection": " "}, "`collection`: expected a title"),
    "data's licence": ({"model": "m", "repo_id": "a/b", "dataset_license": "mit"}, "`dataset_license`: `ranked_groups`"),
}


@pytest.mark.parametrize("case", WRONG)
def test_options_that_contradict_each_other_are_refused(case):
    given, message = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        PushConfig(**given)
    assert message in str(caught.value)


def test_folders_that_are_no_model_are_refused(files):
    (files / "empty").mkdir()
    (files / "torn").mkdir()
    (files / "torn" / "config.json").write_text("{}")
    for model, message in (
        ("empty", "holds no config.json"),
        ("torn", "holds no weights"),
        ("nowhere/at/all", "no model folder"),
    ):
        with pytest.raises(LoadError, match=message):
            run_push(PushConfig(model=str(files / model), repo_id="me/coder", dry_run=True))
    with pytest.raises(LoadError, match="is no folder here, and what is on the Hub"):
        run_push(PushConfig(model="org/base", repo_id="me/coder", dry_run=True))
    with pytest.raises(LoadError, match=r"`ranked_groups`: there is no `gone\.jsonl`"):
        run_push(PushConfig(ranked_groups="gone.jsonl", dataset_repo_id="me/groups", dry_run=True))


def test_the_command_line(files, capsys, monkeypatch):
    from trl_rrtf.cli import main

    monkeypatch.chdir(files)
    line = "push --model runs/coder --repo_id me/coder --evaluations own.json humaneval.json --private true --dry_run true"
    assert main(line.split()) == 0
    assert "no, a dry run" in capsys.readouterr().out
    assert not Path("out").exists()
