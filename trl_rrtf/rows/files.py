"""Reading files of rows (JSON Lines, JSON, Parquet, `datasets` folders, Hub data sets), and writing JSON.

Reading names the file and line of every row, so that a bad one is found at once. Writing rows is resumable, see
[`resumable`][trl_rrtf.rows.resumable].
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeVar

from trl_rrtf.errors import LoadError, OutputError, RowError, TrlRrtfError

JSON_LINES = (".jsonl", ".json", ".gz", ".ndjson")
"""Endings of files that are read as one JSON object a line; `.json` may be a single document too."""

_UNREADABLE = (".zst", ".zip", ".xz", ".bz2", ".arrow", ".csv", ".tsv", ".pkl", ".pickle", ".npz", ".safetensors")
"""Endings that a stranger tries first, and that are not read."""


class Row(Protocol):
    """A row format of [`trl_rrtf.rows.records`][trl_rrtf.rows.records]."""

    @classmethod
    def from_row(cls, row: Any, where: str) -> Self:
        """Checks a decoded row and builds the object."""

    def to_row(self) -> dict[str, Any]:
        """The object as a plain dictionary."""


RowT = TypeVar("RowT", bound=Row)


def iterate_rows(
    input: str | os.PathLike[str], on_bad_line: Callable[[RowError], None] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yields `(where, row)` for each row of an input, in order, one at a time.

    Args:
        input: A `.jsonl` (or `.jsonl.gz`) file, a `.json` file (also an array, or CoderEval's), a `.parquet` file, a folder
            written by `Dataset.save_to_disk`, a Hub data set id, or files of one. An id may have a split, and before it a
            configuration: `user/name`, `user/name:split`, `user/name:configuration:split`; by default `train` of the data
            set's own default. Files: `hf://datasets/user/name/FILE` (`user/name@revision` for a branch), where FILE may be a
            pattern such as `ALL/train-*.parquet`.
        on_bad_line: Gets the error of a line that is not JSON, and the line is passed over; by default the error is raised.

    Raises:
        LoadError: The input is not there, cannot be read, or is of another format than its name says.
        RowError: A line is not JSON, or not UTF-8.
    """
    if str(input).startswith(_HUB_FILES):
        for file in _downloaded(str(input)):
            yield from iterate_rows(file, on_bad_line)
        return
    path = Path(input)
    try:
        if path.is_dir():
            yield from _folder(path)
        elif path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix in _UNREADABLE:
            raise LoadError(
                f"`{input}`: {path.suffix} files are not read; give .jsonl, .jsonl.gz, .json, .parquet, a folder of "
                "`Dataset.save_to_disk`, or a Hub data set id"
            )
        elif path.suffix == ".json":
            yield from _json_document(path, on_bad_line)
        elif path.exists() or path.suffix in JSON_LINES:
            yield from _json_lines(path, on_bad_line)
        else:
            yield from _numbered(str(input), _load_from_hub(str(input)))
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        if isinstance(error, TrlRrtfError):
            raise
        raise LoadError(f"cannot read `{input}`: {error.strerror or error}; check the path") from error


def _folder(path: Path) -> Iterator[tuple[str, Any]]:
    import datasets

    try:
        dataset = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise LoadError(
            f"`{path}` is a folder, and `Dataset.save_to_disk` did not write it; give a file, or one that it wrote"
        ) from error
    if isinstance(dataset, datasets.DatasetDict):
        raise LoadError(f"`{path}` holds several splits ({', '.join(dataset)}); name the folder of one of them")
    yield from _numbered(str(path), dataset)


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    index = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                yield f"{path}, row {index}", row
                index += 1
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError | TrlRrtfError):
            raise
        reason = str(error).splitlines()[0]
        raise LoadError(f"`{path}`, row {index}: not a whole Parquet file ({reason}); copy or make it again") from error


def _json_document(path: Path, on_bad_line: Callable[[RowError], None] | None) -> Iterator[tuple[str, Any]]:
    """Rows of one array, of CoderEval's `{"RECORDS": [...]}`, or of lines."""
    try:
        document = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError):  # lines, or what the lines' errors will name
        yield from _json_lines(path, on_bad_line)
        return
    rows = document.get("RECORDS", [document]) if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise LoadError(f'`{path}` holds no rows: expected an array, `{{"RECORDS": [...]}}`, or one object a line')
    yield from _numbered(str(path), rows)


def _json_lines(path: Path, on_bad_line: Callable[[RowError], None] | None) -> Iterator[tuple[str, Any]]:
    number = 0
    with _opened(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                where = f"{path}, line {number}"
                try:
                    row = decode_line(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, where)
                except RowError as error:
                    if on_bad_line is None:
                        raise
                    on_bad_line(error)
                else:
                    yield where, row
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise LoadError(
                f"`{path}`, line {number + 1}: not a whole gzip file ({error}); copy it again, or rename it"
            ) from error


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def decode_line(line: bytes, where: str) -> Any:
    """Decodes one line of a JSON Lines file.

    Raises:
        RowError: It is not JSON, or not UTF-8.
    """
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowError(
            where,
            None,
            f"not UTF-8 text (byte 0x{line[error.start]:02x} at byte {error.start + 1}); save the file as UTF-8, as JSON Lines",
        ) from error
    except json.JSONDecodeError as error:
        raise RowError(
            where, None, f"not JSON ({error.msg} at character {error.pos + 1}); one object a line is expected"
        ) from error
    except ValueError as error:  # an integer that Python refuses to convert
        raise RowError(where, None, f"a number is too long ({error}); write it as text") from error
    except RecursionError as error:
        raise RowError(where, None, "nested too deeply to be read; flatten it") from error


def _numbered(name: str, rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for index, row in enumerate(rows):
        yield f"{name}, row {index}", row


_HUB_ID = re.compile(r"(?P<name>[^:]+)(?::(?P<configuration>[^:\[]+))??(?::(?P<split>[^:\[]+(?:\[.*\])?))?")
_SPELLINGS = "`user/name`, `user/name:split` or `user/name:configuration:split`"
_CHOICE_ERRORS = ("Bad split", "BuilderConfig", "Config name is missing")
"""How `datasets` begins what it says of a split or a configuration that the data set lacks."""


def _load_from_hub(input: str) -> Iterator[Any]:
    import datasets

    parts = _HUB_ID.fullmatch(input)
    if parts is None:
        raise LoadError(f"`{input}` is no file here, and no Hub data set is spelled so; expected {_SPELLINGS}")
    name, configuration, split = parts.group("name", "configuration", "split")
    try:
        rows = datasets.load_dataset(name, configuration, split=split or "train", streaming=True)
        yield from rows
    except Exception as error:  # the Hub client raises many kinds; each means that the data set cannot be had
        if "Dataset scripts are no longer supported" in str(error):
            raise LoadError(_script_advice(input, name, datasets.__version__)) from error
        if str(error).startswith(_CHOICE_ERRORS):
            reason = " ".join(str(error).split())
            raise LoadError(
                f"`{input}`: the data set is there, but not so ({reason}); choose a split and a configuration that it has, as "
                f"{_SPELLINGS}"
            ) from error
        raise LoadError(
            f"`{input}` is no file here, and the Hub has no such data set or cannot be reached ({type(error).__name__}: "
            f"{error}); check the path, or the network and the data set id"
        ) from error


_HUB_FILES = "hf://"
_HUB_FILE = re.compile(r"hf://datasets/(?P<name>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?/(?P<file>.+)")
_DATA_FILES = {
    "codeparrot/apps": "train.jsonl",
    "baai/taco": "ALL/train-*.parquet",
    "livecodebench/code_generation_lite": "test*.jsonl",
    "thudm/humaneval-x": "data/python/data/humaneval.jsonl",
    "zai-org/humaneval-x": "data/python/data/humaneval.jsonl",
}
"""Where the data of known data sets with a loading script lies."""


def _script_advice(input: str, name: str, version: str) -> str:
    file = _DATA_FILES.get(name.lower())
    example = f"`hf://datasets/{name}/{file}`" if file else f"`hf://datasets/{name}/FILE`"
    return (
        f"`{input}` is published with a loading script, and datasets {version} runs none; name its data files instead, as "
        f"{example} (https://huggingface.co/datasets/{name}/tree/main lists them), or download one and give its path"
    )


def _downloaded(input: str) -> list[str]:
    """The files of a Hub data set that are meant, in the Hub client's cache."""
    import huggingface_hub

    parts = _HUB_FILE.fullmatch(input)
    if parts is None:
        raise LoadError(
            f"`{input}`: expected `hf://datasets/user/name/FILE`, such as `hf://datasets/codeparrot/apps/train.jsonl`"
        )
    name, revision, pattern = parts.group("name", "revision", "file")
    try:
        files, there = [pattern], list[str]()
        if any(character in pattern for character in "*?["):
            there = huggingface_hub.list_repo_files(name, repo_type="dataset", revision=revision)
            files = sorted(file for file in there if fnmatch.fnmatchcase(file, pattern))
        paths = [huggingface_hub.hf_hub_download(name, file, repo_type="dataset", revision=revision) for file in files]
    except Exception as error:  # the Hub client raises many kinds; each means that the file cannot be had
        raise LoadError(
            f"`{input}`: the Hub has no such file or cannot be reached ({type(error).__name__}: {error}); check the "
            f"network and the name (https://huggingface.co/datasets/{name}/tree/main lists the files)"
        ) from error
    if not paths:
        raise LoadError(f"`{input}`: none of the {len(there)} files of the data set matches; there are {', '.join(there[:10])}")
    return paths


def read_rows(input: str | os.PathLike[str], row_type: type[RowT]) -> list[RowT]:
    """Reads and checks every row of an input, before any expensive work.

    Args:
        input: As in [`iterate_rows`][trl_rrtf.rows.files.iterate_rows].
        row_type: A row format of [`trl_rrtf.rows.records`][trl_rrtf.rows.records].

    Raises:
        LoadError: The input is not there, cannot be read or has no row.
        RowError: A row breaks the format; its file, line and column are named.
    """
    rows = list(stream_rows(input, row_type))
    if not rows:
        raise LoadError(f"`{input}` has no row; give a file with at least one")
    return rows


def stream_rows(input: str | os.PathLike[str], row_type: type[RowT]) -> Iterator[RowT]:
    """Yields the rows of an input, checked, one at a time.

    Args:
        input: As in [`iterate_rows`][trl_rrtf.rows.files.iterate_rows].
        row_type: A row format of [`trl_rrtf.rows.records`][trl_rrtf.rows.records].

    Raises:
        LoadError: The input is not there or cannot be read.
        RowError: A row breaks the format; its file, line and column are named.
    """
    for where, row in iterate_rows(input):
        yield row_type.from_row(row, where)


def check_rows(input: str | os.PathLike[str], row_type: type[RowT]) -> int:
    """Checks every row of an input before any expensive work, and keeps none.

    Returns:
        The number of rows.

    Raises:
        LoadError: The input is not there, cannot be read or has no row.
        RowError: A row breaks the format, or has the problem id of an earlier one; its file, line and column are named.
    """
    count = sum(1 for _ in with_unique_ids((where, row_type.from_row(row, where)) for where, row in iterate_rows(input)))
    if not count:
        raise LoadError(f"`{input}` has no row; give a file with at least one")
    return count


def with_unique_ids(rows: Iterable[tuple[str, RowT]]) -> Iterator[RowT]:
    """Yields rows, and refuses one whose `problem_id` an earlier one has; those without such an id pass.

    Raises:
        RowError: Two rows have one id. Their candidates would be drawn with the same seeds, and counted as one problem's.
    """
    places: dict[int, str] = {}
    for where, row in rows:
        problem_id = getattr(row, "problem_id", None)
        if problem_id is not None:
            first = places.setdefault(hash(problem_id), where)
            if first is not where:
                raise RowError(
                    where,
                    "problem_id",
                    f"{problem_id!r} is the id of another problem too ({first}); rename one, or drop copies with `filter`",
                )
        yield row


def fingerprint(input: str | os.PathLike[str]) -> str:
    """A short hash of a file's or folder's content, to notice that it changed; a Hub data set id is its own."""
    path = Path(input)
    if not path.exists():
        return str(input)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file_digest(file))
    return digest.hexdigest()[:16]


def file_digest(file: Path) -> bytes:
    """SHA-256 of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON so that the file is replaced whole or not at all, also where the power goes.

    Raises:
        OutputError: The disk is full, or the folder cannot be written.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text so that the file is replaced whole or not at all, also where the power goes.

    Raises:
        OutputError: The disk is full, or the folder cannot be written.
    """
    path = Path(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # processes of one training may write at once
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_json(path: str | os.PathLike[str], advice: str) -> Any:
    """Reads JSON that a stage wrote beside its output.

    Args:
        path: The file.
        advice: What to do where it is damaged.

    Raises:
        OutputError: The file is not there, empty or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OutputError(f"`{path}` is missing; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise OutputError(f"`{path}` is damaged ({error}); {advice}") from error


def read_object(path: str | os.PathLike[str], advice: str) -> dict[str, Any]:
    """Reads JSON that a stage wrote beside its output, which is an object with named values.

    Args:
        path: The file.
        advice: What to do where it is damaged.

    Raises:
        OutputError: The file is not there, empty or damaged, or holds something else.
    """
    value = read_json(path, advice)
    if not isinstance(value, dict):
        raise OutputError(f"`{path}` is damaged (it holds no object, but {type(value).__name__}); {advice}")
    return value


_DISK_ERRNOS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_DISK_REASONS = (
    "No space left on device",
    "File too large",
    "Disk quota exceeded",
    "file write failed",  # torch.save
    "iostream error",  # torch.save, whose file is a stream of C++
    "unexpected pos",  # torch.save, when it closes such a file
)
_KEPT = "what was done is kept: free space or choose another output, and run the same command again"


@contextlib.contextmanager
def output_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around what writes an output: turns a failed write into an error that says what to do.

    Raises:
        OutputError: The write failed.
    """
    with full_disk_errors(path):
        try:
            yield
        except TrlRrtfError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write `{path}`: {error.strerror or error}; {_KEPT}") from error


@contextlib.contextmanager
def full_disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around work that writes now and then: a full disk is told as such; many libraries raise it as an error of their own.

    Raises:
        OutputError: The disk is full.
    """
    try:
        yield
    except TrlRrtfError:
        raise
    except Exception as error:
        reason = _full_disk(error)
        if reason is None:
            raise
        raise OutputError(f"cannot write `{path}`: {reason}; {_KEPT}") from error


def _full_disk(error: BaseException) -> str | None:
    """What the system said of a full disk, by the error itself or what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _DISK_ERRNOS:
            return seen.strerror or str(seen)
        if any(reason in str(seen) for reason in _DISK_REASONS):
            return str(seen).splitlines()[0]
        seen = seen.__cause__ or seen.__context__
    return None
