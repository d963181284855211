"""Tiny models and data for every test; nothing here needs a network or a GPU."""

from __future__ import annotations

import os
import random

# Before any Hugging Face import: no test may talk to the Hub, and TRL's usage pings stay off.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Tiny models gain nothing from more threads, and on a busy machine threads that wait for each other cost most of the time.
os.environ["OMP_NUM_THREADS"] = "1"

from pathlib import Path
from typing import Any

import pytest

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CODE = [
    '"""\nWrite a function `add(a, b)` that returns the sum.\n"""\n',
    "def add(a, b):\n    return a + b\n",
    "def add(a, b):\n    return a - b\n",
    "for item in items:\n    if item is None:\n        continue\n    total += item\n",
    "import math\n\n\ndef area(radius):\n    return math.pi * radius ** 2\n",
    "<|im_start|>user\nWrite a Python program<|im_end|>\n",
]


@pytest.fixture(autouse=True)
def _no_leftover_mixed_precision() -> None:
    """`TrainingArguments(bf16=True)` leaves this variable behind, and accelerate obeys it in trainers without bf16."""
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random tiny Llama and a trained byte-level tokenizer; pad and end of sequence differ."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CODE, trainer)
    processing_class = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=CHAT_TEMPLATE
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(processing_class),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            initializer_range=0.2,
            tie_word_embeddings=True,
            eos_token_id=processing_class.eos_token_id,
            pad_token_id=processing_class.pad_token_id,
            bos_token_id=processing_class.eos_token_id,
        )
    )
    folder = tmp_path_factory.mktemp("tiny_model")
    model.save_pretrained(folder)
    processing_class.save_pretrained(folder)
    return folder


def ranked_row(n_candidates: int, *, prompt: str = "Write add.", seed: int = 0) -> dict[str, Any]:
    """A ranked group of one teacher and students, of different lengths; a random model puts about half of its pairs wrong."""
    rng = random.Random(seed)
    names = ["add", "value", "item", "total", "+", "-", "7", "if x:", "return"]
    completions = [
        "def f(a, b):\n    return " + " ".join(rng.choices(names, k=rng.randint(2, 12))) + "\n" for _ in range(n_candidates)
    ]
    return {
        "prompt": prompt,
        "completions": completions,
        "scores": [3.25] + [float(rng.randint(0, 3)) for _ in range(1, n_candidates)],
        "sources": ["teacher"] + ["student"] * (n_candidates - 1),
    }


@pytest.fixture
def ranked_rows() -> list[dict[str, Any]]:
    """Sixteen ranked groups of two to five candidates."""
    return [ranked_row(2 + i % 4, prompt=f"Write add, variant {i}.", seed=i) for i in range(16)]
