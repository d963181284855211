"""The `teacher-logprobs` stage: a teacher model's own opinion of candidates, for `passed_preference` in the ranking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from trl_rrtf.models.paths import model_fingerprint, model_name, require_model
from trl_rrtf.options import settings_of
from trl_rrtf.rows.files import check_rows, fingerprint, stream_rows
from trl_rrtf.rows.prompts import render_prompt
from trl_rrtf.rows.records import CandidateGroup
from trl_rrtf.rows.stage import RowStage
from trl_rrtf.rows.summary import Summary, of_this_run
from trl_rrtf.sampling.config import TeacherLogProbsArguments, TeacherLogProbsConfig


@dataclass(kw_only=True)
class TeacherLogProbsSummary(Summary):
    """What the `teacher-logprobs` stage did.

    Attributes:
        groups: Problems.
        candidates: Candidates of all of them.
        read_now: Candidates that the teacher read in this run of the stage.
        output: The groups, with the column `teacher_log_probs`.
    """

    groups: int
    candidates: int
    read_now: int = of_this_run()
    output: str


def run_teacher_log_probs(arguments: TeacherLogProbsArguments, config: TeacherLogProbsConfig) -> TeacherLogProbsSummary:
    """Adds the mean log-probability of each candidate under a teacher, in nats per token.

    An interrupted run goes on with the group where it stopped.

    Returns:
        Groups and candidates.

    Raises:
        LoadError: The model or the rows are not there.
        RowError: A row breaks the format; found before the model is loaded.
        OutputError: The output cannot be written, or another one stands in the way.
        ConfigError: The output is the input.
    """
    return _TeacherLogProbsStage(arguments, config).run()


class _TeacherLogProbsStage(RowStage[TeacherLogProbsSummary]):
    name = "teacher-logprobs"
    summary_type = TeacherLogProbsSummary

    def __init__(self, arguments: TeacherLogProbsArguments, config: TeacherLogProbsConfig) -> None:
        super().__init__(arguments, config)
        self._arguments, self._config = arguments, config
        self._read_now = 0

    def check(self) -> int:
        require_model(self._config.model)
        return check_rows(self._arguments.input, CandidateGroup)

    def settings(self) -> dict[str, Any]:
        return {
            "input": fingerprint(self._arguments.input),
            **settings_of(self._config),
            "model": model_name(self._config.model),
            "model_fingerprint": model_fingerprint(self._config.model),
        }

    def rows(self, done: int) -> Iterator[CandidateGroup]:
        self.progress.update(done)
        teacher = _Teacher(self._config)
        for group in islice(stream_rows(self._arguments.input, CandidateGroup), done, None):
            for candidate, value in zip(group.candidates, teacher.mean_log_probs(group), strict=True):
                candidate.teacher_log_prob = value
            yield group
            self._read_now += len(group.candidates)
            self.progress.update()

    def summary(self, rows_file: Path) -> TeacherLogProbsSummary:
        counts = [len(group.candidates) for group in stream_rows(rows_file, CandidateGroup)]
        return TeacherLogProbsSummary(
            groups=len(counts), candidates=sum(counts), read_now=self._read_now, output=self._arguments.output
        )


class _Teacher:
    """The loaded model."""

    def __init__(self, config: TeacherLogProbsConfig) -> None:
        import torch

        from trl_rrtf.models.causal_lm import load_causal_lm, load_tokenizer  # imports transformers

        self._config = config
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = load_causal_lm(config.model, dtype=config.dtype).to(device).eval()
        self._tokenizer = load_tokenizer(config.model)

    def mean_log_probs(self, group: CandidateGroup) -> list[float | None]:
        """One number per candidate; None for an empty one."""
        prompt = render_prompt(group, self._config.prompt_style)
        if isinstance(prompt, str):
            prompt_ids = self._tokenizer(prompt)["input_ids"]
        else:
            chat = self._tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
            prompt_ids = chat["input_ids"]
        programs = [candidate.program for candidate in group.candidates]
        distinct = [program for program in dict.fromkeys(programs) if program]
        values: dict[str, float] = {}
        for start in range(0, len(distinct), self._config.batch_size):
            batch = distinct[start : start + self._config.batch_size]
            ids = [self._tokenizer(program, add_special_tokens=False)["input_ids"] for program in batch]
            values.update(zip(batch, self._batch(prompt_ids, ids), strict=True))
        return [values.get(program) for program in programs]

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
