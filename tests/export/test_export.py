"""Export: every architecture computes the same in ONNX Runtime, in every precision, and nothing half-made is left."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trl_rrtf import ConfigError, ExportArguments, ExportConfig, LoadError, OutputError, run_export
from trl_rrtf.models.checkpoint_log_probs import PROBE_TEXT, CheckpointLogProbs
from trl_rrtf.models.onnx_runtime import REPORT_FILE, OnnxDecoder, choose_provider, make_session, require_onnx_model

onnxruntime = pytest.importorskip("onnxruntime")
precision = pytest.importorskip("trl_rrtf.export.precision")
parity = pytest.importorskip("trl_rrtf.export.parity")
report = pytest.importorskip("trl_rrtf.export.report")
weights = pytest.importorskip("trl_rrtf.export.weights")

LINE = int(transformers.__version__.split(".")[0])
CPU = "CPUExecutionProvider"
SIZES = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
LLAMA_LIKE = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": 0}
GPT_LIKE = {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.2}
GEMMA_LIKE = {**LLAMA_LIKE, "head_dim": 16}
GEMMA_3 = {"query_pre_attn_scalar": 16, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
ARCHITECTURES = {
    "llama": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": {**LLAMA_LIKE, "head_dim": 16},
    "gemma": GEMMA_LIKE,
    "gemma2": {**GEMMA_LIKE, "query_pre_attn_scalar": 16, "sliding_window": 8, "attn_logit_softcapping": 2.0},
    "gemma3_text": {**GEMMA_LIKE, **GEMMA_3},
    "gpt2": GPT_LIKE,
    "gpt_bigcode": GPT_LIKE,
}


def checkpoint(model_type, tokenizer_from, folder, **sizes):
    """A tiny random checkpoint; the special tokens are the tokenizer's."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(model_type, **{**ARCHITECTURES[model_type], **tokens, "vocab_size": len(tokenizer), **sizes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def export(model, output, **settings):
    return run_export(
        ExportArguments(str(model), str(output), overwrite=settings.pop("overwrite", False)), ExportConfig(**settings)
    )


def report_of(output):
    return json.loads((output / REPORT_FILE).read_text())


@pytest.fixture(scope="module")
def llama(tiny_model_dir, tmp_path_factory):
    return checkpoint("llama", tiny_model_dir, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def exported(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export(llama, folder)
    return folder


@pytest.mark.parametrize("graph", ["fused", "plain"])
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture_computes_the_same(model_type, graph, tiny_model_dir, tmp_path):
    if LINE != 4 and graph == "plain" and model_type not in ("llama", "gpt2"):
        pytest.skip("PyTorch's exporter takes 8 seconds a model")
    model = checkpoint(model_type, tiny_model_dir, tmp_path / "model")
    export(model, tmp_path / "onnx", graph=graph)
    found = report_of(tmp_path / "onnx")["parity"]
    assert found["largest_difference"] < 1e-3
    assert found["cached_largest_difference"] < 1e-3
    assert found["greedy_agreement"] == found["next_token_agreement"] == 1
    operators = {node.op_type for node in precision.onnx.load(tmp_path / "onnx" / "model.onnx").graph.node}
    assert ("GroupQueryAttention" in operators) == (graph == "fused")
    assert "CachedAttention" not in operators
    assert b"site-packages" not in (tmp_path / "onnx" / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"precision": "int8"}, 0.45),
        ({"precision": "int8", "int8_method": "dynamic"}, 0.6),
        ({"precision": "int4"}, 0.4),
        ({"precision": "fp16", "device": "cuda"}, 0.6),
        ({"precision": "bf16", "device": "cuda"}, 0.6),
    ],
    ids=str,
)
def test_every_precision_is_smaller_and_within_its_tolerance(settings, share, tiny_model_dir, tmp_path, monkeypatch):
    model = checkpoint(
        "llama", tiny_model_dir, tmp_path / "model", hidden_size=64, intermediate_size=256, tie_word_embeddings=True
    )
    export(model, tmp_path / "fp32", graph="plain")
    if "int8_method" in settings:  # the least exact: a random model is outside of what a user gets
        loose = precision.Precision(precision.CONVERSIONS["int8"].convert, 0.5, 1.5)
        monkeypatch.setitem(precision.CONVERSIONS, "int8", loose)
    summary = export(model, tmp_path / "onnx", **settings)
    large, small = (report_of(tmp_path / name)["sizes"]["bytes"] for name in ("fp32", "onnx"))
    assert small < share * large
    assert 0 < summary.relative_difference < precision.CONVERSIONS[settings["precision"]].max_relative_difference
    assert (tmp_path / "onnx" / "README.md").read_text().count("relative_difference") == 2


def test_tied_weights_are_kept_once_and_quantised_embedding_is_near(tiny_model_dir, tmp_path):
    tied = checkpoint("llama", tiny_model_dir, tmp_path / "tied", tie_word_embeddings=True)
    untied = checkpoint("llama", tiny_model_dir, tmp_path / "untied", tie_word_embeddings=False)
    for name, model in (("a", tied), ("b", untied)):
        export(model, tmp_path / name, precision="int8")
    size = {name: report_of(tmp_path / name)["sizes"]["bytes"] for name in "ab"}
    assert size["b"] - size["a"] > 400 * 32  # one more int8 matrix
    operators = [node.op_type for node in precision.onnx.load(tmp_path / "a" / "model.onnx").graph.node]
    assert operators.count("GatherBlockQuantized") == 1
    assert operators.count("MatMulNBits") == 2 * 7 + 1


def test_an_adapter_is_merged(llama, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(llama)
    adapted = get_peft_model(
        model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    )
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path / "adapter")
    export(tmp_path / "adapter", tmp_path / "onnx")
    assert report_of(tmp_path / "onnx")["checkpoint"]["adapter_merged"]
    ids = torch.arange(3, 20)[None]
    ours, _ = OnnxDecoder.load(tmp_path / "onnx", CPU).step(ids.numpy(), torch.ones_like(ids).numpy())
    with torch.no_grad():
        theirs = adapted.eval()(ids).logits.numpy()
    assert abs(ours - theirs).max() < 1e-4


def test_sharded_weights_and_external_data(llama, tmp_path, monkeypatch):
    AutoModelForCausalLM.from_pretrained(llama).save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    monkeypatch.setattr(weights, "_LARGEST_FILE", 1000)  # as if the weights were over 2 GB
    export(tmp_path / "sharded", tmp_path / "onnx")
    assert (tmp_path / "onnx" / "model.onnx_data").stat().st_size > 50_000
    assert report_of(tmp_path / "onnx")["parity"]["greedy_agreement"] == 1


def test_a_graph_outside_its_tolerance_is_not_written(llama, tmp_path, monkeypatch):
    strict = precision.Precision(precision.CONVERSIONS["int8"].convert, 1e-6, 1.0)
    monkeypatch.setitem(precision.CONVERSIONS, "int8", strict)
    with pytest.raises(OutputError, match=r"int8 graph does not compute .* relative_difference is .* Nothing was written"):
        export(llama, tmp_path / "onnx", precision="int8")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_graph_is_found(llama, exported, tmp_path):
    """A different checkpoint's graph, and one that forgets its cache's padding, are far outside."""
    other = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    with torch.no_grad():
        next(other.parameters()).add_(0.05)
    found = parity.compare(parity.make_reference(other, AutoTokenizer.from_pretrained(llama)), OnnxDecoder.load(exported, CPU))
    assert len(report.violations(*found, precision.CONVERSIONS["fp32"].allowed)) >= 3


def test_a_finished_export_is_not_repeated_and_another_is_not_overwritten(llama, exported):
    before = (exported / "model.onnx").stat().st_mtime_ns
    assert export(llama, exported).output == str(exported)
    assert (exported / "model.onnx").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="other settings"):
        export(llama, exported, precision="int8")


def write_record(folder, **changes):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer(PROBE_TEXT)["input_ids"][:512]])
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].tolist()
    values = {"text": PROBE_TEXT, "input_ids": ids[0].tolist(), "log_probs": log_probs, "dtype": "float32", "quantized": False}
    CheckpointLogProbs(**{**values, "transformers": "5.23.0", **changes}).save(folder)


def test_what_the_training_recorded_is_compared(tiny_model_dir, tmp_path):
    model = checkpoint("llama", tiny_model_dir, tmp_path / "model")
    write_record(model)
    export(model, tmp_path / "onnx")
    assert report_of(tmp_path / "onnx")["checkpoint"]["mean_difference_nats"] < 1e-5
    config = json.loads((model / "config.json").read_text())
    rotary = config.get("rope_parameters") or config
    rotary["rope_theta"] = 1e6  # misread: what the other line's files would do
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"log-probabilities that differ by .* export with that"):
        export(model, tmp_path / "misread")
    write_record(model, input_ids=[5] * 100, log_probs=[0.0] * 99)
    with pytest.raises(ConfigError, match="other tokens than in training"):
        export(model, tmp_path / "misread")
    (model / "log_probs.json").write_text("{")
    with pytest.raises(LoadError, match="damaged"):
        export(model, tmp_path / "misread")


@pytest.mark.skipif(LINE != 4, reason="transformers 5 reads its own files")
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text"])
def test_a_checkpoint_of_transformers_5_is_converted_or_refused(model_type, tiny_model_dir, tmp_path):
    """Its files are written here as transformers 5.23 writes them."""
    frequencies = {"llama": {"rope_theta": 1e6}, "gemma3_text": {"rope_theta": 5e5, "rope_local_base_freq": 2e4}}[model_type]
    model = checkpoint(model_type, tiny_model_dir, tmp_path / "model", **frequencies)
    write_record(model)
    config = json.loads((model / "config.json").read_text())
    rotary = {"rope_theta": config.pop("rope_theta"), "rope_type": "default"}
    if model_type == "gemma3_text":
        local = {"rope_theta": config.pop("rope_local_base_freq"), "rope_type": "default"}
        rotary = {"full_attention": rotary, "sliding_attention": local}
    config.pop("rope_scaling", None)
    config |= {"rope_parameters": rotary, "transformers_version": "5.23.0"}
    (model / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<|im_start|>"]}
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))

    export(model, tmp_path / "onnx")
    found = report_of(tmp_path / "onnx")
    assert found["checkpoint"]["converted_from_newer_transformers"]
    assert found["checkpoint"]["mean_difference_nats"] < 1e-5
    (model / "log_probs.json").unlink()
    with pytest.raises(ConfigError, match=r"written by a newer transformers .* no `log_probs.json`"):
        export(model, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


@pytest.mark.skipif(LINE != 4, reason="Optimum needs transformers 4")
def test_an_architecture_without_an_export_is_named(tiny_model_dir, tmp_path):
    config = AutoConfig.for_model("mamba", vocab_size=400, hidden_size=16, state_size=4, num_hidden_layers=1)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="not every layer of `mamba` models keeps the keys and values of all tokens"):
        export(tmp_path / "model", tmp_path / "onnx")


def test_a_damaged_folder_says_what_to_do(llama, exported, tmp_path):
    with pytest.raises(LoadError, match=r"has no model.onnx .* `trl-rrtf export`"):
        require_onnx_model(llama)
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    data = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(LoadError, match="damaged or half copied"):
        make_session(copy, CPU)
    weights = next(llama.glob("*.safetensors"))
    broken = tmp_path / "broken"
    shutil.copytree(llama, broken)
    (broken / weights.name).write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(LoadError, match=r"damaged|cannot be loaded"):
        export(broken, tmp_path / "onnx")


def test_cuda_is_never_replaced_in_silence():
    assert "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    assert choose_provider() == CPU
    with pytest.raises(ConfigError, match=r"cuda was asked for, .* `trl-rrtf\[onnx-gpu\]`"):
        choose_provider("cuda")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "bf16"}, "`precision`: bf16 is for CUDA"),
        ({"precision": "fp16"}, "fp16 is for CUDA"),
        ({"precision": "int8", "int8_method": "dynamic", "device": "cuda"}, "no dynamic int8"),
        ({"block_size": 24}, "power of two"),
        ({"graph": "fused", "device": "cuda"}, "CUDA's fused attention computes in fp16 and bf16, got `--precision fp32`"),
    ],
)
def test_contradicting_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ExportConfig(**settings)
