"""`generate`: one prompt in, texts out."""

from __future__ import annotations

import pytest

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


def test_a_device_that_a_checkpoint_would_ignore_is_refused(tiny_model_dir):
    with pytest.raises(ConfigError, match="`device`: is for the engine onnx, and `engine` is 'transformers'"):
        run_generate(GenerateConfig(str(tiny_model_dir), "x", device="cuda"))


@pytest.mark.parametrize(
    "options",
    [{"device": "tpu"}, {"num_generations": 0}, {"num_generations": 2}, {"chat": "no"}, {"top_p": 0}, {"temperature": "warm"}],
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match=rf"`{next(iter(options))}`: (expected|greedy)"):
        GenerateConfig("m", "x", **options)
