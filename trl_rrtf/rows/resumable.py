"""Output that survives a kill: a stage's rows, and a journal of finished work.

Rows go to `OUTPUT.partial`, which becomes `OUTPUT` in one step when the work is done. `OUTPUT.settings.json` says what made it;
a run with other settings does not silently go on with rows that are not its own. `OUTPUT.lock` keeps a second run away.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trl_rrtf.errors import OutputError
from trl_rrtf.rows.files import Row, output_errors, read_object, write_json

_ROWS_PER_BATCH = 1000
"""Rows that are held at once while a Parquet file is written."""

_START_AGAIN = "throw the output away with `--overwrite true`, or choose another one"


@contextlib.contextmanager
def output_lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Holds an output (a file or a folder) for this process; its end, however it comes, lets go.

    Raises:
        OutputError: Another process holds it, which is named.
    """
    whole = Path(path).resolve()  # `.` has no name to put an ending to
    if not whole.name:
        raise OutputError(f"`{path}` cannot be an output; choose a file or folder inside it")
    lock = whole.with_name(whole.name + ".lock")
    with output_errors(path):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(lock, path)
    try:
        yield
    finally:
        # Removed while it is held, so that nobody else can hold a file that is about to go.
        lock.unlink(missing_ok=True)
        os.close(file)


def _locked(lock: Path, path: str | os.PathLike[str]) -> int:
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 200, 0).decode(errors="replace").strip()
            os.close(file)
            raise OutputError(
                f"`{path}` is being written by another run ({holder or 'a process'}); wait for it, end it, or choose another "
                "output"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(lock)):
                break
        os.close(file)  # its holder removed it meanwhile
    os.truncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return file


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
        is_new: Whether nothing of it stood here: what else lies beside it is of another run.

    Raises:
        OutputError: An output made with other settings stands in the way, another process writes it, or the folder cannot be
            written.
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
        require_row_file(path)
        self.partial_path = self.path.with_name(self.path.name + ".partial")
        self.settings_path = self.path.with_name(self.path.name + ".settings.json")
        self.finished = False
        self.rows_done = 0
        comparable: dict[str, Any] = json.loads(json.dumps(dict(settings)))  # as it will be read back: tuples become lists
        self._closing = contextlib.ExitStack()
        self._closing.enter_context(output_lock(self.path))
        try:
            with output_errors(self.path):
                if overwrite:
                    for old in (self.path, self.partial_path, self.settings_path):
                        old.unlink(missing_ok=True)
                self.is_new = not self.path.exists() and not self.partial_path.exists()
                self._resume(comparable, rows_per_step)
                if not self.finished:
                    write_json(self.settings_path, comparable)
                    self._file = open(self.partial_path, "ab")  # noqa: SIM115  (closed by `finish` or `__exit__`)
        except BaseException:
            self._closing.close()
            raise

    def _resume(self, settings: dict[str, Any], rows_per_step: int) -> None:
        if not self.path.exists() and not self.partial_path.exists():
            return
        earlier = read_object(self.settings_path, _START_AGAIN) if self.settings_path.exists() else {}
        require_same_settings(self.path, earlier, settings)
        if self.path.exists():
            self.finished = True
            return
        complete, rows, end = 0, 0, 0
        with open(self.partial_path, "r+b") as file:
            for line in file:
                if not _is_whole(line):
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
        with output_errors(self.path):
            self._file.write(lines.encode("ascii"))
            self._file.flush()

    def finish(self) -> None:
        """Turns the partial file into the output, in one step.

        Raises:
            OutputError: The disk is full, or the rows cannot be Parquet. What was written before is kept.
        """
        if self.finished:
            return
        with output_errors(self.path):
            os.fsync(self._file.fileno())
            self._file.close()
            if self.path.suffix == ".parquet":
                self._convert_to_parquet()
            else:
                os.replace(self.partial_path, self.path)
        self.finished = True

    def _convert_to_parquet(self) -> None:
        temporary = self.path.with_name(self.path.name + ".tmp")
        try:
            _write_parquet(self.partial_path, temporary)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self.partial_path.unlink()

    @property
    def is_empty(self) -> bool:
        """Whether no row was written, in this run or before."""
        return self.partial_path.exists() and self.partial_path.stat().st_size == 0

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
        self._closing.close()


def require_row_file(path: str | os.PathLike[str], argument: str = "output") -> None:
    """Refuses a name that is no file of rows.

    Raises:
        OutputError: It ends in something else than .jsonl or .parquet.
    """
    if Path(path).suffix not in (".jsonl", ".parquet"):
        raise OutputError(f"`{argument}`: expected a name that ends in .jsonl or .parquet, got `{path}`")


class OtherSettingsError(OutputError):
    """An output was begun with other settings.

    Args:
        what: Which output, and what differs.
        advice: What to do, where that is not what a stage's own command would say.
    """

    def __init__(
        self, what: str, advice: str = "choose another output, or throw the old one away with `--overwrite true`"
    ) -> None:
        super().__init__(f"{what}. Give back the old ones to go on, {advice}")
        self.what = what


def require_same_settings(path: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuses an output that was begun with other settings.

    Raises:
        OtherSettingsError: It names each setting that changed, with both values.
    """
    changed = sorted(key for key in {*settings, *earlier} if settings.get(key) != earlier.get(key))
    if changed:
        differences = "; ".join(f"`{key}` was {earlier.get(key)!r} and is {settings.get(key)!r}" for key in changed)
        raise OtherSettingsError(f"`{path}` was begun with other settings: {differences}")


def _is_whole(line: bytes) -> bool:
    """Whether a line was written to its end: not torn by a kill, and no block of NUL bytes that a loss of power left."""
    if not line.endswith(b"\n"):
        return False
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _write_parquet(lines: Path, output: Path) -> None:
    """Writes JSON Lines as Parquet: read twice, so that a column that is null for a while gets the type that it has later.

    Not by readers of JSON Lines such as `datasets`, which take text that looks like a date for one.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.schema([])
        for rows in _batches(lines):
            found = pyarrow.Table.from_pylist(rows).schema
            schema = pyarrow.unify_schemas([schema, found], promote_options="permissive")
        with pyarrow.parquet.ParquetWriter(output, schema) as writer:
            for rows in _batches(lines):
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise OutputError(
            f"`{output.stem}`: the rows cannot be Parquet ({error}); they stand in `{lines}`, which is JSON Lines: rename "
            "it, or run the stage again with an output that ends in .jsonl"
        ) from error


def _batches(lines: Path) -> Iterator[list[Any]]:
    with lines.open("rb") as file:
        while batch := [json.loads(line) for line in itertools.islice(file, _ROWS_PER_BATCH)]:
            yield batch


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
        with output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "w+b" if overwrite or not self.path.exists() else "r+b")  # noqa: SIM115
            end = 0
            for line in self._file:
                place, _, piece = line.partition(b" ")
                if not place.isdigit() or not _is_whole(piece):
                    break
                self._offsets[int(place)] = end
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
        with output_errors(self.path):
            self._file.seek(0, os.SEEK_END)
            for place, piece in pieces.items():
                offset = self._file.tell()
                self._file.write(f"{place} {json.dumps(piece)}\n".encode("ascii"))
                self._offsets[place] = offset
            self._file.flush()

    def __getitem__(self, place: int) -> Any:
        self._file.seek(self._offsets[place])
        return json.loads(self._file.readline().split(b" ", 1)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported by `add` already
            self._file.close()
