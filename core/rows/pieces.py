"""What a row holds, whatever its format: turns, an answer, two answers to compare, a tag, or text alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import DataError
from core.rows.layout import Layout
from core.rows.row import Row, Turn
from core.rows.words import are_missing, as_text, kind, lacks, names, text_of


@dataclass(frozen=True, slots=True)
class Pieces:
    """The parts of a row. What is None is not there."""

    turns: tuple[Turn, ...] = ()
    """Its messages, the answer of a row with one answer among them."""
    chosen: str | None = None
    rejected: str | None = None
    tag: Any = None
    text: str | None = None
    tools: str = ""


def pieces_of(row: Row, layout: Layout, *, text: bool = False) -> Pieces:
    """The parts of a row; with `text`, of one that is text alone whatever else its format may have.

    Raises:
        DataError: a field is missing or holds something else; the message names the row, the field and what to do.
    """
    if text or layout.format == "text":
        return Pieces(text=_text_alone(row, layout))
    if layout.format == "alpaca":
        return _alpaca(row, layout)
    return _messages(row, layout)


def _text_alone(row: Row, layout: Layout) -> str | None:
    columns = layout.columns
    if "text" in row.fields:
        return text_of(row, "text")
    if layout.format == "text":
        if columns.prompt not in row.fields:
            raise lacks(row, [str(columns.prompt)], layout.expected)
        return text_of(row, columns.prompt)
    if layout.format != "alpaca" or columns.prompt not in row.fields:
        return None
    answered = any(n in row.fields for n in (columns.response, columns.chosen))
    return None if answered else text_of(row, columns.prompt)


def _alpaca(row: Row, layout: Layout) -> Pieces:
    columns = layout.columns
    missing = [] if columns.prompt in row.fields or columns.query in row.fields else [str(columns.prompt)]  # fmt: skip
    pair = columns.chosen in row.fields or columns.rejected in row.fields
    answered = columns.response in row.fields
    if missing:
        needs = [] if answered or pair else [str(columns.response)]
        raise lacks(row, [*missing, *needs], layout.expected)
    turns = [*_system(row, layout), *_history(row, layout)]
    given = (
        text_of(row, columns.prompt, optional=True),
        text_of(row, columns.query, optional=True),
    )
    prompt = "\n".join(part for part in given if part)
    if not prompt:
        told = " and ".join(n for n in (columns.prompt, columns.query) if n)
        raise DataError(f"{row.place}: {told} {'are both' if columns.query else 'is'} empty")
    turns.append(Turn("user", prompt))
    if answered and not (pair and row.fields[str(columns.response)] is None):
        turns.append(Turn("assistant", text_of(row, columns.response)))
    return Pieces(
        tuple(turns),
        _answer(row, columns.chosen, layout, ()) if pair else None,
        _answer(row, columns.rejected, layout, ()) if pair else None,
        row.fields.get(str(columns.kto_tag)),
        tools=_tools(row, layout),
    )


def _history(row: Row, layout: Layout) -> list[Turn]:
    history = row.fields.get(str(layout.columns.history)) or []
    if isinstance(history, str):
        # A .csv file can hold a list only as its text.
        history = _parsed(history)
    if not isinstance(history, list):
        raise DataError(
            f"{row.place}: history must be a list of [question, answer], and is {kind(history)}"
        )
    turns: list[Turn] = []
    for number, pair in enumerate(history, 1):
        if not (
            isinstance(pair, list | tuple)
            and len(pair) == 2
            and all(isinstance(t, str) for t in pair)
        ):
            raise DataError(
                f"{row.place}: item {number} of history is not a pair of texts [question, answer]"
            )
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return turns


def _messages(row: Row, layout: Layout) -> Pieces:
    columns = layout.columns
    items = row.fields.get(str(columns.messages))
    whole = [row.fields.get(str(name)) for name in (columns.chosen, columns.rejected)]
    if items is None and all(isinstance(answer, list) for answer in whole):
        return _whole_answers(row, layout)
    if not isinstance(items, list):
        if items is None:
            raise lacks(row, [str(columns.messages)], layout.expected)
        raise DataError(
            f"{row.place}: {columns.messages} must be a list of messages, and is {kind(items)}; {layout.expected}"
        )
    turns = _headed(_turns(items, row.place, layout), row, layout)
    pair = any(name in row.fields for name in (columns.chosen, columns.rejected))
    if columns.messages == "prompt" and columns.response in row.fields:
        turns.append(Turn("assistant", _answer(row, columns.response, layout, ()) or ""))
    prompt = tuple(turns)
    return Pieces(
        prompt,
        _answer(row, columns.chosen, layout, prompt) if pair else None,
        _answer(row, columns.rejected, layout, prompt) if pair else None,
        row.fields.get(str(columns.kto_tag)),
        tools=_tools(row, layout),
    )


def _whole_answers(row: Row, layout: Layout) -> Pieces:
    """Both answers as whole conversations, which share their beginning: TRL's form with an implicit prompt."""
    columns = layout.columns
    chosen, rejected = (
        _turns(row.fields[str(name)], f"{row.place}, {name}", layout)
        for name in (columns.chosen, columns.rejected)
    )
    prompt = tuple(chosen[:-1])
    asked = row.fields.get("prompt")
    if isinstance(asked, str) and len(chosen) == len(rejected) == 1:
        prompt = (Turn("user", asked),)
    elif not prompt or prompt != tuple(rejected[:-1]):
        raise DataError(
            f"{row.place}: {columns.chosen} and {columns.rejected} must be the same messages but for the last, the "
            "answer, and they differ before it; or give what they answer as prompt"
        )
    return Pieces(
        tuple(_headed(prompt, row, layout)),
        _last_answer(chosen, f"{row.place}: {columns.chosen}"),
        _last_answer(rejected, f"{row.place}: {columns.rejected}"),
        tools=_tools(row, layout),
    )


def _answer(row: Row, name: str | None, layout: Layout, prompt: tuple[Turn, ...]) -> str | None:
    """An answer that stands in a column: a text, a message, or messages that may repeat the prompt before it."""
    value = row.fields.get(str(name))
    where = f"{row.place}: {name}"
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _last_answer([_turn(value, where, layout)], where)
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{where} must be an answer (text or a message), and is {_emptiness(value)}"
        )
    turns = _turns(value, where, layout)
    before = tuple(turns[:-1])
    if before and before != prompt and before != tuple(t for t in prompt if t.role != "system"):
        raise DataError(
            f"{where} has {len(turns)} messages, and those before the answer are not the prompt's; leave only the "
            "answer, or the same messages as the prompt before it"
        )
    return _last_answer(turns, where)


def _emptiness(value: Any) -> str:
    return "an empty list" if value == [] else kind(value)


def _last_answer(turns: list[Turn], where: str) -> str:
    if turns[-1].role != "assistant":
        raise DataError(
            f"{where} must end with the assistant's answer, and ends with a message of the {turns[-1].role}"
        )
    return turns[-1].text


def _turns(items: list[Any], place: str, layout: Layout) -> list[Turn]:
    turns = []
    for number, item in enumerate(items, 1):
        turn = _plain_turn(item, layout)
        turns.append(turn or _turn(item, f"{place}, message {number}", layout))
    return turns


def _plain_turn(item: Any, layout: Layout) -> Turn | None:
    """The turn that nearly every message is, without a word on what could be wrong with it; None for any other."""
    if type(item) is not dict or "tool_calls" in item:
        return None
    text = item.get(layout.text_key)
    role = layout.roles.get(str(item.get(layout.role_key)))
    return Turn(role, text) if role is not None and type(text) is str else None


def _turn(item: Any, where: str, layout: Layout) -> Turn:
    if not isinstance(item, Mapping):
        raise DataError(f"{where}: is {kind(item)}, not {{ {layout.role_key}, {layout.text_key} }}")
    role_key, text_key = _keys(item, layout)
    called = item.get("tool_calls")
    missing = [key for key in (role_key, text_key) if key not in item]
    if missing and not (called and missing == [text_key]):
        raise DataError(
            f"{where}: {are_missing(missing)} (it has {names(item)}); {layout.expected}"
        )
    role = layout.roles.get(str(item[role_key]).lower())
    if role is None:
        known = ", ".join(layout.roles)
        raise DataError(
            f"{where}: {role_key} {item[role_key]!r} is not known; known are {known}; another name is told by "
            "tags in dataset_info.json"
        )
    text = content(item.get(text_key), f"{where}: {text_key}")
    return Turn(role, text + _calls(called, where) if called else text)


def _keys(item: Mapping[str, Any], layout: Layout) -> tuple[str, str]:
    """The keys of a message. Answers that stand in columns of their own are often in another format than the rest."""
    own = layout.role_key, layout.text_key
    others = {"sharegpt": [("role", "content")], "alpaca": [("from", "value")]}
    for keys in others.get(layout.format, []):
        if set(own).isdisjoint(item) and set(keys) <= item.keys():
            return keys
    return own


def content(value: Any, where: str) -> str:
    """The text of a message: a text, or a list of text parts.

    Raises:
        DataError: it is something else, or a part of it is no text.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = []
        for part in value:
            text = part.get("text") if isinstance(part, Mapping) else part
            if not isinstance(text, str):
                raise DataError(f"{where} has a part that is no text; only text can be learnt")
            parts.append(text)
        return "".join(parts)
    raise DataError(f"{where} must be text, and is {kind(value)}; {as_text(value)}")


def _calls(calls: Any, where: str) -> str:
    """Calls of functions as the text that is learnt for them: a JSON list, as LLaMA-Factory writes them."""
    if not isinstance(calls, list) or not all(
        isinstance(c, Mapping) and isinstance(c.get("function"), Mapping) for c in calls
    ):
        raise DataError(f"{where}: tool_calls must be a list of {{ function }}")
    return json.dumps([_filled(c["function"]) for c in calls], ensure_ascii=False)


def _filled(value: Any) -> Any:
    """A value without the empty fields that Parquet adds to records of one column."""
    if isinstance(value, Mapping):
        return {k: _filled(v) for k, v in value.items() if v is not None}
    return [_filled(v) for v in value] if isinstance(value, list) else value


def _system(row: Row, layout: Layout) -> list[Turn]:
    text = text_of(row, layout.columns.system, optional=True)
    return [Turn("system", text)] if text else []


def _headed(turns: Sequence[Turn], row: Row, layout: Layout) -> list[Turn]:
    """Messages after the system text of their row. Their own counts before it, as in LLaMA-Factory."""
    own = bool(turns) and turns[0].role == "system"
    return [*([] if own else _system(row, layout)), *turns]


def _tools(row: Row, layout: Layout) -> str:
    value = row.fields.get(str(layout.columns.tools))
    if value in (None, "", [], "[]"):
        return ""
    listed = _parsed(value) if isinstance(value, str) else value
    if not isinstance(listed, list):
        found = "text that is no JSON list" if isinstance(value, str) else kind(value)
        raise DataError(
            f"{row.place}: {layout.columns.tools} must be a list of functions, or its JSON text, and is {found}"
        )
    return json.dumps(_filled(listed), ensure_ascii=False)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return text
