"""The result of an evaluation: what its `.json` holds."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from trl_rrtf.errors import LoadError
from trl_rrtf.evaluation.pass_at_k import pass_at_k
from trl_rrtf.evaluation.statistics import Interval

_LIBRARIES = ("trl-rrtf", "trl", "transformers", "torch")


def library_versions() -> dict[str, str]:
    """Versions of what an evaluation depends on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}


@dataclass(frozen=True)
class Count:
    """Candidates of a problem.

    Attributes:
        n: Candidates that were judged.
        c: Candidates that passed.
    """

    n: int
    c: int


@dataclass(frozen=True)
class ProblemResult:
    """How a problem went.

    Attributes:
        problem_id: The problem.
        count: Its candidates, those of all temperatures.
        at: Those of each k, where the temperatures differ; else empty.
    """

    problem_id: str
    count: Count
    at: Mapping[int, Count] = field(default_factory=dict)

    @property
    def is_solved(self) -> bool:
        """Whether a candidate passed."""
        return bool(self.count.c)

    def pass_at(self, k: int) -> float:
        """pass@k of the problem; one that lost candidates to the judge is estimated at the k that is left."""
        count = self.at.get(k, self.count)
        return pass_at_k(count.n, count.c, min(k, count.n))

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        at = {"at": {str(k): asdict(count) for k, count in self.at.items()}} if self.at else {}
        return {"problem_id": self.problem_id, **asdict(self.count), **at}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote."""
        at = {int(k): Count(**count) for k, count in values.get("at", {}).items()}
        return cls(values["problem_id"], Count(values["n"], values["c"]), at)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `trl-rrtf evaluate`.

    Attributes:
        pass_at_k: k -> mean over the problems, with its interval.
        problems: How each problem went.
        settings: Problems, values of k, model and sampling settings.
        judge: Settings of the judge.
        outcomes: Outcome -> candidates, the best first.
        versions: Library -> version.
        fingerprints: What was evaluated: hashes of the problems and of the model.
        isolation: What held the programs, in a line; empty in the results of earlier versions.
        date: When it was done (ISO 8601, UTC); empty in the results of earlier versions.
        seconds: What sampling and judging took.
        best_of_n: Of `trl-rrtf select` alone: the choice beside one sample and beside all candidates, see
            [`BestOfN`][trl_rrtf.evaluation.best_of_n.BestOfN].
    """

    pass_at_k: dict[int, Interval]
    problems: list[ProblemResult]
    settings: dict[str, Any]
    judge: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    isolation: str = ""
    date: str = ""
    seconds: float = 0.0
    best_of_n: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "pass@k": {f"pass@{k}": asdict(interval) for k, interval in self.pass_at_k.items()},
            "outcomes": self.outcomes,
            "problems": [problem.to_json() for problem in self.problems],
            "settings": self.settings,
            "judge": self.judge,
            "isolation": self.isolation,
            "fingerprints": self.fingerprints,
            "versions": self.versions,
            "date": self.date,
            "seconds": self.seconds,
            **({"best_of_n": self.best_of_n} if self.best_of_n else {}),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote."""
        return cls(
            pass_at_k={int(name.removeprefix("pass@")): Interval(**entry) for name, entry in values["pass@k"].items()},
            problems=[ProblemResult.from_json(entry) for entry in values["problems"]],
            **{
                name: values[name]
                for name in (
                    *("settings", "judge", "outcomes", "versions", "fingerprints", "isolation", "date", "seconds"),
                    "best_of_n",
                )
                if name in values
            },
        )

    @classmethod
    def load(cls, path: str | Path, argument: str) -> Self:
        """Reads a result.

        Args:
            path: The `.json` of `trl-rrtf evaluate`.
            argument: The argument that names it, for error messages.

        Raises:
            LoadError: The file is not there, or is no such result.
        """
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise LoadError(
                f"`{argument}`: cannot read `{path}`: {error.strerror}; give a result of `trl-rrtf evaluate`"
            ) from error
        except (ValueError, RecursionError) as error:
            raise LoadError(f"`{argument}`: `{path}` is not JSON ({error}); give the .json of `trl-rrtf evaluate`") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise LoadError(
                f"`{argument}`: `{path}` is no result of `trl-rrtf evaluate`: pass@k, problems or settings are missing or of "
                "another form"
            ) from error
