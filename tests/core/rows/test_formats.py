"""Rows of each format become conversations; what is wrong with one is said with its place."""

from typing import Any

import pytest

from core.dataset_info import DataSet
from core.rows import Row, Turn, detect, layout_of, read_row
from core.train.errors import DataError


def row(**fields: Any) -> Row:
    return Row("data.jsonl", 7, fields)


def read(format: str, stage: str = "sft", **fields: Any) -> Any:
    one = row(**fields)
    return read_row(one, layout_of(one, DataSet("data", ()), format), stage)


def turns(format: Any, **fields: Any) -> list[tuple[str, str]]:
    return [(t.role, t.text) for t in read(format, **fields).turns]


def test_alpaca_joins_instruction_and_input_and_keeps_system_and_history() -> None:
    assert turns("alpaca", instruction="Add", input="1 and 2", output="3") == [
        ("user", "Add\n1 and 2"),
        ("assistant", "3"),
    ]
    assert turns("alpaca", instruction="c", output="d", system="s", history=[["a", "b"]]) == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
    ]
    assert turns("alpaca", instruction="", input="only input", output="x")[0] == (
        "user",
        "only input",
    )


@pytest.mark.parametrize(
    ("said", "role"),
    [
        ("human", "user"), ("user", "user"), ("gpt", "assistant"), ("model", "assistant"), ("system", "system"),
        ("tool", "tool"), ("observation", "tool"), ("function_call", "assistant"), ("GPT", "assistant"),
    ],
)  # fmt: skip
def test_sharegpt_roles_are_understood(said: str, role: str) -> None:
    said_so = [
        {"from": "human", "value": "q"},
        {"from": said, "value": "x"},
        {"from": "gpt", "value": "y"},
    ]
    assert turns("sharegpt", conversations=said_so)[1:] == [(role, "x"), ("assistant", "y")]


def test_openai_content_may_be_a_list_of_text_parts() -> None:
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "you"}]
    read = turns(
        "openai",
        messages=[{"role": "user", "content": parts}, {"role": "assistant", "content": "Hi"}],
    )
    assert read == [("user", "Hello you"), ("assistant", "Hi")]


def test_what_follows_the_last_answer_is_left_out() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "unanswered"},
    ]
    assert turns("openai", messages=messages) == [("user", "a"), ("assistant", "b")]


def test_the_format_is_detected_by_the_first_row() -> None:
    assert detect(row(instruction="", output="")) == "alpaca"
    assert detect(row(conversations=[{"from": "human", "value": ""}])) == "sharegpt"
    assert detect(row(messages=[{"role": "user", "content": ""}])) == "openai"
    assert detect(row(conversations=[{"role": "user", "content": ""}])) == "openai"


@pytest.mark.parametrize(
    ("format", "fields", "words"),
    [
        ("alpaca", {"prompt": "a", "answer": "b"}, ["data.jsonl, row 7", "instruction and output are missing",
                                                    "the row has prompt, answer", "instruction and output (input"]),
        ("alpaca", {"instruction": "a"}, ["row 7: output is missing", "the row has instruction"]),
        ("alpaca", {"instruction": "a", "output": 5}, ["row 7: output must be text, and is a number"]),
        ("alpaca", {"instruction": "a", "output": None}, ["output must be text, and is empty (null)"]),
        ("alpaca", {"instruction": "", "output": "b"}, ["instruction and input are both empty"]),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["x"]]}, ["item 1 of history"]),
        ("sharegpt", {"text": "a"}, ["conversations is missing", "the row has text"]),
        ("sharegpt", {"conversations": [{"from": "human"}]}, ["message 1: value is missing (it has from)"]),
        ("sharegpt", {"conversations": [{"from": "alien", "value": "x"}]}, ["'alien' is not known", "human"]),
        ("sharegpt", {"conversations": ["hello"]}, ["message 1: is text, not { from, value }"]),
        ("openai", {"messages": [{"role": "user", "content": "a"}]}, ["there is no answer to learn", "roles: user"]),
        ("openai", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, ["only text can be learnt"]),
        ("openai", {"messages": [{"from": "user", "value": "x"}]}, ["role and content are missing", "from, value"]),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_fields_and_what_was_expected(
    format: Any, fields: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        read(format, **fields)
    for word in words:
        assert word in str(caught.value)


def test_a_row_of_no_known_format_lists_all_of_them() -> None:
    with pytest.raises(DataError) as caught:
        detect(row(question="a", answer="b"))
    for word in ("row 7", "question, answer", "alpaca", "sharegpt", "openai", "messages"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("file", "words"),
    [("a.jsonl", "conversations must be a list of messages, and is text"), ("a.csv", "cannot hold one")],
)  # fmt: skip
def test_messages_that_are_no_list_are_said_to_be_none(file: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        detect(Row(file, 1, {"conversations": "[]"}))


def test_a_conversation_has_one_system_text_its_own_before_its_column_s() -> None:
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    own = [{"from": "system", "value": "own"}, *talk]
    for messages, text in ((own, "own"), (talk, "column")):
        turns = read("sharegpt", conversations=messages, system="column").turns
        assert [t.text for t in turns if t.role == "system"] == [text]


def test_turns_are_values() -> None:
    assert Turn("user", "a") == Turn("user", "a")


def test_a_message_without_a_role_is_still_openai_s() -> None:
    with pytest.raises(DataError, match="message 1: role is missing"):
        read("auto", messages=[{"content": "a"}])
