"""Engines and precisions for inference on one machine, in one run: size, memory, speed, agreement, pass@1.

Like Table 4 of the PanGu-Coder2 paper, on the CPU (or CUDA, with `--device cuda`).

- `torch`, `torch-compiled`: `generate` of transformers in float32, eager and compiled with a static cache; `torch-bf16`.
- `ct2-int8`: CTranslate2, a peer (`pip install ctranslate2`).
- `llamacpp-q8_0`, `llamacpp-q4_k_m`: llama.cpp, a peer (`pip install llama-cpp-python`), on the file of `--gguf`,
  quantised anew by llama.cpp itself where it is of another kind. Its Python package has no batches: prompts follow one another.
- `onnx-fp32-plain`: the exporter's graph; `onnx-fp32`, `onnx-int8`, `onnx-int4`: what `trl-rrtf export` makes; on CUDA
  `onnx-fp16`.
- `genai-fp32`, `genai-int8`, `genai-int4`: the same folders in onnxruntime-genai (`pip install onnxruntime-genai`).
- `genai-own-int4`: onnxruntime-genai's own builder, graph and generator.

Every engine runs in a process of its own, one after the other, with as many threads as there are cores, on the same prompts,
greedily. One that is not installed, or fails, is told as such. Speeds are medians over the rounds, with prompts of 64 tokens
(or `--prompt_tokens`). Agreement is the share of greedy tokens that are those of the first engine, up to the first other one of
each answer. With `--rows FILE` engines that have run with the same settings are not run again.

    python recipes/benchmarks/inference.py --model PATH --work FOLDER [--engines torch,onnx-int8] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ENGINES = (
    "torch",
    "torch-bf16",
    "torch-compiled",
    "ct2-int8",
    "llamacpp-q8_0",
    "llamacpp-q4_k_m",
    "onnx-fp32-plain",
    "onnx-fp32",
    "onnx-fp16",
    "onnx-int8",
    "onnx-int4",
    "genai-fp32",
    "genai-int8",
    "genai-int4",
    "genai-own-int4",
)
PROBLEMS = Path(__file__).parents[1] / "data" / "easy_problems.jsonl"
SYSTEM = "Answer with a Python function, and nothing else."


def load_problems(limit):
    """Held-out easy problems."""
    from trl_rrtf import load_problems as load

    return [problem for problem in load(str(PROBLEMS)) if problem.extra.get("split") == "heldout"][:limit]


def encode(tokenizer, problems):
    """Token ids of each problem as a chat."""
    chats = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": problem.prompt}] for problem in problems]
    return [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"] for chat in chats]


def make_engine(name, options):
    """Returns (generate, size in bytes): `generate(prompts, new_tokens, exactly)` gives a list of token ids per prompt."""
    kind, _, precision = name.partition("-")
    if kind == "torch":
        return torch_engine(name, options.model, options.device), size_of(Path(options.model), ".safetensors")
    if kind == "llamacpp":
        path = quantized(options.gguf, precision, options.work)
        return llamacpp_engine(path, options.model), path.stat().st_size
    if name in ("ct2-int8", "genai-own-int4"):
        folder = options.work / name
        make = ctranslate2_engine if kind == "ct2" else own_genai_engine
        return make(options.model, folder), size_of(folder, ".bin", ".onnx", ".data")
    folder = exported(precision, options)
    engine = onnx_engine(folder, options.device) if kind == "onnx" else genai_engine(folder)
    return engine, size_of(folder, ".onnx", ".onnx_data")


def size_of(folder, *suffixes):
    """Bytes of a folder's files of some kinds."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in suffixes)


def exported(precision, options):
    """The folder of an export, made where it is not there; `fp32-plain` is without fused operators."""
    folder = options.work / f"onnx-{precision}"
    precision, _, plain = precision.partition("-")
    more = ["--graph", "plain"] if plain else []
    more += ["--device", "cuda"] if options.device == "cuda" else []
    command = [sys.executable, "-m", "trl_rrtf.cli", "export", "--model", options.model, "--output", str(folder)]
    subprocess.run([*command, "--precision", precision, *more], check=True, capture_output=True, text=True)
    return folder


def padded(prompts, pad_token_id, device):
    """Inputs padded on the left."""
    import torch

    width = max(map(len, prompts))
    ids = [[pad_token_id] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def with_generate(model, pad_token_id, device, **settings):
    """An engine on anything that has transformers' `generate`."""
    import torch

    def generate(prompts, new_tokens, exactly):
        inputs = padded(prompts, pad_token_id, device)
        shortest = {"min_new_tokens": new_tokens} if exactly else {}
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                do_sample=False,
                repetition_penalty=1.0,
                max_new_tokens=new_tokens,
                pad_token_id=pad_token_id,
                **shortest,
                **settings,
            )
        return output[:, inputs["input_ids"].shape[1] :].tolist()

    return generate


def torch_engine(name, path, device):
    """PyTorch; compiled, the steps with one token are."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.bfloat16 if name == "torch-bf16" else torch.float32 if device == "cpu" else torch.float16
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval()
    settings = {}
    if name == "torch-compiled":
        eager, compiled = model.forward, torch.compile(model.forward, dynamic=False)

        def forward(*args, input_ids=None, **kwargs):
            chosen = compiled if input_ids is not None and input_ids.shape[1] == 1 else eager
            return chosen(*args, input_ids=input_ids, **kwargs)

        model.forward = forward
        settings = {"cache_implementation": "static"}
    return with_generate(model, AutoTokenizer.from_pretrained(path).pad_token_id, device, **settings)


def onnx_engine(folder, device):
    """An exported folder in ONNX Runtime."""
    from transformers import AutoTokenizer

    from trl_rrtf import OnnxCausalLM
    from trl_rrtf.sampling.engines.onnx import one_torch_thread

    model = OnnxCausalLM.from_pretrained(folder, device=device)
    run = with_generate(model, AutoTokenizer.from_pretrained(folder).pad_token_id, device)

    def generate(prompts, new_tokens, exactly):
        with one_torch_thread():
            return run(prompts, new_tokens, exactly)

    return generate


def ctranslate2_engine(model, folder):
    """CTranslate2 in int8."""
    import ctranslate2
    from transformers import AutoTokenizer

    if not folder.is_dir():
        ctranslate2.converters.TransformersConverter(model).convert(str(folder), quantization="int8")
    generator = ctranslate2.Generator(str(folder), device="cpu", compute_type="int8", intra_threads=cores())
    tokenizer = AutoTokenizer.from_pretrained(model)
    ends = tokenizer.convert_ids_to_tokens(sorted(ends_of(model)))

    def generate(prompts, new_tokens, exactly):
        tokens = [tokenizer.convert_ids_to_tokens(prompt) for prompt in prompts]
        results = generator.generate_batch(
            tokens,
            max_length=new_tokens,
            min_length=new_tokens if exactly else 0,
            sampling_topk=1,
            end_token=ends,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]

    return generate


def quantized(gguf, precision, work):
    """A GGUF file in a precision of llama.cpp: the file itself if it is of that kind, else one that llama.cpp makes of it."""
    import llama_cpp

    if gguf is None:
        raise SystemExit("give --gguf FILE")
    kinds = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M}
    if precision in gguf.name.lower():
        return gguf
    path = work / f"llamacpp-{precision}.gguf"
    if not path.is_file():
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype, parameters.allow_requantize, parameters.nthread = kinds[precision], True, cores()
        temporary = path.with_suffix(".tmp")
        if llama_cpp.llama_model_quantize(str(gguf).encode(), str(temporary).encode(), parameters):
            raise SystemExit(f"llama.cpp could not quantise {gguf}")
        temporary.rename(path)
    return path


def llamacpp_engine(path, model):
    """llama.cpp; prompts one after another."""
    from llama_cpp import Llama

    llama = Llama(str(path), n_ctx=4096, n_threads=cores(), n_threads_batch=cores(), verbose=False)
    ends = ends_of(model)

    def answer(prompt, new_tokens, exactly):
        llama.reset()  # otherwise it goes on behind what this prompt shares with the last one
        tokens = []
        for token in llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
            tokens.append(int(token))
            if len(tokens) == new_tokens or (token in ends and not exactly):
                break
        return tokens

    def generate(prompts, new_tokens, exactly):
        return [answer(prompt, new_tokens, exactly) for prompt in prompts]

    return generate


def own_genai_engine(model, folder):
    """onnxruntime-genai's own graph, which it builds itself."""
    if not (folder / "model.onnx").is_file():
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", model, "-o", str(folder), "-c", str(folder)]
        subprocess.run([*command, "-p", "int4", "-e", "cpu"], check=True, capture_output=True)
    return genai_engine(folder)


def genai_engine(folder):
    """A folder in onnxruntime-genai, by its own greedy search."""
    import onnxruntime_genai as genai

    config = genai.Config(str(folder))
    threads = {"intra_op_num_threads": cores()}  # left alone, it takes half of them where each counts as two
    config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
    loaded = genai.Model(config)

    def generate(prompts, new_tokens, exactly):
        lengths = {len(prompt) for prompt in prompts}
        if len(lengths) > 1:  # it counts positions from the left end of a padded row
            return [generate([prompt], new_tokens, exactly)[0] for prompt in prompts]
        [length] = lengths
        parameters = genai.GeneratorParams(loaded)
        shortest = length + new_tokens if exactly else 0
        neutral = {"do_sample": False, "top_k": 1, "repetition_penalty": 1.0, "min_length": shortest}
        parameters.set_search_options(max_length=length + new_tokens, batch_size=len(prompts), **neutral)
        generator = genai.Generator(loaded, parameters)
        generator.append_tokens(prompts)
        while not generator.is_done():
            generator.generate_next_token()
        return [list(map(int, generator.get_sequence(row)))[length:] for row in range(len(prompts))]

    return generate


def ends_of(model):
    """The tokens that end a text."""
    from transformers import GenerationConfig

    ends = GenerationConfig.from_pretrained(model).eos_token_id
    return set(ends if isinstance(ends, list) else [ends])


def cores():
    """Cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0))


def measure(options):
    """One engine; prints a JSON line."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    problems = load_problems(options.problems)
    prompts = encode(tokenizer, problems)
    generate, size = make_engine(options.measure, options)
    row = {"engine": options.measure, "size_mb": size / 1e6}

    length = options.prompt_tokens
    [prompt] = encode(tokenizer, load_problems(1))
    same_length = [(prompt * length)[:length]] * max(options.batches)  # so that every engine can run the batch as one
    for batch in options.batches:
        generate(same_length[:batch], 2, True)
        generate(same_length[:batch], options.new_tokens, True)  # compiles and warms up
        first, token = [], []
        for _ in range(options.rounds):
            started = time.perf_counter()
            generate(same_length[:batch], 1, True)
            first.append(time.perf_counter() - started)
            started = time.perf_counter()
            generate(same_length[:batch], options.new_tokens, True)
            token.append((time.perf_counter() - started - first[-1]) / (options.new_tokens - 1))
        if batch == 1:
            row |= {"first_ms": 1000 * statistics.median(first), "token_ms": 1000 * statistics.median(token)}
        row[f"rate_{batch}"] = batch / statistics.median(token)

    if (
        options.problems and options.measure != "torch-compiled"
    ):  # it would be compiled again for every length, to give what `torch` gives
        answers = []
        for start in range(0, len(prompts), 8):
            answers += generate(prompts[start : start + 8], options.answer_tokens, False)
        row["answers"] = answers
        row["passed"] = passed(problems, [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers])
    row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(row))


def passed(problems, texts):
    """How many texts hold a program that passes."""
    from trl_rrtf import Judge, Outcome, extract_program

    with Judge() as judge:
        verdicts = judge.judge_many(
            (problem, extract_program(text, problem)) for problem, text in zip(problems, texts, strict=True)
        )
        return sum(verdict.outcome is Outcome.PASSED for verdict in verdicts)


def agreement(answers, reference):
    """Share of tokens that are the same as PyTorch's, up to the first other one of each answer."""
    same, total = 0, 0
    for ours, theirs in zip(answers, reference, strict=True):
        total += len(theirs)
        for a, b in zip(ours, theirs, strict=False):
            if a != b:
                break
            same += 1
    return same / max(1, total)


def main():
    """Runs every engine in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for exported models, kept for the next run")
    parser.add_argument("--engines", default=",".join(ENGINES), help="with commas; the first is what agreement is counted from")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batches", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--new_tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--problems", type=int, default=24, help="held-out easy problems for agreement and pass@1")
    parser.add_argument("--answer_tokens", type=int, default=80)
    parser.add_argument("--prompt_tokens", type=int, default=64, help="length of the prompts that speed is measured with")
    parser.add_argument("--gguf", type=Path, help="the model's weights for llama.cpp")
    parser.add_argument("--rows", type=Path, help="JSON lines of engines that have run, read and added to")
    parser.add_argument("--plot", type=Path, help="picture to write")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.measure:
        measure(options)
        return
    settings = {name: value for name, value in vars(options).items() if name not in ("engines", "plot", "rows", "measure")}
    settings = json.loads(json.dumps(settings, default=str))
    done_before = [json.loads(line) for line in options.rows.open()] if options.rows and options.rows.exists() else []
    rows = []
    for engine in options.engines.split(","):
        if (engine == "onnx-fp16") != (options.device == "cuda") and engine.startswith("onnx"):
            continue
        if earlier := [row for row in done_before if row["engine"] == engine and row["settings"] == settings]:
            rows.append(earlier[-1])
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", engine]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"{engine} failed: {reason}", file=sys.stderr)
            continue
        rows.append({**json.loads(done.stdout.strip().splitlines()[-1]), "settings": settings})
        if options.rows:
            with options.rows.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
        shown = {name: value for name, value in rows[-1].items() if name not in ("answers", "settings")}
        print(json.dumps(shown), file=sys.stderr, flush=True)
    if not rows:
        sys.exit("no engine ran")
    for row in rows:
        if "answers" in row:
            row["agreement"] = agreement(row["answers"], rows[0]["answers"])
    print_table(rows, options)
    if options.plot:
        plot(rows, options.plot)


def print_table(rows, options):
    """Prints the table in Markdown."""
    import torch
    import transformers

    print(f"\n{cores()} cores, {platform.machine()}; torch {torch.__version__}, transformers {transformers.__version__}\n")
    rates = " | ".join(f"tokens/s at {batch}" for batch in options.batches)
    print(f"| engine | size, MB | peak memory, MB | first token, ms | ms per token | {rates} | agreement | passed |")
    print("|---" * (7 + len(options.batches)) + "|")
    for row in rows:
        speeds = " | ".join(f"{row[f'rate_{batch}']:.0f}" for batch in options.batches)
        latency = f"{row.get('first_ms', float('nan')):.0f} | {row.get('token_ms', float('nan')):.1f}"
        exactness = f"{row['agreement']:.2f} | {row['passed']} of {options.problems}" if "passed" in row else " | "
        print(f"| {row['engine']} | {row['size_mb']:.0f} | {row['peak_mb']:.0f} | {latency} | {speeds} | {exactness} |")


def plot(rows, path):
    """Time per token against size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.8))
    for row in rows:
        axes.scatter(row["size_mb"], row["token_ms"])
        axes.annotate(row["engine"], (row["size_mb"], row["token_ms"]), textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set_xlabel("size, MB")
    axes.set_ylabel("ms per token at batch 1")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
