"""A model of 0.9 million parameters that runs public tests, repairs its programs and submits them: something for `repair.py`.

    python recipes/grpo/tiny_repair_model.py --output runs/tiny_repair_model --steps 300     # on one core

As `tiny_model.py` it learns from composed problems that are not in `data/composed_problems.jsonl`: of episodes that begin with
the reference solution, or with a program for a similar problem and what the public test says of it; that is read, not learnt.
"""

from __future__ import annotations

import argparse
import json
import random
from typing import Any

import torch
from repair import INSTRUCTION
from tiny_model import RECIPES, compose, make_model, make_tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from trl_rrtf import JudgeConfig, UnitTestEnvironment, UnitTestEnvironmentFactory

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + (message['content'] or '') }}"
    "{% for call in message['tool_calls'] or [] %}{{ '<tool_call>' + (call['function'] | tojson) + '</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The tools are not told: this model knows no others."""
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close": "<|im_end|>", "content": "text"},
    },
}
"""How transformers reads a call in what the model wrote."""
EPISODES = 1000


def wrong_program(row: dict[str, Any], similar: list[dict[str, Any]]) -> str:
    """The solution of a problem with the same arguments under the name that this one asks for; now and then it is right."""
    other = random.choice(similar)
    return other["reference_solution"].replace(other["entry_point"], row["entry_point"])


def episode(environment: UnitTestEnvironment, row: dict[str, Any], wrong: str | None) -> list[dict[str, Any]]:
    """The messages of an episode that ends with the reference solution; after a wrong program, if there is one."""
    environment.reset(**row)
    messages = [{"role": "user", "content": row["prompt"] + INSTRUCTION}]
    solution = row["reference_solution"]
    calls = [*([("run_public_tests", wrong)] if wrong else []), ("run_public_tests", solution), ("submit", solution)]
    for name, program in calls:
        call = {"type": "function", "function": {"name": name, "arguments": {"program": program}}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call], "learnt": program is not wrong})
        messages.append({"role": "tool", "name": name, "content": getattr(environment, name)(program)})
    return [*messages, {"role": "assistant", "content": "", "learnt": True}]


def encode(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Tokens and labels; the model learns its own turns."""
    ids: list[int] = []
    labels: list[int] = []
    for message in messages:
        own = message["role"] == "assistant"
        text = tokenizer.apply_chat_template([message], tokenize=False)
        head, body = ("<|im_start|>assistant\n", text.removeprefix("<|im_start|>assistant\n")) if own else (text, "")
        body = body.removesuffix("\n") if own else body  # a turn ends with its end token
        for part, learnt in ((head, False), (body, message.get("learnt", False)), ("\n" if own else "", False)):
            tokens = tokenizer(part)["input_ids"]
            ids += tokens
            labels += tokens if learnt else [-100] * len(tokens)
    return ids, labels


def main() -> None:
    """Makes the model and its tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    kept_apart = [json.loads(line) for line in (RECIPES / "data" / "composed_problems.jsonl").read_text().splitlines()]
    names = {row["problem_id"] for row in kept_apart}
    rows = [row for row in compose(100_000, seed=0) if row["problem_id"] not in names]
    similar: dict[str, list[dict[str, Any]]] = {}
    for row in rows:  # the same arguments
        similar.setdefault(signature(row), []).append(row)
    with UnitTestEnvironmentFactory(JudgeConfig(timeout=3), public_tests=1) as factory:
        environment = factory()
        chosen = [rows[i % len(rows)] for i in range(options.episodes)]
        drafts = [wrong_program(row, similar[signature(row)]) if random.random() < 0.5 else None for row in chosen]
        episodes = [episode(environment, row, wrong) for row, wrong in zip(chosen, drafts, strict=True)]
    tokenizer = make_tokenizer([json.dumps(message) for messages in episodes for message in messages], vocab_size=1000)
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.response_template = RESPONSE_TEMPLATE
    encoded = [encode(tokenizer, messages) for messages in episodes]
    print(f"{len(episodes)} episodes of up to {max(len(ids) for ids, _ in encoded)} tokens", flush=True)
    model = make_model(tokenizer, max_positions=1024)
    train(model, encoded, tokenizer.pad_token_id, options.steps)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)


def signature(row: dict[str, Any]) -> str:
    """The arguments of a problem's function."""
    return row["reference_solution"].split("(", 1)[1].split(":", 1)[0]


def train(model: LlamaForCausalLM, encoded: list[tuple[list[int], list[int]]], padding: int, steps: int) -> None:
    """Supervised steps on the labels."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        chosen = [encoded[i] for i in torch.randint(len(encoded), (min(16, len(encoded)),)).tolist()]
        pad = torch.nn.utils.rnn.pad_sequence
        ids = pad([torch.tensor(ids) for ids, _ in chosen], batch_first=True, padding_value=padding)
        labels = pad([torch.tensor(labels) for _, labels in chosen], batch_first=True, padding_value=-100)
        # Causal attention: what stands before the padding on the right does not see it.
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)


if __name__ == "__main__":
    main()
