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


@dataclass(frozen=True)
class Probe:
    """How graph and PyTorch model read a text.

    Attributes:
        tokens: Its tokens.
        first_position: Position of the first one.
        next_token_agreement: Share of its positions (of its last ones, where it is long) where both find the same token the
            likeliest.
        perplexity: By the exported graph.
        perplexity_of_pytorch: By PyTorch.
    """

    tokens: int
    first_position: int
    next_token_agreement: float
    perplexity: float
    perplexity_of_pytorch: float


@dataclass(frozen=True)
class Allowed:
    """How far a graph may be from the PyTorch model.

    Attributes:
        relative_difference: Largest mean difference of logits, in standard deviations.
        perplexity_ratio: Largest ratio of the perplexities, whichever is the larger one.
        next_token_agreement: Smallest share of positions where both find the same token the likeliest.
    """

    relative_difference: float
    perplexity_ratio: float
    next_token_agreement: float


def violations(parity: Parity, probes: Mapping[str, Probe], allowed: Allowed) -> list[str]:
    """What lies outside a tolerance, in words."""
    found = []
    for name in ("relative_difference", "cached_relative_difference"):
        value = getattr(parity, name)
        if not value <= allowed.relative_difference:  # NaN fails too
            found.append(f"{name} is {value:.2g}, allowed is {allowed.relative_difference:g}")
    for name, probe in probes.items():
        where = f"at positions {probe.first_position} to {probe.first_position + probe.tokens - 1} ({name})"
        if not probe.next_token_agreement >= allowed.next_token_agreement:
            found.append(
                f"{where} {probe.next_token_agreement:.1%} of the next tokens agree, and at least "
                f"{allowed.next_token_agreement:.1%} must"
            )
        ratio = probe.perplexity / probe.perplexity_of_pytorch
        if not 1 / allowed.perplexity_ratio <= ratio <= allowed.perplexity_ratio:
            found.append(
                f"{where} the perplexity is {ratio:.3g} times PyTorch's, allowed is {1 / allowed.perplexity_ratio:.4g} to "
                f"{allowed.perplexity_ratio:g} times"
            )
    return found


@dataclass(frozen=True)
class Reach:
    """How long a text the graph is for, and was proved with.

    Attributes:
        usable_positions: Longest text that it is right for, in tokens; None where the model has no limit.
        cap: Why that is less than the model's own limit; empty if it is not.
        proved_tokens: Longest text that was compared.
        unproved: Lengths after which something changes inside the model, and that no text passed: too long to compare.
    """

    usable_positions: int | None
    cap: str
    proved_tokens: int
    unproved: list[int]


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


_ON_CPU = {
    "fp16": "CPUExecutionProvider, which computes half precision in single precision; not compared on a GPU",
    "bf16": "CPUExecutionProvider, in float32 with every value rounded to bfloat16, which it has not; not compared on a GPU",
}


@dataclass(kw_only=True)
class ExportReport:
    """What `export_report.json` holds.

    Attributes:
        settings: What decided the export.
        exporter: `optimum` or `torch`.
        graph: `fused` or `plain`; empty in a report of an earlier version.
        why_plain: Why the graph is plain where a fused one is the default; else empty.
        not_for_genai: Why onnxruntime-genai cannot run the folder; else empty.
        checkpoint: How the checkpoint was found to be read right.
        provider: Execution provider that the parity was measured on.
        proof: What that provider proves, in words.
        parity: How graph and PyTorch model differ.
        allowed: How much they may.
        sizes: Sizes.
        versions: Library -> version.
        probes: Texts that both read, by name; empty in a report of an earlier version.
        reach: How long a text the graph is for; None in a report of an earlier version.
        peak_memory_bytes: Largest memory that the process had until the end of the export; 0 in a report of an earlier version.
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
    probes: dict[str, Probe] = field(default_factory=dict)
    reach: Reach | None = None
    peak_memory_bytes: int = 0
    graph: str = ""
    why_plain: str = ""
    not_for_genai: str = ""
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)
    pushed_to: dict[str, str] = field(default_factory=dict)
    proof: str = ""

    def __post_init__(self) -> None:
        """Says what the provider proves."""
        on_cpu = self.provider == "CPUExecutionProvider"
        self.proof = self.proof or (_ON_CPU.get(self.settings.get("precision", ""), "") if on_cpu else "") or self.provider

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
        parts = {"parity": Parity(**values["parity"]), "sizes": Sizes(**values["sizes"])}
        probes = {name: Probe(**probe) for name, probe in values.get("probes", {}).items()}
        reach = Reach(**values["reach"]) if values.get("reach") else None
        report = cls(**{**values, **parts, "probes": probes, "reach": reach})
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
