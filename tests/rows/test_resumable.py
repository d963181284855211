"""Output that survives a kill: resuming, locks, full disks, replacing whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from trl_rrtf import OutputError, RankedGroup
from trl_rrtf.rows.files import read_rows
from trl_rrtf.rows.records import RankedCandidate
from trl_rrtf.rows.resumable import Journal, ResumableWriter, output_lock


def ranked(prompt: str, *completions: str, **extra: object) -> RankedGroup:
    candidates = [RankedCandidate(completion=text, score=float(i)) for i, text in enumerate(completions)]
    return RankedGroup(prompt=prompt, candidates=candidates, extra=extra)


def group(i: int) -> RankedGroup:
    return ranked(f"p{i}", "a", "b")


def write_all(path, numbers, settings=None, **options):
    with ResumableWriter(path, settings or {"a": 1}, **options) as writer:
        writer.write([group(i) for i in numbers[writer.rows_done :]])
        writer.finish()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_what_is_written_is_read(tmp_path, name):
    write_all(tmp_path / name, range(5))
    assert read_rows(tmp_path / name, RankedGroup) == [group(i) for i in range(5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.settings.json"]


def test_lone_surrogates_survive(tmp_path):
    """A program may hold one; a file in plain UTF-8 could not."""
    row = ranked("p", "'\ud800'", "b")
    with ResumableWriter(tmp_path / "rows.jsonl", {}) as writer:
        writer.write([row])
        writer.finish()
    assert read_rows(tmp_path / "rows.jsonl", RankedGroup) == [row]


# --- Going on ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param(b"", id="a kill between rows"),
        pytest.param(b'{"prompt": "p3", "comp', id="a kill in a row"),
        pytest.param(b"\x00" * 4096, id="a loss of power"),
        pytest.param(b"\x00" * 64 + b"\n", id="a loss of power, and a line's end"),
        pytest.param(b'{"prompt": "p3"\x00\x00\n', id="a row that ends in NUL bytes"),
        pytest.param(b"\xff\xfe\n", id="no text"),
    ],
)
def test_an_interrupted_file_goes_on_and_ends_the_same(tmp_path, torn):
    write_all(tmp_path / "whole.jsonl", range(6))
    with ResumableWriter(tmp_path / "rows.jsonl", {"a": 1}) as writer:
        writer.write([group(i) for i in range(3)])
    assert not (tmp_path / "rows.jsonl").exists()
    with open(tmp_path / "rows.jsonl.partial", "ab") as file:
        file.write(torn)
    with ResumableWriter(tmp_path / "rows.jsonl", {"a": 1}) as writer:
        assert writer.rows_done == 3
        writer.write([group(i) for i in range(3, 6)])
        writer.finish()
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_follows_a_torn_line_is_made_again(tmp_path):
    with ResumableWriter(tmp_path / "rows.jsonl", {}) as writer:
        writer.write([group(i) for i in range(3)])
    partial = tmp_path / "rows.jsonl.partial"
    first, second, third = partial.read_bytes().splitlines(keepends=True)
    partial.write_bytes(first + b"\x00" * (len(second) - 1) + b"\n" + third)
    with ResumableWriter(tmp_path / "rows.jsonl", {}) as writer:
        assert writer.rows_done == 1
    assert partial.read_bytes() == first


def test_an_incomplete_step_is_made_again(tmp_path):
    with ResumableWriter(tmp_path / "rows.jsonl", {}, rows_per_step=4) as writer:
        writer.write([group(i) for i in range(6)])
    with ResumableWriter(tmp_path / "rows.jsonl", {}, rows_per_step=4) as writer:
        assert writer.rows_done == 4


def test_a_finished_file_is_left_alone_and_other_settings_are_refused(tmp_path):
    write_all(tmp_path / "rows.jsonl", range(2), {"temperature": 0.8})
    with ResumableWriter(tmp_path / "rows.jsonl", {"temperature": 0.8}) as writer:
        assert writer.finished
    with pytest.raises(OutputError, match=r"`temperature` was 0\.8 and is 1\.2.*--overwrite true"):
        ResumableWriter(tmp_path / "rows.jsonl", {"temperature": 1.2})
    write_all(tmp_path / "rows.jsonl", range(1), {"temperature": 1.2}, overwrite=True)
    assert len(read_rows(tmp_path / "rows.jsonl", RankedGroup)) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 30, b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("left", ["rows.jsonl", "rows.jsonl.partial"])
def test_damaged_settings_are_told_and_thrown_away_on_demand(tmp_path, content, left):
    write_all(tmp_path / "rows.jsonl", range(2))
    os.rename(tmp_path / "rows.jsonl", tmp_path / left)
    (tmp_path / "rows.jsonl.settings.json").write_bytes(content)
    with pytest.raises(OutputError, match=r"rows\.jsonl\.settings\.json` is damaged .*--overwrite true"):
        ResumableWriter(tmp_path / "rows.jsonl", {"a": 1})
    assert (tmp_path / left).exists()
    write_all(tmp_path / "rows.jsonl", range(3), overwrite=True)
    assert len(read_rows(tmp_path / "rows.jsonl", RankedGroup)) == 3


def test_outputs_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(OutputError, match=r"expected a name that ends in \.jsonl or \.parquet"):
        ResumableWriter(tmp_path / "rows.csv", {})
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*free space or choose another output"):
        ResumableWriter(tmp_path / "file" / "rows.jsonl", {})


# --- Parquet -----------------------------------------------------------------------------------------------------------------


def test_text_that_looks_like_a_date_stays_text_in_parquet(tmp_path):
    with ResumableWriter(tmp_path / "rows.parquet", {}) as writer:
        writer.write([ranked("2024-05-01", "2024-05-01 10:00:00", "2024-05-01T10:00:00Z", day="2024-05-01")])
        writer.finish()
    (row,) = read_rows(tmp_path / "rows.parquet", RankedGroup)
    assert row == ranked("2024-05-01", "2024-05-01 10:00:00", "2024-05-01T10:00:00Z", day="2024-05-01")


def test_a_column_that_is_null_for_long_is_parquet_too(tmp_path):
    rows = [
        ranked(f"p{i}", "a", "b", late=None if i < 2500 else {"x": [f"{i}"]}, count=i if i % 2 else 0.5) for i in range(2600)
    ]
    with ResumableWriter(tmp_path / "rows.parquet", {}) as writer:
        writer.write(rows)
        writer.finish()
    assert read_rows(tmp_path / "rows.parquet", RankedGroup) == rows


@pytest.mark.parametrize("values", [(1, "a"), ("a", "\ud800"), (1, 2**70), ({}, {}), ([1], {"a": 1})])
def test_rows_that_cannot_be_parquet_are_kept_and_told(tmp_path, values):
    rows = [ranked(f"p{i}", "a", "b", mixed=value) for i, value in enumerate(values)]
    with ResumableWriter(tmp_path / "rows.parquet", {}) as writer:
        writer.write(rows)
        with pytest.raises(OutputError, match=r"rows\.parquet`: the rows cannot be Parquet .*rows\.parquet\.partial`"):
            writer.finish()
    os.rename(tmp_path / "rows.parquet.partial", tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl", RankedGroup) == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "rows.parquet.settings.json"]


# --- A full disk -------------------------------------------------------------------------------------------------------------


def with_small_files(most_bytes, code):
    """Runs code in a process whose files may have so many bytes: writes that truly fail. Returns what it printed."""
    program = f"""
import resource, signal
from trl_rrtf import OutputError, RankedGroup
from trl_rrtf.rows.records import RankedCandidate
from trl_rrtf.rows.resumable import Journal, ResumableWriter
def row(i):
    texts = (str(i) * 100, "b")
    return RankedGroup(prompt="p", candidates=[RankedCandidate(completion=text, score=1.0) for text in texts])
def full():
    resource.setrlimit(resource.RLIMIT_FSIZE, ({most_bytes}, {most_bytes}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
{code}
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_keeps_what_was_written(tmp_path):
    printed = with_small_files(
        4096,
        f"""
    full()
    writer = ResumableWriter({str(tmp_path / "rows.jsonl")!r}, {{}})
    for i in range(1000):
        writer.write([row(i)])
""",
    )
    assert "what was done is kept: free space" in printed
    with ResumableWriter(tmp_path / "rows.jsonl", {}) as writer:
        assert writer.rows_done > 10
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_disk_that_is_full_when_parquet_is_made_loses_nothing(tmp_path):
    path = tmp_path / "rows.parquet"
    printed = with_small_files(
        4096,
        f"""
    with ResumableWriter({str(path)!r}, {{}}) as writer:
        writer.write([row(i) for i in range(1000)])
        full()
        writer.finish()
""",
    )
    assert "rows.parquet`: " in printed
    assert "what was done is kept: free space" in printed
    assert {entry.name for entry in tmp_path.iterdir()} == {"rows.parquet.partial", "rows.parquet.settings.json"}
    with ResumableWriter(path, {}) as writer:
        assert writer.rows_done == 1000
        writer.finish()
    assert len(read_rows(path, RankedGroup)) == 1000


# --- Two runs at once --------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from trl_rrtf.rows.resumable import ResumableWriter
with ResumableWriter(sys.argv[1], {"a": 1}) as writer:
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that is writing `rows.jsonl`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "rows.jsonl")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_run_is_refused_and_the_first_is_named(tmp_path, holder, overwrite):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=rf"rows\.jsonl` is being written by another run \(process {holder.pid} on "):
        ResumableWriter(tmp_path / "rows.jsonl", {"a": 1}, overwrite=overwrite)
    assert sorted(tmp_path.iterdir()) == before
    write_all(tmp_path / "others.jsonl", range(2))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_that_is_killed_lets_go(tmp_path, holder, end):
    os.kill(holder.pid, end)
    holder.wait()
    write_all(tmp_path / "rows.jsonl", range(2))
    assert len(read_rows(tmp_path / "rows.jsonl", RankedGroup)) == 2
    assert not (tmp_path / "rows.jsonl.lock").exists()


def test_a_writer_that_fails_to_start_lets_go(tmp_path):
    write_all(tmp_path / "rows.jsonl", range(2))
    with pytest.raises(OutputError, match="`a` was 1 and is 2"):
        ResumableWriter(tmp_path / "rows.jsonl", {"a": 2})
    with output_lock(tmp_path / "rows.jsonl"), pytest.raises(OutputError, match=f"process {os.getpid()} on "):
        ResumableWriter(tmp_path / "rows.jsonl", {"a": 1})
    with ResumableWriter(tmp_path / "rows.jsonl", {"a": 1}) as writer:
        assert writer.finished


CONTENDER = """
import sys, time
from pathlib import Path
from trl_rrtf import OutputError
from trl_rrtf.rows.resumable import output_lock
path, end = Path(sys.argv[1]), time.monotonic() + float(sys.argv[2])
turns = 0
while time.monotonic() < end:
    try:
        with output_lock(path):
            path.touch(exist_ok=False)  # nobody else is here
            path.unlink()
            turns += 1
    except OutputError as error:
        assert "is being written by another run" in str(error), error
print(turns)
"""


def test_only_one_at_a_time_holds_an_output(tmp_path):
    """Processes that take and let go as fast as they can."""
    command = [sys.executable, "-c", CONTENDER, str(tmp_path / "rows.jsonl"), "1.0"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    assert sum(int(printed) for printed, _ in ends) > 3


# --- The journal -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b"", b"7 {", b"\x00" * 100, b"\x00" * 10 + b"\n", b"7 \x00\x00\n", b"nothing\n"])
def test_a_journal_keeps_what_was_whole(tmp_path, torn):
    with Journal(tmp_path / "j") as journal:
        journal.add({3: {"a": 1}, 1: ["b"]})
        assert (journal[3], journal[1], len(journal)) == ({"a": 1}, ["b"], 2)
    with open(tmp_path / "j", "ab") as file:
        file.write(torn)
    with Journal(tmp_path / "j") as journal:
        assert len(journal) == 2
        journal.add({7: "c"})
    with Journal(tmp_path / "j") as journal:
        assert [journal[place] for place in (1, 3, 7)] == [["b"], {"a": 1}, "c"]
        assert 2 not in journal


def test_a_full_disk_keeps_the_journal(tmp_path):
    printed = with_small_files(
        4096,
        f"""
    full()
    journal = Journal({str(tmp_path / "j")!r})
    for i in range(1000):
        journal.add({{i: "x" * 50}})
""",
    )
    assert "what was done is kept: free space" in printed
    with Journal(tmp_path / "j") as journal:
        assert len(journal) > 10
        assert json.dumps(journal[0]) == json.dumps("x" * 50)


def test_the_folder_one_stands_in_can_be_locked(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    with output_lock("."), pytest.raises(OutputError, match="is being written by another run"), output_lock(tmp_path / "run"):
        pass
    with pytest.raises(OutputError, match="cannot be an output"), output_lock("/"):
        pass
