"""What the settings and the tokenizer show of the usual mistakes, before any row is looked at."""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from core.profile import Profile, model_path
from core.rows import AnyRow, Text
from core.study.preview import Finding
from core.train.data.chat import ChatEncoder
from core.train.data.templates import FALLBACK
from core.train.data.templates.fit import note
from core.train.errors import first_line
from core.train.model.source import cached_folder
from core.train.preview.examine import PLACES, Tokenizing
from core.train.preview.pieces import special_ids

_SPOKEN = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|\[INST\]|^### (?:Instruction|Response)|^(?:Human|USER): ",
    re.MULTILINE,
)
"""What a conversation that somebody rendered by hand begins its turns with."""
_SAMPLE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})


def used_template(tokenizer: Any, profile: Profile) -> str:
    """The template that rows are rendered with, in words."""
    name = profile.model.template
    if profile.method.stage == "pt":
        return "none, plain text"
    if name != "auto":
        return name
    return (
        "the tokenizer's own" if tokenizer.chat_template else f"{FALLBACK} (the tokenizer has none)"
    )


def tokenizing(profile: Profile, encoder: ChatEncoder) -> Tokenizing:
    """What an examiner has to know."""
    tokenizer = encoder.tokenizer
    special = special_ids(tokenizer)
    alignment = profile.alignment
    names = {i: str(tokenizer.convert_ids_to_tokens(i)) for i in special}
    return Tokenizing(
        stage=profile.method.stage,
        cutoff_len=profile.data.cutoff_len,
        special=special,
        special_texts=tuple(names.values()),
        stops=frozenset({tokenizer.eos_token_id, *generation_stops(profile)}),
        names=names,
        unknown=tokenizer.unk_token_id,
        weights=(alignment.kto_chosen_weight, alignment.kto_rejected_weight),
    )


def generation_stops(profile: Profile) -> Collection[int]:
    """The tokens at which generation_config.json says that the model stops; none where it is not here."""
    path = Path(model_path(profile))
    folder = path if path.is_dir() else cached_folder(str(path), profile.model)
    if folder is None:
        return ()
    try:
        stops = json.loads((folder / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    listed = stops if isinstance(stops, list) else [stops]
    return frozenset(stop for stop in listed if isinstance(stop, int))


def template_findings(profile: Profile, encoder: ChatEncoder) -> Iterator[Finding]:
    """Whether the template is one that the tokenizer's model can know. What cannot fit at all is refused before."""
    name, tokenizer = profile.model.template, encoder.tokenizer
    if profile.method.stage == "pt":
        return
    taken = note(name, tokenizer)
    if taken is not None:
        yield Finding("no template" if name == "auto" else "template markers", "warning", taken)
        return
    own = tokenizer.chat_template
    if name != "auto" and own and _rendered(tokenizer, own) != _rendered(tokenizer, encoder.jinja):
        yield Finding(
            "template forced",
            "warning",
            f'the template "{name}" takes the place of the tokenizer\'s own, which is the format that the model knows: '
            'set model.template = "auto"',
        )


def stage_findings(profile: Profile, rows: Sequence[AnyRow]) -> Iterator[Finding]:
    """Whether the rows look like those of another stage. Most that do are refused when they are read."""
    texts = [row for row in rows if isinstance(row, Text)]
    spoken = [row.place for row in texts if _SPOKEN.search(row.text)]
    if texts and len(spoken) > len(texts) / 2:
        yield Finding(
            "other stage",
            "warning",
            f"{len(spoken)} of the first {len(texts)} texts hold the marks of a chat (as <|im_start|>, [INST] or "
            "### Instruction): stage pt learns the questions like the answers; for conversations set "
            'method.stage = "sft" and let the template write the marks',
            len(spoken),
            tuple(spoken[:PLACES]),
        )


def _rendered(tokenizer: Any, template: str) -> str:
    """A short conversation in a template; empty where the template refuses it."""
    try:
        return str(
            tokenizer.apply_chat_template(
                list(_SAMPLE), chat_template=template, tokenize=False, add_generation_prompt=False
            )
        )
    except Exception as error:
        return first_line(error)
