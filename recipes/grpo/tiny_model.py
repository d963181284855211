"""A model of 0.9 million parameters that writes the composed problems' programs, mostly wrong: something for GRPO to improve.

    python recipes/grpo/tiny_model.py --output runs/tiny_model --steps 250     # two minutes on one core

It learns from reference solutions of composed problems that are not in `data/composed_problems.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

RECIPES = Path(__file__).parents[1]
sys.path.append(str(RECIPES / "smollm2-135m"))
from composed_problems import compose  # noqa: E402

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]


def make_tokenizer(texts: list[str], vocab_size: int = 600) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer for these texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=CHAT_TEMPLATE,
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(tokenizer: PreTrainedTokenizerFast, max_positions: int) -> LlamaForCausalLM:
    """A Llama of 0.9 million parameters, at random."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=max_positions,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def main() -> None:
    """Makes the model and its tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=250)
    options = parser.parse_args()
    kept_apart = [json.loads(line) for line in (RECIPES / "data" / "composed_problems.jsonl").read_text().splitlines()]
    names = {row["problem_id"] for row in kept_apart}
    rows = [row for row in compose(100_000, seed=0) if row["problem_id"] not in names]  # all that there are
    tokenizer = make_tokenizer([f"{row['prompt']}\n{row['reference_solution']}" for row in rows])
    torch.manual_seed(0)
    model = make_model(tokenizer, max_positions=512)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(options.steps):
        chosen = [rows[i] for i in torch.randint(len(rows), (32,)).tolist()]
        asked = [[{"role": "user", "content": row["prompt"]}] for row in chosen]
        prompts = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        answers = [row["reference_solution"] + tokenizer.eos_token for row in chosen]
        batch = tokenizer(
            [a + b for a, b in zip(prompts, answers, strict=True)], return_tensors="pt", padding=True, padding_side="right"
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        for i, prompt in enumerate(prompts):
            labels[i, : len(tokenizer(prompt)["input_ids"])] = -100
        loss = model(**batch, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)


if __name__ == "__main__":
    main()
