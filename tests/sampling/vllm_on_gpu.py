"""The vLLM engine beside the transformers engine, with vLLM itself. No test: it needs a GPU and an environment with vLLM.

    python -m tests.sampling.vllm_on_gpu

Asserts that greedy texts in float32 are equal (chats, texts, stop strings, a tokenizer with a beginning of sequence, a
generation configuration with other defaults), that draws repeat, and that the first token of many draws is distributed as the
transformers engine's. Prints how many texts alone are those of a batch, and how many of an adapter in bfloat16 are equal.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trl_rrtf.rows.records import Messages
from trl_rrtf.sampling import Draws, Sampler
from trl_rrtf.sampling.engines.options import TransformersOptions, VLLMOptions
from trl_rrtf.sampling.engines.transformers import load_sampler
from trl_rrtf.sampling.engines.vllm import VLLMSampler

CODE = ["def add(a, b):\n    return a + b\n", "for item in items:\n    total += item\n", "import math\n\nclass A:\n    pass\n"]
SPECIAL = ["<|pad|>", "<s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PROMPTS: list[str | Messages] = [
    *CODE,
    *[[{"role": "user", "content": f"Write a program that adds {number} to its input."}] for number in range(13)],
]


def write_models(folder: Path) -> None:
    """`base`, a random Llama, and `adapter`, a LoRA adapter of it that changes what it writes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CODE * 4, trainer)
    beginning = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[beginning])
    processing_class = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|endoftext|>", pad_token="<|pad|>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 64}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(processing_class), num_key_value_heads=1, max_position_embeddings=256, initializer_range=0.2, **sizes
        )
    )
    settings = model.generation_config
    settings.eos_token_id = processing_class.convert_tokens_to_ids(["<|im_end|>", "+"])
    settings.do_sample, settings.temperature, settings.repetition_penalty = True, 0.1, 5.0
    model.save_pretrained(folder / "base")
    lora = peft.LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj", "up_proj"], init_lora_weights=False)
    peft.get_peft_model(model, lora).save_pretrained(folder / "adapter")
    config = folder / "adapter" / "adapter_config.json"
    config.write_text(
        config.read_text().replace('"base_model_name_or_path": null', f'"base_model_name_or_path": "{folder}/base"')
    )
    for name in ("base", "adapter"):
        processing_class.save_pretrained(folder / name)


def greedy(sampler: Sampler, **options: Any) -> list[str]:
    """A text for each prompt."""
    draws = Draws(seeds=[[0]] * len(PROMPTS), temperature=0, max_new_tokens=40, **options)
    return [text for [text] in sampler.sample(PROMPTS, draws)]


def compare_in_float32(ours: Sampler, theirs: Sampler) -> None:
    """Asserts what two engines with the same model have in common."""
    for stops in ([], ["add", "item"], ["<|im_start|>"], ["\n\n", "a"]):
        pairs = list(zip(greedy(ours, stop_strings=stops), greedy(theirs, stop_strings=stops), strict=True))
        equal = sum(a == b for a, b in pairs)
        print(f"greedy, stop strings {stops}: {equal} texts of {len(pairs)} are equal")
        assert equal >= len(pairs) - 2, "two tokens of a random model may be as likely as each other, up to rounding"

    options: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95, "top_k": 40, "max_new_tokens": 30}
    seeds = [[3 * number, 3 * number + 1, 3 * number + 2] for number in range(len(PROMPTS))]
    together = ours.sample(PROMPTS, Draws(seeds=seeds, **options))
    alone = [ours.sample([prompt], Draws(seeds=[own], **options)) for prompt, own in zip(PROMPTS, seeds, strict=True)]
    assert together == ours.sample(PROMPTS, Draws(seeds=seeds, **options))
    equal = sum(a == b for texts, [own] in zip(together, alone, strict=True) for a, b in zip(texts, own, strict=True))
    print(f"seeds: 48 draws repeat, and {equal} of them are the same without the others beside them")

    number = 20_000
    once = Draws(seeds=[list(range(number))], temperature=1.3, top_k=8, top_p=0.9, max_new_tokens=1)
    counts = [Counter(sampler.sample(PROMPTS[:1], once)[0]) for sampler in (ours, theirs)]
    distance = sum(abs(counts[0][text] - counts[1][text]) for text in counts[0] | counts[1]) / (2 * number)
    print(f"first tokens of {number} draws: {[dict(count.most_common()) for count in counts]}, distance {distance:.4f}")
    assert counts[0].keys() == counts[1].keys()
    assert distance < 0.015


def main() -> None:
    """Loads each engine once for each model."""
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.cuda.get_device_name()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        started = time.monotonic()
        base = VLLMSampler(str(folder / "base"), VLLMOptions(gpu_memory_utilization=0.3))
        print(f"vLLM loaded in {time.monotonic() - started:.0f} s")
        compare_in_float32(base, load_sampler(str(folder / "base"), TransformersOptions()))
        del base
        half = "bfloat16"
        ours = greedy(VLLMSampler(str(folder / "adapter"), VLLMOptions(dtype=half, gpu_memory_utilization=0.3)))
        theirs = greedy(load_sampler(str(folder / "adapter"), TransformersOptions(dtype=half)))
        without = greedy(load_sampler(str(folder / "base"), TransformersOptions(dtype=half)))
        for other, of_whom in ((theirs, "with the adapter"), (without, "without it")):
            starts = sum(text[:8] == another[:8] for text, another in zip(ours, other, strict=True))
            equal = sum(text == another for text, another in zip(ours, other, strict=True))
            print(f"adapter in {half}: {equal} texts of {len(ours)} and {starts} starts are those of transformers {of_whom}")


if __name__ == "__main__":
    main()
