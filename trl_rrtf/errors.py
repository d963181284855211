"""Every error that the package raises on purpose.

```
TrlRrtfError
├── ConfigError        a setting is wrong, contradicts another one or cannot be honoured   (also a ValueError)
├── RowError           a row of a data file or data set breaks its format                  (also a ValueError)
├── LoadError          a model, tokenizer, data file or data set cannot be loaded          (also an OSError)
├── OutputError        an output cannot be written, or stands in the way                   (also an OSError)
├── JudgeError         the judge itself failed; says nothing about any candidate           (also a RuntimeError)
└── ClusterError       a worker on a machine of a cluster failed                           (also a RuntimeError)
```

Each message names the argument (or file, line and column), what was got, and what to do.
"""

from __future__ import annotations


class TrlRrtfError(Exception):
    """Base of every error that the package raises on purpose."""


class ConfigError(TrlRrtfError, ValueError):
    """A setting is wrong, contradicts another one, or cannot be honoured."""


class RowError(TrlRrtfError, ValueError):
    """A row of a data file or data set breaks its format.

    Args:
        where: The place of the row, such as `groups.jsonl, line 7` or `train_dataset, row 6`.
        column: The column at fault, or None when the row as a whole is (not JSON, say).
        problem: What was got, and what to do.
    """

    def __init__(self, where: str, column: str | None, problem: str) -> None:
        self.where = where
        self.column = column
        self.problem = problem
        at = where if column is None else f"{where}, column `{column}`"
        super().__init__(f"{at}: {problem}")


class LoadError(TrlRrtfError, OSError):
    """A model, tokenizer, data file or data set cannot be loaded."""


class OutputError(TrlRrtfError, OSError):
    """An output cannot be written, or an earlier one stands in the way."""


class JudgeError(TrlRrtfError, RuntimeError):
    """The judge itself failed; says nothing about any candidate."""


class ClusterError(TrlRrtfError, RuntimeError):
    """A worker on a machine of a cluster failed; the message holds its own."""
