"""How rows stand in a JSON file, told by its content, and lists that are read piece by piece."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import core.json_rows as json_rows
from core.json_rows import JsonTextError, form_of, list_items, rows_within

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def items(text: str) -> list[Any]:
    return [json.loads(item) for item in list_items(io.BytesIO(text.encode()))]


@given(st.lists(VALUES, max_size=8), st.integers(1, 40), st.sampled_from([None, 2]), st.booleans())
def test_a_list_that_is_read_in_pieces_has_the_same_items(
    values: list[Any], chunk: int, indent: int | None, ascii: bool
) -> None:
    before = json_rows._CHUNK
    json_rows._CHUNK = chunk
    try:
        text = json.dumps(values, indent=indent, ensure_ascii=ascii)
        assert items(f" \n{text}\r\n") == values
    finally:
        json_rows._CHUNK = before


def test_an_item_that_is_longer_than_a_piece_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_CHUNK", 7)
    long = 'say "[{" \\ and é😀\n' * 500
    assert items(json.dumps([{"a": long}, {"a": "b"}])) == [{"a": long}, {"a": "b"}]


@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize(
    ("text", "number", "wrong"),
    [
        ('[{"a": 1}, {"a": }]', 2, "Expecting value"),
        ('[{"a": 1} {"a": 2}]', 1, "a comma, or the ] that ends the list, is missing"),
        ('[{"a": 1}, {"a": 2}', 2, "ends in the middle"),
        ('[{"a": 1}, {"a": "b', 2, "Unterminated string"),
        ('[{"a": 1},]', 2, "Expecting value"),
        ('[{"a": 1}] {"a": 2}', 1, "something follows the end of the list"),
        ('[{"a": 1}, {"a": NaN}]', 2, "NaN is no JSON number"),
        ("[" * 99999, 1, "too deep"),
        ("[", 1, "ends in the middle"),
    ],
)
def test_what_is_no_json_is_told_with_its_row(
    text: str, number: int, wrong: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "_CHUNK", chunk)
    with pytest.raises(JsonTextError) as caught:
        items(text)
    assert caught.value.number == number and wrong in str(caught.value)


def test_no_more_of_a_file_is_read_than_is_asked_for() -> None:
    file = io.BytesIO(("[" + '{"a": "b"}, ' * 100_000).encode())
    assert next(list_items(file)) == b'{"a": "b"}'
    assert file.tell() <= 2 * json_rows._CHUNK


ROW = '{"instruction": "a", "output": "b"}'


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (f"[{ROW}, {ROW}]", "list"),
        (f"\n  [\n{ROW}\n]", "list"),
        (f"\ufeff[{ROW}]", "list"),
        (f"{ROW}\n{ROW}\n", "lines"),
        (f"\ufeff{ROW}\r\n\r\n{ROW}\r\n", "lines"),
        (f"{ROW}\n", "lines"),
        # A broken first line is still a line.
        ('{"instruction": oops}\n' + ROW, "lines"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "lines"),
        ('{"conversations": [{"from": "human", "value": "a"}], "system": "b"}', "lines"),
        (f'{{"data": [{ROW}]}}', "object"),
        (f'{{\n  "version": 1,\n  "data": [{ROW}]\n}}', "object"),
        (f'{{"0": {ROW}, "1": {ROW}}}', "object"),
        ("", "lines"),
        ("3", "object"),
    ],
)
def test_the_form_of_a_json_file_is_told_by_its_content(
    tmp_path: Path, text: str, form: str
) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, "utf-8")
    assert form_of(file) == form


def test_only_a_list_makes_lines_of_a_jsonl_file_something_else(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"[{ROW}]")
    assert form_of(file) == "list"
    # The only row may hold a list of objects that is no list of rows.
    file.write_text('{"prompt": "a", "completion": "b", "sources": [{"title": "c"}]}')
    assert form_of(file) == "lines"


def test_the_list_in_an_object_is_its_rows_unless_it_is_a_conversation() -> None:
    rows = [{"instruction": "a"}, {"instruction": "b"}]
    assert rows_within({"version": 1, "data": rows}) == rows
    assert rows_within({"data": []}) == []
    assert rows_within({"messages": [{"role": "user", "content": "a"}]}) is None
    assert rows_within({"instruction": "a", "history": [["q", "r"]]}) is None
    assert rows_within({"a": rows, "b": rows}) is None
