"""pass@k as an `evaluate` metric: the inputs and outputs of `code_eval`, on this package's judge.

    metric = evaluate.load(trl_rrtf.evaluation.code_eval.__file__)      # or CodeEval()
    pass_at_k, results = metric.compute(references=["assert add(2, 3) == 5"], predictions=[["def add(a, b): return a + b"]])

Needs the `evaluate` extra. Unlike `code_eval` it shows candidates no test, contains them, and needs no environment variable.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import datasets
import evaluate

from trl_rrtf.errors import JudgeError
from trl_rrtf.evaluation.pass_at_k import pass_at_k
from trl_rrtf.judging.config import JudgeConfig
from trl_rrtf.judging.judge import Judge
from trl_rrtf.rows.records import Outcome, Problem, UnitTest

_DESCRIPTION = "Judges generated programs by unit tests and estimates pass@k (Chen et al., 2021)."
_INPUTS = """
Args:
    predictions: For each problem a list of candidate programs.
    references: For each problem a text of test code.
    k: Numbers of candidates to estimate pass@k for; those above the smallest number of candidates are left out.
    num_workers: Programs that run side by side.
    timeout: Seconds for all tests of a program.

Returns:
    pass_at_k: Dictionary such as {"pass@1": 0.5}.
    results: Problem index -> list of (candidate index, {"task_id", "passed", "result", "completion_id"}).
"""
_CITATION = "@misc{chen2021evaluating, title={Evaluating Large Language Models Trained on Code}, eprint={2107.03374}}"


class CodeEval(evaluate.Metric):  # type: ignore[misc]
    """Estimates pass@k as `code_eval` does."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("string")), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features)

    def _compute(
        self,
        predictions: list[list[str]],
        references: list[str],
        k: list[int] | None = None,
        num_workers: int = 4,
        timeout: float = 3.0,
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        problems = [
            Problem(problem_id=str(task), prompt="-", tests=[UnitTest(kind="assert", code=reference)])
            for task, reference in enumerate(references)
        ]
        places = [(task, number) for task, candidates in enumerate(predictions) for number in range(len(candidates))]
        results: dict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        with Judge(JudgeConfig(num_workers=num_workers, timeout=timeout)) as judge:
            verdicts = judge.judge_many((problems[task], predictions[task][number]) for task, number in places)
            for (task, number), verdict in zip(places, verdicts, strict=True):
                if verdict.outcome is Outcome.INFRASTRUCTURE:
                    raise JudgeError(f"candidate {number} of problem {task} could not be judged: {verdict.detail}")
                passed = verdict.outcome is Outcome.PASSED
                result = "passed" if passed else f"failed: {verdict.detail}"
                results[task].append((number, {"task_id": task, "passed": passed, "result": result, "completion_id": number}))
        counts = [(len(found), sum(result["passed"] for _, result in found)) for found in results.values()]
        smallest = min((total for total, _ in counts), default=0)
        estimates = {
            f"pass@{at}": sum(pass_at_k(total, correct, at) for total, correct in counts) / len(counts)
            for at in (k or [1, 10, 100])
            if at <= smallest
        }
        return estimates, results
