"""Reading and writing files of rows: JSON Lines, Parquet, `datasets` folders and Hub data sets.

Reading names the file and line of every row, so that a bad one is found at once. Writing is resumable: rows go to
`OUTPUT.partial`, which becomes `OUTPUT` in one step when the work is done. `OUTPUT.settings.json` says what made it; a run
with other settings does not silently go on with rows that are not its own.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from trl_rrtf.errors import LoadError, OutputError, RowError


class Row(Protocol):
    """A row format of [`trl_rrtf.groups`][trl_rrtf.groups]."""

    @classmethod
    def from_row(cls, row: Any, where: str) -> Self:
        """Checks a decoded row and builds the object."""

    def to_row(self) -> dict[str, Any]:
        """The object as a plain dictionary."""


RowT = TypeVar("RowT", bound=Row)


def iterate_rows(source: str | os.PathLike[str]) -> Iterator[tuple[str, Any]]:
    """Yields `(where, row)` for each row of a source, in order, one at a time.

    Args:
        source: A `.jsonl` (or `.jsonl.gz`) file, a `.json` file (also an array, or CoderEval's), a `.parquet` file, a folder
            written by `Dataset.save_to_disk`, or a Hub data set id with an optional split (`user/name:split`, by default
            `train`).

    Raises:
        LoadError: The source is not there or cannot be read.
        RowError: A line is not JSON.
    """
    path = Path(source)
    try:
        if path.is_dir():
            import datasets

            dataset = datasets.load_from_disk(str(path))
            if isinstance(dataset, datasets.DatasetDict):
                raise LoadError(f"`{source}` holds several splits ({', '.join(dataset)}); name the folder of one of them")
            yield from _numbered(str(source), dataset)
        elif path.suffix == ".parquet":
            import pyarrow.parquet

            batches = pyarrow.parquet.ParquetFile(path).iter_batches()
            yield from _numbered(str(source), (row for batch in batches for row in batch.to_pylist()))
        elif path.suffix == ".json":
            yield from _json_document(path)
        elif path.exists() or path.suffix in (".jsonl", ".gz"):
            yield from _json_lines(path)
        else:
            yield from _numbered(str(source), _load_from_hub(str(source)))
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise LoadError(f"cannot read `{source}`: {error.strerror or error}; check the path") from error


def _json_document(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of one array, of CoderEval's `{"RECORDS": [...]}`, or of lines."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        yield from _json_lines(path)
        return
    rows = document.get("RECORDS", [document]) if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise LoadError(f'`{path}` holds no rows: expected an array, `{{"RECORDS": [...]}}`, or one object a line')
    yield from _numbered(str(path), rows)


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError as error:
                raise RowError(
                    where, None, f"not JSON ({error.msg} at character {error.pos + 1}); one object a line is expected"
                ) from error


def _numbered(name: str, rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for index, row in enumerate(rows):
        yield f"{name}, row {index}", row


def _load_from_hub(source: str) -> Iterable[Any]:
    import datasets

    name, _, split = source.partition(":")
    try:
        rows: Iterable[Any] = datasets.load_dataset(name, split=split or "train", streaming=True)
    except Exception as error:  # the Hub client raises many kinds; each means that the data set cannot be had
        raise LoadError(
            f"`{source}` is no file here, and the Hub has no such data set or cannot be reached ({type(error).__name__}: "
            f"{error}); check the path, or the network and the data set id"
        ) from error
    return rows


def read_rows(source: str | os.PathLike[str], row_type: type[RowT]) -> list[RowT]:
    """Reads and checks every row of a source, before any expensive work.

    Args:
        source: As in [`iterate_rows`][trl_rrtf.row_files.iterate_rows].
        row_type: A row format of [`trl_rrtf.groups`][trl_rrtf.groups].

    Raises:
        LoadError: The source is not there, cannot be read or has no row.
        RowError: A row breaks the format; its file, line and column are named.
    """
    rows = list(stream_rows(source, row_type))
    if not rows:
        raise LoadError(f"`{source}` has no row; give a file with at least one")
    return rows


def stream_rows(source: str | os.PathLike[str], row_type: type[RowT]) -> Iterator[RowT]:
    """Yields the rows of a source, checked, one at a time.

    Args:
        source: As in [`iterate_rows`][trl_rrtf.row_files.iterate_rows].
        row_type: A row format of [`trl_rrtf.groups`][trl_rrtf.groups].

    Raises:
        LoadError: The source is not there or cannot be read.
        RowError: A row breaks the format; its file, line and column are named.
    """
    for where, row in iterate_rows(source):
        yield row_type.from_row(row, where)


def check_rows(source: str | os.PathLike[str], row_type: type[RowT]) -> int:
    """Checks every row of a source before any expensive work, and keeps none.

    Returns:
        The number of rows.

    Raises:
        LoadError: The source is not there, cannot be read or has no row.
        RowError: A row breaks the format; its file, line and column are named.
    """
    count = sum(1 for _ in stream_rows(source, row_type))
    if not count:
        raise LoadError(f"`{source}` has no row; give a file with at least one")
    return count


def fingerprint(source: str | os.PathLike[str]) -> str:
    """A short hash of a source's content (of its name, for a Hub data set), to notice that it changed."""
    path = Path(source)
    digest = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            with file.open("rb") as content:
                while part := content.read(1 << 20):
                    digest.update(part)
    if not path.exists():
        digest.update(str(source).encode())
    return digest.hexdigest()[:16]


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON so that the file is replaced whole or not at all.

    Raises:
        OutputError: The disk is full, or the folder cannot be written.
    """
    path = Path(path)
    with _output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # processes of one training may write at once
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)


class ResumableWriter:
    """Writes rows to a file so that an interrupted run goes on where it stopped.

    ```python
    with ResumableWriter("judged.jsonl", settings) as writer:
        for group in groups[writer.rows_done:]:
            writer.write([judge(group)])
        writer.finish()
    ```

    Args:
        path: The output, `.jsonl` or `.parquet`.
        settings: What decides the rows (the settings of the stage, fingerprints of its inputs), JSON-able.
        rows_per_step: Rows that are made together. A resumed run makes an incomplete step again, so that its random
            numbers are those of an uninterrupted run.
        overwrite: Throws away an earlier output, finished or not.

    Attributes:
        rows_done: Rows that stand already.
        finished: Whether the whole output stands already.

    Raises:
        OutputError: An output made with other settings stands in the way, or the folder cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        rows_per_step: int = 1,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".jsonl", ".parquet"):
            raise OutputError(f"`output`: expected a name that ends in .jsonl or .parquet, got `{path}`")
        self.partial_path = self.path.with_name(self.path.name + ".partial")
        self.settings_path = self.path.with_name(self.path.name + ".settings.json")
        self.finished = False
        self.rows_done = 0
        comparable: dict[str, Any] = json.loads(json.dumps(dict(settings)))  # as it will be read back: tuples become lists
        with _output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if overwrite:
                for old in (self.path, self.partial_path, self.settings_path):
                    old.unlink(missing_ok=True)
            self._resume(comparable, rows_per_step)
            if not self.finished:
                write_json(self.settings_path, comparable)
                self._file = open(self.partial_path, "ab")  # noqa: SIM115  (closed by `finish` or `__exit__`)

    def _resume(self, settings: dict[str, Any], rows_per_step: int) -> None:
        if not self.path.exists() and not self.partial_path.exists():
            return
        earlier = json.loads(self.settings_path.read_text(encoding="utf-8")) if self.settings_path.exists() else {}
        changed = sorted(key for key in {*settings, *earlier} if settings.get(key) != earlier.get(key))
        if changed:
            differences = "; ".join(f"`{key}` was {earlier.get(key)!r} and is {settings.get(key)!r}" for key in changed)
            raise OutputError(
                f"`{self.path}` was begun with other settings: {differences}. Give back the old ones to go on, choose "
                "another output, or throw the old one away with `--overwrite true`"
            )
        if self.path.exists():
            self.finished = True
            return
        complete, rows, end = 0, 0, 0
        with open(self.partial_path, "r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):  # torn by a kill in the middle of a write
                    break
                rows, end = rows + 1, end + len(line)
                if rows % rows_per_step == 0:
                    self.rows_done, complete = rows, end
            file.truncate(complete)

    def write(self, rows: Iterable[Row]) -> None:
        """Appends rows; they survive a kill of the process.

        Raises:
            OutputError: The disk is full. What was written before is kept.
        """
        lines = "".join(json.dumps(row.to_row(), allow_nan=False) + "\n" for row in rows)
        with _output_errors(self.path):
            self._file.write(lines.encode("ascii"))
            self._file.flush()

    def finish(self) -> None:
        """Turns the partial file into the output, in one step.

        Raises:
            OutputError: The disk is full. What was written before is kept.
        """
        if self.finished:
            return
        with _output_errors(self.path):
            os.fsync(self._file.fileno())
            self._file.close()
            if self.path.suffix == ".parquet":
                import datasets

                temporary = self.path.with_name(self.path.name + ".tmp")
                cache = self.path.with_name(self.path.name + ".cache")
                dataset = datasets.Dataset.from_json(str(self.partial_path), cache_dir=str(cache))
                dataset.to_parquet(str(temporary))
                shutil.rmtree(cache)
                os.replace(temporary, self.path)
                self.partial_path.unlink()
            else:
                os.replace(self.partial_path, self.path)
        self.finished = True

    def discard(self) -> None:
        """Removes what was begun, where it turns out that there is nothing to write."""
        self._file.close()
        for path in (self.partial_path, self.settings_path):
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        file = getattr(self, "_file", None)
        if file is not None and not file.closed:
            with contextlib.suppress(OSError):  # a full disk was reported by `write` already
                file.close()


class Journal:
    """Finished pieces of work, in any order, in a file that survives a kill; for work that ends in another order than its rows.

    Args:
        path: The file, a line per piece.
        overwrite: Throws away an earlier one.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._offsets: dict[int, int] = {}
        with _output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "w+b" if overwrite or not self.path.exists() else "r+b")  # noqa: SIM115
            end = 0
            for line in self._file:
                if not line.endswith(b"\n"):  # torn by a kill in the middle of a write
                    break
                self._offsets[int(line.split(b" ", 1)[0])] = end
                end += len(line)
            self._file.truncate(end)

    def __contains__(self, place: object) -> bool:
        return place in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, pieces: Mapping[int, Any]) -> None:
        """Appends pieces, JSON-able, by their places; all of them or, after a kill, the first ones.

        Raises:
            OutputError: The disk is full. What was written before is kept.
        """
        with _output_errors(self.path):
            self._file.seek(0, os.SEEK_END)
            for place, piece in pieces.items():
                offset = self._file.tell()
                self._file.write(f"{place} {json.dumps(piece)}\n".encode("ascii"))
                self._offsets[place] = offset
            self._file.flush()

    def __getitem__(self, place: int) -> Any:
        self._file.seek(self._offsets[place])
        return json.loads(self._file.readline().split(b" ", 1)[1])

    def close(self, *, remove: bool = False) -> None:
        """Closes the file; `remove` deletes it, when its pieces stand elsewhere."""
        with _output_errors(self.path):
            self._file.close()
            if remove:
                self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported by `add` already
            self._file.close()


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """Turns a failed write into an error that says what to do."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write `{path}`: {error.strerror or error}; what was done is kept: free space or choose another "
            "output, and run the same command again"
        ) from error
