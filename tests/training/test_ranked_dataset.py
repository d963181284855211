"""Rows to tokens: formats, lengths, ends of sequence, and what is dropped."""

from __future__ import annotations

import copy
import json
import logging

import pytest
from conftest import ranked_row
from datasets import Dataset, IterableDataset
from transformers import AutoTokenizer

from trl_rrtf import ConfigError, DataCollatorForRankedGroups, RowError, RRTFConfig
from trl_rrtf.rows.records import RankedGroup
from trl_rrtf.training.losses.pairs import STUDENT, TEACHER, UNKNOWN
from trl_rrtf.training.ranked_dataset import (
    check_rows,
    prepare_ranked_groups,
    read_ranked_groups,
    to_ranked_group,
)
from trl_rrtf.training.rendering import tokenize_group


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    return AutoTokenizer.from_pretrained(tiny_model_dir)


def config(tmp_path, **options):
    return RRTFConfig(str(tmp_path), bf16=False, report_to=[], **options)


def test_text_is_tokenised_as_prompt_plus_completion_plus_end(tokenizer):
    group = RankedGroup.from_row(ranked_row(3), "row")
    prompt_ids, completion_ids, _ = tokenize_group(group, tokenizer)
    for ids, candidate in zip(completion_ids, group.candidates, strict=True):
        assert prompt_ids + ids == tokenizer(group.prompt + candidate.completion + tokenizer.eos_token)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id


def test_an_end_of_sequence_that_is_there_is_not_doubled(tokenizer):
    row = ranked_row(2)
    row["completions"] = [text + tokenizer.eos_token for text in row["completions"]]
    _, completion_ids, _ = tokenize_group(RankedGroup.from_row(row, "row"), tokenizer)
    assert [ids.count(tokenizer.eos_token_id) for ids in completion_ids] == [1, 1]


def test_conversations_follow_the_chat_template(tokenizer):
    prompt = [{"role": "user", "content": "Write add."}]
    completions = [[{"role": "assistant", "content": text}] for text in ("def add(): pass", "no")]
    group = RankedGroup.from_row({"prompt": prompt, "completions": completions, "scores": [1, 0]}, "row")
    prompt_ids, completion_ids, _ = tokenize_group(group, tokenizer)
    assert tokenizer.decode(prompt_ids) == tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(completion_ids[0]) == "def add(): pass<|im_end|>\n"


def test_tools_and_template_variables_of_a_row_reach_the_chat_template(tokenizer, tmp_path):
    """Also from a file, where they stand beside the group's own columns, for some rows alone."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{{ mood }}{% for tool in tools or [] %}<{{ tool.name }}>{% endfor %}" + tokenizer.chat_template
    prompt = [{"role": "user", "content": "q"}]
    group = {
        "prompt": prompt,
        "completions": [[{"role": "assistant", "content": text}] for text in ("a", "b")],
        "scores": [1, 0],
    }
    plain, told = group, {**group, "tools": [{"name": "search"}], "chat_template_kwargs": {"mood": "brief"}}
    preference = {
        "prompt": prompt,
        "chosen": group["completions"][0],
        "rejected": group["completions"][1],
        "tools": [{"name": "run"}],
    }
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (plain, told, preference)))
    dataset = read_ranked_groups(str(tmp_path / "r.jsonl"))
    prepared = prepare_ranked_groups(dataset, tokenizer, config(tmp_path), "train")
    starts = [tokenizer.decode(row["prompt_ids"]).split("<|im_start|>")[0] for row in prepared]
    assert starts == ["", "brief<search>", "<run>"]


def test_a_file_becomes_a_data_set_with_the_groups_own_columns(tmp_path):
    """Whatever columns the first row has."""
    bare = {name: value for name, value in ranked_row(2).items() if name != "sources"}
    judged = {**ranked_row(3), "outcomes": ["passed", "failed", "failed"], "difficulty": "easy"}
    (tmp_path / "r.jsonl").write_text(json.dumps(bare) + "\n" + json.dumps(judged) + "\n")
    dataset = read_ranked_groups(str(tmp_path / "r.jsonl"))
    assert set(dataset.column_names) == {"prompt", "completions", "scores", "sources", "outcomes"}
    assert list(dataset["sources"]) == [None, judged["sources"]]
    assert list(dataset["outcomes"]) == [None, judged["outcomes"]]


def test_preference_rows_are_groups_of_two():
    group = to_ranked_group({"prompt": "p", "chosen": "good", "rejected": "bad"}, "row")
    candidates = [(candidate.completion, candidate.score, candidate.source) for candidate in group.candidates]
    assert candidates == [("good", 1.0, "teacher"), ("bad", 0.0, "student")]


def test_preference_rows_with_an_implicit_prompt():
    shared = {"role": "user", "content": "q"}
    row = {
        "chosen": [shared, {"role": "assistant", "content": "good"}],
        "rejected": [shared, {"role": "assistant", "content": "bad"}],
    }
    group = to_ranked_group(row, "row")
    assert group.prompt == [shared]
    assert group.candidates[0].completion == [{"role": "assistant", "content": "good"}]


def test_defect_4_a_long_candidate_is_dropped_whole_and_counted(tokenizer, tmp_path, caplog):
    """RRHF's code cuts it, end of sequence and all."""
    row = ranked_row(3)
    row["completions"][1] = "x " * 500
    with caplog.at_level(logging.WARNING):
        prepared = prepare_ranked_groups(Dataset.from_list([row]), tokenizer, config(tmp_path, max_length=128), "train")
    (group,) = prepared
    assert group["num_dropped"] == 1
    assert group["scores"] == [row["scores"][0], row["scores"][2]]
    assert all(ids[-1] == tokenizer.eos_token_id for ids in group["completion_ids"])
    assert "1 of 3 candidates are longer than `max_length=128`" in caplog.text


@pytest.mark.parametrize("sharing", [False, True])
def test_end_of_sequence_is_learnt_also_when_it_is_the_padding_token(tokenizer, tmp_path, sharing):
    prepared = prepare_ranked_groups(Dataset.from_list([ranked_row(4)]), tokenizer, config(tmp_path), "train")
    collator = DataCollatorForRankedGroups(pad_token_id=tokenizer.eos_token_id, prefix_sharing=sharing, pad_to_multiple_of=32)
    (part,) = collator(list(prepared))["parts"]
    ends = part["labels"] == tokenizer.eos_token_id
    assert sorted(part["candidate_ids"][ends].tolist()) == [0, 1, 2, 3]
    assert (part["labels"][part["candidate_ids"] == -1] == -100).all()


def test_collator_flattens_ragged_groups(tokenizer, tmp_path):
    rows = [ranked_row(2, seed=1), {**ranked_row(5, seed=2)}]
    del rows[1]["sources"]
    prepared = prepare_ranked_groups(Dataset.from_list(rows), tokenizer, config(tmp_path), "train")
    batch = DataCollatorForRankedGroups(pad_token_id=0, pad_to_multiple_of=16)(list(prepared))
    assert batch["group_ids"].tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert batch["sources"].tolist() == [TEACHER, STUDENT] + [UNKNOWN] * 5
    assert batch["scores"].tolist() == rows[0]["scores"] + rows[1]["scores"]
    (part,) = batch["parts"]
    assert part["input_ids"].shape[1] % 16 == 0
    lengths = [len(ids) for group in prepared for ids in group["completion_ids"]]
    assert (part["labels"] != -100).sum(dim=1).tolist() == lengths


@pytest.mark.parametrize(("setting", "kept"), [("sft", 2), ("drop", 1)])
def test_groups_without_an_ordered_pair(tokenizer, tmp_path, setting, kept):
    tied = {**ranked_row(2), "scores": [1.0, 1.0]}
    ordered = {**ranked_row(2), "scores": [1.0, 0.0]}
    prepared = prepare_ranked_groups(
        Dataset.from_list([tied, ordered]), tokenizer, config(tmp_path, groups_without_pairs=setting), "train"
    )
    assert len(prepared) == kept


def test_nothing_left_is_an_error(tokenizer, tmp_path):
    with pytest.raises(RowError, match="none of the 1 groups is left; raise `max_length`"):
        prepare_ranked_groups(Dataset.from_list([ranked_row(2)]), tokenizer, config(tmp_path, max_length=4), "train")


def test_streams_are_prepared_row_by_row(tokenizer, tmp_path):
    rows = [ranked_row(3, seed=seed) for seed in range(3)]
    whole = prepare_ranked_groups(Dataset.from_list(rows), tokenizer, config(tmp_path), "train")
    stream = prepare_ranked_groups(IterableDataset.from_generator(lambda: iter(rows)), tokenizer, config(tmp_path), "train")
    assert list(stream) == list(whole)


def test_a_prepared_data_set_is_left_alone(tokenizer, tmp_path):
    prepared = prepare_ranked_groups(Dataset.from_list([ranked_row(2)]), tokenizer, config(tmp_path), "train")
    assert prepare_ranked_groups(prepared, tokenizer, config(tmp_path), "train") is prepared


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [1.0]}, r"row 1, column `scores`: expected one entry per completion \(2\), got 1"),
        ({"scores": [1.0, float("nan")]}, r"row 1, column `scores\[1\]`: expected a finite number, got float nan"),
        ({"completions": ["a"], "scores": [1.0]}, r"row 1, column `completions`: a group needs at least two candidates"),
        ({"completions": [], "scores": []}, r"row 1, column `completions`: a group needs at least two candidates"),
        ({"prompt": None}, r"row 1, column `prompt`: the column is missing"),
        ({"sources": ["teacher", "oracle"]}, r"row 1, column `sources\[1\]`: expected one of teacher, student, reference"),
    ],
)
def test_a_bad_row_is_named(change, message):
    good = ranked_row(2)
    with pytest.raises(RowError, match=message):
        check_rows(Dataset.from_list([good, {**good, **change}]), "train_dataset")


def test_an_empty_or_foreign_data_set_is_named():
    with pytest.raises(ConfigError, match="`train_dataset`: the data set is empty"):
        check_rows(Dataset.from_list([]), "train_dataset")
    with pytest.raises(ConfigError, match=r"`eval_dataset\['a'\]`: expected a `Dataset`"):
        check_rows({"a": [ranked_row(2)]}, "eval_dataset")
