"""Rows to text to tokens: prefills, tools, parts of text, what templates refuse, and what they leave out."""

from __future__ import annotations

import copy
import json
import logging

import pytest
from datasets import Dataset, IterableDataset
from transformers import AutoTokenizer

from tests.conftest import CHAT_TEMPLATE, ranked_row
from trl_rrtf import RowError, RRTFConfig
from trl_rrtf.rows.records import RankedGroup
from trl_rrtf.training.ranked_dataset import check_rows, prepare_ranked_groups, read_ranked_groups
from trl_rrtf.training.rendering import tokenize_group

LOGGER = "trl_rrtf.training.ranked_dataset"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
NO_THINKING = CHAT_TEMPLATE.replace("message['content']", "message['content'].split('</think>')[-1]")
NO_END = CHAT_TEMPLATE.replace("'<|im_end|>' + ", "")


@pytest.fixture
def tokenizer(tiny_model_dir):
    return copy.deepcopy(AutoTokenizer.from_pretrained(tiny_model_dir))


def chat_row(*texts, prompt=(("user", "Write add."),), **columns):
    messages = [{"role": role, "content": content} for role, content in prompt]
    completions = [[{"role": "assistant", "content": text}] for text in texts or ("a + b", "a - b")]
    return {"prompt": messages, "completions": completions, "scores": [*map(float, range(len(completions)))], **columns}


def prepare(rows, tokenizer, tmp_path, **options):
    dataset = Dataset.from_list(rows) if isinstance(rows, list) else rows
    return prepare_ranked_groups(dataset, tokenizer, RRTFConfig(str(tmp_path), bf16=False, **options), "train")


def rendered(row, tokenizer, where="row"):
    prompt_ids, completion_ids, _ = tokenize_group(RankedGroup.from_row(row, where), tokenizer, where=where)
    return tokenizer.decode(prompt_ids), [tokenizer.decode(ids) for ids in completion_ids]


# --- Prefills ------------------------------------------------------------------------------------------------------------


def test_a_completion_goes_on_with_the_prompts_last_message(tokenizer):
    row = chat_row(" a + b", " a - b", prompt=(("user", "Write add."), ("assistant", "def add(a, b):\n    return")))
    prompt, completions = rendered(row, tokenizer)
    assert prompt == "<|im_start|>user\nWrite add.<|im_end|>\n<|im_start|>assistant\ndef add(a, b):\n    return"
    assert completions == [" a + b<|im_end|>\n", " a - b<|im_end|>\n"]


def test_after_a_prefill_only_an_assistant_goes_on(tokenizer):
    row = chat_row(prompt=(("user", "q"), ("assistant", "The answer is ")))
    row["completions"][1][0]["role"] = "user"
    with pytest.raises(RowError, match=r"r1, column `completions\[1\]`: the prompt ends with an assistant's message.*'user'"):
        rendered(row, tokenizer, "r1")


def test_a_call_of_tools_is_no_prefill(tokenizer):
    row = chat_row(prompt=(("user", "q"), ("assistant", "")))
    row["prompt"][1] |= {"content": None, "tool_calls": [{"function": {"name": "run", "arguments": {}}}]}
    prompt, _ = rendered(row, tokenizer)
    assert prompt.endswith("<|im_start|>assistant\n<|im_end|>\n<|im_start|>assistant\n")


# --- Tools, variables, parts ----------------------------------------------------------------------------------------------


def test_tools_and_variables_may_be_json(tokenizer, tmp_path):
    """As TRL's data sets have them, because Arrow gives every tool the keys of all others."""
    tokenizer.chat_template = "{{ mood }}{% for tool in tools or [] %}<{{ tool | tojson }}>{% endfor %}" + CHAT_TEMPLATE
    tools = [{"name": "search", "n": 1}, {"name": "run", "code": "x"}]
    rows = [
        chat_row(tools=json.dumps(tools), chat_template_kwargs='{"mood": "brief"}'),
        chat_row(tools="[]", chat_template_kwargs=None),
    ]
    starts = [tokenizer.decode(row["prompt_ids"]).split("<|im_start|>")[0] for row in prepare(rows, tokenizer, tmp_path)]
    assert starts == ["brief" + "".join(f"<{json.dumps(tool)}>" for tool in tools), ""]
    (tmp_path / "r.jsonl").write_text(json.dumps(chat_row(tools=tools, chat_template_kwargs={"mood": "brief"})))
    from_file = prepare(read_ranked_groups(str(tmp_path / "r.jsonl")), tokenizer, tmp_path)
    assert tokenizer.decode(from_file[0]["prompt_ids"]).split("<|im_start|>")[0] == starts[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tools": "{"}, "column `tools`: expected a list of tools, or JSON of it, got str"),
        ({"tools": '{"name": "run"}'}, "column `tools`: expected a list of tools, or JSON of it, got dict"),
        ({"chat_template_kwargs": "[1]"}, "column `chat_template_kwargs`: expected variables with values, or JSON of it"),
    ],
)
def test_wrong_tools_and_variables_are_named_before_the_model_loads(columns, message):
    with pytest.raises(RowError, match=f"`train_dataset`, row 0, {message}"):
        check_rows(Dataset.from_list([chat_row(**columns)]), "train_dataset")


def test_contents_of_text_parts_are_their_text(tokenizer, tmp_path):
    row, in_parts = chat_row("a + b", "a - b"), chat_row("a + b", "a - b")
    for message in (*in_parts["prompt"], *(messages[0] for messages in in_parts["completions"])):
        message["content"] = [
            {"type": "text", "text": message["content"][:3]},
            {"type": "text", "text": message["content"][3:]},
        ]
    (plain,), (parts,) = (prepare([one], tokenizer, tmp_path) for one in (row, in_parts))
    assert parts == plain
    in_parts["completions"][1][0]["content"][0] = {"type": "image", "text": ""}
    with pytest.raises(RowError, match=r"`rows`, row 0, column `completions\[1\]\[0\].content\[0\]`: .*only text is read"):
        check_rows(Dataset.from_list([in_parts]), "rows")


# --- What a template refuses ------------------------------------------------------------------------------------------------


def test_a_template_that_refuses_messages_is_told_with_the_row(tokenizer, tmp_path):
    tokenizer.chat_template = NO_SYSTEM + CHAT_TEMPLATE
    rows = [chat_row(), chat_row(prompt=(("system", "Be brief."), ("user", "q")))]
    with pytest.raises(RowError, match=r"`train`, row 1, column `prompt`: the chat template .*system, user.*not supported"):
        prepare(rows, tokenizer, tmp_path)


def test_messages_without_a_template_are_told_with_the_row(tokenizer, tmp_path):
    tokenizer.chat_template = None
    with pytest.raises(RowError, match=r"`train`, row 0, column `prompt`: .*no chat template; give one \(`chat_template_path`"):
        prepare([chat_row()], tokenizer, tmp_path)


def test_a_completion_without_a_token_is_refused(tokenizer, tmp_path):
    tokenizer.chat_template = "{% for message in messages if message['role'] == 'user' %}{{ message['content'] }}{% endfor %}"
    with pytest.raises(RowError, match=r"`train`, row 0, column `completions\[0\]`: .*has no token that could be scored"):
        prepare([chat_row()], tokenizer, tmp_path)
    tokenizer.eos_token = None
    with pytest.raises(RowError, match=r"column `completions\[1\]`: .*has no token that could be scored; .*`eos_token`"):
        prepare([{"prompt": "p", "completions": ["a", ""], "scores": [1.0, 0.0]}], tokenizer, tmp_path)


# --- What is lost -----------------------------------------------------------------------------------------------------------


def warnings_of(rows, tokenizer, tmp_path, caplog, **options):
    caplog.clear()
    with caplog.at_level(logging.WARNING, LOGGER):
        prepare(rows, tokenizer, tmp_path, **options)
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def test_a_good_row_has_no_warning(tokenizer, tmp_path, caplog):
    rows = [
        chat_row("<think>\nlong\n</think>\n\na + b", "a - b"),
        chat_row(),
        chat_row(prompt=(("user", "q"), ("assistant", "x\n"))),
    ]
    assert warnings_of(rows, tokenizer, tmp_path, caplog) == []
    assert warnings_of([ranked_row(3), ranked_row(4)], tokenizer, tmp_path, caplog) == []


def test_text_that_the_template_leaves_out_is_counted_and_told_once(tokenizer, tmp_path, caplog):
    tokenizer.chat_template = NO_THINKING
    thinking = ("<think>one</think>a + b", "<think>two</think>a + b", "a - b")
    missing, alike = warnings_of([chat_row(), chat_row(*thinking), chat_row(*thinking)], tokenizer, tmp_path, caplog)
    assert missing.startswith("train: 4 of 8 candidates (the first in row 1): the chat template leaves out some of the text")
    assert alike.startswith("train: 2 of 3 groups (the first in row 1): different candidates become the same tokens")
    assert "`chat_template_path`" in missing


def test_thinking_in_a_key_of_its_own_that_is_left_out_is_told(tokenizer, tmp_path, caplog):
    row = chat_row("a + b", "a - b")
    row["completions"][0][0]["reasoning_content"] = "first I add"
    (message,) = warnings_of([row], tokenizer, tmp_path, caplog)
    assert message.startswith("train: 1 of 2 candidates (the first in row 0): the chat template leaves out")


def test_no_end_two_ends_and_two_beginnings_are_told(tokenizer, tmp_path, caplog):
    tokenizer.chat_template = NO_END
    (no_end,) = warnings_of([chat_row()], tokenizer, tmp_path, caplog)
    assert no_end.startswith("train: 2 of 2 candidates (the first in row 0): no end token follows the completion")
    twice = {"prompt": "p", "completions": ["a<|im_end|><|im_end|>", "b"], "scores": [1.0, 0.0]}
    (two_ends,) = warnings_of([ranked_row(2), twice], tokenizer, tmp_path, caplog)
    assert two_ends.startswith("train: 1 of 4 candidates (the first in row 1): the completion ends with two end tokens")
    tokenizer.bos_token = "<|im_start|>"
    begun = {**ranked_row(2), "prompt": "<|im_start|><|im_start|>Write add."}
    (beginnings,) = warnings_of([begun], tokenizer, tmp_path, caplog)
    assert beginnings.startswith("train: 1 of 1 groups (the first in row 0): the prompt begins with two beginning tokens")
    tokenizer.eos_token = None
    (no_token,) = warnings_of([ranked_row(2)], tokenizer, tmp_path, caplog)
    assert "no end token follows" in no_token


def test_a_prompt_that_merges_with_completions_is_told_once_for_all_rows(tokenizer, tmp_path, caplog):
    rows = [{"prompt": f"{i} re", "completions": ["turn a", "turn b"], "scores": [1.0, 0.0]} for i in range(5)]
    (message,) = warnings_of(rows, tokenizer, tmp_path, caplog)
    assert message.startswith("train: 5 of 5 groups (the first in row 0): the prompt's tokens are not a prefix")


def test_a_stream_is_told_at_its_first_row(tokenizer, tmp_path, caplog):
    tokenizer.chat_template = NO_END
    given = [chat_row(), chat_row("x " * 200, "y"), {**chat_row(), "scores": [1.0, 1.0]}]
    stream = IterableDataset.from_generator(lambda: iter(given * 3))
    options = {"max_length": 100, "groups_without_pairs": "drop"}
    with caplog.at_level(logging.WARNING, LOGGER):
        prepared = prepare_ranked_groups(stream, tokenizer, RRTFConfig(str(tmp_path), bf16=False, **options), "train")
        rows = [*prepared, *prepared]
    assert len(rows) == 6
    assert "flaws" not in rows[0]
    messages = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    starts = [
        "candidates (said once): no end token",
        "candidates (said once): they are longer",
        "groups (said once): they are dropped",
    ]
    assert len(messages) == len(starts)
    assert all(message.startswith(f"train, some {start}") for message, start in zip(messages, starts, strict=True))
