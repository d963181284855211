"""The report of an export: what was made of which checkpoint, and how equal it is. It stands in the exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from trl_rrtf.errors import OutputError
from trl_rrtf.models.onnx_runtime import REPORT_FILE
from trl_rrtf.rows.files import read_object, write_json


@dataclass(frozen=True)
class Parity:
    """How an exported graph and the PyTorch model differ.

    Attributes:
        largest_difference: Of any logit, without cache, in a batch with padding on the left.
        mean_difference: Of the same logits.
        relative_difference: The mean difference, in standard deviations of PyTorch's logits.
        cached_largest_difference: As `largest_difference`, of tokens that were run one by one over a cache.
        cached_relative_difference: As `relative_difference`, of the same tokens.
        next_token_agreement: Share of a text's positions where both find the same token the likeliest.
        greedy_agreement: Share of greedily generated tokens that are the same, up to the first other one of each text.
        perplexity: Of a text, by the exported graph.
        perplexity_of_pytorch: Of the same text.
    """

    largest_difference: float
    mean_difference: float
    relative_difference: float
    cached_largest_difference: float
    cached_relative_difference: float
    next_token_agreement: float
    greedy_agreement: float
    perplexity: float
    perplexity_of_pytorch: float

    def violations(self, max_relative_difference: float, max_perplexity_ratio: float) -> list[str]:
        """What lies outside a tolerance, in words."""
        found = []
        for name in ("relative_difference", "cached_relative_difference"):
            value = getattr(self, name)
            if not value <= max_relative_difference:  # NaN fails too
                found.append(f"{name} is {value:.2g}, allowed is {max_relative_difference:g}")
        ratio = self.perplexity / self.perplexity_of_pytorch
        if not ratio <= max_perplexity_ratio:
            found.append(f"the perplexity is {ratio:.3g} times PyTorch's, allowed is {max_perplexity_ratio:g}")
        return found


@dataclass(frozen=True)
class Sizes:
    """How large a model is.

    Attributes:
        parameters: Its parameters.
        bytes: Of the graph with its weights.
        share_of_fp32: Those, as a share of 4 bytes per parameter.
    """

    parameters: int
    bytes: int
    share_of_fp32: float


@dataclass(kw_only=True)
class ExportReport:
    """What `export_report.json` holds.

    Attributes:
        settings: What decided the export.
        exporter: `optimum` or `torch`.
        checkpoint: How the checkpoint was found to be read right.
        provider: Execution provider that the parity was measured on.
        parity: How graph and PyTorch model differ.
        allowed: How much they may.
        sizes: Sizes.
        versions: Library -> version.
        seconds: What the export took.
        files: The folder's files, without the report; what else is there is somebody else's.
        pushed_to: Hub repository, as it was asked for -> its address, once the folder is there.
    """

    settings: dict[str, Any]
    exporter: str
    checkpoint: dict[str, Any]
    provider: str
    parity: Parity
    allowed: dict[str, float]
    sizes: Sizes
    versions: dict[str, str]
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)
    pushed_to: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Writes the report into the folder."""
        write_json(folder / REPORT_FILE, asdict(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `save` wrote.

        Raises:
            KeyError: An entry is missing.
            TypeError: An entry is missing, unknown, or of a wrong type.
        """
        report = cls(**{**values, "parity": Parity(**values["parity"]), "sizes": Sizes(**values["sizes"])})
        for name, kind in (("settings", dict), ("files", list), ("pushed_to", dict)):
            if name not in values or not isinstance(values[name], kind):
                raise TypeError(f"no {name}")
        return report

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The report of a folder; None if it has none.

        Raises:
            OutputError: It is damaged, or of another version of this package.
        """
        path = folder / REPORT_FILE
        if not path.is_file():
            return None
        advice = "export to another folder, or remove this one"
        values = read_object(path, advice)
        try:
            return cls.from_json(values)
        except (KeyError, TypeError) as error:
            raise OutputError(f"`{path}` is damaged, or of another version ({error}); {advice}") from error
