"""The `score` stage: a teacher model's own opinion of candidates: log-probabilities, for `passed_preference` in the ranking."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from tqdm import tqdm

from trl_rrtf.errors import ConfigError
from trl_rrtf.groups import CandidateGroup
from trl_rrtf.model_paths import require_model
from trl_rrtf.prompts import PROMPT_STYLES, render_prompt
from trl_rrtf.row_files import ResumableWriter, check_rows, fingerprint, stream_rows
from trl_rrtf.sampling.config import DTYPES

COLUMN = "teacher_log_probs"
"""Column with one number per candidate: mean log-probability in nats per token."""


@dataclass
class ScoreArguments:
    """Files of the `score` stage.

    Attributes:
        input: Candidate groups.
        output: The same with a further column, `.jsonl` or `.parquet`.
        overwrite: Throw away an earlier output.
    """

    input: str = field(metadata={"help": "Candidate groups: a file, or a Hub data set id."})
    output: str = field(metadata={"help": "Where they go, with the column `teacher_log_probs` (.jsonl or .parquet)."})
    overwrite: bool = field(default=False, metadata={"help": "Throw away an earlier output."})


@dataclass
class ScoreConfig:
    """Which teacher, and how it reads the candidates.

    Attributes:
        model: Folder or Hub id.
        prompt_style: How the problem becomes the prompt.
        dtype: Precision of the weights.
        batch_size: Candidates per forward pass.

    Raises:
        ConfigError: A value is out of range.
    """

    model: str = field(metadata={"help": "The teacher: a folder, or a Hub id."})
    prompt_style: str = field(
        default="chat", metadata={"help": "How the problem becomes the prompt.", "choices": list(PROMPT_STYLES)}
    )
    dtype: str = field(default="auto", metadata={"help": "Precision of the weights.", "choices": list(DTYPES)})
    batch_size: int = field(default=8, metadata={"help": "Candidates per forward pass."})

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, choices in (("prompt_style", tuple(PROMPT_STYLES)), ("dtype", DTYPES)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"`{name}`: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.batch_size < 1:
            raise ConfigError(f"`batch_size`: expected at least 1, got {self.batch_size}")


def run_score(arguments: ScoreArguments, config: ScoreConfig) -> dict[str, Any]:
    """Adds the teacher's log-probabilities; an interrupted run goes on with the group where it stopped.

    Returns:
        A summary: groups and candidates.

    Raises:
        LoadError: The model or the rows are not there.
        RowError: A row breaks the format; found before the model is loaded.
    """
    require_model(config.model)
    num_groups = check_rows(arguments.input, CandidateGroup)
    settings = {"stage": "score", "input": fingerprint(arguments.input), **asdict(config)}
    candidates = 0
    with ResumableWriter(arguments.output, settings, overwrite=arguments.overwrite) as writer:
        if not writer.finished:
            teacher = _Teacher(config)
            groups = islice(stream_rows(arguments.input, CandidateGroup), writer.rows_done, None)
            for group in tqdm(groups, total=num_groups, initial=writer.rows_done, desc="score", unit="group"):
                group.extra[COLUMN] = teacher.mean_log_probs(group)
                candidates += len(group.completions)
                writer.write([group])
            writer.finish()
    return {"groups": num_groups, "candidates scored now": candidates, "output": arguments.output}


class _Teacher:
    def __init__(self, config: ScoreConfig) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._config = config
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = AutoModelForCausalLM.from_pretrained(config.model, dtype=config.dtype).to(device).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(config.model)

    def mean_log_probs(self, group: CandidateGroup) -> list[float | None]:
        """One number per candidate; None for an empty one."""
        prompt = render_prompt(group, self._config.prompt_style)
        if isinstance(prompt, str):
            prompt_ids = self._tokenizer(prompt)["input_ids"]
        else:
            chat = self._tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
            prompt_ids = chat["input_ids"]
        distinct = [program for program in dict.fromkeys(group.completions) if program]
        values: dict[str, float] = {}
        for start in range(0, len(distinct), self._config.batch_size):
            batch = distinct[start : start + self._config.batch_size]
            ids = [self._tokenizer(program, add_special_tokens=False)["input_ids"] for program in batch]
            values.update(zip(batch, self._batch(prompt_ids, ids), strict=True))
        return [values.get(program) for program in group.completions]

    def _batch(self, prompt: list[int], completions: list[list[int]]) -> list[float]:
        """Rows padded on the right: prompt, completion, padding that no position before it sees."""
        import torch

        longest = max(map(len, completions))
        rows = [prompt + ids + [prompt[-1]] * (longest - len(ids)) for ids in completions]
        mask = [[1] * (len(prompt) + len(ids)) + [0] * (longest - len(ids)) for ids in completions]
        with torch.inference_mode():
            inputs = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}
            inputs = {name: value.to(self._model.device) for name, value in inputs.items()}
            logits = self._model(**inputs, logits_to_keep=longest + 1).logits[:, :-1].float()
            targets = inputs["input_ids"][:, len(prompt) :]
            log_probs = logits.log_softmax(dim=-1).gather(2, targets[:, :, None])[:, :, 0]
        return [row[: len(ids)].mean().item() for row, ids in zip(log_probs, completions, strict=True)]
