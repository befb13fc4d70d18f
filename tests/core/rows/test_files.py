"""Data files of every kind, and what is said of the ones that cannot be read."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from core.data_size import measure
from core.rows.files import read_rows, records
from core.train.errors import DataError

ROW = {"instruction": "Grüße", "output": "hello"}


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    text = '{"instruction": "Grüße", "output": "hello"}'
    (tmp_path / "a.json").write_text(f"[{text}, {text}]")
    (tmp_path / "b.json").write_text(f'{{"version": 1, "data": [{text}, {text}]}}')
    (tmp_path / "c.jsonl").write_text(f"{text}\n\n{text}\n")
    (tmp_path / "d.csv").write_text("instruction,output\nGrüße,hello\nGrüße,hello\n")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW, ROW]), tmp_path / "e.parquet")
    for file in sorted(tmp_path.iterdir()):
        assert [dict(row.fields) for row in read_rows(file)] == [ROW, ROW], file.name


def test_a_byte_order_mark_is_no_data(tmp_path: Path) -> None:
    for name, text in (("a.json", '[{"a": 1}]'), ("b.jsonl", '{"a": "1"}'), ("c.csv", "a\n1\n")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert list(read_rows(tmp_path / name)[0].fields) == ["a"]


def test_rows_of_json_lines_carry_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert [row.number for row in read_rows(tmp_path / "a.jsonl")] == [2, 4]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', ["a.jsonl, line 2", "not valid JSON"]),
        ("a.jsonl", b'{"a": 1}\n[1]\n', ["row 2", "must be an object", "is a list"]),
        ("a.jsonl", b'{"a": 1}\n{\n"a": 2}\n', ["line 2", "each line must be a whole object"]),
        ("a.jsonl", b'[{"a": 1}, {"a": }]', ["a.jsonl, row 2", "not valid JSON"]),
        ("a.json", b'{"a": 1}\n{"a": \n', ["a.json, line 2", "not valid JSON"]),
        ("a.json", b'[{"a": 1} {"a": 2}]', ["a.json, row 1", "a comma"]),
        ("a.jsonl", b'{"a": ' + b"[" * 9999 + b"]" * 9999 + b"}\n", ["line 1", "too deep"]),
        ("a.json", b'[{"a": ' + b"[" * 9999 + b"]" * 9999 + b"}]", ["a.json", "too deep"]),
        ("a.json", b'[{"a": "x"},\n{"a": "caf\xe9"}]', ["not UTF-8"]),
        ("a.csv", b"a\n" + b"x\n" * 9000 + b"caf\xe9\n", ["line 9002", "not UTF-8"]),
        ("a.jsonl", b"\n\n", ["has no rows"]),
        (
            "a.json",
            b'{"a":\n 1}',
            ["must hold a list of rows", "one object with a", "one object a line"],
        ),
        ("a.json", b'{"0": {"a": 1}, "1": {"a": 2}}', ["must hold a list of rows", "with 0, 1"]),
        ("a.json", b"3", ["must hold a list of rows", "holds a number"]),
        ("a.json", b'{"a":\n 1}\n{"a":\n 2}', ["trailing characters", "or one object a line"]),
        ("a.json", b'[{"a": ' + b"1" * 5000 + b"}]", ["row 1", "out of range"]),
        (
            "a.jsonl",
            b'{"a": "x"}\n{"a": "x", "b": 1, "a": "y"}\n',
            ["line 2", "field a twice", "take one out"],
        ),
        ("a.json", b'[{"a": "x", "a": "y"}]', ["row 1", "field a twice"]),
        ("a.jsonl", b'{"a": "\\ud800"}\n', ["line 1", "not valid JSON"]),
        ("a.jsonl", b"", ["has no rows"]),
        ("a.json", b"", ["has no rows"]),
        ("a.csv", b"", ["has no rows"]),
        ("a.csv", b"a,b,a\n1,2,3\n", ["line 1", "names the column a twice"]),
        ("a.csv", b"a,,\n1,2,3\n", ["line 1", "columns without a name"]),
        ("a.csv", b"a;b\n1;2\n", ["line 1", "one column", "commas"]),
        ("a.csv", b'a,b\n"1,2\n3,4\n', ["not valid CSV", "unexpected end"]),
        ("a.jsonl", b"{'a': 1}\n", ["line 1", "double quotes"]),
        ("a.jsonl", b"\x1f\x8b\x08\x00", ["packed by gzip", "gunzip"]),
        ("a.json", b"PAR1\x15", ["is a parquet file; name it .parquet"]),
        ("a.csv", b"PK\x03\x04", ["a spreadsheet", "save it as .csv"]),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS", "git lfs pull"]),
        ("a.json", b"<!DOCTYPE html><html>", ["web page", "download the file itself"]),
        ("a.jsonl", b"<!doctype html>", ["web page", "download the file itself"]),
        ("a.json", '[{"a": 1}]'.encode("utf-16-le"), ["is UTF-16 text; save it as UTF-8"]),
        ("a.jsonl.gz", b"\x1f\x8b", [".gz", "unpack it first (gunzip)"]),
        ("a.json", b"[]", ["has no rows"]),
        ("a.json", b"[1]", ["row 1", "must be an object"]),
        ("a.csv", b"a,b\n1,2,3\n", ["row 1", "more cells"]),
        ("a.csv", b"a\n\xff\xfe\n", ["not UTF-8"]),
        ("a.parquet", b"PAR1 nonsense", ["no readable parquet file"]),
        ("a.doc", b"hello", [".json, .jsonl, .csv, .parquet, .txt", ".doc"]),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, name: str, content: bytes, words: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / name)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1},\r\n{"a": "é"}]',
        '{"a": 1}\r\n\r\n{"a": "é"}\r\n',
        '\ufeff[{"a": 1}, {"a": "é"}]',
        '\ufeff{"a": 1}\n{"a": "é"}',
    ],
)
def test_json_is_a_list_or_lines_whatever_the_file_is_called(
    tmp_path: Path, name: str, streamed: bool, text: str
) -> None:
    file = tmp_path / name
    file.write_bytes(text.encode())
    rows = [record.row() for record in records(file, streamed=streamed)]
    assert [dict(row.fields) for row in rows] == [{"a": 1}, {"a": "é"}]
    assert measure(file).rows == 2
    assert {row.file for row in rows} == {str(file)}


def test_the_only_line_of_a_json_file_is_its_only_row(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    assert [row.number for row in read_rows(file)] == [1] and measure(file).rows == 1


@pytest.mark.parametrize("more", ['"tools": [{"name": "f"}]', '"history": []'])
def test_a_list_in_the_only_row_is_its_own(tmp_path: Path, more: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(f'{{"instruction": "a", "output": "b", {more}}}\n')
    (row,) = read_rows(file)
    assert row.fields["output"] == "b" and measure(file).rows == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'a,b\n5" pipe,x\ny,z\n'),
        ("a.csv", 'a,b\n5" pipe,x\ny",z\nv,w\n'),
        ("a.csv", "a,b\rx,y\rv,w\r"),
        ("a.csv", "text\n\n \nx\n"),
        ("a.csv", 'a,b\r\nx,"é\r\n\r\ny"\r\n\r\n'),
        ("a.csv", "text\n" + "x" * 200_000 + "\n"),
        ("a.jsonl", '\ufeff\n{"a": 1}\n\x0c\n{"a": 2}'),
        ("a.json", '\ufeff{"a": 1}\n \t\n{"a": 2}\n'),
        ("a.txt", "\ufeff\nx\ry\n\x0b\nz"),
    ],
)
def test_as_many_rows_are_counted_as_are_read(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_bytes(text.encode())
    size = measure(file)
    assert size.rows == len(read_rows(file)) and size.bytes == len(text.encode())


def test_a_name_that_only_stands_in_a_text_or_deeper_is_not_there_twice(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    row = {"a": 'say "a": "b"', "b": "a", "c": {"a": 1}}
    file.write_text(json.dumps(row))
    assert [dict(found.fields) for found in read_rows(file)] == [row]


def test_an_object_that_holds_its_rows_cannot_be_streamed(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"version": 1, "data": [{"a": 1}]}')
    assert [dict(row.fields) for row in read_rows(file)] == [{"a": 1}]
    with pytest.raises(DataError, match=r"only be read whole.*or set data\.streaming = false"):
        next(records(file, streamed=True))


def test_columns_of_parquet_with_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    one = pyarrow.array(["x"])
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([one, one], names=["a", "a"]), file)
    with pytest.raises(DataError, match="names the column a twice"):
        read_rows(file)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_rows(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read_rows(tmp_path / "folder.json")


def test_a_folder_without_an_ending_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; name the files in it"):
        read_rows(tmp_path)


def test_text_has_a_row_a_line_and_blank_ones_are_none(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffone\r\n\n  \ntwo\u2028still two\n".encode())
    rows = read_rows(file)
    assert [(row.number, row.fields["text"]) for row in rows] == [
        (1, "one"),
        (4, "two\u2028still two"),
    ]
    assert measure(file).rows == len(rows)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"one\ntw\x00o\n", ["line 2", "NUL byte", "no text file"]),
        ("a.txt", b"one\ncaf\xe9\n", ["line 2", "not UTF-8"]),
        ("a.txt", b"\n \n", ["has no rows"]),
        ("a.jsonl", b'{"a": 1}\n\x00\x00\x00\n', ["line 2", "NUL bytes", "crash"]),
    ],
)
def test_what_is_no_text_is_told_by_its_line(
    tmp_path: Path, name: str, content: bytes, words: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / name)
    for word in words:
        assert word in str(caught.value)


def test_a_cell_may_be_long_and_a_row_may_be_huge(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    (tmp_path / "a.csv").write_text(f"text\n{long}\n")
    (tmp_path / "a.jsonl").write_text(f'{{"text": "{long}"}}\n')
    (tmp_path / "a.txt").write_text(long)
    for file in sorted(tmp_path.iterdir()):
        assert [row.fields["text"] for row in read_rows(file)] == [long], file.name


def test_nested_columns_of_parquet_are_lists_and_objects(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"messages": messages}] * 3), file)
    assert [row.fields["messages"] for row in read_rows(file)] == [messages] * 3
    assert [row.number for row in read_rows(file)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.txt"])
def test_text_in_another_encoding_is_said_to_be(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes('[{"instruction": "é", "output": "x"}]'.encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16 text; save it as UTF-8"):
        read_rows(file)


def test_a_line_in_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": "x"}\n{"a": "caf\xe9"}\n')
    with pytest.raises(DataError, match="line 2: is not UTF-8 text"):
        read_rows(file)
