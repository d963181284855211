"""The report of an export: what was made of which checkpoint, and how equal it is. It stands in the exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from trl_rrtf.errors import OutputError
from trl_rrtf.export.parity import Parity
from trl_rrtf.models.onnx_runtime import REPORT_FILE
from trl_rrtf.rows.files import read_json, write_json


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
        files: Names of the folder's files, without that of the report.
        seconds: What the export took.
        pushed_to: Address on the Hub, once it is there.
    """

    settings: dict[str, Any]
    exporter: str
    checkpoint: dict[str, Any]
    provider: str
    parity: Parity
    allowed: dict[str, float]
    sizes: Sizes
    versions: dict[str, str]
    files: list[str]
    seconds: float = 0.0
    pushed_to: str | None = None

    def save(self, folder: Path) -> None:
        """Writes the report into the folder."""
        write_json(folder / REPORT_FILE, asdict(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `save` wrote."""
        return cls(**{**values, "parity": Parity(**values["parity"]), "sizes": Sizes(**values["sizes"])})

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
        values = read_json(path, advice)
        try:
            return cls.from_json(values)
        except (KeyError, TypeError) as error:
            raise OutputError(f"`{path}` is damaged, or of another version ({error}); {advice}") from error
