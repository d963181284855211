"""The folder of an export: what may be replaced, and how a new one takes its place whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trl_rrtf.errors import ConfigError, OutputError
from trl_rrtf.export.report import ExportReport
from trl_rrtf.models.onnx_runtime import REPORT_FILE

_REPLACED = "replaced"
"""Name of the earlier folder, in the scratch folder, while the new one takes its place."""


def refuse_to_destroy(output: Path, model: str) -> None:
    """Refuses an output that is, or holds, the model (or the base model of an adapter).

    Raises:
        ConfigError: It would be destroyed.
        OutputError: The output is a file.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"`output`: `{output}` is a file; choose the name of a folder")
    for folder in _folders_of(model):
        if folder.resolve().is_relative_to(output.resolve()):
            raise ConfigError(
                f"`output`: `{output}` is, or holds, the model's folder `{folder}`, which would be lost; choose another place"
            )


def _folders_of(model: str) -> Iterator[Path]:
    """The folder of a model, and of the base model of an adapter."""
    folder = Path(model)
    if not folder.is_dir():
        return
    yield folder
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        with contextlib.suppress(ValueError):  # a damaged file is told when it is loaded
            base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
            if base and Path(base).is_dir():
                yield Path(base)


def require_replaceable(output: Path, *, overwrite: bool) -> None:
    """Refuses a folder that is in the way: only one that an export made, with nothing else in it, may be replaced.

    Raises:
        OutputError: It is there and may not be replaced.
    """
    if not output.exists() or not any(output.iterdir()):
        return
    try:
        report = ExportReport.load(output)
    except OutputError:
        report = None
    if report is None:
        raise OutputError(
            f"`output`: `{output}` is there already, and no export made it; choose another folder, or remove this one yourself"
        )
    known = {REPORT_FILE, *report.files}
    foreign = sorted(path.name for path in output.iterdir() if path.name not in known)
    if foreign:
        raise OutputError(
            f"`output`: `{output}` holds what no export wrote ({', '.join(foreign[:3])}), which would be lost; move it "
            "away, or choose another folder"
        )
    if not overwrite:
        raise OutputError(
            f"`output`: `{output}` is there already; choose another folder, or replace it with `--overwrite true`"
        )


def _scratch_prefix(output: Path) -> str:
    return f".{output.name}.exporting-"


def recover_from_kill(output: Path) -> None:
    """Removes the scratch folders of runs that were killed, and puts back what one was about to replace.

    Call it under the output's lock, so that no run is at work.
    """
    for scratch in output.parent.glob(f"{_scratch_prefix(output)}*"):
        if (scratch / _REPLACED).exists() and not output.exists():
            (scratch / _REPLACED).rename(output)
        shutil.rmtree(scratch)


@contextlib.contextmanager
def scratch_beside(output: Path) -> Iterator[Path]:
    """A folder beside the output, from which the new one is moved there in one step; gone in the end.

    Yields:
        The scratch folder.
    """
    with tempfile.TemporaryDirectory(prefix=_scratch_prefix(output), dir=output.parent) as scratch:
        yield Path(scratch)


def put_in_place(made: Path, output: Path, scratch: Path) -> None:
    """Moves a finished folder to the output; an earlier one goes into the scratch folder, and with it."""
    if output.exists():
        output.rename(scratch / _REPLACED)
    made.rename(output)
