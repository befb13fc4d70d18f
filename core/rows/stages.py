"""What each stage makes of a row, and what it says of one that is meant for another stage."""

from collections.abc import Callable, Mapping

from core.errors import DataError
from core.rows.layout import Layout
from core.rows.pieces import Pieces, pieces_of
from core.rows.row import (
    AnyRow,
    Compared,
    Conversation,
    Judged,
    Question,
    Row,
    Text,
    Turn,
)
from core.rows.words import names, shown


def read_row(row: Row, layout: Layout, stage: str, system: str | None = None) -> AnyRow:
    """The row as `stage` (pt, sft, rm, dpo, kto, ppo) takes it; `system` is the system text of rows without one.

    Raises:
        DataError: a field is missing, holds something else, or the row is meant for another stage; the message names
            the row, the field and what to do.
    """
    pieces = pieces_of(row, layout, text=stage == "pt")
    if stage != "pt":
        if pieces.text is not None:
            raise _plain_text(row, stage)
        _check_order(pieces.turns, row)
        if system and all(turn.role != "system" for turn in pieces.turns):
            turns = (Turn("system", system), *pieces.turns)
            pieces = Pieces(turns, pieces.chosen, pieces.rejected, pieces.tag, None, pieces.tools)
    return _READERS[stage](row, layout, pieces)


def _text(row: Row, layout: Layout, pieces: Pieces) -> Text:
    if pieces.text is None:
        raise DataError(
            f"{row.place}: stage pt reads text alone, and the row has {names(row.fields)}; "
            f'put it into the column text, or set method.stage = "{_meant(row, layout)}"'
        )
    if not pieces.text:
        raise DataError(f"{row.place}: the text is empty; take the row out")
    return Text(pieces.text, row.place)


def _conversation(row: Row, layout: Layout, pieces: Pieces) -> Conversation:
    last = max((i for i, turn in enumerate(pieces.turns) if turn.role == "assistant"), default=None)
    if pieces.chosen is not None and (last is None or last < len(pieces.turns) - 1):
        raise DataError(
            f"{row.place}: has {layout.columns.chosen} and {layout.columns.rejected} answers, which stage sft does not "
            'compare; set method.stage = "dpo" or "rm", or name a data set with one answer a row'
        )
    if pieces.tag is not None:
        raise DataError(
            f"{row.place}: has {layout.columns.kto_tag}, and stage sft would learn the bad answers like the good ones; "
            'set method.stage = "kto", or name a data set without it'
        )
    if last is None:
        if layout.format == "alpaca":
            raise DataError(
                f"{row.place}: {layout.columns.response} is missing (the row has {names(row.fields)}); "
                f'{layout.expected}. To learn plain text, set method.stage = "pt"'
            )
        roles = ", ".join(turn.role for turn in pieces.turns) or "none"
        raise DataError(
            f"{row.place}: there is no answer to learn: no message of the assistant among them (roles: {roles})"
        )
    # Nothing is learnt from a question without an answer.
    return Conversation(pieces.turns[: last + 1], row.place, pieces.tools)


def _compared(row: Row, layout: Layout, pieces: Pieces) -> Compared:
    chosen, rejected = layout.columns.chosen, layout.columns.rejected
    missing = [
        str(name)
        for name, answer in ((chosen, pieces.chosen), (rejected, pieces.rejected))
        if answer is None
    ]
    if missing:
        other = _meant(row, layout)
        hint = f"add {'them' if len(missing) > 1 else 'it'}"
        if len(missing) > 1:
            hint += f', or set method.stage = "{other}"'
        raise DataError(
            f"{row.place}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing (the row has "
            f"{names(row.fields)}); stages rm and dpo compare two answers, chosen and rejected: {hint}"
        )
    if not pieces.chosen:
        raise DataError(
            f"{row.place}: {chosen} is empty; write the better answer there, or take the row out"
        )
    prompt = _prompt(row, pieces.turns, after=layout.format == "alpaca")
    return Compared(prompt, pieces.chosen, pieces.rejected or "", row.place, pieces.tools)


def _judged(row: Row, layout: Layout, pieces: Pieces) -> Judged:
    tag = layout.columns.kto_tag
    if pieces.tag is None:
        other = _meant(row, layout)
        raise DataError(
            f"{row.place}: {tag} is missing (the row has {names(row.fields)}); stage kto needs true or false there, "
            f'for a good or a bad answer: add it, or set method.stage = "{other}"'
        )
    good = _truth(pieces.tag)
    if good is None:
        raise DataError(f"{row.place}: {tag} must be true or false, and is {shown(pieces.tag)}")
    if not pieces.turns or pieces.turns[-1].role != "assistant":
        raise DataError(
            f"{row.place}: there is no answer that {tag} is about: the last message must be the assistant's"
        )
    return Judged(
        _prompt(row, pieces.turns[:-1]), pieces.turns[-1].text, good, row.place, pieces.tools
    )


def _question(row: Row, layout: Layout, pieces: Pieces) -> Question:
    return Question(_prompt(row, pieces.turns, after=True), row.place, pieces.tools)


_READERS: Mapping[str, Callable[[Row, Layout, Pieces], AnyRow]] = {
    "pt": _text,
    "sft": _conversation,
    "rm": _compared,
    "dpo": _compared,
    "kto": _judged,
    "ppo": _question,
}


def _prompt(row: Row, turns: tuple[Turn, ...], *, after: bool = False) -> tuple[Turn, ...]:
    """The turns up to the question that is answered; with `after`, what the assistant says to it is left out."""
    end = len(turns)
    while after and end and turns[end - 1].role == "assistant":
        end -= 1
    if not end or turns[end - 1].role not in ("user", "tool"):
        last = turns[end - 1].role if end else "none"
        raise DataError(
            f"{row.place}: the messages before the answer must end with the user's, and end with: {last}"
        )
    return turns[:end]


def _check_order(turns: tuple[Turn, ...], row: Row) -> None:
    """What a tool says comes after something."""
    first = next((turn for turn in turns if turn.role != "system"), None)
    if first is not None and first.role == "tool":
        raise DataError(
            f"{row.place}: the tool speaks before anybody has asked; begin with a user's message (a system message "
            "may stand before it)"
        )


def _truth(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    # A .csv file has no booleans.
    return (
        {"true": True, "false": False}.get(value.strip().lower())
        if isinstance(value, str)
        else None
    )


def _meant(row: Row, layout: Layout) -> str:
    """The stage that a row is made for."""
    columns = layout.columns
    if columns.chosen in row.fields:
        return "dpo"
    if columns.kto_tag in row.fields:
        return "kto"
    alone = columns.prompt in row.fields and columns.response not in row.fields
    return "pt" if layout.format == "text" or (layout.format == "alpaca" and alone) else "sft"


def _plain_text(row: Row, stage: str) -> DataError:
    needs = {
        "sft": "questions and answers (instruction and output, or messages)",
        "rm": "a prompt with a chosen and a rejected answer",
        "dpo": "a prompt with a chosen and a rejected answer",
        "kto": "a prompt, an answer and kto_tag",
        "ppo": "prompts (instruction, or messages)",
    }[stage]
    return DataError(
        f"{row.place}: is text alone, and stage {stage} needs {needs}; "
        'set method.stage = "pt", or name another data set'
    )
