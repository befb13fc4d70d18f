"""What each stage makes of a row in each format, and what it says of one that is meant for another."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.dataset_info import Columns, DataSet, Tags
from core.rows import Compared, Judged, Question, Row, Text, Turn, layout_of, read_row
from core.train.errors import DataError


def read(stage: str, fields: dict[str, Any], dataset: DataSet | None = None, **more: Any) -> Any:
    row = Row("data.jsonl", 7, fields)
    return read_row(row, layout_of(row, dataset or DataSet("data", ())), stage, **more)


def refused(stage: str, fields: dict[str, Any], dataset: DataSet | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read(stage, fields, dataset)
    told = str(caught.value)
    assert told.startswith("data.jsonl, row 7")
    return told


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


Q = (Turn("user", "q"),)

PAIRS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "q", "chosen": "good", "rejected": "bad"},
    "alpaca with an empty input": {
        "instruction": "q",
        "input": "",
        "chosen": "good",
        "rejected": "bad",
    },
    "alpaca with messages": {"instruction": "q", "chosen": bot("good"), "rejected": gpt("bad")},
    "alpaca with an output": {
        "instruction": "q",
        "output": "x",
        "chosen": "good",
        "rejected": "bad",
    },
    "sharegpt": {"conversations": [human("q")], "chosen": gpt("good"), "rejected": gpt("bad")},
    "sharegpt with openai's answers": {
        "conversations": [human("q")],
        "chosen": bot("good"),
        "rejected": bot("bad"),
    },
    "sharegpt with texts": {"conversations": [human("q")], "chosen": "good", "rejected": "bad"},
    "openai": {"messages": [user("q")], "chosen": bot("good"), "rejected": bot("bad")},
    "trl with a prompt": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "trl with messages": {
        "prompt": [user("q")],
        "chosen": [bot("good")],
        "rejected": [bot("bad")],
    },
    "trl with the prompt repeated": {
        "prompt": [user("q")],
        "chosen": [user("q"), bot("good")],
        "rejected": [user("q"), bot("bad")],
    },
    "trl with the prompt in the answers": {
        "chosen": [user("q"), bot("good")],
        "rejected": [user("q"), bot("bad")],
    },
    "ultrafeedback": {
        "prompt": "q",
        "chosen": [user("q"), bot("good")],
        "rejected": [user("q"), bot("bad")],
        "score_chosen": 8.0,
    },
    "a text for a prompt and messages for answers": {
        "prompt": "q",
        "chosen": [bot("good")],
        "rejected": [bot("bad")],
    },
}


@pytest.mark.parametrize("stage", ["rm", "dpo"])
@pytest.mark.parametrize("form", PAIRS)
def test_pairs_of_every_form_are_the_same_to_a_stage(form: str, stage: str) -> None:
    assert read(stage, PAIRS[form]) == Compared(Q, "good", "bad", "data.jsonl, row 7")
    assert read("ppo", PAIRS[form]) == Question(Q, "data.jsonl, row 7")


TAGS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "q", "output": "a", "kto_tag": False},
    "alpaca from a csv file": {"instruction": "q", "output": "a", "kto_tag": "False"},
    "sharegpt": {"conversations": [human("q"), gpt("a")], "kto_tag": False},
    "openai": {"messages": [user("q"), bot("a")], "kto_tag": False},
    "trl": {"prompt": "q", "completion": "a", "label": False},
    "trl with messages": {"prompt": [user("q")], "completion": [bot("a")], "label": False},
}


@pytest.mark.parametrize("form", TAGS)
def test_tags_of_every_form_are_the_same_to_a_stage(form: str) -> None:
    assert read("kto", TAGS[form]) == Judged(Q, "a", False, "data.jsonl, row 7")
    assert read("ppo", TAGS[form]) == Question(Q, "data.jsonl, row 7")


@pytest.mark.parametrize(
    "fields",
    [
        {"instruction": "q", "output": "a"},
        {"instruction": "q"},
        {"prompt": "q"},
        {"messages": [user("q"), bot("a")]},
        {"messages": [user("q")]},
        {"conversations": [human("q")]},
    ],
)
def test_prompts_for_ppo_come_of_any_row_with_or_without_an_answer(fields: Any) -> None:
    assert read("ppo", fields).turns == Q


def test_a_prompt_keeps_the_answers_in_its_history() -> None:
    turns = [user("a"), bot("b"), user("c"), bot("d")]
    assert [t.text for t in read("ppo", {"messages": turns}).turns] == ["a", "b", "c"]
    history = {"instruction": "c", "history": [["a", "b"]], "chosen": "x", "rejected": "y"}
    assert [t.text for t in read("dpo", history).turns] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fields", "dataset"),
    [
        ({"text": "words"}, None),
        ({"text": "words", "source": "web", "instruction": 3}, None),
        ({"prompt": "words"}, None),
        ({"content": "words"}, DataSet("d", (), columns=Columns(prompt="content"))),
        ({"content": "words"}, DataSet("d", (), "text", Columns(prompt="content"))),
    ],
)
def test_text_is_in_the_column_text_or_the_one_that_is_named(
    fields: dict[str, Any], dataset: DataSet | None
) -> None:
    assert read("pt", fields, dataset) == Text("words", "data.jsonl, row 7")


def test_a_prompt_and_its_completion_are_supervised_too() -> None:
    made = read("sft", {"prompt": "q", "completion": "a"})
    assert made.turns == (*Q, Turn("assistant", "a"))
    chatted = read("sft", {"prompt": [user("q")], "completion": [bot("a")]})
    assert chatted.turns == made.turns


def test_a_label_of_another_kind_of_data_is_no_tag() -> None:
    assert read("sft", {"instruction": "q", "output": "a", "label": "sports"}).turns[0] == Q[0]


def test_the_default_system_text_is_for_rows_without_one() -> None:
    for stage, fields in (
        ("dpo", PAIRS["sharegpt"]),
        ("kto", TAGS["trl"]),
        ("ppo", {"prompt": "q"}),
    ):
        assert read(stage, fields, system="s").turns == (Turn("system", "s"), *Q)
    own = {"messages": [{"role": "system", "content": "own"}, user("q"), bot("a")]}
    assert read("sft", own, system="s").turns[0].text == "own"


def test_tools_and_their_calls_are_kept() -> None:
    call = {"function": {"name": "add", "arguments": '{"a": 1}', "unused": None}}
    turns = [user("q"), {"role": "assistant", "content": None, "tool_calls": [call]},
             {"role": "tool", "content": "2"}, bot("two")]  # fmt: skip
    made = read("sft", {"messages": turns, "tools": '[{"name": "add"}]'})
    assert [t.role for t in made.turns] == ["user", "assistant", "tool", "assistant"]
    assert made.turns[1].text == '[{"name": "add", "arguments": "{\\"a\\": 1}"}]'
    assert made.tools == '[{"name": "add"}]'
    assert read("sft", {"messages": turns, "tools": []}).tools == ""


def test_roles_may_have_names_of_their_own() -> None:
    tags = Tags(user_tag="Kunde", assistant_tag="Hilfe")
    turns = [{"from": "kunde", "value": "q"}, {"from": "Hilfe", "value": "a"}]
    made = read("sft", {"conversations": turns}, DataSet("d", (), tags=tags))
    assert [t.role for t in made.turns] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("stage", "fields", "words"),
    [
        ("dpo", {"instruction": "q", "chosen": "a"}, ["rejected is missing", "instruction, chosen", "add it"]),
        ("dpo", {"instruction": "q", "chosen": "a", "rejected": None}, ["rejected is missing"]),
        ("dpo", {"instruction": "q", "chosen": "", "rejected": "b"}, ["chosen is empty", "take the row out"]),
        ("dpo", {"instruction": "q", "chosen": 3, "rejected": "b"}, ["chosen must be an answer", "a number"]),
        ("dpo", {"instruction": "q", "chosen": [], "rejected": "b"}, ["chosen must be an answer", "an empty list"]),
        ("rm", {"instruction": "q", "output": "a"},
         ["chosen and rejected are missing", "instruction, output", 'method.stage = "sft"']),
        ("rm", {"conversations": [human("q"), gpt("a")]}, ["chosen and rejected are missing", 'method.stage = "sft"']),
        ("dpo", {"instruction": "q", "output": "a", "kto_tag": True}, ['method.stage = "kto"']),
        ("dpo", {"conversations": [human("q"), gpt("a")], "chosen": gpt("x"), "rejected": gpt("y")},
         ["must end with the user's, and end with: assistant"]),
        ("dpo", {"conversations": [human("q")], "chosen": human("x"), "rejected": gpt("y")},
         ["chosen must end with the assistant's answer", "user"]),
        ("dpo", {"chosen": [user("q"), bot("a")], "rejected": [user("other"), bot("b")]},
         ["differ before it", "as prompt"]),
        ("dpo", {"prompt": [user("q")], "chosen": [user("other"), bot("a")], "rejected": [bot("b")]},
         ["chosen has 2 messages", "not the prompt's"]),
        ("dpo", {"chosen": "Human: q Assistant: a", "rejected": "Human: q Assistant: b"},
         ["what they answer is not", "Add prompt"]),
        ("sft", {"instruction": "q", "chosen": "a", "rejected": "b"},
         ["chosen and rejected", "stage sft", 'method.stage = "dpo" or "rm"']),
        ("sft", {"conversations": [human("q")], "chosen": gpt("a"), "rejected": gpt("b")}, ['"dpo" or "rm"']),
        ("sft", {"instruction": "q", "output": "a", "kto_tag": False}, ["kto_tag", "bad answers", '"kto"']),
        ("sft", {"text": "words"}, ["is text alone", "stage sft needs", 'method.stage = "pt"']),
        ("ppo", {"text": "words"}, ["is text alone", "prompts"]),
        ("kto", {"instruction": "q", "output": "a"}, ["kto_tag is missing", "true or false", 'method.stage = "sft"']),
        ("kto", {"instruction": "q", "chosen": "a", "rejected": "b"}, ["kto_tag is missing", 'method.stage = "dpo"']),
        ("kto", {"instruction": "q", "output": "a", "kto_tag": 1}, ["kto_tag must be true or false, and is 1"]),
        ("kto", {"instruction": "q", "output": "a", "kto_tag": "maybe"}, ['kto_tag must be true or false, and is "maybe"']),
        ("kto", {"instruction": "q", "kto_tag": True}, ["there is no answer that kto_tag is about"]),
        ("kto", {"messages": [user("q")], "kto_tag": True}, ["the last message must be the assistant's"]),
        ("pt", {"instruction": "q", "output": "a"}, ["stage pt reads text alone", 'method.stage = "sft"']),
        ("pt", {"messages": [user("q"), bot("a")]}, ["stage pt reads text alone", "column text"]),
        ("pt", {"instruction": "q", "chosen": "a", "rejected": "b"}, ['method.stage = "dpo"']),
        ("sft", {"prompt": "words"}, ["output is missing", 'To learn plain text, set method.stage = "pt"']),
        ("dpo", {"prompt": "words"}, ["chosen and rejected are missing", 'method.stage = "pt"']),
        ("pt", {"text": ""}, ["the text is empty"]),
        ("pt", {"text": ["a"]}, ["text must be text, and is a list"]),
        ("sft", {"messages": [{"role": "tool", "content": "x"}, bot("a")]}, ["the tool speaks before"]),
        ("ppo", {"messages": [bot("a")]}, ["must end with the user's, and end with: none"]),
        ("sft", {"conversations": "hello"}, ["conversations must be a list of messages, and is text"]),
        ("sft", {"messages": [user("q"), {"role": "assistant", "tool_calls": [3]}]}, ["tool_calls must be a list"]),
        ("sft", {"instruction": "q", "output": "a", "tools": "add"}, ["tools must be a list of functions"]),
    ],
)  # fmt: skip
def test_a_row_that_a_stage_cannot_use_says_why_and_what_to_do(
    stage: str, fields: dict[str, Any], words: list[str]
) -> None:
    told = refused(stage, fields)
    for word in words:
        assert word in told


def test_messages_of_a_column_of_their_own_are_named_by_it() -> None:
    named = DataSet("d", (), "sharegpt", Columns(messages="dialogue"))
    assert "dialogue must be a list of messages, and is text" in refused(
        "sft", {"dialogue": "hi"}, named
    )
    assert "dialogue is missing (the row has text)" in refused("sft", {"text": "hi"}, named)
    named = DataSet("d", (), columns=Columns(prompt="q", response="a"))
    assert "q and a are missing" in refused("sft", {"x": "y"}, named)


def test_a_csv_file_without_a_header_is_told_what_its_first_line_is_for() -> None:
    row = Row("data.csv", 1, {"What is 1 + 1?": "What is 2 + 2?", "2": "4"})
    with pytest.raises(DataError, match=r"first line of a \.csv file names its columns"):
        layout_of(row, DataSet("data", ()))


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "a", "user", "gpt", "human"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "tool_calls", "function", "text"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
_NAMES = (
    "instruction", "input", "output", "system", "history", "tools", "conversations", "messages", "prompt",
    "completion", "label", "chosen", "rejected", "kto_tag", "text",
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=6),
    st.sampled_from(["pt", "sft", "rm", "dpo", "kto", "ppo"]),
)
def test_whatever_a_row_holds_it_is_read_or_refused_by_its_place(
    fields: dict[str, Any], stage: str
) -> None:
    try:
        made = read(stage, fields)
    except DataError as error:
        assert str(error).startswith("data.jsonl, row 7")
    else:
        assert made.place == "data.jsonl, row 7"
        if isinstance(made, Compared | Judged | Question):
            assert made.turns[-1].role in ("user", "tool")
