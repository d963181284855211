"""The folder of an export: what may be replaced, and how a new one takes its place whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trl_rrtf.errors import ConfigError, OutputError
from trl_rrtf.export.report import ExportReport
from trl_rrtf.models.onnx_runtime import REPORT_FILE
from trl_rrtf.models.paths import base_model
from trl_rrtf.rows.files import output_errors
from trl_rrtf.rows.resumable import require_same_settings

_REPLACED = "replaced"
"""Name of the earlier folder, in the scratch folder, while the new one takes its place."""


def require_apart(output: Path, model: str) -> None:
    """Refuses an output that is, or holds, the model, the base model of an adapter, or the folder that the command runs in.

    Args:
        output: A resolved path.
        model: A folder, or a Hub id.

    Raises:
        ConfigError: They would be lost.
        LoadError: The model is an adapter whose configuration is damaged.
    """
    if Path.cwd().is_relative_to(output):
        raise ConfigError(f"`output`: `{output}` is, or holds, the folder that you are in; choose one inside or beside it")
    for folder in (model, base_model(model)):
        if folder and Path(folder).is_dir() and Path(folder).resolve().is_relative_to(output):
            raise ConfigError(
                f"`output`: `{output}` is, or holds, the model's folder `{folder}`, which would be lost; choose another place"
            )


def look_at(output: Path, settings: Mapping[str, Any], *, overwrite: bool) -> ExportReport | None:
    """Finds out what stands at the output: the same export, nothing, or what may be replaced.

    Args:
        output: A resolved path.
        settings: What decides the export.
        overwrite: Whether an earlier export is replaced, whatever its settings.

    Returns:
        The report of the same export, whole; None if one is to be made.

    Raises:
        OutputError: What is there may not be replaced: a file, a folder that no export made, one with other files in it, or,
            without `overwrite`, an export with other settings.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"`output`: `{output}` is a file; choose the name of a folder")
    if not output.exists() or not any(output.iterdir()):
        return None
    report = ExportReport.load(output)
    if report is None:
        raise OutputError(
            f"`output`: `{output}` is there already, and no export made it; choose another folder, or remove this one yourself"
        )
    found = _files_in(output)
    if overwrite:
        if foreign := sorted(found - {REPORT_FILE, *report.files}):
            raise OutputError(
                f"`output`: `{output}` holds what no export wrote ({', '.join(foreign[:3])}), which would be lost; move it "
                "away, or choose another folder"
            )
        return None
    require_same_settings(output, report.settings, settings)
    missing = sorted(set(report.files) - found)
    if missing or graph_bytes(output) != report.sizes.bytes:
        what = f"{', '.join(missing[:3])} missing" if missing else "the graph has another size than in its report"
        raise OutputError(f"`output`: `{output}` is damaged ({what}); export it again with `--overwrite true`")
    return report


def graph_bytes(folder: Path) -> int:
    """Size of the graph with its weights."""
    return sum(path.stat().st_size for path in folder.glob("model.onnx*"))


def _files_in(folder: Path) -> set[str]:
    """Every file and link below a folder, by its path in it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def complete(folder: Path, report: ExportReport) -> None:
    """Notes the folder's files in the report, and writes it as the last one."""
    report.files = sorted(_files_in(folder))
    for name in report.files:  # on the disk before the report says that they are, also where the power goes
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
    report.save(folder)


def recover_from_kill(output: Path) -> None:
    """Removes the scratch folders of runs that were killed, and puts back what one was about to replace.

    Call it under the output's lock, so that no run is at work.
    """
    with output_errors(output):
        for scratch in output.parent.glob(f"{glob.escape(_scratch_prefix(output))}*"):
            _put_back(scratch, output)
            shutil.rmtree(scratch)


@contextlib.contextmanager
def scratch_beside(output: Path) -> Iterator[Path]:
    """A folder beside the output, from which the new one is moved there in one step; gone in the end.

    Yields:
        The scratch folder.
    """
    with output_errors(output):
        scratch = Path(tempfile.mkdtemp(prefix=_scratch_prefix(output), dir=output.parent))
    try:
        yield scratch
    finally:
        _put_back(scratch, output)
        shutil.rmtree(scratch, ignore_errors=True)  # what is left is removed by the next run


def put_in_place(made: Path, output: Path, scratch: Path) -> None:
    """Moves a finished folder to the output; an earlier one goes into the scratch folder, and with it.

    Raises:
        OutputError: The folder cannot be moved.
    """
    with output_errors(output):
        if output.exists():
            output.rename(scratch / _REPLACED)
        made.rename(output)


def _put_back(scratch: Path, output: Path) -> None:
    """What was about to be replaced, where nothing took its place."""
    if (scratch / _REPLACED).exists() and not output.exists():
        (scratch / _REPLACED).rename(output)


def _scratch_prefix(output: Path) -> str:
    return f".{output.name}.exporting-"
