"""What a stage did, as an object that can show itself: the result of every `run_*` function."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Self

from trl_rrtf.errors import OutputError
from trl_rrtf.rows.files import read_object


def of_this_run(default: Any = 0, *, default_factory: Any = dataclasses.MISSING) -> Any:
    """A field of a summary that tells of one run alone, and is not kept beside the output.

    Args:
        default: Its value in a run that did nothing.
        default_factory: Makes that value, for lists and dictionaries.
    """
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata={"of_this_run": True})
    return dataclasses.field(default=default, metadata={"of_this_run": True})


@dataclasses.dataclass(kw_only=True)
class Summary:
    """Base of the summaries: one line of the table per field, unless a summary says otherwise."""

    def table(self) -> dict[str, Any]:
        """What to show: label -> value. The entries of a dictionary get a line each."""
        shown: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value, label = getattr(self, field.name), field.name.replace("_", " ")
            shown |= {f"{label}: {key}": entry for key, entry in value.items()} if isinstance(value, dict) else {label: value}
        return shown

    def to_json(self) -> dict[str, Any]:
        """What is kept beside the output."""
        of_one_run = {field.name for field in dataclasses.fields(self) if field.metadata.get("of_this_run")}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in of_one_run}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The summary that was kept."""
        return cls(**values)

    @classmethod
    def load(cls, path: Path, advice: str) -> Self:
        """Reads the summary that an earlier run kept.

        Args:
            path: Its file.
            advice: What to do where it is missing or damaged.

        Raises:
            OutputError: It is missing, damaged, or of another version of this package.
        """
        values = read_object(path, advice)
        try:
            return cls.from_json(values)
        except TypeError as error:
            raise OutputError(f"`{path}` is damaged, or of another version ({error}); {advice}") from error
