"""Files of rows: places in errors, resuming, replacing whole or not at all."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest
from datasets import Dataset, DatasetDict

from trl_rrtf import LoadError, OutputError, RankedGroup, RowError
from trl_rrtf.row_files import ResumableWriter, fingerprint, iterate_rows, read_rows


def group(i: int) -> RankedGroup:
    return RankedGroup(prompt=f"p{i}", completions=["a", "b"], scores=[1.0, 0.0], sources=["teacher", "student"])


def write_all(path, numbers, settings=None, **options):
    with ResumableWriter(path, settings or {"a": 1}, **options) as writer:
        writer.write([group(i) for i in numbers[writer.rows_done :]])
        writer.finish()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_what_is_written_is_read(tmp_path, name):
    write_all(tmp_path / name, range(5))
    assert read_rows(tmp_path / name, RankedGroup) == [group(i) for i in range(5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.settings.json"]


def test_other_sources_are_read(tmp_path):
    rows = [group(i).to_row() for i in range(3)]
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    Dataset.from_list(rows).save_to_disk(tmp_path / "folder")
    for name in ("rows.jsonl.gz", "folder"):
        assert [row for _, row in iterate_rows(tmp_path / name)] == rows
    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(tmp_path / "splits")
    with pytest.raises(LoadError, match=r"several splits \(train\)"):
        list(iterate_rows(tmp_path / "splits"))


def test_lone_surrogates_survive(tmp_path):
    """A program may hold one; a file in plain UTF-8 could not."""
    row = RankedGroup(prompt="p", completions=["'\ud800'", "b"], scores=[1.0, 0.0])
    with ResumableWriter(tmp_path / "rows.jsonl", {}) as writer:
        writer.write([row])
        writer.finish()
    assert read_rows(tmp_path / "rows.jsonl", RankedGroup) == [row]


def test_bad_lines_are_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(group(0).to_row()) + "\n\n{not json}\n")
    with pytest.raises(RowError, match=r"rows\.jsonl, line 3: not JSON \(.* at character 2\)"):
        read_rows(path, RankedGroup)
    path.write_text(json.dumps(group(0).to_row()) + "\n" + json.dumps({**group(1).to_row(), "scores": [1]}) + "\n")
    with pytest.raises(RowError, match=r"rows\.jsonl, line 2, column `scores`"):
        read_rows(path, RankedGroup)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(LoadError, match=r"cannot read .*nothing\.jsonl.*check the path"):
        read_rows(tmp_path / "nothing.jsonl", RankedGroup)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(LoadError, match="has no row"):
        read_rows(tmp_path / "empty.jsonl", RankedGroup)
    with pytest.raises(LoadError, match=r"`nobody/nothing` is no file here, and the Hub"):
        read_rows("nobody/nothing", RankedGroup)


@pytest.mark.parametrize("torn", ["", '{"prompt": "p3", "comp'])
def test_an_interrupted_file_goes_on_and_ends_the_same(tmp_path, torn):
    write_all(tmp_path / "whole.jsonl", range(6))
    with ResumableWriter(tmp_path / "rows.jsonl", {"a": 1}) as writer:
        writer.write([group(i) for i in range(3)])
    assert not (tmp_path / "rows.jsonl").exists()
    with open(tmp_path / "rows.jsonl.partial", "a") as file:
        file.write(torn)
    with ResumableWriter(tmp_path / "rows.jsonl", {"a": 1}) as writer:
        assert writer.rows_done == 3
        writer.write([group(i) for i in range(3, 6)])
        writer.finish()
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


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


def test_outputs_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(OutputError, match=r"expected a name that ends in \.jsonl or \.parquet"):
        ResumableWriter(tmp_path / "rows.csv", {})
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*free space or choose another output"):
        ResumableWriter(tmp_path / "file" / "rows.jsonl", {})


def test_a_full_disk_keeps_what_was_written(tmp_path):
    """A real failing write: the process may write files of 4 kB at most."""
    program = f"""
import resource, signal
from trl_rrtf import OutputError, RankedGroup
from trl_rrtf.row_files import ResumableWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
writer = ResumableWriter({str(tmp_path / "rows.jsonl")!r}, {{}})
try:
    for i in range(1000):
        writer.write([RankedGroup(prompt="p", completions=["a" * 100, "b"], scores=[1.0, 0.0])])
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "what was done is kept: free space" in done.stdout
    with ResumableWriter(tmp_path / "rows.jsonl", {}) as writer:
        assert writer.rows_done > 10
    assert not (tmp_path / "rows.jsonl").exists()


def test_the_fingerprint_tells_content(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    (tmp_path / "c").write_text("y")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")
