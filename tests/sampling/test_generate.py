"""`generate`: one prompt in, texts out."""

from __future__ import annotations

import shutil

import pytest
import torch

from trl_rrtf import ConfigError, SamplingConfig
from trl_rrtf.sampling import Draws, GenerateConfig, make_sampler, run_generate


def test_the_texts_are_those_of_the_sampler(tiny_model_dir, capsys):
    options = {"temperature": 1.0, "max_new_tokens": 8}
    config = GenerateConfig(str(tiny_model_dir), "Write add.", num_generations=3, seed=5, chat=False, **options)
    summary = run_generate(config)
    sampler = make_sampler(SamplingConfig(str(tiny_model_dir)))
    assert [summary.texts] == sampler.sample(["Write add."], Draws(seeds=[[5, 6, 7]], **options))
    assert summary.characters == sum(map(len, summary.texts))
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in summary.texts)
    assert summary.table() == {"texts": 3, "characters": summary.characters, "seconds": summary.seconds}


def test_the_prompt_is_a_users_message_where_the_model_has_a_chat_template(tiny_model_dir):
    config = GenerateConfig(str(tiny_model_dir), "Write add.", max_new_tokens=8)
    messages = [{"role": "user", "content": "Write add."}]
    greedy = Draws(seeds=[[0]], temperature=0, max_new_tokens=8)
    assert [run_generate(config).texts] == make_sampler(SamplingConfig(str(tiny_model_dir))).sample([messages], greedy)


@pytest.mark.parametrize("stop", ["", "e", "er", "\n"])
def test_a_streamed_text_is_the_same_text(stop, tiny_model_dir, capsys):
    """Also where it ends before a stop string, nothing of which is shown."""
    options = {"max_new_tokens": 40, "temperature": 1.0, "seed": 3, "stop_strings": [stop] if stop else []}
    whole, streamed = (
        run_generate(GenerateConfig(str(tiny_model_dir), "Write add.", stream=stream, **options)) for stream in (False, True)
    )
    assert streamed.texts == whole.texts
    [text] = whole.texts
    assert capsys.readouterr().out == f"{text}\n" * 2
    assert not stop or stop not in text


def test_one_text_is_streamed_on_a_terminal_and_several_are_not(tiny_model_dir, monkeypatch, capsys):
    written = []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("transformers.TextStreamer.put", lambda self, value: written.append(value))
    options = {"max_new_tokens": 4, "temperature": 1.0}
    texts = run_generate(GenerateConfig(str(tiny_model_dir), "x", num_generations=2, **options)).texts
    assert not written
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in texts)
    run_generate(GenerateConfig(str(tiny_model_dir), "x", **options))
    assert written


def test_an_empty_prompt_begins_as_texts_do(tiny_model_dir, tmp_path, capsys):
    from transformers import AutoTokenizer

    config = GenerateConfig(str(tiny_model_dir), "", chat=False, max_new_tokens=4)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    if tokenizer("")["input_ids"] == [] and tokenizer.bos_token_id is None:
        with pytest.raises(ConfigError, match="`prompt`: it is empty, and the tokenizer has no token that begins a text"):
            run_generate(config)
        tokenizer.bos_token = tokenizer.eos_token
        shutil.copytree(tiny_model_dir, tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        config = GenerateConfig(str(tmp_path / "model"), "", chat=False, max_new_tokens=4)
    assert len(run_generate(config).texts) == 1


def test_several_texts_cannot_be_streamed():
    with pytest.raises(ConfigError, match="`stream`: shows one text, and `num_generations` is 2"):
        GenerateConfig("m", "x", num_generations=2, temperature=1.0, stream=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_a_gpu_that_is_not_there_is_refused_by_name(cuda, tiny_model_dir, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    reason = "sees no GPU" if cuda else "is a build for the CPU"
    with pytest.raises(ConfigError, match=rf"`device`: cuda was asked for, and this torch \(.*\) {reason}"):
        run_generate(GenerateConfig(str(tiny_model_dir), "x", device="cuda"))


def test_a_checkpoint_answers_on_the_device_that_is_asked_for(tiny_model_dir):
    config = GenerateConfig(str(tiny_model_dir), "x", device="cpu", engine="transformers", max_new_tokens=4)
    assert run_generate(config).texts == run_generate(GenerateConfig(str(tiny_model_dir), "x", max_new_tokens=4)).texts


@pytest.mark.parametrize(
    "options",
    [{"device": "tpu"}, {"num_generations": 0}, {"num_generations": 2}, {"chat": "no"}, {"top_p": 0}, {"temperature": "warm"}],
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match=rf"`{next(iter(options))}`: (expected|greedy)"):
        GenerateConfig("m", "x", **options)
