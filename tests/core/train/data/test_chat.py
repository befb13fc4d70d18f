"""What is learnt of a conversation is its answers with their ends, whatever the template."""

from pathlib import Path
from typing import Any

import pytest

from core.rows import Conversation, Turn
from core.train.data.chat import ChatEncoder
from core.train.data.examples import IGNORED, Example
from core.train.data.templates import TEMPLATES
from core.train.errors import DataError

SINGLE = Conversation(
    (Turn("user", "What is the sky?"), Turn("assistant", "Blue, friend!")), "f, row 1"
)
MULTI = Conversation(
    (
        Turn("system", "Be brief."),
        Turn("user", "Say hello."),
        Turn("assistant", "Hello."),
        Turn("user", "Hello. again"),
        Turn("assistant", "Hello. Hello."),
    ),
    "f, row 2",
)
ENDS = {
    "auto": "<|im_end|>", "chatml": "<|im_end|>", "qwen": "<|im_end|>", "qwen3_nothink": "<|im_end|>",
    "yi": "<|im_end|>", "smollm2": "<|im_end|>", "intern2": "<|im_end|>", "phi4": "<|im_end|>", "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|></s>", "llama4": "<|eot|></s>", "phi": "<|end|></s>", "phi3": "<|end|></s>",
    "phi4_mini": "<|end|></s>", "gemma": "<end_of_turn></s>", "gemma2": "<end_of_turn></s>",
    "gemma3": "<end_of_turn></s>", "openchat": "<|end_of_turn|></s>", "granite3": "<|end_of_text|></s>",
    "cohere": "<|END_OF_TURN_TOKEN|></s>",
}  # fmt: skip
"""What ends an answer, where it is not the end-of-sequence token alone: that comes after an end that the tokenizer of
these tests does not know as one token."""
BARE = ("glm4", "falcon")
"""Templates that put nothing after an answer: the last one is closed with the end-of-sequence token."""


@pytest.fixture
def tokenizer(model_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir)


def learnt(tokenizer: Any, example: Example) -> str:
    return str(tokenizer.decode(example.ids[example.labels != IGNORED]))


def encode(
    tokenizer: Any, conversation: Conversation, template: str = "auto", **options: Any
) -> Example:
    settings: dict[str, Any] = {"cutoff_len": 512, "train_on_prompt": False} | options
    return ChatEncoder(tokenizer, template, **settings).encode([conversation])[0]


@pytest.mark.parametrize("template", ["auto", *TEMPLATES])
def test_the_tokens_learnt_are_the_answers_and_their_ends(tokenizer: Any, template: str) -> None:
    end = ENDS.get(template, "</s>")
    thought = "<think></think>" if template == "qwen3" else ""
    text = learnt(tokenizer, encode(tokenizer, SINGLE, template))
    assert "".join(text.split()) == f"{thought}Blue,friend!{end}"
    text = learnt(tokenizer, encode(tokenizer, MULTI, template))
    inner = "" if template in BARE else end.replace("</s>", "") or end
    assert "".join(text.split()) == f"Hello.{inner}{thought}Hello.Hello.{end}"


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_every_turn_is_in_the_text_in_order(tokenizer: Any, template: str) -> None:
    text = tokenizer.decode(encode(tokenizer, MULTI, template).ids)
    positions = [
        text.index("Be brief."),
        text.index("Say hello."),
        text.index("Hello. again"),
        text.rindex("Hello."),
    ]
    assert positions == sorted(positions)


def test_a_template_that_drops_earlier_thoughts_still_gets_its_answers_masked(
    tokenizer: Any,
) -> None:
    """As Qwen3's does: only the last answer carries an (empty) thought, so that prefixes do not agree."""
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    text = learnt(tokenizer, encode(tokenizer, MULTI))
    assert text == "Hello.<|im_end|><think></think>Hello. Hello.<|im_end|>"


def test_a_template_without_a_generation_prompt_does_not_teach_the_heading(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>\n{% endfor %}"
    )
    assert learnt(tokenizer, encode(tokenizer, SINGLE)).strip() == "Blue, friend!</s>"


def test_an_answer_that_repeats_its_question_is_not_looked_for_in_the_question(
    tokenizer: Any,
) -> None:
    row = Conversation(
        (
            Turn("user", "Repeat: yes"),
            Turn("assistant", "yes"),
            Turn("user", "yes again"),
            Turn("assistant", "again"),
        ),
        "f, row 1",
    )
    for jinja in (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>\n{% endfor %}",
        "{{ messages | length }}{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>\n{% endfor %}",
    ):
        tokenizer.chat_template = jinja
        assert learnt(tokenizer, encode(tokenizer, row)).split() == ["yes</s>", "again</s>"]


def test_a_template_that_trims_answers_is_followed(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    row = Conversation((Turn("user", "Say"), Turn("assistant", "  Hello \n")), "f, row 1")
    assert learnt(tokenizer, encode(tokenizer, row)) == "Hello<|im_end|>"


def test_an_answer_with_no_end_of_its_own_is_closed_by_the_end_of_sequence(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert learnt(tokenizer, encode(tokenizer, SINGLE)).strip() == "Blue, friend!</s>"


def test_training_on_the_prompt_learns_everything_but_the_first_token(tokenizer: Any) -> None:
    example = encode(tokenizer, SINGLE, train_on_prompt=True)
    assert example.labels[0] == IGNORED
    assert (example.labels[1:] == example.ids[1:]).all()


def test_long_rows_are_cut_off(tokenizer: Any) -> None:
    example = encode(tokenizer, SINGLE, cutoff_len=8)
    assert len(example.ids) == len(example.labels) == 8 and example.learnt == 0


def test_a_tokenizer_without_offsets_gives_the_same_answers(tokenizer: Any) -> None:
    """Tokenizers written in Python know no offsets: prompts and answers are tokenised apart."""

    class Slow:
        is_fast = False

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    assert learnt(tokenizer, encode(Slow(), MULTI)) == learnt(tokenizer, encode(tokenizer, MULTI))


def test_a_conversation_that_the_template_refuses_is_named(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    with pytest.raises(DataError) as caught:
        ChatEncoder(tokenizer, "auto", 64, False).encode([SINGLE, MULTI])
    for word in ("f, row 2", "system, user, assistant", "no system turns", "model.template"):
        assert word in str(caught.value)


def test_a_tool_s_words_are_the_user_s_in_a_named_template(tokenizer: Any) -> None:
    row = Conversation((Turn("user", "1"), Turn("tool", "2"), Turn("assistant", "3")), "f, row 1")
    text = tokenizer.decode(encode(tokenizer, row, "llama2").ids)
    assert text.count("[INST]") == 2
