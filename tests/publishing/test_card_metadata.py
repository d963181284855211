"""What the cards say of models and data: Hub ids in the metadata, and of what lies on this disk its name, in words."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from huggingface_hub import DatasetCard, ModelCard

from tests.conftest import ranked_row
from trl_rrtf.export.config import ExportConfig
from trl_rrtf.export.model_card import write_onnx_card
from trl_rrtf.export.report import Parity
from trl_rrtf.models.hub import hub_id, told_name
from trl_rrtf.publishing.card import CardFacts, compose_card
from trl_rrtf.ranking.card import GroupStatistics, data_card
from trl_rrtf.rows.records import RankedGroup
from trl_rrtf.training.config import RRTFConfig
from trl_rrtf.training.model_card import write_model_card

IDS = {
    "org/coder": "org/coder",
    "org/groups:default:train": "org/groups",
    "org/groups:test": "org/groups",
    "org/groups@refs-1": "org/groups",
    "hf://datasets/org/groups@main/data/a.parquet": "org/groups",
}
LOCAL = {
    "here/coder": "coder",  # a folder that is spelled as an id
    "groups.jsonl": "groups.jsonl",
    "data/groups.jsonl": "groups.jsonl",
    "/somewhere/else/coder": "coder",
    "./coder": "coder",
    "../runs/coder": "coder",
    "~/coder": "coder",
    "gone/groups.parquet": "groups.parquet",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "here" / "coder").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "groups.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "repository"), IDS.items())
def test_ids_of_the_hub(name, repository):
    assert hub_id(name) == repository
    assert told_name(name) == name


@pytest.mark.parametrize(("name", "told"), LOCAL.items())
def test_what_is_local_is_told_by_its_name(name, told):
    assert hub_id(name) is None
    assert told_name(name) == told


@pytest.mark.parametrize("name", [None, "", "my groups", "a/b/c", "gpt2", "x" * 5000, "a\0b"])
def test_what_is_no_id(name):
    assert hub_id(name) is None


def trained_card(folder, base_model, dataset_name):
    args = RRTFConfig(str(folder / "out"), bf16=False, use_cpu=True, report_to=[])
    write_model_card(args, base_model=base_model, log_history=[], model_name=None, dataset_name=dataset_name, tags=None)
    return ModelCard.load(folder / "out" / "README.md")


@pytest.mark.parametrize(("name", "told"), LOCAL.items())
def test_the_trained_models_card_keeps_local_names_out_of_its_metadata(folder, name, told):
    card = trained_card(folder, name, name)
    assert not {"base_model", "datasets"} & card.data.to_dict().keys()
    assert f"A fine-tuned version of a local model, `{told}`" in card.text
    assert f"on local data, `{told}`." in card.text
    for leak in ("None", str(folder), "huggingface.co/" + told, "/somewhere"):
        assert leak not in card.content


def test_the_trained_models_card_links_what_is_on_the_hub(folder):
    card = trained_card(folder, "org/coder", "org/groups:train")
    assert card.data.base_model == "org/coder"
    assert card.data.datasets == "org/groups"
    assert "[org/coder](https://huggingface.co/org/coder)" in card.text
    assert "[org/groups:train](https://huggingface.co/datasets/org/groups)" in card.text


def test_a_card_without_names_says_nothing_of_them(folder):
    card = trained_card(folder, None, None)
    assert "\nA model, trained with **RRTF**" in card.text
    assert "`trl_rrtf`.\n" in card.text
    assert not {"base_model", "datasets"} & card.data.to_dict().keys()
    assert "None" not in card.content


def test_the_card_of_an_adapter_says_what_loads_it(folder):
    (folder / "out").mkdir()
    assert trained_card(folder, "org/coder", None).data.library_name == "transformers"
    (folder / "out" / "adapter_config.json").write_text("{}")
    assert trained_card(folder, "org/coder", None).data.library_name == "peft"


def exported_card(folder, model):
    report = SimpleNamespace(
        proof="CPU",
        graph="fused",
        not_for_genai="",
        parity=Parity(*[0.1] * 9),
        sizes=SimpleNamespace(bytes=1e6),
        probes={},
        reach=None,
        versions={"onnx": "1"},
    )
    write_onnx_card(folder, model, ExportConfig(), report)
    return ModelCard.load(folder / "README.md")


@pytest.mark.parametrize(("model", "base_model"), [("org/coder", "org/coder"), *((name, None) for name in LOCAL)])
def test_the_card_of_an_export(folder, model, base_model):
    data = exported_card(folder, model).data
    assert data.base_model == base_model
    assert data.get("base_model_relation") == ("quantized" if base_model else None)
    text = (folder / "README.md").read_text()
    assert f"# {told_name(model)}, fp32" in text
    assert "None" not in text
    assert "/somewhere" not in text
    assert "library_name" not in data.to_dict(), "neither Optimum nor transformers alone runs it in every release"
    assert {"onnx", "onnxruntime", "rrtf", "fp32"} <= set(data.tags)


def composed(card, **facts):
    dropped = compose_card(
        card, CardFacts(repo_id="me/pushed", local_name="out", **facts), lambda name, kind: "gone" not in name
    )
    return card.text, dropped


def test_a_pushed_card_names_what_is_linked_and_no_local_name(folder):
    text, _ = composed(trained_card(folder, "here/coder", "data/groups.jsonl"), base_model="me/tiny", dataset_id="me/groups")
    assert "A fine-tuned version of [me/tiny](https://huggingface.co/me/tiny), trained with" in text
    assert "`trl_rrtf` on [me/groups](https://huggingface.co/datasets/me/groups)." in text
    assert "local" not in text
    text, _ = composed(trained_card(folder, "org/coder", None), base_model="me/tiny")
    assert "A fine-tuned version of [me/tiny](https://huggingface.co/me/tiny), trained with" in text


def test_a_pushed_card_says_local_where_nothing_is_linked(folder):
    for facts in ({}, {"base_model": "me/gone", "dataset_id": "me/gone"}):
        text, dropped = composed(trained_card(folder, "here/coder", "data/groups.jsonl"), **facts)
        assert "A fine-tuned version of a local model, `coder`" in text
        assert "on local data, `groups.jsonl`." in text
        assert len(dropped) == len(facts)


def test_somebody_elses_card_is_not_rewritten(folder):
    own = "# out\n\nA fine-tuned version of a local model, `x` on local data, `y`.\n"
    text, _ = composed(ModelCard(f"---\n{{}}\n---\n\n{own}"), base_model="me/tiny", dataset_id="me/groups")
    assert own in text


def test_the_pushed_card_of_an_export_has_the_repositorys_name(folder):
    text, _ = composed(exported_card(folder, "here/coder"), base_model="me/tiny", relation="quantized")
    assert "# pushed, fp32, for ONNX Runtime\n" in text
    assert "[me/tiny](https://huggingface.co/me/tiny) as a " in text
    assert "`coder`" not in text
    assert 'from_pretrained("me/pushed")' in text


def test_the_data_card_tells_each_column_and_counts_repairs(folder):
    first = {**ranked_row(3), "models": ["t", "s", "s"], "outcomes": ["passed", "failed", "passed"]}
    rows = [{**first, "repair_of": [None, None, 1], "problem_id": "p/1", "license": "mit"}, {**ranked_row(2), "mine": 3}]
    path = folder / "groups.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def text():
        card = data_card(GroupStatistics.of(path), name="g", repo_id=None, license=None, input=str(path), plots=False)
        return card.text

    for name in (*RankedGroup.COLUMNS, "repair_of", "problem_id", "license"):
        assert f"\n- `{name}`: " in text()
    assert "\nFurther columns, as the rows had them: `mine`.\n" in text()
    assert "| candidates of source `student` that repair another one | 1 |\n| candidates of `s` | 2 |" in text()
    path.write_text(json.dumps(ranked_row(2)))
    assert "\n- `sources`: " in text()
    for absent in ("Further columns", "repair", "`models`", "`outcomes`"):
        assert absent not in text()


def test_the_data_card_loads_what_it_names_and_tells_no_folder(folder):
    rows = [
        {**ranked_row(2, seed=i), "models": ["/somewhere/else/coder", "coder"][: 2 - i % 2] + ["coder"] * (i % 2)}
        for i in range(2)
    ]
    path = folder / "data" / "groups.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    statistics = GroupStatistics.of(path)
    local = data_card(statistics, name="groups", repo_id=None, license=None, input=str(path), plots=False)
    pushed = data_card(statistics, name="me/groups", repo_id="me/groups", license=None, input=str(path), plots=False)
    assert 'load_dataset("json", data_files="groups.jsonl", split="train")' in local.text
    assert 'load_dataset("me/groups", split="train")' in pushed.text
    for card in (local, pushed):
        assert "| candidates of `coder` | 4 |" in card.text
        assert "/somewhere" not in card.content
        assert DatasetCard(card.content).data.to_dict() == card.data.to_dict()
    assert "configs" not in local.data.to_dict(), "these files are not laid out as on the Hub"
    assert pushed.data.configs[0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
