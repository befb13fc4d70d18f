"""Tokens as text: nothing is lost, and what makes up one character stays together."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from core.profile import DEMO_MODEL
from core.train.preview.pieces import Speller


@pytest.fixture(scope="module")
def demo() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(DEMO_MODEL)


def metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer that keeps the space before a word in the word, as those of Llama 2 and Mistral do."""
    words = {"<unk>": 0, "</s>": 1, "▁big": 2, "▁small": 3, "er": 4}
    made = Tokenizer(models.WordPiece(words, unk_token="<unk>", continuing_subword_prefix=""))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize(
    "text",
    [
        "A hole is a kind of opening.",
        "  two\n\n\tends  ",
        "naïve 数据 🙂🙂 e\u0301",
        "\x1b[31m",
        "\ufffd a",
    ],
)
def test_pieces_joined_are_the_text(demo: PreTrainedTokenizerFast, text: str) -> None:
    ids = demo.encode(text)
    pieces = Speller(demo).pieces(ids, [False] * len(ids))
    assert "".join(piece.text for piece in pieces) == text
    assert [i for piece in pieces for i in piece.ids] == ids


def test_the_bytes_of_a_character_are_one_piece(demo: PreTrainedTokenizerFast) -> None:
    ids = demo.encode("数")
    assert len(ids) == 3, "the demo's tokenizer has no token for it"
    pieces = Speller(demo).pieces(ids, [True] * 3)
    assert [(piece.text, piece.ids) for piece in pieces] == [("数", tuple(ids))]


def test_each_token_keeps_its_mark_within_a_character(
    demo: PreTrainedTokenizerFast,
) -> None:
    ids = demo.encode("数")
    pieces = Speller(demo).pieces(ids, [False, True, True])
    marked = [(i, piece.learnt) for piece in pieces for i in piece.ids]
    assert marked == list(zip(ids, [False, True, True], strict=True))


def test_special_tokens_are_known_also_behind_half_a_character(
    demo: PreTrainedTokenizerFast,
) -> None:
    half = demo.encode("数")[:1]
    end = demo.convert_tokens_to_ids("<|im_end|>")
    pieces = Speller(demo).pieces([*half, end], [True, True])
    assert [piece.special for piece in pieces] == [False, True]
    assert pieces[1].text == "<|im_end|>"


def test_a_word_keeps_the_space_before_it() -> None:
    tokenizer = metaspace()
    ids = [2, 4, 3, 1]
    pieces = Speller(tokenizer).pieces(ids, [False] * 4)
    assert [piece.text for piece in pieces] == ["big", "er", " small", "</s>"]
