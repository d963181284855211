"""Reading files of rows: what is read, and what each file that is no good is told; writing JSON whole or not at all."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


README = """---
configs:
- config_name: full
  default: true
  data_files:
  - split: train
    path: full.jsonl
- config_name: sanitized
  data_files:
  - split: train
    path: sanitized.jsonl
  - split: test
    path: sanitized_test.jsonl
---
"""


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """A data set of two configurations under its Hub id: `datasets` takes a folder of that name for it."""
    folder = tmp_path / "owner" / "mbpp"
    folder.mkdir(parents=True)
    for name in ("full", "sanitized", "sanitized_test"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"name": name}) + "\n")
    (folder / "README.md").write_text(README)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.mark.parametrize(
    ("input", "name"),
    [
        ("owner/mbpp:train", "full"),
        ("owner/mbpp:full:train", "full"),
        ("owner/mbpp:sanitized:train", "sanitized"),
        ("owner/mbpp:sanitized:test", "sanitized_test"),
    ],
)
def test_a_configuration_of_a_hub_data_set_is_named_before_its_split(hub_folder, input, name):
    assert [row for _, row in iterate_rows(input)] == [{"name": name}]
    assert next(iterate_rows(input))[0] == f"{input}, row 0"


@pytest.mark.parametrize(
    ("input", "message"),
    [
        ("owner/mbpp:sanitized", r"Bad split.*choose a split and a configuration .*`user/name:configuration:split`"),
        ("owner/mbpp:clean:test", r"BuilderConfig.*choose a split and a configuration"),
        ("owner/mbpp:sanitized:validation", r"Bad split.*choose a split and a configuration"),
        ("owner/mbpp:a:b:c", "no Hub data set is spelled so; expected `user/name`"),
        ("owner/mbpp:", "no Hub data set is spelled so"),
    ],
)
def test_a_choice_that_a_hub_data_set_lacks_is_told(hub_folder, input, message):
    with pytest.raises(LoadError, match=message):
        list(iterate_rows(input))


def test_a_data_set_without_a_default_asks_for_a_configuration(hub_folder):
    (hub_folder / "README.md").write_text(README.replace("  default: true\n", ""))
    with pytest.raises(LoadError, match=r"Config name is missing.*`user/name:configuration:split`"):
        list(iterate_rows("owner/mbpp:train"))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("codeparrot/apps", "hf://datasets/codeparrot/apps/train.jsonl"),
        ("BAAI/TACO", "hf://datasets/BAAI/TACO/ALL/train-*.parquet"),
        ("livecodebench/code_generation_lite", "hf://datasets/livecodebench/code_generation_lite/test*.jsonl"),
        ("THUDM/humaneval-x", "hf://datasets/THUDM/humaneval-x/data/python/data/humaneval.jsonl"),
        ("owner/mbpp", "hf://datasets/owner/mbpp/FILE"),
    ],
)
def test_a_loading_script_is_told_with_the_files_to_name_instead(hub_folder, name, files):
    script = hub_folder.parents[1] / name / f"{name.split('/')[1]}.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text("raise SystemExit\n")
    with pytest.raises(LoadError) as caught:
        list(iterate_rows(f"{name}:test"))
    assert f"`{name}:test` is published with a loading script" in str(caught.value)
    assert f"name its data files instead, as `{files}`" in str(caught.value)
    assert "or download one and give its path" in str(caught.value)


class HubFiles:
    """A stand-in for the part of the Hub that lists and gives the files of one data set."""

    def __init__(self, name, files):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(with_body=True)

            def do_HEAD(self):
                self.answer(with_body=False)

            def answer(self, with_body):
                tree = re.match(rf"/api/datasets/{name}/(tree|revision)/(main|dev)", self.path)
                file = re.fullmatch(rf"/datasets/{name}/resolve/(?:main|dev|0+)/(.+)", self.path)
                found = files.get(file[1]) if file else None
                if tree:
                    listed = [{"type": "file", "path": file, "size": 1, "oid": "0" * 40} for file in files]
                    listed = (
                        listed
                        if tree[1] == "tree"
                        else {"id": name, "sha": "0" * 40, "siblings": [{"rfilename": f} for f in files]}
                    )
                    found = json.dumps(listed).encode()
                self.send_response(200 if found is not None else 404)
                self.send_header("Content-Length", str(len(found or b"")))
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", hashlib.sha256(found or b"").hexdigest())
                if found is None:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                self.wfile.write((found or b"") if with_body else b"")

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def read_from_hub():
    """Reads an input in a process whose Hub is the stand-in: each row, or the error."""
    files = {f"part/test{i}.jsonl": f'{{"i": {i}}}\n'.encode() for i in (1, 2)} | {"train.jsonl": b'\xef\xbb\xbf{"i": 0}\n'}
    hub = HubFiles("owner/apps", files)

    def read(input, cache):
        code = (
            "import json, sys\nfrom trl_rrtf import LoadError\nfrom trl_rrtf.rows.files import fingerprint, iterate_rows\n"
            "assert fingerprint(sys.argv[1]) == sys.argv[1]\n"
            "try: print(json.dumps([row['i'] for _, row in iterate_rows(sys.argv[1])]))\n"
            "except LoadError as error: print(error)\n"
        )
        environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server.server_port}", "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code, input], capture_output=True, text=True, check=False, env=environment, timeout=240
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    yield read
    hub.server.shutdown()
    hub.server.server_close()


@pytest.mark.parametrize(
    ("input", "told"),
    [
        ("hf://datasets/owner/apps/train.jsonl", "[0]"),
        ("hf://datasets/owner/apps@dev/train.jsonl", "[0]"),
        ("hf://datasets/owner/apps/part/test*.jsonl", "[1, 2]"),
        ("hf://datasets/owner/apps/*.parquet", "none of the 3 files of the data set matches; there are part/test1.jsonl"),
        ("hf://datasets/owner/apps/nothing.jsonl", "the Hub has no such file or cannot be reached"),
        ("hf://datasets/owner/apps", "expected `hf://datasets/user/name/FILE`"),
        ("hf://owner/apps/train.jsonl", "expected `hf://datasets/user/name/FILE`"),
    ],
)
def test_the_files_of_a_hub_data_set_are_read(read_from_hub, tmp_path, input, told):
    assert told in read_from_hub(input, tmp_path)


def test_bad_lines_can_be_passed_over(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n' + LONG_INTEGER + b'{"a": 2}\n\xff\n')
    errors = []
    assert [row["a"] for _, row in iterate_rows(tmp_path / "rows.jsonl", errors.append)] == [1, 2]
    assert [str(error).split(": ")[0][-6:] for error in errors] == ["line 2", "line 4"]
