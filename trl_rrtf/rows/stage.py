"""The skeleton of every stage that writes a file of rows; each stage fills in what is its own.

check everything -> settings -> output, under a lock -> what is left -> progress -> finish -> summary
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from tqdm import tqdm

from trl_rrtf.errors import ConfigError
from trl_rrtf.options import check_paths
from trl_rrtf.rows.files import Row, write_json
from trl_rrtf.rows.resumable import ResumableWriter, require_row_file
from trl_rrtf.rows.summary import Summary

SummaryT = TypeVar("SummaryT", bound=Summary)

SUMMARY_SUFFIX = ".summary.json"
"""Ending of the file beside a stage's output with its summary, and what else it has to tell."""


class StageArguments(Protocol):
    """What the arguments of every such stage have."""

    output: str
    overwrite: bool


class RowStage(Generic[SummaryT]):
    """One run of a stage. A finished one that is run again computes nothing: its summary is read.

    Args:
        arguments: Inputs and outputs.
        configs: The stage's further configurations.
    """

    name: ClassVar[str]
    """The stage, as on the command line."""

    unit: ClassVar[str] = "group"
    """What the progress bar counts."""

    summary_type: ClassVar[type[Summary]]

    progress: tqdm[Any]
    """The bar, while `rows` runs; the stage moves it on."""

    def __init__(self, arguments: StageArguments, *configs: Any) -> None:
        self._files = arguments
        self._configs = configs

    # --- What a stage fills in -------------------------------------------------------------------------------------------

    def check(self) -> int:
        """Checks everything that can be wrong, before any work; returns how many units there are."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What decides the rows, JSON-able: the inputs' fingerprints, and the options that decide the output."""
        raise NotImplementedError

    def rows(self, done: int) -> Iterator[Row]:
        """Makes the rows, without the first `done`, which stand already."""
        raise NotImplementedError

    def summary(self, rows_file: Path) -> SummaryT:
        """What was done.

        Args:
            rows_file: All rows, those of earlier runs too.

        Raises:
            ConfigError: Nothing is left; the empty output is removed.
        """
        raise NotImplementedError

    def throw_away(self) -> None:
        """Removes what an earlier run left beside its output, where nothing of that output is left or wanted."""

    def has_work_beside(self) -> bool:
        """Whether work that is not in the rows lies beside the output.

        Where none does, a run that fails before its first row leaves nothing that stands in the way of other settings.
        """
        return True

    def clean_up(self) -> None:
        """Removes what was needed on the way, once the output stands."""

    # --- The skeleton ----------------------------------------------------------------------------------------------------

    def run(self) -> SummaryT:
        """Runs what is left to do.

        Raises:
            OutputError: The output cannot be written, another process writes it, or one with other settings is in the way.
        """
        check_paths(self._files, *self._configs)
        require_row_file(self._files.output)
        total = self.check()
        settings = {"stage": self.name, **self.settings()}
        with ResumableWriter(self._files.output, settings, overwrite=self._files.overwrite) as writer:
            if writer.is_new:  # what else lies here was left by a run of other settings, or is to be overwritten
                self._summary_file.unlink(missing_ok=True)
                self.throw_away()
            if writer.finished:
                summary = self._earlier_summary()
            else:
                with tqdm(total=total, desc=self.name, unit=self.unit) as self.progress:
                    rows = self.rows(writer.rows_done)
                    try:
                        for row in rows:
                            writer.write([row])
                    except BaseException:
                        if isinstance(rows, Generator):
                            rows.close()  # ends its processes now, and not whenever the error's traceback goes
                        if writer.is_empty and not self.has_work_beside():
                            self.throw_away()
                            writer.discard()
                        raise
                try:
                    summary = self.summary(writer.partial_path)
                except ConfigError:
                    writer.discard()
                    raise
                write_json(self._summary_file, summary.to_json())
                writer.finish()
            self.clean_up()
        return summary

    @property
    def _summary_file(self) -> Path:
        return Path(self._files.output + SUMMARY_SUFFIX)

    def _earlier_summary(self) -> SummaryT:
        advice = "the output itself is whole; make it again with `--overwrite true` to have its summary too"
        summary: Any = self.summary_type.load(self._summary_file, advice)
        return summary  # type: ignore[no-any-return]
