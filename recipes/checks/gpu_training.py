"""What of the trainer only a GPU can show; without one, says so and ends with status 0.

- FlexAttention block masks: loss and gradients of the shared layout equal those of padded rows, in float32.
- bf16, gradient checkpointing, activation offloading, `torch.compile`, two passes, QLoRA (where bitsandbytes is installed): a
  few updates lower the loss.

    python recipes/checks/gpu_training.py
"""

from __future__ import annotations

import importlib.util
import logging
import random
import sys
import tempfile

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trl_rrtf import DataCollatorForRankedGroups, RRTFConfig, RRTFTrainer

TRAININGS = {
    "bf16": {"bf16": True},
    "gradient checkpointing": {"bf16": True, "gradient_checkpointing": True},
    "activation offloading": {"bf16": True, "activation_offloading": True},
    "torch.compile": {"bf16": True, "torch_compile": True},
    "two passes": {"bf16": True, "max_tokens_per_forward": 512},
    "padded rows": {"bf16": True, "prefix_sharing": False},
}


def make_groups(number=8, size=4, seed=0):
    """Tokenised groups whose teachers repeat a token, so that a few updates are enough to learn something."""
    rng = random.Random(seed)
    groups = []
    for index in range(number):
        students = [rng.choices(range(3, 500), k=rng.randint(8, 40)) for _ in range(size - 1)]
        group = {"prompt_ids": rng.choices(range(3, 500), k=200), "completion_ids": [[7] * 20, *students]}
        scores = [3.25] + [float(rng.randint(0, 2)) for _ in students]
        groups.append({**group, "scores": scores, "sources": [1] + [0] * (size - 1), "group_index": index, "num_dropped": 0})
    return groups


def make_tokenizer():
    """A tokenizer of words, since the groups are tokenised already."""
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({str(number): number for number in range(512)}, unk_token="0"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="1", pad_token="2")


def make_trainer(folder, attn_implementation=None, **options):
    """A small Llama on the GPU; with `attn_implementation` None the trainer chooses."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=512, num_key_value_heads=2, pad_token_id=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    if attn_implementation:
        options["model_init_kwargs"] = {"attn_implementation": attn_implementation}
    settings = {"gradient_checkpointing": False, "report_to": [], "disable_tqdm": True, "learning_rate": 1e-3, "max_steps": 12}
    args = RRTFConfig(f"{folder}/out", **{**settings, "logging_steps": 1, "save_strategy": "no", **options})
    return RRTFTrainer(folder, args, train_dataset=Dataset.from_list(make_groups()))


def check_flex_attention(folder):
    """The trainer chooses FlexAttention by itself, and it equals padded rows on SDPA."""
    trainer = make_trainer(folder, bf16=False)
    assert trainer.model.config._attn_implementation == "flex_attention", trainer.model.config._attn_implementation
    results = []
    for sharing in (True, False):
        collator = DataCollatorForRankedGroups(2, prefix_sharing=sharing, pad_to_multiple_of=128 if sharing else None)
        if not sharing:
            trainer.model.set_attn_implementation("sdpa")
        batch = trainer._prepare_inputs(collator(make_groups()))
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        results.append((loss.detach(), [parameter.grad.clone() for parameter in trainer.model.parameters()]))
    (shared, shared_gradients), (padded, padded_gradients) = results
    torch.testing.assert_close(shared, padded, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(shared_gradients, padded_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4)
    return f"loss {shared.item():.5f} and {padded.item():.5f}"


def check_training(folder, **options):
    """A few updates lower the loss."""
    trainer = make_trainer(folder, **options)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5, losses
    return f"loss {losses[0]:.3f} -> {losses[-1]:.3f}"


def check_qlora(folder):
    """A 4-bit model with LoRA."""
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    make_trainer(folder, bf16=True)  # writes the model
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    args = RRTFConfig(f"{folder}/out", report_to=[], learning_rate=1e-2, max_steps=12, logging_steps=1, save_strategy="no")
    lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    dataset = Dataset.from_list(make_groups())
    trainer = RRTFTrainer(folder, args, train_dataset=dataset, peft_config=lora, quantization_config=quantization)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0], losses
    return f"loss {losses[0]:.3f} -> {losses[-1]:.3f}"


def main():
    """Runs every check; status 1 if one fails."""
    if not torch.cuda.is_available():
        print("no GPU here: nothing checked")
        return 0
    logging.disable(logging.WARNING)
    checks = {"FlexAttention equals padded rows": check_flex_attention}
    checks |= {name: lambda folder, options=options: check_training(folder, **options) for name, options in TRAININGS.items()}
    if importlib.util.find_spec("bitsandbytes") and importlib.util.find_spec("peft"):
        checks["QLoRA"] = check_qlora
    failed = 0
    for name, check in checks.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"ok      {name}: {check(folder)}", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
