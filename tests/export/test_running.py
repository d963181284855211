"""Running an exported model: `OnnxCausalLM`, plain Optimum, the `onnx` sampler, `generate`, the command line, the Hub."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, StaticCache, TextStreamer

from tests.export.test_export import ARCHITECTURES, checkpoint, export
from tests.hub_stub import HubStub
from tests.test_hub import run
from trl_rrtf import ConfigError, Draws, GenerateConfig, LoadError, OnnxCausalLM, SamplingConfig, make_sampler, run_generate
from trl_rrtf.cli import main
from trl_rrtf.models.key_value_cache import CACHE

pytest.importorskip("onnxruntime")
LINE = int(transformers.__version__.split(".")[0])
needs_optimum = pytest.mark.skipif(LINE != 4, reason="Optimum needs transformers 4")
GREEDY = Draws(seeds=[[0]] * 3, temperature=0.0, max_new_tokens=12)
DRAWN = Draws(seeds=[[1, 2, 3], [4, 5, 6], [7, 8, 9]], top_p=0.9, max_new_tokens=12)
PROMPTS = ["def add(a, b):", "for item in items:\n    if item is None:\n", "x"]


@pytest.fixture(scope="module")
def llama(tiny_model_dir, tmp_path_factory):
    return checkpoint("llama", tiny_model_dir, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def exported(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export(llama, folder)
    return folder


@needs_optimum
def test_plain_optimum_loads_the_folder_and_generates_the_same(llama, exported):
    from optimum.onnxruntime import ORTModelForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(exported, padding_side="left")
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True, return_token_type_ids=False)
    texts = [
        model.generate(**inputs, max_new_tokens=16, do_sample=False)
        for model in (ORTModelForCausalLM.from_pretrained(exported), AutoModelForCausalLM.from_pretrained(llama))
    ]
    assert torch.equal(*texts)


GENERATION = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "top_k": 20, "temperature": 0.7},
    "chunked prefill": {"prefill_chunk_size": 4},
    "several end tokens": {"eos_token_id": None},  # the fourth token of each row
    "stop strings": {"stop_strings": ["e"]},
    "no cache": {"use_cache": False},
    "guidance": {"guidance_scale": 1.5},
}


@pytest.mark.parametrize("graph", ["fused", "plain"])
@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma3_text"])
def test_generate_gives_the_tokens_of_pytorch(model_type, graph, tiny_model_dir, tmp_path):
    """In a batch with padding, past the window of Gemma 3's sliding layers, with heads of any width."""
    model = checkpoint(model_type, tiny_model_dir, tmp_path / "model")
    export(model, tmp_path / "onnx", graph=graph)
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True, return_token_type_ids=False)
    ours, theirs = OnnxCausalLM.from_pretrained(tmp_path / "onnx"), AutoModelForCausalLM.from_pretrained(model)
    for name, settings in GENERATION.items():
        if "stop_strings" in settings:
            settings = {"tokenizer": tokenizer, **settings}
        if name == "several end tokens":
            settings = {"eos_token_id": theirs.generate(**inputs, max_new_tokens=4, do_sample=False)[:, -1].tolist()}
        if name == "chunked prefill" and model_type == "gemma3_text":
            continue  # PyTorch's own differs there from what it generates in one piece
        outputs = []
        for one in (ours, theirs):
            torch.manual_seed(0)
            outputs.append(one.generate(**inputs, **{"do_sample": False, "max_new_tokens": 16} | settings))
        assert torch.equal(*outputs), name
        if name == "several end tokens":
            assert outputs[0].shape[1] <= inputs["input_ids"].shape[1] + 4


def test_several_tokens_over_a_cache_are_those_of_one_run(llama, exported):
    """ONNX Runtime's fused attention refuses that for more than one row."""
    model = OnnxCausalLM.from_pretrained(exported)
    ids = torch.randint(3, 50, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    whole = model(input_ids=ids, attention_mask=mask)
    first = model(input_ids=ids[:, :7], attention_mask=mask[:, :7])
    second = model(input_ids=ids[:, 7:], attention_mask=mask, **{CACHE: getattr(first, CACHE)})
    torch.testing.assert_close(second.logits, whole.logits[:, 7:], atol=2e-5, rtol=0)
    assert getattr(second, CACHE) is getattr(first, CACHE)
    for ours, theirs in zip(getattr(second, CACHE).layers, getattr(whole, CACHE).layers, strict=True):
        torch.testing.assert_close(ours.keys[1:], theirs.keys[1:], atol=2e-5, rtol=0)


@pytest.mark.parametrize("helper", ["itself", "the checkpoint", "the prompt"])
@pytest.mark.filterwarnings("ignore:.*Passing `generation_config` together with:UserWarning")  # transformers 5.24, 2026-12
def test_assisted_decoding_gives_the_same_text(helper, llama, exported):
    model, tokenizer = OnnxCausalLM.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    ids = tokenizer(PROMPTS[1] + PROMPTS[1], return_tensors="pt")["input_ids"]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 24}
    assistants = {
        "itself": lambda: {"assistant_model": model},
        "the checkpoint": lambda: {"assistant_model": AutoModelForCausalLM.from_pretrained(llama)},
        "the prompt": lambda: {"prompt_lookup_num_tokens": 4},
    }
    assert torch.equal(model.generate(**inputs, **assistants[helper]()), model.generate(**inputs))


def test_a_streamer_gets_the_text(exported):
    class Kept(TextStreamer):
        text = ""

        def on_finalized_text(self, text, stream_end=False):
            self.text += text

    tokenizer = AutoTokenizer.from_pretrained(exported)
    model, inputs = OnnxCausalLM.from_pretrained(exported), tokenizer("def add(a, b):", return_tensors="pt")
    streamer = Kept(tokenizer)
    [output] = model.generate(**inputs, max_new_tokens=8, do_sample=False, streamer=streamer)
    assert streamer.text == tokenizer.decode(output)


def test_the_loss_and_kept_logits_are_those_of_pytorch(llama, exported):
    ids = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(2))
    labels = ids.masked_fill(torch.arange(9) < 4, -100)
    ours, theirs = (
        model(input_ids=ids, labels=labels, return_dict=False)
        for model in (OnnxCausalLM.from_pretrained(exported), AutoModelForCausalLM.from_pretrained(llama).eval())
    )
    assert len(ours) == len(theirs)
    torch.testing.assert_close(ours[0], theirs[0].detach(), atol=1e-5, rtol=1e-5)
    last = OnnxCausalLM.from_pretrained(exported)(input_ids=ids, logits_to_keep=2).logits
    torch.testing.assert_close(last, theirs[1][:, -2:].detach(), atol=2e-5, rtol=0)


def test_what_an_onnx_model_cannot_do_is_refused(exported, tmp_path):
    model = OnnxCausalLM.from_pretrained(exported)
    ids = torch.ones(1, 3, dtype=torch.long)
    assert model.to("cpu").float().eval() is model
    with pytest.raises(ConfigError, match=r"stays on cpu in torch\.float32"):
        model.half()
    with pytest.raises(ConfigError, match="`attention_mask`: expected an entry for each of the 0 cached and 3 new tokens"):
        model(input_ids=ids, attention_mask=ids[:, :2])
    with pytest.raises(ConfigError, match=r"`input_ids`: expected ids from 0 to \d+, got 100000 to 100000"):
        model(input_ids=ids * 100_000)
    with pytest.raises(ConfigError, match="`threads`: expected at least 1"):
        OnnxCausalLM.from_pretrained(exported, threads=0)
    with pytest.raises(ConfigError, match="`output_hidden_states`"):
        model(input_ids=ids, output_hidden_states=True)
    refused = {"cache_implementation": "static", "assistant_early_exit": 1, "dola_layers": "low", "penalty_alpha": 0.6}
    for name, value in refused.items():
        with pytest.raises(ConfigError, match=f"`{name}`: an ONNX model .*, got {value!r}; leave it out"):
            model.generate(ids, max_new_tokens=3, **{name: value})
        with pytest.raises(ConfigError, match=f"`{name}`: an ONNX model "):
            model.generate(ids, GenerationConfig(max_new_tokens=3, **{name: value}))
    with pytest.raises(ConfigError, match="`cache_implementation`: an ONNX model takes a dynamic cache, got StaticCache"):
        model(input_ids=ids, **{CACHE: StaticCache(model.config, max_cache_len=8)})
    with pytest.raises(ConfigError, match="is saved already"):
        model.save_pretrained(tmp_path / "copy")
    with pytest.raises(LoadError, match="neither a folder here nor a model on the Hub"):
        OnnxCausalLM.from_pretrained("nobody/nothing")


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt_bigcode"])
def test_the_sampler_gives_the_texts_of_pytorch(model_type, tiny_model_dir, tmp_path):
    """Also where heads are wider than their share of the hidden size (Qwen3)."""
    assert ARCHITECTURES["qwen3"]["head_dim"] != ARCHITECTURES["qwen3"]["hidden_size"] // 4
    model = checkpoint(model_type, tiny_model_dir, tmp_path / "model")
    export(model, tmp_path / "onnx")
    ours = make_sampler(SamplingConfig(str(tmp_path / "onnx"), engine="onnx"))
    theirs = make_sampler(SamplingConfig(str(model), dtype="float32"))
    assert ours.sample(PROMPTS, GREEDY) == theirs.sample(PROMPTS, GREEDY)
    assert ours.sample(PROMPTS, DRAWN) == theirs.sample(PROMPTS, DRAWN)
    assert len(set(ours.sample(PROMPTS, DRAWN)[0])) > 1


def test_the_command_line_exports_samples_and_generates(llama, tmp_path, capsys):
    onnx = str(tmp_path / "onnx")
    assert main(["export", "--model", str(llama), "--output", onnx, "--precision", "int8"]) == 0
    assert "greedy tokens that agree" in capsys.readouterr().out
    problem = {
        "problem_id": "p/1",
        "prompt": "Write f.",
        "tests": [{"kind": "assert", "code": "assert True"}],
        "entry_point": "f",
    }
    (tmp_path / "p.jsonl").write_text(json.dumps(problem) + "\n")
    sample = ["sample", "--engine", "onnx", "--model", onnx, "--input", str(tmp_path / "p.jsonl"), "--max_new_tokens", "8"]
    assert main([*sample, "--output", str(tmp_path / "c.jsonl"), "--num_generations", "3"]) == 0
    assert len(json.loads((tmp_path / "c.jsonl").read_text())["completions"]) == 3
    for model in (onnx, str(llama)):
        capsys.readouterr()
        assert main(["generate", "--model", model, "--prompt", "def f(x):", "--chat", "false", "--max_new_tokens", "6"]) == 0
        assert "texts" in capsys.readouterr().out
    assert main(["generate", "--model", onnx, "--prompt", "x", "--device", "cuda"]) == 1
    assert "cuda was asked for" in capsys.readouterr().err
    assert main(["sample", "--engine", "onnx", "--model", str(llama), *sample[5:], "--output", str(tmp_path / "d.jsonl")]) == 1
    assert "has no model.onnx" in capsys.readouterr().err


def test_the_tokenizer_is_one_that_both_lines_read(llama, exported):
    """transformers 5 names a plain tokenizer in a way that 4 does not know."""
    written = json.loads((exported / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] != "TokenizersBackend"
    assert not isinstance(written.get("extra_special_tokens"), list)
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (exported, llama))
    assert [ours(prompt)["input_ids"] for prompt in PROMPTS] == [theirs(prompt)["input_ids"] for prompt in PROMPTS]
    assert ours(PROMPTS[0]).keys() == {"input_ids", "attention_mask"}
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert ours.chat_template == theirs.chat_template


@pytest.mark.skipif(LINE != 4, reason="with transformers 5 every test here exports so")
def test_without_optimum_pytorch_exports(llama, tmp_path, monkeypatch):
    monkeypatch.setattr("trl_rrtf.export.graph.exporter_of", lambda model, fused: "torch")
    export(llama, tmp_path / "onnx")
    ours = make_sampler(SamplingConfig(str(tmp_path / "onnx"), engine="onnx"))
    theirs = make_sampler(SamplingConfig(str(llama), dtype="float32"))
    assert ours.sample(PROMPTS, DRAWN) == theirs.sample(PROMPTS, DRAWN)


GENERATE = """
import sys
from trl_rrtf.cli import main
sys.exit(main(["generate", "--model", sys.argv[1], "--prompt", "def f(x):", "--chat", "false", "--max_new_tokens", "6"]))
"""


def test_a_repository_of_the_hub_is_generated_from(exported, tmp_path, monkeypatch):
    """Against a stand-in for the Hub, which no test machine reaches."""
    hub = HubStub()
    files = [path for path in exported.iterdir() if path.is_file()]
    hub.repos["models/me/tiny-onnx"] = {path.name: path.read_bytes() for path in files}
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    try:
        shown = run(hub, GENERATE, "me/tiny-onnx")
    finally:
        hub.close()
    [text] = run_generate(GenerateConfig(str(exported), "def f(x):", chat=False, max_new_tokens=6)).texts
    assert shown.startswith(f"{text}\n")


PUSH = """
import json, sys
from trl_rrtf import ExportArguments, ExportConfig, OutputError, run_export
try:
    print(run_export(ExportArguments(*sys.argv[1:3]), ExportConfig(push_to_hub=sys.argv[3])).pushed_to)
except OutputError as error:
    print(error)
"""


def test_a_finished_export_is_pushed_until_it_is_there(llama, exported, tmp_path):
    """With `--push_to_hub` added to a finished export; and again, where the first push failed."""
    folder = tmp_path / "onnx"
    shutil.copytree(exported, folder)
    graph = (folder / "model.onnx").stat().st_mtime_ns
    hub = HubStub()
    try:
        hub.fail = True
        assert "`me/tiny-onnx` on the Hub cannot be written" in run(hub, PUSH, llama, folder, "me/tiny-onnx")
        assert json.loads((folder / "export_report.json").read_text())["pushed_to"] == {}
        hub.fail = False
        assert run(hub, PUSH, llama, folder, "me/tiny-onnx").strip() == f"{hub.endpoint}/me/tiny-onnx"
        files = hub.repos["models/me/tiny-onnx"]
        assert {"model.onnx", "config.json", "tokenizer.json", "export_report.json", "README.md"} <= set(files)
        assert b"onnxruntime" in files["README.md"]
        hub.fail = True  # it is there, so nothing is uploaded; in another repository it is not
        assert run(hub, PUSH, llama, folder, "me/tiny-onnx").strip() == f"{hub.endpoint}/me/tiny-onnx"
        assert "`me/other` on the Hub cannot be written" in run(hub, PUSH, llama, folder, "me/other")
    finally:
        hub.close()
    assert (folder / "model.onnx").stat().st_mtime_ns == graph
