"""The vLLM engine. Its calls are bound to the signatures of real versions (see `vllm_signatures.py`); the model behind them is
real too, and vLLM's loop over its tokens a stand-in, since vLLM needs a GPU. `vllm_on_gpu.py` asks the real one.
"""

from __future__ import annotations

import importlib.machinery
import json
import re
import shutil
import sys
import tomllib
import types
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.sampling.vllm_signatures import VERSIONS, bindable, recorded
from trl_rrtf import ConfigError, LoadError, SamplingConfig
from trl_rrtf.sampling import Draws, make_sampler
from trl_rrtf.sampling.engines import vllm as engine_module
from trl_rrtf.sampling.engines.prompt_tokens import prompt_tokens

CHAT = [[{"role": "user", "content": "Write add."}], [{"role": "user", "content": "Total of items"}]]
PROMPTS = [CHAT[0], "def add(a, b):\n", CHAT[1], "import math\n"]
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(scope="module")
def model_dir(tiny_model_dir, tmp_path_factory):
    """A model with a beginning-of-sequence token that its template writes too, and with a generation configuration."""
    folder = tmp_path_factory.mktemp("with_bos") / "model"
    shutil.copytree(tiny_model_dir, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = "<|im_start|>"
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").write_text(
        json.dumps(
            {
                "eos_token_id": tokenizer.convert_tokens_to_ids(["<|im_end|>", "e"]),
                "do_sample": True,
                "temperature": 0.1,
                "repetition_penalty": 9.0,
            }
        )
    )
    return folder


class StandIn:
    """`vllm`, as far as the engine asks it, with the signatures of a version."""

    def __init__(self, version, monkeypatch, gpus=1):
        self.known = recorded()[version]
        self.loaded, self.requests, self.lora_requests = [], [], []
        vllm, lora, request = (types.ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request"))
        vllm.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
        vllm.LLM, vllm.SamplingParams, request.LoRARequest = self.load, self.maker("SamplingParams"), self.maker("LoRARequest")
        for module in (vllm, lora, request):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    def maker(self, name):
        """A class whose objects have the fields of vLLM's, and no other."""
        signature = bindable(self.known[name])

        def make(*args, **options):
            bound = signature.bind(*args, **options)
            bound.apply_defaults()
            return types.SimpleNamespace(**bound.arguments)

        return make

    def load(self, *args, **options):
        arguments = bindable(self.known["LLM"]).bind(*args, **options).arguments
        arguments |= bindable(self.known["EngineArgs"]).bind(**arguments.pop("kwargs", {})).arguments
        self.loaded.append(arguments)
        self.model = AutoModelForCausalLM.from_pretrained(arguments["model"], dtype="float32")
        self.tokenizer = AutoTokenizer.from_pretrained(arguments["tokenizer"])
        assert "model_config" in self.known["attributes of LLM"]
        model_config = types.SimpleNamespace(max_model_len=arguments["max_model_len"] or 512)
        return types.SimpleNamespace(generate=self.generate, model_config=model_config)

    def generate(self, *args, **options):
        arguments = bindable(self.known["LLM.generate"]).bind(*args, **options).arguments
        self.lora_requests.append(arguments["lora_request"])
        requests = list(zip(arguments["prompts"], arguments["sampling_params"], strict=True))
        self.requests += requests
        return [self.answer(prompt, parameters) for prompt, parameters in requests]

    @torch.no_grad()
    def answer(self, prompt, parameters):
        """A token at a time, each from the request's own random numbers, to a stop token, a stop string or the end."""
        assert prompt.keys() == {"prompt_token_ids"}
        assert parameters.ignore_eos, "vLLM would end at the tokenizer's end of sequence too"
        assert parameters.repetition_penalty == 1.0
        ids, drawn, text = list(prompt["prompt_token_ids"]), [], ""
        generator = torch.Generator().manual_seed(parameters.seed)
        while len(drawn) < parameters.max_tokens:
            logits = self.model(torch.tensor([ids + drawn])).logits[0, -1]
            if parameters.temperature == 0:
                drawn.append(int(logits.argmax()))
            else:
                probabilities = (logits / parameters.temperature).softmax(-1)
                drawn.append(int(torch.multinomial(probabilities, 1, generator=generator)))
            if parameters.detokenize:
                text = self.tokenizer.decode(drawn, skip_special_tokens=parameters.skip_special_tokens)
            if drawn[-1] in parameters.stop_token_ids or any(stop in text for stop in parameters.stop or []):
                break
        assert parameters.detokenize or not parameters.stop, "vLLM finds no stop strings without its text"
        completion = self.maker("CompletionOutput")(0, text, drawn, None, None)
        return self.maker("RequestOutput")("0", None, ids, None, [completion], True)


@pytest.fixture(params=VERSIONS)
def vllm(request, monkeypatch):
    return StandIn(request.param, monkeypatch)


def config(model, **options):
    return SamplingConfig(str(model), engine="vllm", **options)


def draws(prompts, number=1, **options):
    seeds = [[10 * i + j for j in range(number)] for i in range(len(prompts))]
    return Draws(seeds=seeds, **{"temperature": 0, "max_new_tokens": 24, **options})


@pytest.mark.parametrize("stops", [(), ("e",), ("\n", "add"), ("<|im_start|>",)], ids=["none", "letter", "two", "special"])
def test_greedy_texts_are_those_of_the_transformers_engine(vllm, model_dir, stops):
    ours = make_sampler(config(model_dir))
    theirs = make_sampler(SamplingConfig(str(model_dir), dtype="float32"))
    drawn = draws(PROMPTS, stop_strings=stops)
    assert ours.sample(PROMPTS, drawn) == theirs.sample(PROMPTS, drawn)
    encoded = theirs._encode(PROMPTS)
    lengths = encoded["attention_mask"].sum(1).tolist()
    assert [prompt["prompt_token_ids"] for prompt, _ in vllm.requests] == [
        ids[-length:] for ids, length in zip(encoded["input_ids"].tolist(), lengths, strict=True)
    ]


def test_a_template_that_writes_the_beginning_of_sequence_gets_no_second_one(vllm, model_dir):
    make_sampler(config(model_dir)).sample(PROMPTS[:2], draws(PROMPTS[:2]))
    beginning = AutoTokenizer.from_pretrained(model_dir).bos_token_id
    starts = [prompt["prompt_token_ids"][:2] for prompt, _ in vllm.requests]
    assert [ids[0] for ids in starts] == [beginning] * 2, "a text prompt has one, as the tokenizer gives it"
    assert beginning not in [ids[1] for ids in starts]


def test_a_text_depends_on_its_seed_and_prompt_alone(vllm, model_dir):
    engine = make_sampler(config(model_dir))
    together = engine.sample(PROMPTS, draws(PROMPTS, 3, temperature=1.0))
    alone = [
        engine.sample([prompt], Draws(seeds=[seeds], temperature=1.0, max_new_tokens=24))
        for prompt, seeds in zip(PROMPTS, draws(PROMPTS, 3).seeds, strict=True)
    ]
    assert together == [texts for [texts] in alone]
    assert len({text for texts in together for text in texts}) > len(PROMPTS)


def test_what_a_request_asks_for(vllm, model_dir):
    engine = make_sampler(config(model_dir))
    engine.sample(PROMPTS[:1], draws(PROMPTS[:1], 2, temperature=0.7, top_p=0.9, top_k=5, stop_strings=["\n\n\n"]))
    ends = AutoTokenizer.from_pretrained(model_dir).convert_tokens_to_ids(["<|im_end|>", "e"])
    for (_, parameters), seed in zip(vllm.requests, (0, 1), strict=True):
        asked = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "max_tokens": 24, "seed": seed, "stop": ["\n\n\n"]}
        asked |= {"ignore_eos": True, "stop_token_ids": ends, "detokenize": True, "skip_special_tokens": False}
        neutral = {"n": 1, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0}
        assert {**vars(parameters), **asked, **neutral} == vars(parameters)


def test_options_reach_vllm(monkeypatch, model_dir):
    vllm = StandIn(VERSIONS[-1], monkeypatch, gpus=4)
    make_sampler(config(model_dir, tensor_parallel_size=4, gpu_memory_utilization=0.5, max_model_len=64, dtype="bfloat16"))
    [loaded] = vllm.loaded
    assert loaded == {
        "model": str(model_dir),
        "tokenizer": str(model_dir),
        "tokenizer_mode": "hf",
        "dtype": "bfloat16",
        "tensor_parallel_size": 4,
        "gpu_memory_utilization": 0.5,
        "max_model_len": 64,
        "enable_prefix_caching": True,
    }
    with pytest.raises(ConfigError, match="`tensor_parallel_size`: is for the engine vllm, and `engine` is 'transformers'"):
        SamplingConfig("m", tensor_parallel_size=2)


def test_auto_is_the_precision_of_the_files(monkeypatch, model_dir, tmp_path):
    vllm = StandIn(VERSIONS[-1], monkeypatch)
    half = tmp_path / "half"
    shutil.copytree(model_dir, half)
    AutoModelForCausalLM.from_pretrained(half, dtype="bfloat16").save_pretrained(half)
    for folder in (model_dir, half):
        make_sampler(config(folder))
    assert [loaded["dtype"] for loaded in vllm.loaded] == ["float32", "auto"], "vLLM's own auto makes half of float32"


def test_what_vllm_would_cut_short_or_change_in_silence_is_refused(monkeypatch, model_dir, tmp_path):
    vllm = StandIn(VERSIONS[-1], monkeypatch)
    engine = make_sampler(config(model_dir, max_model_len=64))
    with pytest.raises(ConfigError, match=r"`max_new_tokens`: a prompt of \d+ tokens and 60 new ones are more than the 64"):
        engine.sample(PROMPTS, draws(PROMPTS, max_new_tokens=60))
    assert engine.room_for(PROMPTS[0]) == 64 - len(prompt_tokens(AutoTokenizer.from_pretrained(model_dir), PROMPTS[0]))
    for temperature in (0.001, 2.5):
        with pytest.raises(ConfigError, match=f"`temperature`: vLLM samples at 0, or from 0.01 to 2, got {temperature}"):
            engine.sample(PROMPTS, draws(PROMPTS, temperature=temperature))
    with pytest.raises(ConfigError, match="`tensor_parallel_size`: expected 2 GPUs, and torch sees 1"):
        make_sampler(config(model_dir, tensor_parallel_size=2))
    assert not vllm.requests
    assert len(vllm.loaded) == 1
    plain = tmp_path / "plain"
    shutil.copytree(model_dir, plain)
    for name in ("chat_template.jinja", "generation_config.json"):
        (plain / name).unlink()
    tokenizer_config = json.loads((plain / "tokenizer_config.json").read_text())
    tokenizer_config.pop("chat_template", None)
    (plain / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    engine = make_sampler(config(plain))
    with pytest.raises(ConfigError, match="`prompt_style`: the prompts are messages and the tokenizer has no chat template"):
        engine.sample(CHAT, draws(CHAT))
    engine.sample(["x"], draws(["x"]))
    end = AutoTokenizer.from_pretrained(plain).eos_token_id
    assert vllm.requests[-1][1].stop_token_ids == [end], "without a generation configuration, the model's own"


@pytest.fixture
def adapter(model_dir, tmp_path):
    peft = pytest.importorskip("peft")
    base = tmp_path / "base"
    shutil.copytree(model_dir, base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="bfloat16")
    model.save_pretrained(base)
    (base / "generation_config.json").write_bytes((model_dir / "generation_config.json").read_bytes())
    folder = tmp_path / "adapter"
    peft.get_peft_model(model, peft.LoraConfig(r=12, target_modules=["q_proj"])).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def change(adapter, **values):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_an_adapter_is_applied_to_its_base_model(vllm, adapter):
    engine = make_sampler(config(adapter))
    engine.sample(PROMPTS, draws(PROMPTS))
    [loaded] = vllm.loaded
    assert loaded["model"] == str(adapter.parent / "base")
    assert (loaded["tokenizer"], loaded["enable_lora"], loaded["max_lora_rank"]) == (str(adapter), True, 16)
    [request] = vllm.lora_requests
    assert (request.lora_name, request.lora_int_id, request.lora_path) == ("adapter", 1, str(adapter))
    for path in adapter.glob("tokenizer*"):
        path.unlink()
    make_sampler(config(adapter))
    assert vllm.loaded[-1]["tokenizer"] == str(adapter.parent / "base"), "an adapter that was saved without one"
    assert list(engine_module.LORA_RANKS) == vllm.known["MaxLoRARanks"]


@pytest.mark.parametrize(
    "values",
    [
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 4}},
        {"alpha_pattern": {"q_proj": 4}},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"trainable_token_indices": [1, 2]},
        {"init_lora_weights": "pissa"},
        {"peft_type": "IA3"},
        {"r": 1024},
    ],
    ids=lambda values: next(iter(values)),
)
def test_an_adapter_that_vllm_would_apply_in_part_is_refused(monkeypatch, adapter, values):
    vllm = StandIn(VERSIONS[-1], monkeypatch)
    change(adapter, **values)
    [name] = values
    with pytest.raises(ConfigError, match=rf"`model`: the adapter `.*adapter` has {name}=.*, which vLLM does not apply; merge"):
        make_sampler(config(adapter))
    assert not vllm.loaded


def test_an_adapter_in_float32_and_one_on_the_hub_are_refused(monkeypatch, adapter, model_dir):
    vllm = StandIn(VERSIONS[-1], monkeypatch)
    with pytest.raises(ConfigError, match="`dtype`: vLLM applies adapters in bfloat16 and float16 alone, got float32"):
        make_sampler(config(adapter, dtype="float32"))
    change(adapter, base_model_name_or_path=str(model_dir))
    with pytest.raises(ConfigError, match=r"`dtype`: .* got auto for `.*model` in float32"):
        make_sampler(config(adapter))
    (adapter.parent / "base" / "config.json").write_text("{}")
    with pytest.raises(
        LoadError, match=r"`model`: cannot read the configuration of .*; an adapter on the Hub must be a folder"
    ):
        make_sampler(config(adapter.parent / "base"))
    assert not vllm.loaded


def test_an_engine_that_is_not_installed_says_what_to_install():
    with pytest.raises(ConfigError, match=r"`engine`: vllm needs the package vllm and a GPU"):
        make_sampler(config("m"))


def test_the_bounds_are_those_whose_signatures_are_recorded_and_lie_in_trls():
    [ours] = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]["vllm"]
    bounds = Requirement(ours).specifier
    assert {(bound.operator, bound.version) for bound in bounds} == {(">=", VERSIONS[0]), ("<=", VERSIONS[-1])}
    assert list(recorded()) == list(VERSIONS)
    [trls] = [
        requirement.specifier
        for text in requires("trl") or []
        if (requirement := Requirement(text)).name == "vllm" and re.search("extra == .vllm.", text)
    ]
    assert all(version in trls for version in VERSIONS)
