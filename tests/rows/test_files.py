"""Reading files of rows: what is read, and what each file that is no good is told; writing JSON whole or not at all."""

from __future__ import annotations

import codecs
import gzip
import json

import pytest
from datasets import Dataset, DatasetDict

from trl_rrtf import LoadError, OutputError, RankedGroup, RowError
from trl_rrtf.rows.files import check_rows, fingerprint, iterate_rows, read_json, read_rows, write_json
from trl_rrtf.rows.records import RankedCandidate


def group(i: int) -> RankedGroup:
    candidates = [
        RankedCandidate(completion="a", score=1.0, source="teacher"),
        RankedCandidate(completion="b", score=0.0, source="student"),
    ]
    return RankedGroup(prompt=f"p{i}", candidates=candidates)


def lines(*numbers: int) -> bytes:
    return "".join(json.dumps(group(i).to_row()) + "\n" for i in numbers).encode()


def test_other_inputs_are_read(tmp_path):
    rows = [group(i).to_row() for i in range(3)]
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    Dataset.from_list(rows).save_to_disk(tmp_path / "folder")
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "records.json").write_text(json.dumps({"RECORDS": rows}))
    (tmp_path / "lines.json").write_bytes(lines(0, 1, 2))
    (tmp_path / "rows.txt").write_bytes(lines(0, 1, 2))
    for name in ("rows.jsonl.gz", "folder", "rows.json", "records.json", "lines.json", "rows.txt"):
        assert [row for _, row in iterate_rows(tmp_path / name)] == rows, name
    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(tmp_path / "splits")
    with pytest.raises(LoadError, match=r"several splits \(train\)"):
        list(iterate_rows(tmp_path / "splits"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json"])
def test_a_byte_order_mark_is_taken(tmp_path, name):
    content = codecs.BOM_UTF8 + (json.dumps([group(0).to_row()]).encode() if name == "rows.json" else lines(0))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read_rows(tmp_path / name, RankedGroup) == [group(0)]


def test_bad_lines_are_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(group(0).to_row()) + "\n\n{not json}\n")
    with pytest.raises(RowError, match=r"rows\.jsonl, line 3: not JSON \(.* at character 2\)"):
        read_rows(path, RankedGroup)
    path.write_text(json.dumps(group(0).to_row()) + "\n" + json.dumps({**group(1).to_row(), "scores": [1]}) + "\n")
    with pytest.raises(RowError, match=r"rows\.jsonl, line 2, column `scores`"):
        read_rows(path, RankedGroup)


DEEP = b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
LONG_INTEGER = b'{"prompt": ' + b"7" * 5_000 + b"}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            "é".encode("latin-1") + b"\n", "not UTF-8 text (byte 0xe9 at byte 1); save the file as UTF-8", id="latin-1"
        ),
        pytest.param('{"a": "\xe9"}\n'.encode("utf-16"), "not UTF-8 text", id="utf-16"),
        pytest.param('{"a": 1}\n'.encode("utf-16-le"), "not JSON", id="utf-16 without a mark"),
        pytest.param(b"\x00\x01\x02\xfe\xff\n", "not UTF-8 text", id="binary"),
        pytest.param(b"\x00" * 100 + b"\n", "not JSON", id="NUL bytes"),
        pytest.param(b"\x28\xb5\x2f\xfd\x04\x58\n", "not UTF-8 text", id="zstandard under another name"),
        pytest.param(LONG_INTEGER, "a number is too long", id="an integer of 5,000 digits"),
        pytest.param(DEEP, "nested too deeply", id="nested 100,000 deep"),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.ndjson", "rows.json", "rows"])
def test_lines_that_are_no_rows_are_told_with_file_and_line(tmp_path, name, content, message):
    content = lines(0, 1) + content
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(RowError) as caught:
        read_rows(tmp_path / name, RankedGroup)
    assert str(caught.value).startswith(f"{tmp_path / name}, line 3: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl.zst", b"\x28\xb5\x2f\xfd", ".zst files are not read; give .jsonl, .jsonl.gz"),
        ("rows.arrow", b"ARROW1", ".arrow files are not read"),
        ("rows.csv", b"a,b\n", ".csv files are not read"),
        ("rows.jsonl.gz", gzip.compress(lines(*range(2000)))[:2000], "not a whole gzip file"),
        ("rows.jsonl.gz", lines(0), "line 1: not a whole gzip file (Not a gzipped file"),
        ("rows.jsonl.gz", gzip.compress(b"")[:5], "line 1: not a whole gzip file"),
        ("rows.jsonl.gz", gzip.compress(lines(0, 1))[:10] + b"\xff" * 30, "not a whole gzip file"),
        ("rows.parquet", lines(0), "row 0: not a whole Parquet file"),
        ("rows.parquet", b"", "row 0: not a whole Parquet file"),
        ("rows.parquet", b"PAR1" + b"\x07" * 40 + b"PAR1", "row 0: not a whole Parquet file"),
        ("rows.json", b"7", "holds no rows: expected an array"),
    ],
)
def test_files_that_are_not_what_their_name_says_are_told(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LoadError) as caught:
        read_rows(tmp_path / name, RankedGroup)
    assert f"`{tmp_path / name}`" in str(caught.value)
    assert message in str(caught.value)


def test_a_cut_parquet_file_is_told(tmp_path):
    Dataset.from_list([group(i).to_row() for i in range(50)]).to_parquet(str(tmp_path / "whole.parquet"))
    content = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(LoadError, match=r"cut\.parquet`, row 0: not a whole Parquet file .*copy or make it again"):
        read_rows(tmp_path / "cut.parquet", RankedGroup)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(LoadError, match=r"cannot read .*nothing\.jsonl.*check the path"):
        read_rows(tmp_path / "nothing.jsonl", RankedGroup)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(LoadError, match="has no row"):
        read_rows(tmp_path / "empty.jsonl", RankedGroup)
    with pytest.raises(LoadError, match="has no row"):
        check_rows(tmp_path / "empty.jsonl", RankedGroup)
    with pytest.raises(LoadError, match=r"`nobody/nothing` is no file here, and the Hub"):
        read_rows("nobody/nothing", RankedGroup)
    (tmp_path / "folder").mkdir()
    with pytest.raises(LoadError, match=r"is a folder, and `Dataset\.save_to_disk` did not write it"):
        read_rows(tmp_path / "folder", RankedGroup)


def test_the_fingerprint_tells_content(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    (tmp_path / "c").write_text("y")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")


def test_json_is_read_as_written_and_a_damaged_file_is_told(tmp_path):
    write_json(tmp_path / "sub" / "a.json", {"a": [1, None]})
    assert read_json(tmp_path / "sub" / "a.json", "make it again") == {"a": [1, None]}
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.json"]
    for content in (b"", b"{", b"\xff\xfe"):
        (tmp_path / "b.json").write_bytes(content)
        with pytest.raises(OutputError, match=r"b\.json` is damaged .*; make it again"):
            read_json(tmp_path / "b.json", "make it again")
    with pytest.raises(OutputError, match=r"c\.json` is missing; make it again"):
        read_json(tmp_path / "c.json", "make it again")
